"""Which variant was served, and who is in a sample."""

import copy
from collections import defaultdict
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from flagsmith.models import DefaultFlag, Flag
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flagsync._encoding import variant as rules
from flagsync._encoding.variant import NOTHING_KNOWN, Experiments, experiments_of, no_sample, served_variant
from tests.support.encoding import evaluated, lazy

OUTSIDE = SimpleNamespace(in_experiment=False)


def flag(
    value: Any = None, *, enabled: bool = True, variant: str | None = None, reason: str | None = None
) -> Flag:
    made = Flag(enabled=enabled, value=value, feature_id=1, feature_name="checkout", variant=variant)
    return evaluated(made, reason=reason)


@pytest.mark.parametrize(
    ("served", "variant"),
    [
        (flag("blue", variant="control", reason="STATIC"), "control"),
        (flag("blue", variant="treatment", reason="SPLIT; weight=30.0"), "treatment"),
        (flag("blue", reason="SPLIT; weight=30.0"), "blue"),
        (flag(3, reason="SPLIT; weight=30.0"), "3"),
        (flag(0), "0"),
        (flag(1.5), "1.5"),
        (flag(value=True), "true"),
        (flag(value=False), "false"),
        (flag(), "true"),
        (flag(""), "true"),
        (flag(" "), "true"),
        (flag(enabled=False), "false"),
        (flag("blue", enabled=False), "false"),
        (flag("blue", reason="TARGETING_MATCH; segment=half"), "blue"),
    ],
)
def test_variant_is_what_the_user_was_served(served: Flag, variant: str) -> None:
    assert served_variant(served) == variant
    assert no_sample(served) is None


@pytest.mark.parametrize(
    ("met", "reason"),
    [
        (None, rules.NO_FLAG),
        ("checkout", rules.NO_FLAG),
        (DefaultFlag(enabled=True, value="x"), rules.NO_FLAG),
        (replace(flag("x"), is_default=True), rules.NO_FLAG),
        (flag("x", enabled=False, variant="control"), rules.DISABLED),
        (flag("x", enabled=False, variant="a", reason="SPLIT; weight=50.0"), rules.DISABLED),
        (flag("x", enabled=False, reason="SPLIT; weight=50.0"), rules.DISABLED),
        (flag("x", reason="TARGETING_MATCH; segment=identity_overrides"), rules.HAND_PICKED),
        (evaluated(flag("x", variant="control"), experiment=OUTSIDE), rules.NOT_ENROLLED),
    ],
)
def test_exposure_outside_a_sample_is_not_recorded(met: object, reason: str) -> None:
    assert no_sample(met) == reason


def test_exposure_outside_a_running_rollout_is_not_recorded() -> None:
    control = flag("x", variant="control", reason="DEFAULT")
    with_rollout = Experiments(with_rollout=frozenset({"checkout"}))
    assert no_sample(control, with_rollout) == rules.NOT_ENROLLED
    assert no_sample(control, Experiments(with_rollout=frozenset({"other"}))) is None
    enrolled = flag("x", variant="control", reason="TARGETING_MATCH; segment=experiment-7-rollout")
    assert no_sample(enrolled, with_rollout) is None


def test_exposure_in_a_running_experiment_of_flagsmith_is_recorded() -> None:
    enrolled = evaluated(flag("x", variant="a"), experiment=SimpleNamespace(in_experiment=True))
    assert no_sample(enrolled) is None


def test_rollout_of_an_experiment_is_known_by_the_name_of_its_segment() -> None:
    overrides = [{"name": "checkout"}, {"name": "banner"}]
    segments = {
        "1": {"name": "experiment-12-rollout", "overrides": overrides},
        "2": {"name": "experiment-13-rollout"},
        "3": {"name": "my-experiment-12-rollout", "overrides": [{"name": "other"}]},
    }
    assert experiments_of({"segments": segments}).with_rollout == {"checkout", "banner"}
    assert experiments_of({}) == NOTHING_KNOWN


def test_multivariate_flag_that_a_segment_switches_off_is_not_recorded(document: dict[str, Any]) -> None:
    found = copy.deepcopy(document)
    [state] = [one for one in found["feature_states"] if one["feature"]["name"] == "mv_keyed"]
    off = {**state, "enabled": False, "multivariate_feature_state_values": [], "django_id": 900}
    everybody = {"operator": "PERCENTAGE_SPLIT", "value": "100", "property_": ""}
    [segment] = found["project"]["segments"]
    segment["rules"][0]["rules"][0]["conditions"] = [everybody]
    segment["feature_states"] = [{**off, "feature_segment": {"priority": 0}}]
    flags = lazy(found, "ann")
    assert flags._context is not None
    known = experiments_of(flags._context)  # type: ignore[arg-type] # it is a TypedDict
    served = {flag.feature_name: flag for flag in flags.all_flags()}
    assert (served["mv_keyed"].enabled, served["mv_keyed"].variant) == (False, None)
    assert no_sample(served["mv_keyed"], known) == rules.DISABLED
    assert no_sample(served["str_off"], known) is None


def test_flag_that_is_switched_off_for_one_identity_is_one_of_a_hand_picked_user() -> None:
    known = Experiments(multivariate=frozenset({"checkout"}))
    assert no_sample(flag("x", enabled=False, reason=rules.OVERRIDE), known) == rules.HAND_PICKED


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.sampled_from([None, "a", "b", "c"]), st.integers(0, 33)), max_size=3),
    st.integers(0, 100),
)
def test_groups_are_those_of_flagsmiths_engine_whatever_keys_and_weights_there_are(
    document: dict[str, Any], options: list[tuple[str | None, int]], percentage: int
) -> None:
    found = copy.deepcopy(document)
    [state] = [one for one in found["feature_states"] if one["feature"]["name"] == "mv_keyed"]
    state["multivariate_feature_state_values"] = [
        {
            "multivariate_feature_option": {
                "value": f"value_{number}",
                "id": number,
                "key": key and key + str(number),
            },
            "percentage_allocation": weight,
            "id": number,
            "mv_fs_value_uuid": f"{UUID(int=number)}",
        }
        for number, (key, weight) in enumerate(options)
    ]
    condition = {"operator": "PERCENTAGE_SPLIT", "value": f"{percentage}", "property_": ""}
    [segment] = found["project"]["segments"]
    segment["rules"][0]["rules"][0]["conditions"] = [condition]
    for feature in ("mv_keyed", "seg_override"):
        groups, named = defaultdict[object, set[int]](set), defaultdict[object, set[int]](set)
        for number in range(40):
            flags = lazy(found, f"user_{number}").all_flags()
            [served] = [one for one in flags if one.feature_name == feature]
            groups[served.enabled, served.value, served.variant].add(number)
            named[served_variant(served)].add(number)
        assert sorted(groups.values(), key=min) == sorted(named.values(), key=min)
