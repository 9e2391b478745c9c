"""What commands print, in a terminal and without one."""

import io
import json
import os
import pty
import sys
from collections.abc import Callable
from contextlib import suppress

import pytest
from rich.text import Text

from flagsync._cli.bar import Bar
from flagsync._cli.commands import new_group, register
from flagsync._cli.terminal import age, count, masked, plain, say, show, show_json, table
from flagsync.bulk import Report
from tests.support.command_line import run

Printed = Callable[[Callable[[], None]], str]


def read_all(terminal: int) -> bytes:
    """Return what was written to a terminal that is closed: what it passes on may come in parts."""
    parts = []
    with os.fdopen(terminal, "rb", buffering=0) as reader, suppress(OSError):  # Linux: EIO at the end
        while part := reader.read(65536):
            parts.append(part)
    return b"".join(parts)


@pytest.fixture
def in_terminal(monkeypatch: pytest.MonkeyPatch) -> Printed:
    """Calls a function with a terminal of 40 columns as its stdout; returns what was printed."""

    def call(function: Callable[[], None]) -> str:
        reader, writer = pty.openpty()
        with os.fdopen(writer, "w") as terminal:
            monkeypatch.setattr(sys, "stdout", terminal)
            monkeypatch.setenv("TERM", "xterm-256color")
            monkeypatch.setenv("COLUMNS", "40")
            function()
        return read_all(reader).decode().replace("\r\n", "\n")

    return call


def test_message_is_printed_above_a_bar(in_terminal: Printed, monkeypatch: pytest.MonkeyPatch) -> None:
    def with_bar() -> None:
        monkeypatch.setattr(sys, "stderr", sys.stdout)
        with Bar(100.0, Report()):
            say("Warning: [red]slow[/red]")

    before, _, _ = in_terminal(with_bar).partition("Warning: [red]slow[/red]\n")
    assert "(at most 100)" in before
    assert before.endswith("\r\x1b[2K")  # the line of the bar is erased


def wide() -> None:
    show(table(("name", "value"), [("a", Text("word " * 20, "red"))]))


def test_terminal_gets_colours_and_wrapped_cells(in_terminal: Printed) -> None:
    printed = in_terminal(wide)
    assert "\x1b[31m" in printed
    assert len(printed.splitlines()) > 2


def test_terminal_gets_no_colours_with_no_color(in_terminal: Printed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[31m" not in in_terminal(wide)


def test_pipe_gets_neither_colours_nor_wrapped_lines(capsys: pytest.CaptureFixture[str]) -> None:
    wide()
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert len(out.splitlines()) == 2


def test_columns_of_numbers_are_aligned_to_the_right(capsys: pytest.CaptureFixture[str]) -> None:
    show(table(("name", "count"), [("a", "7")], numbers=("count",)))
    assert capsys.readouterr().out.splitlines() == ["name  count", "a         7"]


def test_text_is_neither_interpreted_nor_coloured(capsys: pytest.CaptureFixture[str]) -> None:
    show("[bold]1[/bold] :smile:")
    say("[red]2[/red]")
    assert capsys.readouterr() == ("[bold]1[/bold] :smile:\n", "[red]2[/red]\n")


def test_json_is_one_object_that_any_encoding_can_hold(capsys: pytest.CaptureFixture[str]) -> None:
    value = {"name": "Köln\udc80"}
    show_json(value)
    out = capsys.readouterr().out
    assert out.isascii()
    assert json.loads(out) == value


@pytest.mark.parametrize(
    ("text", "shown"),
    [("日本 ok\n", "日本 ok\n"), ("\x1b[31m", "\\x1b[31m"), ("a\tb\r", "a\\tb\\r"), ("\udc80", "\\udc80")],
)
def test_plain_escapes_what_may_control_a_terminal(text: str, shown: str) -> None:
    assert plain(text) == shown


@pytest.mark.parametrize(
    ("secret", "shown"), [("0123456789abcdef", "0123…"), ("012345", "01…"), ("ab", "…"), ("", "…")]
)
def test_masked_shows_no_more_than_a_third_of_a_secret(secret: str, shown: str) -> None:
    assert masked(secret) == shown


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.4, "0 seconds"),
        (1.0, "1 second"),
        (59.9, "59 seconds"),
        (60.0, "1 minute"),
        (7300.0, "2 hours"),
        (86400.0 * 3, "3 days"),
    ],
)
def test_age_is_said_in_its_largest_unit(seconds: float, said: str) -> None:
    assert age(seconds) == said


def test_count_has_a_noun() -> None:
    assert (count(1, "flag"), count(1234, "flag")) == ("1 flag", "1,234 flags")


def test_help_has_the_docstring_in_whole_paragraphs_and_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    def first() -> None:
        """Do [this] first.

        This is a paragraph
        of two lines.
        """

    def second() -> None:
        """Do that."""

    from typer.testing import CliRunner  # noqa: PLC0415

    group = new_group("A group.")
    register(group, first, "first --all", "first [none]")
    register(group, second)
    printed = CliRunner().invoke(group, ["first", "--help"]).output
    for line in ("Do [this] first.", "This is a paragraph of two lines.", "$ first --all", "$ first [none]"):
        assert line in printed


@pytest.mark.parametrize(
    "command", ["", "doctor", "preview", "outbox", "outbox stats", "outbox drain", "outbox peek"]
)
def test_every_command_has_help(command: str) -> None:
    ran = run(*command.split(), "--help")
    assert (ran.code, ran.err) == (0, "")
    assert f"Usage: flagsync {command}".strip() in ran.out
    assert "\x1b" not in ran.out
    assert ("Examples" in ran.out) == (command not in ("", "outbox"))


def test_streams_are_those_of_the_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", out := io.StringIO())
    show("here")
    assert out.getvalue() == "here\n"
