"""``flagsync preview``."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flagsmith.models import Flag

from flagsync import FlagSync
from flagsync._cli.preview import NO_REASONS
from flagsync.testing import MixpanelServer
from tests.support.command_line import run
from tests.support.evaluating_flagsmith import EvaluatingFlagsmith
from tests.support.flagsmith_server import CLIENT_KEY, KEY

needs_reasons = pytest.mark.skipif(not hasattr(Flag, "reason"), reason="flagsmith 6.1 does not say why")


def flag(shown: Any, name: str) -> Any:
    return next(one for one in shown["flags"] if one["name"] == name)


@pytest.mark.parametrize("identifier", ["user_2", "user_42", "日本"])
def test_preview_shows_the_properties_that_a_client_mirrors(
    identifier: str,
    environment_file: Path,
    flagsync: Callable[..., FlagSync],
    mixpanel: MixpanelServer,
) -> None:
    client = flagsync()
    client.get_identity_flags(identifier, {"plan": "pro"})
    assert client.flush()
    shown = run("preview", identifier, "-t", "plan=pro", "--document", environment_file, "--json").json
    assert shown["distinct_id"] == identifier
    assert shown["properties"] == mixpanel.profiles[identifier]


@needs_reasons
def test_preview_says_why_each_flag_has_its_value(environment_file: Path, document: dict[str, Any]) -> None:
    shown = run("preview", "user_2", "--document", environment_file, "--json").json
    assert flag(shown, "str_on") == {
        "name": "str_on",
        "enabled": True,
        "value": "green",
        "variant": None,
        "reason": "TARGETING_MATCH; segment=identity_overrides",
        "segment": None,
        "is_mirrored": True,
    }
    assert flag(shown, "mv_keyed")["reason"] == "SPLIT; weight=30.0"
    assert len(shown["flags"]) == len(document["feature_states"])


@needs_reasons
def test_preview_names_the_segment_whose_traits_match(environment_file: Path, document: dict[str, Any]) -> None:
    [segment] = [one for one in document["project"]["segments"] if one["feature_states"]]
    condition = segment["rules"][0]["rules"][0]["conditions"][0]
    trait = f"{condition['property_']}={condition['value']}"
    ran = run("preview", "user_42", "-t", trait, "--document", environment_file, "--json")
    assert flag(ran.json, "seg_override")["segment"] == segment["name"]
    assert f"segment {segment['name']}" in run("preview", "x", "-t", trait, "--document", environment_file).out


@needs_reasons
def test_preview_prints_a_table_of_properties_and_reasons(environment_file: Path) -> None:
    ran = run("preview", "user_2", "--document", environment_file)
    lines = [" ".join(line.split()) for line in ran.out.splitlines()]
    assert lines[:3] == ["Profile: user_2", "", "property value variant why"]
    assert 'str_on "green" override of this identity' in lines
    assert "bool_off false default" in lines
    assert "seg_override false no segment matches" in lines
    assert 'mv_keyed "val_a" split, 30 %' in lines
    assert ran.err == "Warning: Flag 'long_str': Mixpanel truncates its value to 255 bytes\n" or not ran.err


def test_preview_shows_which_flag_is_not_mirrored(environment_file: Path) -> None:
    text = environment_file.read_text("utf-8").replace('"bool_on"', '"$bool_on"')
    environment_file.write_text(text, "utf-8")
    ran = run("preview", "user_2", "--document", environment_file)
    assert "$bool_on           (not mirrored)" in ran.out
    assert (
        flag(run("preview", "x", "--document", environment_file, "--json").json, "$bool_on")["is_mirrored"]
        is False
    )


def test_preview_of_an_identity_that_is_not_mirrored_says_why(environment_file: Path) -> None:
    ran = run("preview", "anonymous", "--document", environment_file, "--json")
    assert (ran.code, ran.json["distinct_id"], ran.json["properties"]) == (1, None, {})
    assert ran.err == "Error: An identity is not mirrored: Mixpanel blocks the identifier as a placeholder\n"
    assert "Profile: none" in run("preview", "anonymous", "--document", environment_file).out


def test_preview_without_features_says_that_nothing_is_mirrored(
    environment_file: Path, document: dict[str, Any]
) -> None:
    environment_file.write_text(json.dumps({**document, "feature_states": []}), "utf-8")
    ran = run("preview", "user_42", "--document", environment_file)
    assert (ran.code, ran.err) == (1, "Error: An identity is not mirrored: no flag has a property name\n")


def test_preview_asks_flagsmith_with_a_transient_identity(
    flagsmith_server: EvaluatingFlagsmith, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLAGSMITH_ENVIRONMENT_KEY", CLIENT_KEY)
    ran = run("preview", "user_42", "-t", "age:int=30")
    [request] = flagsmith_server.requests
    assert b'"transient": true' in request.body
    assert "not said" in ran.out
    assert ran.err == f"{NO_REASONS}\n"
    assert run("preview", "user_42", "--json").json["flags"][0]["reason"] is None


def test_preview_evaluates_locally_as_the_environment_says(
    flagsmith_server: EvaluatingFlagsmith, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLAGSMITH_ENVIRONMENT_KEY", KEY)
    monkeypatch.setenv("FLAGSMITH_LOCAL_EVALUATION", "true")
    assert flag(run("preview", "user_2", "--json").json, "str_on")["value"] == "green"
    assert {request.path for request in flagsmith_server.requests} == {"/api/v1/environment-document/"}


def test_preview_with_a_wrong_key_says_what_to_check(
    flagsmith_server: EvaluatingFlagsmith, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLAGSMITH_ENVIRONMENT_KEY", "another-key-of-the-environment")
    flagsmith_server.fail(status=403)
    ran = run("preview", "user_42")
    assert (ran.code, ran.out) == (1, "")
    assert "HTTP status 403: check the environment key" in ran.err
    assert "another-key" not in ran.err
    assert len(flagsmith_server.requests) == 1


def test_preview_while_flagsmith_is_away_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLAGSMITH_ENVIRONMENT_KEY", "a-key")
    monkeypatch.setenv("FLAGSMITH_API_URL", "http://127.0.0.1:9/")
    ran = run("preview", "user_42")
    assert (ran.code, ran.err) == (1, "Error: Unable to get valid response from Flagsmith API.\n")


def test_preview_of_traits_on_which_the_engine_fails_is_an_error(
    environment_file: Path, document: dict[str, Any]
) -> None:
    [segment] = [one for one in document["project"]["segments"] if one["feature_states"]]
    segment["rules"][0]["rules"][0]["conditions"][0] |= {"operator": "REGEX", "property_": "plan", "value": "("}
    environment_file.write_text(json.dumps(document), "utf-8")
    ran = run("preview", "user_42", "-t", "plan=pro", "--document", environment_file)
    assert ran.code == 1
    assert ran.err.startswith("Error: Flagsmith cannot evaluate this identity (")


def test_preview_without_a_key_names_the_variable() -> None:
    ran = run("preview", "user_42")
    assert ran.code == 2
    assert ran.err.startswith("Error: FLAGSMITH_ENVIRONMENT_KEY must be set")


def test_preview_under_local_evaluation_with_a_client_side_key_is_flagsmiths_own_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FLAGSMITH_ENVIRONMENT_KEY", "client-side")
    monkeypatch.setenv("FLAGSMITH_LOCAL_EVALUATION", "true")
    ran = run("preview", "user_42")
    assert ran.code == 2
    assert "please generate a server key" in ran.err


@pytest.mark.parametrize(
    ("content", "why"), [("[", "Expecting value"), ("{}", "KeyError: 'api_key'"), ("[]", "TypeError")]
)
def test_document_that_is_none_is_wrong_use(content: str, why: str, tmp_path: Path) -> None:
    path = tmp_path / "environment.json"
    path.write_text(content, "utf-8")
    ran = run("preview", "user_42", "--document", path)
    assert ran.code == 2
    assert f"{path} is not an environment document of Flagsmith ({why}" in ran.err
