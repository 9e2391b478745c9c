"""``flagsync doctor``: each check, with the text of what is wrong."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import certifi
import pytest

from flagsync.testing import MixpanelServer
from tests.support.command_line import TOKEN, Ran, profile, run, store
from tests.support.evaluating_flagsmith import EvaluatingFlagsmith
from tests.support.flagsmith_server import CLIENT_KEY, KEY

Doctor = Callable[..., Ran]
NAMES = (
    "configuration flagsmith_key environment_document features flapping properties mixpanel_host mixpanel_token network"
).split()


@pytest.fixture
def doctor(
    document: dict[str, Any], environment_file: Path, mixpanel: MixpanelServer, monkeypatch: pytest.MonkeyPatch
) -> Doctor:
    """Examines the recorded document with some changes, and a Mixpanel on loopback; returns its JSON."""
    monkeypatch.setenv("MIXPANEL_TOKEN", TOKEN)
    monkeypatch.setenv("MIXPANEL_URL", mixpanel.url)

    def examine(*arguments: str, project: Any = (), **changes: Any) -> Ran:
        changed = {**document, "project": {**document["project"], **dict(project)}, **changes}
        environment_file.write_text(json.dumps(changed), "utf-8")
        return run("doctor", "--document", environment_file, "--json", *arguments)

    return examine


def check(ran: Ran, name: str) -> Any:
    """Return the one result of a check."""
    [found] = [found for found in ran.json["checks"] if found["name"] == name]
    assert {*found} == {"name", "ok", "detail", "remedy"}
    assert found["ok"] == (not found["remedy"])
    return found


def names(ran: Ran) -> list[str]:
    return [found["name"] for found in ran.json["checks"]]


def test_doctor_finds_nothing_wrong_with_a_configuration_that_works(
    flagsmith_server: EvaluatingFlagsmith, mixpanel: MixpanelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLAGSMITH_ENVIRONMENT_KEY", KEY)
    monkeypatch.setenv("MIXPANEL_TOKEN", TOKEN)
    monkeypatch.setenv("MIXPANEL_URL", mixpanel.url)
    ran = run("doctor", "--json")
    assert ran.code == 0
    assert names(ran) == NAMES
    assert all(found["ok"] for found in ran.json["checks"])
    assert TOKEN not in ran.out + ran.err


def test_doctor_announces_its_requests_which_change_nothing(
    flagsmith_server: EvaluatingFlagsmith, mixpanel: MixpanelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLAGSMITH_ENVIRONMENT_KEY", KEY)
    monkeypatch.setenv("MIXPANEL_TOKEN", TOKEN)
    monkeypatch.setenv("MIXPANEL_URL", mixpanel.url)
    assert run("doctor").err.splitlines() == [
        f"Asking Flagsmith: GET {flagsmith_server.api_url}environment-document/",
        f"Asking Mixpanel whether it accepts the token, without any data: POST {mixpanel.url}/import",
    ]
    assert [request.method for request in flagsmith_server.requests] == ["GET"]
    assert [(request.path, request.body) for request in mixpanel.requests] == [("/import?strict=1", b"[]")]
    assert (mixpanel.profiles, mixpanel.events) == ({}, [])


@pytest.mark.parametrize("variables", [{"MIXPANEL_URL": "http://[::1"}, {"MIXPANEL_REGION": "mars"}])
def test_doctor_asks_no_mixpanel_that_the_variables_do_not_name(
    variables: dict[str, str], doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MIXPANEL_URL")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    ran = doctor()
    assert "mixpanel_token" not in names(ran)
    assert "Asking Mixpanel" not in ran.err


def test_doctor_makes_no_request_offline(
    flagsmith_server: EvaluatingFlagsmith, mixpanel: MixpanelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLAGSMITH_ENVIRONMENT_KEY", KEY)
    monkeypatch.setenv("MIXPANEL_TOKEN", TOKEN)
    monkeypatch.setenv("MIXPANEL_URL", mixpanel.url)
    ran = run("doctor", "--offline", "--json")
    assert (ran.code, ran.err) == (0, "")
    assert names(ran) == ["configuration", "flagsmith_key", "mixpanel_host", "network"]
    assert flagsmith_server.requests == mixpanel.requests == []


def test_doctor_needs_neither_key_nor_network_with_a_document(doctor: Doctor, mixpanel: MixpanelServer) -> None:
    ran = doctor("--offline")
    assert ran.code == 0
    assert "flagsmith_key" not in names(ran)
    assert mixpanel.requests == []


def test_doctor_prints_a_table_with_what_to_do(doctor: Doctor, environment_file: Path) -> None:
    doctor(hide_disabled_flags=True)
    ran = run("doctor", "--document", environment_file, "--offline")
    lines = [" ".join(line.split()) for line in ran.out.splitlines()]
    assert ran.code == 1
    assert lines[0] == "check result"
    assert "ok properties 24 names within Mixpanel's limits" in lines
    assert any(
        line.startswith("wrong flapping profiles that Flagsmith's server writes, too,") for line in lines
    )
    assert any(line.startswith("→ switch Flagsmith's own Mixpanel integration off") for line in lines)


def test_configuration_names_each_rule_that_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIXPANEL_TOKEN", "mixpanel-project-token")
    monkeypatch.setenv("MIXPANEL_REGION", "moon")
    monkeypatch.setenv("FLAGSMITH_API_URL", "nowhere")
    ran = run("doctor", "--json")
    found = check(ran, "configuration")
    assert ran.code == 1
    for rule in (
        "FLAGSMITH_ENVIRONMENT_KEY must be set",
        "FLAGSMITH_API_URL must be a complete URL",
        "MIXPANEL_REGION must be us, eu or in",
        "mixpanel_token must be the project token of Mixpanel's project settings",
    ):
        assert rule in found["detail"]


def test_mirroring_that_is_switched_off_is_wrong(
    environment_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLAGSYNC_ENABLED", "false")
    ran = run("doctor", "--document", environment_file, "--json")
    assert check(ran, "mirroring")["remedy"] == "unset FLAGSYNC_ENABLED to mirror flags"
    assert "mixpanel_token" not in names(ran)


@pytest.mark.parametrize(
    ("key", "local", "ok", "detail"),
    [
        ("ser.0123456789", "true", True, "server-side key ser.…, local evaluation"),
        ("ser.0123456789", "", True, "server-side key ser.…, remote evaluation"),
        ("client-side-key", "", True, "client-side key clie…, remote evaluation"),
        ("client-side-key", "true", False, "client-side key clie…, local evaluation"),
    ],
)
def test_key_is_shown_in_part_with_its_kind(
    key: str, local: str, ok: bool, detail: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLAGSMITH_ENVIRONMENT_KEY", key)
    monkeypatch.setenv("FLAGSMITH_LOCAL_EVALUATION", local)
    ran = run("doctor", "--offline", "--json")
    assert (check(ran, "flagsmith_key")["ok"], check(ran, "flagsmith_key")["detail"]) == (ok, detail)
    assert key not in ran.out


def test_client_side_key_gets_flags_in_place_of_the_document(
    flagsmith_server: EvaluatingFlagsmith, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLAGSMITH_ENVIRONMENT_KEY", CLIENT_KEY)
    ran = run("doctor", "--json")
    count = len(flagsmith_server.document["feature_states"])
    assert check(ran, "environment_document")["detail"] == (
        f"{count} flags from {flagsmith_server.api_url}flags/; only a server-side key gets the document"
    )
    assert not {"features", "flapping", "properties"} & {*names(ran)}


def test_key_that_flagsmith_refuses_is_wrong(
    flagsmith_server: EvaluatingFlagsmith, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLAGSMITH_ENVIRONMENT_KEY", "ser.another")
    found = check(run("doctor", "--json"), "environment_document")
    assert found["detail"].startswith("Flagsmith's API answered with HTTP status 403, from http://127.0.0.1")
    assert found["remedy"].startswith("check the environment key and api_url")


def test_flagsmith_that_is_away_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLAGSMITH_ENVIRONMENT_KEY", KEY)
    monkeypatch.setenv("FLAGSMITH_API_URL", "http://me:secret@127.0.0.1:9/")
    ran = run("doctor", "--json")
    found = check(ran, "environment_document")
    assert found["detail"].startswith("Flagsmith cannot be reached (")
    assert "secret" not in ran.out + ran.err


@pytest.mark.parametrize("body", ["<html>", '{"flags": 1}', "[1]", "null"])
@pytest.mark.parametrize("key", [KEY, CLIENT_KEY])
def test_answer_that_is_not_flagsmiths_is_wrong(
    key: str, body: str, flagsmith_server: EvaluatingFlagsmith, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLAGSMITH_ENVIRONMENT_KEY", key)
    flagsmith_server.fail(status=200, body=body)
    found = check(run("doctor", "--json"), "environment_document")
    assert found["detail"].startswith("the answer is not Flagsmith's (")


@pytest.mark.parametrize(
    ("changed_at", "detail"),
    [
        ("2026-11-23T13:05:25.290145+00:00", "last changed 1 day ago"),
        ("2026-11-24T13:05:25", "last changed 2 hours ago"),
        ("2027-01-01T00:00:00+00:00", "last changed 0 seconds ago"),
        (None, "a document without the time of its last change"),
    ],
)
def test_document_has_an_age(changed_at: str | None, detail: str, doctor: Doctor) -> None:
    found = check(doctor("--offline", updated_at=changed_at), "environment_document")
    assert found["detail"].startswith(f"{detail}, from ")


def test_features_are_counted_by_what_they_depend_on(doctor: Doctor) -> None:
    assert check(doctor("--offline"), "features")["detail"] == (
        "24 features; 5 can differ between identities, 1 of them by traits alone"
    )


def test_environment_without_features_is_wrong(doctor: Doctor) -> None:
    found = check(doctor("--offline", feature_states=[], identity_overrides=[]), "features")
    assert (found["ok"], found["detail"][:10]) == (False, "0 features")


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"hide_disabled_flags": True}, "hide_disabled_flags is on"),
        ({"project": {"hide_disabled_flags": True}}, "hide_disabled_flags is on"),
        ({"use_identity_composite_key_for_hashing": False}, "use_identity_composite_key_for_hashing is off"),
        ({"use_identity_overrides_in_local_eval": False}, "use_identity_overrides_in_local_eval is off"),
    ],
)
def test_flapping_names_each_setting_that_causes_it(changes: Any, cause: str, doctor: Doctor) -> None:
    ran = doctor("--offline", **changes)
    assert ran.code == 1
    assert cause in check(ran, "flapping")["detail"]


def test_flapping_finds_no_cause_where_the_environment_overrides_the_project(doctor: Doctor) -> None:
    ran = doctor("--offline", hide_disabled_flags=False, project={"hide_disabled_flags": True})
    assert check(ran, "flapping")["ok"]


def test_flapping_counts_overrides_of_multivariate_features_by_weight(
    doctor: Doctor, document: dict[str, Any]
) -> None:
    [state] = [one for one in document["feature_states"] if one["feature"]["name"] == "mv_split"]
    [override, *_] = document["identity_overrides"]
    ran = doctor("--offline", identity_overrides=[{**override, "identity_features": [state]}])
    assert "1 identity override of a multivariate feature by weight" in check(ran, "flapping")["detail"]


def test_flapping_names_features_that_a_client_side_key_does_not_see(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLAGSMITH_ENVIRONMENT_KEY", CLIENT_KEY)
    assert "a client-side key does not see" in check(doctor("--offline"), "flapping")["detail"]


def test_flapping_is_none_where_flags_are_evaluated_remotely(
    document: dict[str, Any], flagsmith_server: EvaluatingFlagsmith, monkeypatch: pytest.MonkeyPatch
) -> None:
    document["hide_disabled_flags"] = True
    monkeypatch.setenv("FLAGSMITH_ENVIRONMENT_KEY", KEY)
    assert check(run("doctor", "--json"), "flapping")["ok"]
    monkeypatch.setenv("FLAGSMITH_LOCAL_EVALUATION", "true")
    assert "hide_disabled_flags" in check(run("doctor", "--json"), "flapping")["detail"]


def test_properties_are_compared_with_mixpanels_limits(doctor: Doctor, document: dict[str, Any]) -> None:
    [state, *_] = document["feature_states"]
    features = [{"id": number, "type": "STANDARD", "name": f"f{number}"} for number in range(1, 2002)]
    features[0]["name"], features[1]["name"] = "n" * 256, "$email"
    states = [{**state, "feature": feature} for feature in features]
    found = check(doctor("--offline", feature_states=states), "properties")
    for problem in (
        "Mixpanel truncates names to 255 characters",
        "Flag '$email' is left out: Mixpanel reserves",
        "Mixpanel refuses properties beyond the first 2000",
    ):
        assert problem in found["detail"]


@pytest.mark.parametrize(
    ("region", "detail"),
    [("", "https://api.mixpanel.com, region us"), ("eu", "https://api-eu.mixpanel.com, region eu")],
)
def test_mixpanel_host_is_that_of_the_region(
    region: str, detail: str, doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MIXPANEL_URL")
    monkeypatch.setenv("MIXPANEL_REGION", region)
    assert check(doctor("--offline"), "mixpanel_host")["detail"].startswith(detail)


def test_mixpanel_host_is_shown_without_its_password(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIXPANEL_URL", "https://me:secret@proxy.example.com/mixpanel/")
    ran = doctor("--offline")
    assert check(ran, "mixpanel_host")["detail"] == (
        "https://proxy.example.com/mixpanel, instead of a region's host"
    )


@pytest.mark.parametrize("status", [200, 400])
def test_token_that_mixpanel_does_not_refuse_is_fine(
    status: int, doctor: Doctor, mixpanel: MixpanelServer
) -> None:
    mixpanel.fail(status=status, body='{"code": 200}')
    found = check(doctor(), "mixpanel_token")
    assert (found["ok"], found["detail"]) == (True, "Mixpanel does not refuse 0123… for this region")


@pytest.mark.parametrize(
    ("status", "detail", "remedy"),
    [
        (401, "Mixpanel does not accept updates (HTTP 401; check", "set MIXPANEL_TOKEN and MIXPANEL_REGION"),
        (404, "Mixpanel does not accept updates (HTTP 404; check", "set MIXPANEL_TOKEN and MIXPANEL_REGION"),
        (503, "Mixpanel does not accept updates (HTTP 503)", "try again when Mixpanel and the network work"),
    ],
)
def test_token_that_mixpanel_refuses_is_wrong(
    status: int, detail: str, remedy: str, doctor: Doctor, mixpanel: MixpanelServer
) -> None:
    mixpanel.fail(status=status)
    ran = doctor()
    assert ran.code == 1
    assert check(ran, "mixpanel_token")["detail"].startswith(detail)
    assert check(ran, "mixpanel_token")["remedy"].startswith(remedy)


def test_request_that_cannot_be_made_names_the_cause(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere/bundle.pem")
    monkeypatch.setenv("MIXPANEL_URL", "https://127.0.0.1:9")
    found = check(doctor(), "mixpanel_token")
    assert "/nowhere/bundle.pem" in found["detail"]
    assert found["remedy"] == "correct what the result names"


@pytest.mark.parametrize(
    ("off_by", "ok", "detail"),
    [
        (timedelta(seconds=2), True, "agrees with that of the server"),
        (timedelta(minutes=3), False, "3 minutes behind that of the server"),
        (timedelta(hours=-2), False, "2 hours ahead of that of the server"),
    ],
)
def test_clock_is_compared_with_that_of_mixpanel(
    off_by: timedelta, ok: bool, detail: str, doctor: Doctor, mixpanel: MixpanelServer
) -> None:
    mixpanel.fail(status=400, headers={"Date": format_datetime(NOW + off_by, usegmt=True)})
    found = check(doctor(), "clock")
    assert (found["ok"], found["detail"]) == (ok, detail)


def test_clock_is_compared_with_that_of_flagsmith(
    flagsmith_server: EvaluatingFlagsmith, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLAGSMITH_ENVIRONMENT_KEY", KEY)
    flagsmith_server.fail(status=403, headers={"Date": "Mon, 02 Jan 2006 15:04:05 GMT"})
    assert "days ahead of that of the server" in check(run("doctor", "--json"), "clock")["detail"]


def test_clock_is_not_compared_with_a_date_that_is_none(doctor: Doctor, mixpanel: MixpanelServer) -> None:
    mixpanel.fail(status=400, headers={"Date": "yesterday"})
    assert "clock" not in names(doctor())


def test_network_names_the_proxy_and_the_ca_bundle(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIXPANEL_URL", "https://mixpanel.example.com")
    assert check(doctor("--offline"), "network")["detail"] == "no proxy, the CA bundle of requests"
    monkeypatch.setenv("HTTPS_PROXY", "http://me:secret@proxy.example.com:3128")
    monkeypatch.setenv("CURL_CA_BUNDLE", certifi.where())
    assert check(doctor("--offline"), "network")["detail"] == (
        f"proxy http://proxy.example.com:3128, CA bundle {certifi.where()}"
    )


@pytest.mark.parametrize(
    ("proxy", "shown"),
    [("http://[::1", "http://[::1"), ("me:secret@proxy.example.com:3128", "proxy.example.com:3128")],
)
def test_network_shows_a_proxy_that_is_no_url_without_its_password(
    proxy: str, shown: str, doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIXPANEL_URL", "https://mixpanel.example.com")
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    assert check(doctor("--offline"), "network")["detail"] == f"proxy {shown}, the CA bundle of requests"


@pytest.mark.parametrize("kind", ["missing", "wrong", "directory"])
def test_network_with_a_ca_bundle_that_cannot_be_read_is_wrong(
    kind: str, doctor: Doctor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bundle"
    if kind == "wrong":
        path.write_text("no certificate", "utf-8")
    elif kind == "directory":
        path.mkdir()
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", f"{path}")
    found = check(doctor("--offline"), "network")
    assert found["ok"] == (kind == "directory")
    assert f"{path}" in found["detail"]


def test_outbox_that_is_not_there_yet_is_fine_and_is_not_made(
    doctor: Doctor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "outbox.db"
    monkeypatch.setenv("FLAGSYNC_OUTBOX", f"{path}")
    assert check(doctor("--offline"), "outbox")["detail"] == f"{path} does not exist yet; a client creates it"
    assert not path.exists()


def test_outbox_with_messages_is_fine_while_they_are_young(
    doctor: Doctor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = store(tmp_path / "outbox.db", profile("ann"))
    monkeypatch.setenv("FLAGSYNC_OUTBOX", f"{path}")
    assert check(doctor("--offline"), "outbox")["detail"] == f"{path}: 1 message pending"


def test_outbox_whose_oldest_message_is_old_is_wrong(
    doctor: Doctor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = profile("ann")
    path = store(tmp_path / "outbox.db", old._replace(evaluated_at=old.evaluated_at - 600))
    monkeypatch.setenv("FLAGSYNC_OUTBOX", f"{path}")
    found = check(doctor("--offline"), "outbox")
    assert (found["ok"], found["detail"]) == (False, "1 message pending, the oldest for 10 minutes")


@pytest.mark.parametrize(
    ("place", "detail"),
    [
        ("/nowhere/outbox.db", "its directory does not exist"),
        ("/dev/null", "it is a directory or a device"),
        ("mysql://me:secret@host", "'mysql://…' is not supported"),
    ],
)
def test_outbox_that_cannot_be_used_is_wrong(
    place: str, detail: str, doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLAGSYNC_OUTBOX", place)
    ran = doctor("--offline")
    assert detail in check(ran, "outbox")["detail"]
    assert "secret" not in ran.out


NOW = datetime(2026, 11, 24, 15, 30, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that stands still, for the checks that tell the time."""
    for module in ("flagsmith", "mixpanel"):
        monkeypatch.setattr(f"flagsync._cli.doctor.{module}.time", NOW.timestamp)
