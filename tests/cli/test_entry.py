"""The entry point: what happens around a command, in processes of their own where a process matters."""

import logging
import os
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import pytest

from flagsync import __version__
from flagsync._cli import MISSING, main
from flagsync.testing import MixpanelServer
from tests.support.command_line import ENTRY, exposure, profile, run, store
from tests.support.pages import ROOT
from tests.support.processes import end

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Calls the entry point in this process, with these arguments and streams."""

    def enter(*arguments: object, **streams: Any) -> int:
        monkeypatch.setattr(sys, "argv", ["flagsync", *map(str, arguments)])
        for name, stream in streams.items():
            monkeypatch.setattr(sys, name, stream)
        return main()

    return enter


def test_script_is_the_entry_point() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["scripts"] == {"flagsync": "flagsync._cli:main"}


def test_version_is_printed(call: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--version") == 0
    assert capsys.readouterr() == (f"flagsync {__version__}\n", "")


def test_exit_code_of_a_command_is_that_of_the_process(call: Callable[..., int], tmp_path: Path) -> None:
    assert call("outbox", "stats", tmp_path / "nothing.db") == 2
    assert call("preview", "x", "--document", tmp_path / "nothing.json") == 2
    assert call("doctor") == 1


def test_wrong_use_is_said_on_stderr_with_exit_code_2() -> None:
    for arguments in (
        ("nothing",),
        ("preview",),
        ("outbox", "drain", "x", "--timeout", "soon"),
        ("--nothing",),
    ):
        ran = run(*arguments)
        assert (ran.code, ran.out) == (2, "")
        assert "Usage: flagsync" in ran.err


def test_missing_extra_is_one_sentence_with_the_command_that_installs_it(start: Start) -> None:
    missing = "import sys; sys.modules['rich'] = sys.modules['typer'] = None; "
    ended = end(start("-c", missing + ENTRY, "doctor"))
    assert (ended.code, ended.output, ended.errors) == (2, [], MISSING)
    assert MISSING.count("\n") == 1
    assert "pip install 'flagsync[cli]'" in MISSING


@pytest.mark.parametrize(("name", "code"), [("typer", 2), ("flagsync._cli.app", None)])
def test_only_a_missing_extra_is_said_to_be_missing(
    name: str, code: int | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "flagsync._cli.app", raising=False)
    monkeypatch.setitem(sys.modules, name, None)
    if code is None:
        with pytest.raises(ModuleNotFoundError):
            main()
    else:
        assert main() == code
        assert capsys.readouterr().err == MISSING


def test_importing_flagsync_imports_no_command_line(start: Start) -> None:
    code = "import flagsync, sys; flagsync.FlagSync; sys.exit('typer' in sys.modules)"
    assert end(start("-c", code)).code == 0


def test_ctrl_c_ends_without_a_traceback(start: Start, mixpanel: MixpanelServer, tmp_path: Path) -> None:
    mixpanel.fail(delay_seconds=60)
    path = store(tmp_path / "outbox.db", profile("ann", mixpanel.url))
    process = start("-c", ENTRY, "outbox", "drain", f"{path}")
    assert mixpanel.wait_for_requests(1)
    process.send_signal(signal.SIGINT)
    ended = end(process)
    assert (ended.code, ended.output) == (130, [])
    assert ended.errors.startswith("1 message pending, ")
    assert ended.errors.count("\n") == 1


def test_ctrl_c_outside_of_a_command_ends_without_a_traceback(
    call: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("flagsync._cli.app.app", interrupted)
    assert call("--version") == 130


def test_ctrl_c_while_the_commands_are_imported_ends_without_a_traceback(
    call: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted:
        def find_spec(self, *_: object) -> None:
            raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "flagsync._cli.app", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Interrupted()])
    assert call("--version") == 130


@pytest.mark.parametrize("command", ["export", "stats"])
def test_reader_that_ends_early_ends_the_command_without_a_traceback(
    command: str, start: Start, tmp_path: Path
) -> None:
    messages = (exposure(f"user_{number}") for number in range(600))
    path = store(tmp_path / "outbox.db", *messages)
    with closed_pipe() as pipe:
        process = start("-c", ENTRY, "outbox", command, f"{path}", stdout=pipe)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (1, "")


def closed_pipe() -> IO[str]:
    """Return the end of a pipe whose reader has ended."""
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, "w")


def test_closed_pipe_is_noticed_when_the_rest_is_written(
    call: Callable[..., int], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = store(tmp_path / "outbox.db", profile("ann"))
    with closed_pipe() as pipe:
        assert call("outbox", "stats", path, "--json", stdout=pipe) == 1
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("arguments", [("--version",), ("outbox", "stats"), ("outbox", "stats", "--json")])
def test_full_disk_is_an_error_without_a_traceback(
    arguments: tuple[str, ...],
    call: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FLAGSYNC_OUTBOX", f"{store(tmp_path / 'outbox.db', profile('ann'))}")
    with Path("/dev/full").open("w") as full:
        assert call(*arguments, stdout=full) == 1
    assert capsys.readouterr().err.endswith("Error: No space left on device\n")


def test_stderr_that_cannot_be_written_changes_nothing(
    call: Callable[..., int], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = store(tmp_path / "outbox.db", profile("ann"))
    with Path("/dev/full").open("w") as full:
        assert call("outbox", "export", path, stderr=full) == 0
    assert capsys.readouterr().out.count("\n") == 1


def test_stdin_that_is_closed_ends_in_a_sentence(
    call: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("backfill", "-", stdin=None) == 2
    assert capsys.readouterr().err == "Error: stdin is closed: pass a file, or rows through a pipe\n"


def test_export_counts_only_what_is_written(
    call: Callable[..., int], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = store(tmp_path / "outbox.db", profile("ann"))
    with Path("/dev/full").open("w") as full:
        assert call("outbox", "export", path, stdout=full) == 1
    assert capsys.readouterr().err == "Error: No space left on device\n"


def test_closed_streams_are_no_error(call: Callable[..., int]) -> None:
    assert call("--version", stdout=None, stderr=None) == 0
    sys.stdout.close()
    sys.stderr.close()


def test_document_that_is_nested_without_end_is_none(tmp_path: Path) -> None:
    (tmp_path / "deep.json").write_text("[" * 100_000)
    ran = run("doctor", "--offline", "--document", tmp_path / "deep.json")
    assert ran.code == 2
    assert "is not an environment document of Flagsmith (RecursionError" in ran.err


def test_log_is_said_once_and_without_a_traceback(
    call: Callable[..., int], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLAGSMITH_ENVIRONMENT_KEY", "ser.key")
    monkeypatch.setenv("FLAGSMITH_LOCAL_EVALUATION", "true")
    monkeypatch.setenv("FLAGSMITH_API_URL", "http://127.0.0.1:9/")
    assert call("preview", "user_42") == 1
    logging.getLogger("flagsmith").error("Error retrieving environment document from API")
    assert capsys.readouterr().err.splitlines() == [
        "Error: Error retrieving environment document from API",
        "Error: Unable to get valid response from Flagsmith API.",
    ]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_offered(shell: str, start: Start) -> None:
    complete = {"_FLAGSYNC_COMPLETE": f"complete_{shell}", "COMP_WORDS": "flagsync out", "COMP_CWORD": "1"}
    variables = {**complete, "_TYPER_COMPLETE_ARGS": "flagsync out", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    ended = end(start("-c", ENTRY, variables=variables))
    assert ended.code == 0
    assert "outbox" in "".join(ended.output)
