"""What importing the packages costs, and what they offer."""

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import flagsync
from flagsync import cohorts, testing
from tests.conftest import PYTHON


def test_import_of_a_client_loads_no_store_and_no_webhook() -> None:
    lazy = ("sqlite3", "psycopg", "flagsync.cohorts.webhook", "flagsync.cohorts.trait_writer")
    program = (
        f"import sys; from flagsync import FlagSync; print([name for name in {lazy} if name in sys.modules])"
    )
    ended = subprocess.run([*PYTHON, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"


@pytest.mark.parametrize("name", cohorts.__all__)
def test_import_of_a_public_name_finds_it(name: str) -> None:
    assert getattr(cohorts, name).__name__ == name
    assert name in dir(cohorts)


def test_import_of_an_unknown_name_is_an_error() -> None:
    with pytest.raises(AttributeError, match=r"module 'flagsync\.cohorts' has no attribute 'RedisStore'"):
        _ = cohorts.RedisStore  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", flagsync.__all__)
def test_import_of_a_public_name_of_the_package_finds_it(name: str) -> None:
    assert getattr(flagsync, name) is not None
    assert name in dir(flagsync)


def test_import_of_the_package_finds_its_packages_and_its_version() -> None:
    program = (
        "import flagsync; print(flagsync.cohorts.__name__, flagsync.exceptions.__name__, flagsync.__version__)"
    )
    ended = subprocess.run([*PYTHON, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == ["flagsync.cohorts", "flagsync.exceptions", flagsync.__version__]


def test_import_of_the_package_has_the_version_of_the_distribution() -> None:
    assert metadata.version("flagsync") == flagsync.__version__


def test_distribution_declares_what_the_package_imports() -> None:
    source = "".join(path.read_text("utf-8") for path in Path(flagsync.__file__).parent.rglob("*.py"))
    imported = set(re.findall(r"^(?:import|from) (\w+)", source, re.MULTILINE)) - {
        *sys.stdlib_module_names,
        "flagsync",
    }
    lines = metadata.requires("flagsync") or ()
    declared = {re.split(r"\W", line)[0] for line in lines}  # opentelemetry-api has opentelemetry
    assert imported <= declared
    always = {re.split(r"\W", line)[0] for line in lines if "extra ==" not in line}
    assert always == {"flagsmith", "mixpanel", "requests"}


@pytest.mark.parametrize("name", testing.__all__)
def test_import_of_help_for_tests_finds_it(name: str) -> None:
    assert getattr(testing, name) is not None
    assert name in dir(testing)
