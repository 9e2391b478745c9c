"""What importing the package costs, and what it offers."""

import subprocess

import pytest

from flagsync import cohorts
from tests.conftest import PYTHON


def test_import_of_a_client_loads_neither_sqlite_nor_the_webhook() -> None:
    lazy = ("sqlite3", "flagsync.cohorts.webhook", "flagsync.cohorts.trait_writer")
    program = f"import sys, flagsync; print([name for name in {lazy} if name in sys.modules])"
    ended = subprocess.run([*PYTHON, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"


@pytest.mark.parametrize("name", cohorts.__all__)
def test_import_of_a_public_name_finds_it(name: str) -> None:
    assert getattr(cohorts, name).__name__ == name
    assert name in dir(cohorts)


def test_import_of_an_unknown_name_is_an_error() -> None:
    with pytest.raises(AttributeError, match=r"module 'flagsync\.cohorts' has no attribute 'RedisStore'"):
        _ = cohorts.RedisStore  # type: ignore[attr-defined]
