"""The examples as a person runs them: each in a process of its own, warnings are errors, stderr stays empty."""

import ast
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from unicodedata import east_asian_width

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
APPS = ["django_app.py", "fastapi_app.py", "flask_app.py"]

DIFFERENT = {
    "str_on": ["'blue'", "'green'", "'blue'", "'blue'"],
    "mv_split": ["'variant_a'", "'variant_a'", "'variant_b'", "'variant_a'"],
    "mv_keyed": ["'ctl'", "'val_a'", "'val_b'", "'ctl'"],
    "seg_override": ["False", "False", "False", "'gold'"],
}
SAME = {
    "bool_on": "True",
    "bool_off": "False",
    "str_off": "False",
    "int_on": "42",
    "int_zero": "True",
    "int_off": "False",
    "bool_value_true": "True",
    "bool_value_false": "True",
    "empty_str": "True",
    "json_on": """'{"a": 1}'""",
    "long_str": "'0123456789012345…",
    "unicode_ключ": "'日本語'",
    "int_neg": "-7",
    "str_zero": "'0'",
    "str_space": "True",
    "str_false": "'false'",
    "str_float": "'1.5'",
    "Mixed Case-Name.1": "'x'",
    "server_only": "'secret'",
    "mv_off": "False",
}


def run(name: str, directory: Path) -> list[str]:
    """The lines that an example prints, started in another directory."""
    result = subprocess.run(
        # Starlette's test client prefers httpx2; with httpx it works as well, and warns.
        [sys.executable, "-W", "error", "-W", "ignore:Using `httpx`", str(EXAMPLES / name)],
        cwd=directory,
        env={**os.environ, "PYTHONUTF8": "1"},
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    assert (result.stderr, result.returncode) == ("", 0)
    return result.stdout.splitlines()


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What the quickstart prints."""
    return run("quickstart.py", tmp_path_factory.mktemp("elsewhere"))


@pytest.fixture
def table(printed: list[str]) -> list[str]:
    """The lines of its table."""
    return printed[2 : printed.index("", 2)]


def test_no_example_is_missing_here() -> None:
    assert sorted(path.name for path in EXAMPLES.glob("*.py")) == ["cohorts.py", *APPS, "quickstart.py"]


def test_the_quickstart_first_says_what_mixpanel_will_not_keep_whole(printed: list[str]) -> None:
    assert printed[:2] == ["WARNING from flagsync: Flag 'long_str': Mixpanel cuts its value to 255 bytes", ""]


def test_the_quickstart_shows_every_property_of_every_profile(table: list[str]) -> None:
    head, _, *rows = [re.split(" {2,}", line) for line in table]
    assert head == ["property", "user_1", "user_2", "user_3", "premium_user"]
    different, same = rows[: len(DIFFERENT)], rows[len(DIFFERENT) + 1 :]
    assert {name: values for name, *values in different} == DIFFERENT
    assert {name: values for name, *values in same} == {name: [value] * 4 for name, value in SAME.items()}


def test_the_quickstarts_table_is_aligned_and_fits_into_100_columns(table: list[str]) -> None:
    # A wide character and a filler stand for two columns, so that an index is a column of the terminal.
    drawn = [re.sub(".", lambda one: one[0] + "+" * (east_asian_width(one[0]) in "FW"), line) for line in table]
    starts = [[cell.start() for cell in re.finditer(r"\S+( \S+)*", line)] for line in drawn]
    assert starts == [starts[1]] * len(table)
    assert max(map(len, drawn)) <= 100


def test_the_quickstarts_cells_end_in_an_ellipsis_where_they_are_cut() -> None:
    fit = runpy.run_path(str(EXAMPLES / "quickstart.py"))["fit"]
    assert [fit("日本語", columns) for columns in (7, 6, 5, 4, 3)] == [
        "日本語 ",
        "日本語",
        "日本…",
        "日… ",
        "日…",
    ]


def test_the_quickstart_ends_with_an_unchanged_identity_that_is_not_sent_again(printed: list[str]) -> None:
    first = re.fullmatch(r"4 calls wrote 4 profiles in (\d) request\.", printed[-2])
    assert first is not None
    assert printed[-1] == f"user_1 again: 1 profile unchanged, not sent, still {first[1]} request."


def test_a_user_gets_another_flag_in_a_cohort_and_mixpanel_shows_it(tmp_path: Path) -> None:
    assert [re.split(" {2,}", line) for line in run("cohorts.py", tmp_path)] == [
        ["what happens", "user", "flag", "Mixpanel profile"],
        ["nothing yet", "ann", "None", "{'Customer tier': False}"],
        ["", "bob", "None", "{'Customer tier': False}"],
        ["webhook: add_members ann: success", "ann", "gold", "{'Customer tier': 'gold'}"],
        ["", "bob", "None", "{'Customer tier': False}"],
        ["webhook: remove_members ann: success", "ann", "None", "{'Customer tier': False}"],
        ["", "bob", "None", "{'Customer tier': False}"],
    ]


@pytest.mark.parametrize("name", APPS)
def test_an_app_answers_by_flags_and_shows_them_on_the_profiles(name: str, tmp_path: Path) -> None:
    lines = run(name, tmp_path)
    assert dict(zip(lines[::2], map(ast.literal_eval, map(str.strip, lines[1::2])), strict=True)) == {
        "GET /checkout?user=user_1&plan=premium": {"button": "blue", "tier": "gold"},
        "GET /checkout?user=user_2": {"button": "green", "tier": "standard"},
        "POST /mixpanel/cohorts": {"action": "add_members", "status": "success"},
        "Mixpanel profile user_1": {"Checkout button": "blue", "Customer tier": "gold"},
        "Mixpanel profile user_2": {"Checkout button": "green", "Customer tier": False},
    }


@pytest.mark.filterwarnings("ignore:Using `httpx`")
def test_the_fastapi_app_delivers_at_shutdown_what_nobody_flushed() -> None:
    from fastapi.testclient import TestClient  # noqa: PLC0415 - it warns, and only a test can be told to ignore that

    app = runpy.run_path(str(EXAMPLES / "fastapi_app.py"))["app"]
    with TestClient(app) as browser:
        assert browser.get("/checkout?user=user_3").json() == {"button": "blue", "tier": "standard"}
        state = browser.app_state
    assert state["client"].stats().delivered == 1
    assert state["mixpanel"].profiles == {"user_3": {"Checkout button": "blue", "Customer tier": False}}
