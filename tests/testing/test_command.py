"""``python -m flagsync.testing``, as a person runs it."""

import runpy
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import requests

from flagsync.testing import __main__ as command
from flagsync.testing.__main__ import MAX_SHOWN, lines, main
from flagsync.testing.mixpanel import Request

Start = Callable[..., subprocess.Popen[str]]


def update(distinct_id: str = "user_1", **operations: Any) -> dict[str, Any]:
    named = {f"${name}": what for name, what in operations.items()}
    return {"$token": "secret", "$distinct_id": distinct_id, **named}


def request(*updates: Any) -> Request:
    return Request("POST", "/engage", {}, b"", list(updates), 1)


class Person:
    """Reads what is shown, sends an update when a URL is, and ends the server when the update is."""

    def __init__(self, path: str = "/engage", sent: Mapping[str, Any] | None = None) -> None:
        self.read: list[str] = []
        self.path, self.sent = path, sent or update(set={"beta": True})

    def __call__(self, text: str) -> None:
        self.read.append(text)
        if len(self.read) == 1:
            url = text.splitlines()[0].rpartition(" ")[2]
            requests.post(f"{url}{self.path}", json=[self.sent], timeout=10)
        elif len(self.read) == 2:
            raise KeyboardInterrupt


def test_command_shows_what_arrives_until_it_is_interrupted() -> None:
    person = Person()
    assert main([], person) == 0
    started, arrived, ended = person.read
    assert started.startswith("Mixpanel on loopback: http://127.0.0.1:")
    assert arrived.splitlines()[1:] == ["    user_1", "        beta  True"]
    assert ended == "\n1 request, 1 profile, 0 events"


def test_events_are_counted_as_events() -> None:
    person = Person("/track", {"event": "met", "properties": {"token": "secret", "distinct_id": "ann"}})
    assert main([], person) == 0
    _, arrived, ended = person.read
    assert arrived.splitlines()[0].endswith("  POST /track  1 event")
    assert ended == "\n1 request, 0 profiles, 1 event"


@pytest.mark.parametrize("path", ["/track?verbose=1", "/import?strict=1"])
def test_lines_of_a_request_with_events_speak_of_events(path: str) -> None:
    event = {"event": "met", "properties": {"token": "secret", "distinct_id": "ann"}}
    many = [*lines(Request("POST", path, {}, b"", [event] * (MAX_SHOWN + 2), 1))]
    assert many[0].endswith(f"  POST {path}  {MAX_SHOWN + 2} events")
    assert many[-1] == "    and 2 further events"
    assert [*lines(Request("POST", path, {}, b"", [], 1))][1:] == [
        "    refused: the body is not a JSON array of events"
    ]


def test_events_are_shown_with_their_properties_but_no_token() -> None:
    properties = {"token": "secret", "distinct_id": "ann", "Variant name": "control"}
    sent = Request(
        "POST", "/track?verbose=1", {}, b"", [{"event": "met", "properties": properties}, {"event": ""}], 1
    )
    assert [*lines(sent)][1:] == [
        "    ann  met",
        "        Variant name  'control'",
        "    refused: event, missing or empty",
    ]


def test_command_may_be_interrupted_once_more() -> None:
    shown: list[str] = []

    def interrupt(text: str) -> None:
        shown.append(text)
        raise KeyboardInterrupt

    assert main([], interrupt) == 0
    assert len(shown) == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_command_takes_a_port_and_ends_with_a_summary(number: int, start: Start) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = start("-m", "flagsync.testing", "--port", f"{port}")
    assert process.stdout is not None
    assert process.stdout.readline() == f"Mixpanel on loopback: http://127.0.0.1:{port}\n"
    while "Ctrl-C" not in process.stdout.readline():
        pass
    process.send_signal(number)
    output, errors = process.communicate(timeout=30)
    assert (process.returncode, output.strip(), errors) == (0, "0 requests, 0 profiles, 0 events", "")


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody listens to."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


def test_command_names_a_port_that_cannot_be_used(taken: int, capsys: pytest.CaptureFixture[str]) -> None:
    for port in (taken, 99999):
        with pytest.raises(SystemExit) as ended:
            main(["--port", f"{port}"])
        assert ended.value.code == 2
        assert f"port {port} cannot be used (" in capsys.readouterr().err


def test_command_has_help(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["flagsync.testing", "--help"])
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(command.__file__, run_name="__main__")
    signal.signal(signal.SIGTERM, before)
    assert ended.value.code == 0
    assert "--port" in capsys.readouterr().out


def test_command_prints_by_default(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr("flagsync.testing.mixpanel.MixpanelServer.wait_for_requests", interrupt)
    assert main([]) == 0
    assert capsys.readouterr().out.endswith("\n0 requests, 0 profiles, 0 events\n")


def test_lines_of_a_request_have_each_property_of_each_profile() -> None:
    shown = [*lines(request(update(set={"a": 1, "long": "x"}), update("user_2", unset=["b", 7])))]
    assert shown[0].endswith("  POST /engage  2 updates")
    assert shown[1:] == [
        "    user_1",
        "        a     1",
        "        long  'x'",
        "    user_2",
        "        b  '(removed)'",
        "        7  '(removed)'",
    ]


def test_lines_of_a_request_say_why_it_is_refused() -> None:
    assert [*lines(request(update(), "no object"))][1:] == [
        "    refused: no operation",
        "    refused: data, must be objects",
    ]
    assert [*lines(request())][1:] == ["    refused: the body is not a JSON array of updates"]


def test_lines_of_a_large_request_are_bounded() -> None:
    shown = [*lines(request(*[update(set={"a": 1})] * (MAX_SHOWN + 1000)))]
    assert len(shown) == 2 * MAX_SHOWN + 2
    assert shown[-1] == "    and 1,000 further updates"


def test_lines_have_no_token() -> None:
    assert not [line for line in lines(request(update(set={"a": 1}), update())) if "secret" in line]
