"""A Python without SQLite: whatever needs a file says so, and the rest works."""

import runpy
import subprocess
import sys

import pytest

import flagsync._files
from tests.conftest import PYTHON

SAID = (
    "outbox, outbox_stats and SQLiteStore use SQLite files, but this Python has no sqlite3 module "
    "(import of _sqlite3 halted; None in sys.modules); "
    "use a Python that was built with SQLite, or leave outbox out, so that updates wait in memory"
)


def said_without_sqlite(program: str) -> list[str]:
    """Return what a program prints where SQLite is missing."""
    whole = f"""
import sys
sys.modules["_sqlite3"] = None
import flagsync, flagsync.cohorts, flagsync.testing
for _ in range(2):
    try:
        {program}
    except ValueError as error:
        print(error)
"""
    ended = subprocess.run([*PYTHON, "-c", whole], capture_output=True, text=True, check=True)
    return ended.stdout.splitlines()


@pytest.mark.parametrize(
    "program",
    [
        "flagsync.FlagSync('key', 'token', outbox='outbox.db')",
        "flagsync.outbox_stats('outbox.db')",
        "flagsync.cohorts.SQLiteStore('cohorts.db')",
        "from flagsync.cohorts import SQLiteStore",
    ],
)
def test_file_without_sqlite_is_refused_each_time_with_what_to_do(program: str) -> None:
    assert said_without_sqlite(program) == [SAID] * 2


def test_client_without_an_outbox_and_the_webhook_need_no_sqlite() -> None:
    program = (
        "flagsync.FlagSync('key', 'token').close(); from flagsync.cohorts import CohortWebhook, TraitWriter"
    )
    assert said_without_sqlite(program) == []


def test_missing_sqlite_is_an_import_error_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sqlite3", None)
    with pytest.raises(ImportError, match="this Python has no sqlite3 module") as raised:
        runpy.run_path(f"{flagsync._files.__file__}")
    assert raised.value.name == "sqlite3"
