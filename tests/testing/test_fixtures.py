"""The fixture of pytest, in projects that have flagsync installed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

USES_FIXTURE = """
def test_fixture_is_there(mixpanel_server):
    assert mixpanel_server.url
"""
USES_NOTHING = """
import sys

def test_nothing_heavy_is_imported():
    assert not {"flagsmith", "requests", "ssl", "http.client"} & {*sys.modules}
"""


def run(folder: Path, *options: str, **variables: str) -> tuple[int, str]:
    """Run pytest in a project; return its exit status and its output."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", ".", *options]
    environment = {**os.environ, **variables}
    ended = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    return ended.returncode, ended.stdout + ended.stderr


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A monorepo whose only conftest.py is not that of the root."""
    package = tmp_path / "services" / "shop"
    package.mkdir(parents=True)
    (package / "conftest.py").write_text("")
    (package / "test_shop.py").write_text(USES_FIXTURE)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    return tmp_path


def test_fixture_needs_no_line_in_conftest(project: Path) -> None:
    status, output = run(project)
    assert status == 0, output


def test_fixture_may_be_named_as_a_plugin_in_the_conftest_of_the_root(project: Path) -> None:
    (project / "conftest.py").write_text('pytest_plugins = ["flagsync.testing"]\n')
    status, output = run(project)
    assert status == 0, output


def test_fixture_that_nobody_uses_imports_nothing_heavy(project: Path) -> None:
    (project / "services" / "shop" / "test_shop.py").write_text(USES_NOTHING)
    # Other plugins import what they like.
    status, output = run(project, "-p", "flagsync.testing", PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")
    assert status == 0, output
