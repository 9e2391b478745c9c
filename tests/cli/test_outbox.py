"""``flagsync outbox``: stats, peek and export read; drain delivers."""

import json
import os
import re
import sqlite3
import stat
import threading
from contextlib import closing
from pathlib import Path
from time import monotonic

import pytest

from flagsync._cli.drain import drain
from flagsync._cli.stores import opened, shown_url
from flagsync._outbox.contract import Limits
from flagsync._outbox.sqlite import SQLiteBackend
from flagsync.testing import MixpanelServer
from tests.support.command_line import TOKEN, Ran, exposure, profile, run, store

LONG_SECONDS = 20.0
LIMITS = Limits()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outbox.db"


@pytest.mark.parametrize("how", ["argument", "variable"])
def test_stats_count_updates_and_exposures(how: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store(path, profile("ann"), profile("bob"), profile("ann", city="Rome"), exposure("ann"))
    monkeypatch.setenv("FLAGSYNC_OUTBOX", f"{path}" if how == "variable" else "")
    ran = run("outbox", "stats", "--json", *([path] if how == "argument" else []))
    counts = ran.json
    assert ran.code == 0
    assert (counts["accepted"], counts["superseded"], counts["pending"]) == (3, 1, 2)
    assert counts["exposures"] == {
        "accepted": 1,
        "delivered": 0,
        "unchanged": 0,
        "dropped": 0,
        "rejected": 0,
        "pending": 1,
    }
    assert 0 <= counts["oldest_seconds"] < LONG_SECONDS


def test_stats_print_a_table_and_the_age_of_the_oldest(path: Path) -> None:
    store(path, profile("ann"), exposure("ann"))
    lines = [" ".join(line.split()) for line in run("outbox", "stats", path).out.splitlines()]
    assert lines[:2] == ["outcome updates exposures", "accepted 1 1"]
    assert "superseded 0 0" in lines
    assert re.fullmatch(r"2 messages pending, the oldest for \d+ seconds?\.", lines[-1])


def test_stats_of_an_outbox_in_which_nothing_waits_have_no_oldest_message(path: Path) -> None:
    store(path)
    assert run("outbox", "stats", path, "--json").json["oldest_seconds"] is None
    assert run("outbox", "stats", path).out.endswith("\n\nNothing is pending.\n")


@pytest.mark.parametrize("command", ["stats", "drain", "peek", "export"])
def test_outbox_that_is_not_there_is_wrong_use_and_is_not_made(command: str, path: Path) -> None:
    ran = run("outbox", command, path)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == f"Error: outbox: there is no file '{path}'; a client creates it on first use\n"
    assert not path.exists()


@pytest.mark.parametrize("command", ["stats", "drain", "peek", "export"])
def test_empty_file_is_wrong_use_and_stays_empty(command: str, path: Path) -> None:
    path.touch()
    ran = run("outbox", command, path)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == f"Error: outbox: {path} is an empty file; a client makes it an outbox on first use\n"
    assert path.read_bytes() == b""


@pytest.mark.parametrize("command", ["stats", "drain", "peek", "export"])
def test_outbox_of_another_kind_is_wrong_use(command: str, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no outbox", "utf-8")
    for place, message in {
        tmp_path / "notes.txt": "file is not a database",
        tmp_path: "it is a directory or a device",
        "mysql://me:secret@host/db": "'mysql://…' is not supported; it takes the path of a file, or a URL with",
    }.items():
        ran = run("outbox", command, place)
        assert (ran.code, ran.out) == (2, "")
        assert message in ran.err
        assert "secret" not in ran.err


def test_outbox_that_fails_meanwhile_is_an_error(path: Path) -> None:
    store(path, profile("ann"))
    with path.open("r+b") as file:  # all but the first page
        file.seek(8192)
        file.write(os.urandom(path.stat().st_size - 8192))
    for command in ("stats", "peek"):
        ran = run("outbox", command, path)
        assert (ran.code, ran.out) == (1, "")
        assert ran.err.startswith("Error: outbox: it cannot be used now (DatabaseError")


def test_peek_shows_no_identifier_no_value_and_no_token(path: Path) -> None:
    store(path, profile("ann@example.com", city="Rome"), exposure("ann@example.com"))
    for ran in (run("outbox", "peek", path), run("outbox", "peek", path, "--json")):
        assert not [text for text in ("ann", "Rome", TOKEN, "checkout", "new") if text in ran.out]


def test_peek_tells_messages_apart_by_digests_and_counts(path: Path) -> None:
    store(path, profile("ann", city="Rome", age=30), exposure("ann"), profile("bob"))
    shown = run("outbox", "peek", path, "--json").json
    first, second, third = shown["messages"]
    assert (shown["pending"], shown["oldest_seconds"] < LONG_SECONDS) == (3, True)
    assert first == {
        "version": 1,
        "kind": "profile",
        "distinct_id_digest": second["distinct_id_digest"],
        "properties": 2,
        "bytes": len(profile("ann", city="Rome", age=30).record),
        "project": "project",
        "url": "http://127.0.0.1:9/engage",
    }
    assert (second["kind"], second["url"]) == ("exposure", "http://127.0.0.1:9/track")
    assert first["distinct_id_digest"] != third["distinct_id_digest"]


def test_peek_reveals_records_if_it_is_told_to_but_never_a_token(path: Path) -> None:
    store(path, profile("ann", city="Rome", token="a value"), exposure("ann"))
    update, event = run("outbox", "peek", path, "--reveal", "--json").json["messages"]
    assert update["distinct_id"] == event["distinct_id"] == "ann"
    assert update["record"] == {
        "$token": "0123…",
        "$distinct_id": "ann",
        "$set": {"city": "Rome", "token": "a value"},
    }
    assert event["record"]["properties"]["token"] == "0123…"
    text = run("outbox", "peek", path, "--reveal").out
    assert '"city": "Rome"' in text
    assert TOKEN not in text


def test_peek_shows_a_message_that_also_removes_properties_as_one(path: Path) -> None:
    update = profile("ann", city="Rome")
    unset = {"$token": TOKEN, "$distinct_id": "ann", "$unset": ["old", "older"]}
    store(path, update._replace(body=json.dumps(unset).encode() + b"," + update.body))
    [shown] = run("outbox", "peek", path, "--reveal", "--json").json["messages"]
    expected = {**unset, "$token": "0123…", "$set": {"city": "Rome"}}
    assert (shown["properties"], shown["record"]) == (3, expected)


def test_peek_shows_the_oldest_messages_of_all_destinations(path: Path) -> None:
    store(path, profile("ann"), profile("bob", "https://u:secret@other.example"), profile("cid"))
    ran = run("outbox", "peek", path, "--limit", 2, "--json")
    assert [one["url"] for one in ran.json["messages"]] == [
        "http://127.0.0.1:9/engage",
        "https://other.example/engage",
    ]
    assert "other.example/engage" in run("outbox", "peek", path).out


def test_peek_of_nothing_says_so(path: Path) -> None:
    store(path)
    assert run("outbox", "peek", path).out == "Nothing is pending.\n"


def test_peek_escapes_what_could_control_the_terminal(path: Path) -> None:
    store(path, profile("\x1b[31mann", city="[bold]\x07"))
    ran = run("outbox", "peek", path, "--reveal")
    assert "\\x1b[31mann" in ran.out
    assert "[bold]\\u0007" in ran.out
    assert "\x1b" not in ran.out


@pytest.mark.parametrize("command", [("peek",), ("export",), ("stats",)])
def test_reading_changes_nothing_while_another_process_sends(command: tuple[str, ...], path: Path) -> None:
    store(path, profile("ann"), profile("bob"))
    sender = SQLiteBackend(path)
    assert sender.try_acquire_lease()
    before = sender.status(())
    with opened(f"{path}") as found:
        claimed = [*found.waiting()]
    assert run("outbox", *command, path).code == 0
    assert sender.try_acquire_lease()
    after = sender.status(())
    assert after._replace(oldest_seconds=0) == before._replace(oldest_seconds=0)
    assert [message.key for batch in claimed for message in batch] == ["ann", "bob"]
    sender.close()


def test_export_writes_a_json_line_for_each_message(path: Path) -> None:
    store(path, profile("ann", city="Rome"), profile("bob", city="Köln\udc80"), exposure("ann"))
    ran = run("outbox", "export", path)
    lines = [json.loads(line) for line in ran.out.splitlines()]
    assert [(line["kind"], line["distinct_id"]) for line in lines] == [
        ("profile", "ann"),
        ("profile", "bob"),
        ("exposure", "ann"),
    ]
    assert lines[1]["record"]["$set"] == {"city": "Köln\udc80"}
    assert TOKEN not in ran.out
    assert ran.err == "3 messages exported.\n"
    assert run("outbox", "stats", path, "--json").json["pending"] == 2


def test_export_makes_a_new_file_that_only_its_owner_can_read(path: Path, tmp_path: Path) -> None:
    store(path, profile("ann"))
    output = tmp_path / "waiting.jsonl"
    ran = run("outbox", "export", path, "--output", output)
    assert (ran.code, ran.out, ran.err) == (0, "", "1 message exported.\n")
    assert json.loads(output.read_text("utf-8"))["distinct_id"] == "ann"
    assert stat.S_IMODE(output.stat().st_mode) == 0o600
    again = run("outbox", "export", path, "-o", output)
    assert (again.code, again.err) == (
        2,
        f"Error: --output: {output} cannot be created (File exists); name a new file\n",
    )


def test_drain_delivers_what_waits(path: Path, mixpanel: MixpanelServer) -> None:
    store(path, profile("ann", mixpanel.url, city="Rome"), exposure("bob", mixpanel.url))
    ran = run("outbox", "drain", path, "--json")
    assert ran.code == 0
    assert ran.json == {"delivered": 2, "rejected": 0, "pending": 0, "oldest_seconds": None}
    assert mixpanel.profiles == {"ann": {"city": "Rome"}}
    assert [event["properties"]["distinct_id"] for event in mixpanel.events] == ["bob"]


def test_drain_says_what_it_does_and_has_done(path: Path, mixpanel: MixpanelServer) -> None:
    store(path, profile("ann", mixpanel.url))
    ran = run("outbox", "drain", path)
    assert ran.err.startswith("1 message pending, the oldest for ")
    assert ran.err.endswith(". Delivering for at most 60 seconds.\n")
    assert ran.out == "1 message delivered, 0 rejected by Mixpanel.\nNothing is pending.\n"


def test_drain_of_nothing_sends_nothing(path: Path, mixpanel: MixpanelServer) -> None:
    store(path)
    assert run("outbox", "drain", path) == Ran(
        0, "0 messages delivered, 0 rejected by Mixpanel.\nNothing is pending.\n", ""
    )
    assert mixpanel.requests == []


def test_drain_fails_if_something_is_left_after_its_timeout(path: Path, mixpanel: MixpanelServer) -> None:
    mixpanel.fail(status=503)
    store(path, profile("ann", mixpanel.url))
    began = monotonic()
    ran = run("outbox", "drain", path, "--timeout", 0.3, "--json")
    assert monotonic() - began < LONG_SECONDS
    assert ran.code == 1
    assert (ran.json["delivered"], ran.json["pending"]) == (0, 1)


def test_drain_fails_if_mixpanel_refuses_a_message(path: Path, mixpanel: MixpanelServer) -> None:
    mixpanel.fail(status=400, distinct_id="bad")
    store(path, profile("ann", mixpanel.url), profile("bad", mixpanel.url))
    ran = run("outbox", "drain", path, "--json")
    assert (ran.code, ran.json["delivered"], ran.json["rejected"], ran.json["pending"]) == (1, 1, 1, 0)


def test_drain_waits_for_the_process_that_sends(path: Path, mixpanel: MixpanelServer) -> None:
    store(path, profile("ann", mixpanel.url))
    sender = SQLiteBackend(path)
    assert sender.try_acquire_lease()
    began = monotonic()
    ran = run("outbox", "drain", path, "--timeout", 0.3)
    assert monotonic() - began >= 0.3
    assert (ran.code, mixpanel.requests) == (1, [])
    with opened(f"{path}") as found:
        waiting = threading.Thread(target=drain, args=(found.backend, monotonic() + LONG_SECONDS))
        waiting.start()
        sender.settle(sender.claim((), LIMITS), (), (), monotonic() + LONG_SECONDS)
        waiting.join(LONG_SECONDS)
        assert not waiting.is_alive()
        assert not found.again().status.pending
    assert mixpanel.requests == []
    sender.close()


def test_drain_sends_when_the_other_process_has_ended(path: Path, mixpanel: MixpanelServer) -> None:
    store(path, profile("ann", mixpanel.url))
    sender = SQLiteBackend(path)
    assert sender.try_acquire_lease()
    with opened(f"{path}") as found:
        waiting = threading.Thread(target=drain, args=(found.backend, monotonic() + LONG_SECONDS))
        waiting.start()
        sender.close()
        waiting.join(LONG_SECONDS)
    assert [*mixpanel.profiles] == ["ann"]


def test_drain_of_an_outbox_that_fails_ends_with_its_timeout(path: Path, mixpanel: MixpanelServer) -> None:
    store(path, profile("ann", mixpanel.url))
    with opened(f"{path}") as found:
        path.rename(path.with_suffix(".gone"))
        path.mkdir()
        drain(found.backend, monotonic() + 0.3)
        path.rmdir()
    assert mixpanel.requests == []


def test_stats_look_into_an_outbox_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> None:
        raise OSError("the server is away again")

    store(path, profile("ann"))
    monkeypatch.setattr("flagsync._outbox.place.totals", away)
    assert run("outbox", "stats", path).code == 0


@pytest.mark.parametrize("body", [b"{", b"[1", b'"a'])
def test_message_that_is_damaged_ends_in_a_sentence(body: bytes, path: Path) -> None:
    store(path, profile("ann"), exposure("bob"))
    with closing(sqlite3.connect(path)) as file:
        file.execute("UPDATE messages SET body = ?", (body,))
        file.commit()
    for command in ("peek", "export"):
        ran = run("outbox", command, path)
        assert (ran.code, ran.out) == (1, "")
        assert ran.err == "Error: outbox: message 1 is damaged and cannot be shown\n"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://api.mixpanel.com/engage", "https://api.mixpanel.com/engage"),
        ("http://u:p@h:1/engage", "http://h:1/engage"),
        ("postgresql://u@h/db?password=p#p", "postgresql://h/db"),
        ("redis://:p/p@h:1/0", "redis://h:1/0"),
        ("redis://:p?p@h:1/0", "redis://…"),
        ("u:p@h:1", "h:1"),
        ("http://[::1", "http://[::1"),
    ],
)
def test_shown_url_has_no_credentials(url: str, shown: str) -> None:
    assert shown_url(url) == shown
