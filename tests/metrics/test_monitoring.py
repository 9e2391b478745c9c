# mypy: disable-error-code="import-untyped"
# PyYAML is not typed.
"""The dashboard, the alert rules and the page about monitoring name what there is."""

import json
import re
from itertools import combinations
from typing import Any

import pytest
import yaml

from flagsync.metrics.catalog import METRICS
from flagsync.metrics.metric import AnyMetric, Kind
from tests.support.pages import PAGES, ROOT, rows

MONITORING = ROOT / "docs" / "monitoring"
DASHBOARD: dict[str, Any] = json.loads((MONITORING / "grafana-dashboard.json").read_text("utf-8"))
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((MONITORING / "alert-rules.yaml").read_text("utf-8"))["groups"]
    for rule in group["rules"]
]
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
QUERIES = [target["expr"] for panel in PANELS for target in panel["targets"]]
EXPRESSIONS = [*QUERIES, *(rule["expr"] for rule in RULES)]


def exported_name(metric: AnyMetric) -> str:
    """Return the name of a metric's samples in Prometheus."""
    return metric.prometheus_name + ("_total" if metric.kind is Kind.COUNTER else "")


EXPORTED = {exported_name(metric): metric for metric in METRICS}
LABELS = {metric.label for metric in METRICS} | {"job", "instance"}


def names(text: str) -> set[str]:
    return {*re.findall(r"\bflagsync_\w+", text)}


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_expressions_name_metrics_and_labels_that_are_exported(expression: str) -> None:
    assert names(expression) <= {*EXPORTED}
    for name, matchers in re.findall(r"\b(flagsync_\w+)\{([^}]*)\}", expression):
        used = {*re.findall(r"(\w+)(?:=~|!~|!=|=)", matchers)}
        assert used <= {"job", "instance", EXPORTED[name].label}
    for grouped in re.findall(r"\bby \(([^)]*)\)", expression):
        assert {*re.split(r",\s*", grouped)} <= LABELS
    assert expression.count("(") == expression.count(")")


def test_counters_are_asked_for_their_growth_and_nothing_else_is() -> None:
    for expression in EXPRESSIONS:
        grown = {*re.findall(r"(?:rate|increase)\((flagsync_\w+)", expression)}
        assert {name for name in names(expression) if EXPORTED[name].kind is Kind.COUNTER} == grown


def test_dashboard_shows_every_metric() -> None:
    assert {name for query in QUERIES for name in names(query)} == {*EXPORTED}


def test_panels_have_a_place_an_explanation_and_a_data_source_that_can_be_chosen() -> None:
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    for panel in PANELS:
        assert panel["title"]
        assert panel["description"]
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
        assert all(source == chosen for source in (panel["datasource"], panel["targets"][0]["datasource"]))
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
    assert [variable["name"] for variable in DASHBOARD["templating"]["list"]] == ["datasource", "job"]
    for one, other in combinations([panel["gridPos"] for panel in PANELS], 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        assert beside or one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]


def test_legends_name_labels_that_their_query_has() -> None:
    for target in (target for panel in PANELS for target in panel["targets"]):
        assert {*re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])} <= {
            label for grouped in re.findall(r"by \(([^)]*)\)", target["expr"]) for label in grouped.split(", ")
        }


@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_alert_says_how_bad_it_is_and_what_to_do(rule: dict[str, Any]) -> None:
    assert {*rule} <= {"alert", "expr", "for", "labels", "annotations"}
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert {*rule["annotations"]} == {"summary", "description"}
    labels = {*re.findall(r"\$labels\.(\w+)", f"{rule['annotations']}")}
    assert labels <= {*re.findall(r"\w+", " ".join(re.findall(r"by \(([^)]*)\)", rule["expr"])))}


def test_page_lists_every_alert() -> None:
    [_, *table] = rows("docs/monitoring.md", "What to alert on")
    assert [row[0].strip("`") for row in table] == [rule["alert"] for rule in RULES]


def test_page_lists_every_metric_with_its_attribute() -> None:
    [_, *table] = rows("docs/monitoring.md", "Metrics")
    assert [[cell.strip("` ") for cell in row[:3]] for row in table] == [
        [metric.name, exported_name(metric), metric.attribute or "none"] for metric in METRICS
    ]


def test_page_links_the_dashboard_and_the_rules() -> None:
    assert all(f"(monitoring/{path.name})" in PAGES["docs/monitoring.md"] for path in MONITORING.iterdir())
