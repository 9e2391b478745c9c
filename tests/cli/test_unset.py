"""``flagsync unset``: profiles lose the named properties; whatever is wrong ends in a sentence."""

import json
from pathlib import Path
from typing import Any

import pytest

from flagsync.testing import MixpanelServer
from tests.support.command_line import run


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, mixpanel: MixpanelServer, tmp_path: Path) -> None:
    monkeypatch.setenv("MIXPANEL_TOKEN", "token")
    monkeypatch.setenv("MIXPANEL_URL", mixpanel.url)
    monkeypatch.chdir(tmp_path)


def users(*identifiers: str, name: str = "users.csv") -> str:
    Path(name).write_text(
        "".join(f"{line}\n" for line in ("identifier,plan", *(f"{one},pro" for one in identifiers)))
    )
    return name


def records(mixpanel: MixpanelServer) -> list[dict[str, Any]]:
    return [record for request in mixpanel.requests for record in json.loads(request.body)]


def test_unset_removes_the_named_properties_of_all_users(mixpanel: MixpanelServer) -> None:
    ran = run("unset", "old", "flag: beta", "old", "--from", users("ann", "bob", "ann"), "--json")
    assert ran.code == 0
    assert {name: ran.json[name] for name in ("read", "delivered", "superseded", "rejected")} == {
        "read": 3,
        "delivered": 2,
        "superseded": 1,
        "rejected": 0,
    }
    assert {record["$distinct_id"] for record in records(mixpanel)} == {"ann", "bob"}
    for record in records(mixpanel):
        assert record["$unset"] == ["old", "flag: beta"]
        assert {*record} == {"$token", "$distinct_id", "$unset", "$time", "$ip", "$ignore_time"}


def test_unset_needs_neither_flagsmith_nor_traits_nor_the_outbox(
    mixpanel: MixpanelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLAGSYNC_OUTBOX", "nowhere/outbox.db")
    Path("users.jsonl").write_text('{"id": 42, "nested": {"a": [1]}}\n{"id": "ann", "plan": null}\n')
    ran = run("unset", "old", "--from", "users.jsonl", "--identifier", "id")
    assert (ran.code, ran.err) == (0, "")
    assert [record["$distinct_id"] for record in records(mixpanel)] == ["42", "ann"]


def test_dry_run_sends_nothing_and_says_what_would_happen(mixpanel: MixpanelServer) -> None:
    ran = run("unset", "old", "beta", "--from", users("ann", "bob"), "--dry-run")
    assert (ran.code, mixpanel.requests) == (0, [])
    assert "evaluated      2" in ran.out
    assert ran.err == "Nothing was sent. Without --dry-run, 2 profiles would lose: old, beta.\n"


def test_dry_run_needs_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MIXPANEL_TOKEN")
    assert run("unset", "old", "--from", users("ann"), "--dry-run").code == 0
    ran = run("unset", "old", "--from", users("ann"))
    assert (ran.code, ran.out) == (2, "")
    assert "MIXPANEL_TOKEN must be set" in ran.err


def test_rejected_rows_do_not_stop_the_others(mixpanel: MixpanelServer) -> None:
    mixpanel.fail(status=400, distinct_id="bob")
    file = users("ann", "bob", "null", "cid", "")
    ran = run("unset", "old", "--from", file, "--rejects", "bad")
    assert ran.code == 1
    assert [record["row"] for record in map(json.loads, Path("bad").read_text().splitlines())] == [2, 3, 5]
    reasons = [json.loads(line)["reason"] for line in Path("bad").read_text().splitlines()]
    assert "Mixpanel does not accept updates" in reasons[0]
    assert reasons[1:] == ["Mixpanel blocks the identifier as a placeholder", "the identifier is empty"]


def test_row_that_is_not_a_row_and_one_without_an_identifier_are_rejected() -> None:
    Path("users.jsonl").write_text('{"identifier": "ann"}\n[1]\n{"id": "bob"}\n')
    ran = run("unset", "old", "--from", "users.jsonl", "--json")
    assert (ran.code, ran.json["delivered"], ran.json["rejected"]) == (1, 1, 2)
    assert "there is no column 'identifier'" in ran.json["reasons"]


@pytest.mark.parametrize("name", ["$email", "mp_country", "", "  "])
def test_names_that_mixpanel_reserves_are_refused(name: str, mixpanel: MixpanelServer) -> None:
    ran = run("unset", "old", name, "--from", users("ann"))
    assert (ran.code, mixpanel.requests) == (2, [])
    assert ran.err.startswith(f"Error: NAME takes a property that flagsync wrote, not {name!r}: ")


def test_long_name_is_as_mixpanel_stores_it(mixpanel: MixpanelServer) -> None:
    assert run("unset", "x" * 300, "--from", users("ann")).code == 0
    assert records(mixpanel)[0]["$unset"] == ["x" * 255]


def test_wrong_token_ends_the_command(mixpanel: MixpanelServer) -> None:
    mixpanel.fail(status=401)
    ran = run("unset", "old", "--from", users("ann"))
    assert ran.code == 1
    assert "Mixpanel does not accept updates (HTTP 401" in ran.err
    assert "0 rows settled" in ran.err


def test_wrong_configuration_is_said_before_anything_is_sent(
    monkeypatch: pytest.MonkeyPatch, mixpanel: MixpanelServer
) -> None:
    monkeypatch.setenv("MIXPANEL_TOKEN", "mixpanel-project-token")
    ran = run("unset", "old", "--from", users("ann"))
    assert (ran.code, mixpanel.requests) == (2, [])
    assert "mixpanel_token must be the project token" in ran.err


def test_mirroring_that_is_switched_off_sends_nothing(
    monkeypatch: pytest.MonkeyPatch, mixpanel: MixpanelServer
) -> None:
    monkeypatch.setenv("FLAGSYNC_ENABLED", "false")
    ran = run("unset", "old", "--from", users("ann"))
    assert (ran.code, mixpanel.requests) == (2, [])
    assert ran.err == "Error: FLAGSYNC_ENABLED=false switches Mixpanel off, so only --dry-run is possible\n"


def test_checkpoint_is_of_the_same_names(mixpanel: MixpanelServer) -> None:
    file = users("ann", "bob")
    for _ in range(2):
        ran = run("unset", "old", "--from", file, "--checkpoint", "done", "--json")
        assert (ran.code, ran.json["read"], ran.json["delivered"]) == (0, 2, 2)
    assert len(records(mixpanel)) == 2
    ran = run("unset", "other", "--from", file, "--checkpoint", "done")
    assert (ran.code, len(records(mixpanel))) == (2, 2)
    assert "of another command, or of a run with other options" in ran.err
    Path("users.csv").write_text("identifier\nann\n")
    assert "has changed since" in run("unset", "old", "--from", file, "--checkpoint", "done").err
