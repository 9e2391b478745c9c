"""The examples as a person runs them: each in a process of its own, warnings are errors, stderr stays empty."""

import ast
import os
import re
import runpy
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from flagsmith import Flagsmith
from flagsmith.models import Flag
from flagsmith.offline_handlers import LocalFileHandler

EXAMPLES = Path(__file__).parents[1] / "examples"
APPS = ["django_app.py", "fastapi_app.py", "flask_app.py"]

SHOP = {
    "alice": {
        "gift_cards": ("on", "true"),
        "button_color": ('on, "green"', '"green"'),
        "free_shipping_from": ("on, 50", "50"),
        "product_page": ('on, "video" (variant video)', '"video"'),
        "express_delivery": ("off", "false"),
    },
    "bob": {
        "gift_cards": ("on", "true"),
        "button_color": ('on, "green"', '"green"'),
        "free_shipping_from": ("on, 50", "50"),
        "product_page": ('on, "gallery" (variant gallery)', '"gallery"'),
        "express_delivery": ("off", "false"),
    },
    "carol": {
        "gift_cards": ("on", "true"),
        "button_color": ('on, "green"', '"green"'),
        "free_shipping_from": ("on, 20", "20"),
        "product_page": ('on, "list" (variant control)', '"list"'),
        "express_delivery": ("off", "false"),
    },
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


def test_no_example_is_missing_here() -> None:
    assert sorted(path.name for path in EXAMPLES.glob("*.py")) == [
        "cohorts.py",
        *APPS[:1],
        "experiment.py",
        *APPS[1:],
        "quickstart.py",
    ]


def test_the_quickstart_begins_with_a_user(printed: list[str]) -> None:
    assert printed[0] == "alice, on the plan 'free'"


def test_the_quickstart_shows_what_each_user_got_and_what_mixpanel_shows(printed: list[str]) -> None:
    shown: dict[str, dict[str, tuple[str, str]]] = {}
    for line in printed[: printed.index("What next:")]:
        if match := re.fullmatch(r"(\w+), on the plan '\w+'", line):
            rows = shown[match[1]] = {}
        elif match := re.fullmatch(r"  (\w+) +(o\S.*?)  +(\S+)", line):
            rows[match[1]] = match[2], match[3]
    assert shown == SHOP


def test_the_quickstarts_columns_are_aligned_and_fit_into_100_columns(printed: list[str]) -> None:
    rows = [line for line in printed if line.startswith("  ") and re.match(r"  (flag|-+|\w+_\w+)  ", line)]
    starts = {tuple(cell.start() for cell in re.finditer(r"\S+( \S+)*", row)) for row in rows}
    assert (len(rows), len(starts)) == (3 * 7, 1)
    assert max(map(len, printed)) <= 100


def test_the_quickstart_ends_with_what_to_do_next(printed: list[str]) -> None:
    following = printed[printed.index("What next:") :]
    assert "         client = FlagSync.from_env()" in following
    assert "         python -m flagsync.testing" in following
    for name in re.findall(r"\w+_app\.py", " ".join(following)):
        assert (EXAMPLES / name).exists()


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


def test_the_experiment_has_flagsmiths_groups_and_a_result_for_each_variant(tmp_path: Path) -> None:
    printed = run("experiment.py", tmp_path)
    rows = [re.split(" {2,}", line.strip()) for line in printed]
    found = {cells[0]: cells[1:] for cells in rows if len(cells) in (5, 7) and cells[1].isdigit()}
    handler = LocalFileHandler(str(EXAMPLES / "shop.json"))
    flagsmith = Flagsmith(offline_mode=True, offline_handler=handler)
    served = [
        flagsmith.get_identity_flags(f"customer_{number}").get_flag("product_page") for number in range(2000)
    ]
    pages = Counter(flag.variant for flag in served if isinstance(flag, Flag))
    assert {name: int(found[name][0]) for name in ("control", "gallery", "video")} == pages
    assert sum(int(found[name][0]) for name in ("false", "next day")) == 2000
    for users, _, buyers, rate, *compared in found.values():
        assert rate == f"{int(buyers) / int(users):.1%}"
        if compared:
            lift, low, high = (float(number) for number in re.findall(r"[+-][\d.]+", " ".join(compared)))
            assert low < lift < high
    assert printed.count("  The sizes of the groups are as expected.") == 2
    assert printed[-1].startswith("8,000 exposures, 4,000 events in Mixpanel")


@pytest.mark.parametrize("name", APPS)
def test_an_app_answers_by_flags_and_shows_them_on_the_profiles(name: str, tmp_path: Path) -> None:
    lines = run(name, tmp_path)
    assert dict(zip(lines[::2], map(ast.literal_eval, map(str.strip, lines[1::2])), strict=True)) == {
        "GET /checkout?user=user_1&plan=premium": {"button": "blue", "tier": "gold", "layout": "ctl"},
        "GET /checkout?user=user_2": {"button": "green", "tier": "standard", "layout": "val_a"},
        "POST /mixpanel/cohorts": {"action": "add_members", "status": "success"},
        "Mixpanel profile user_1": {"Checkout button": "blue", "Customer tier": "gold"},
        "Mixpanel profile user_2": {"Checkout button": "green", "Customer tier": False},
        "Mixpanel experiments": {"mv_keyed": {"control": {"user_1"}, "val_a": {"user_2"}}},
    }


@pytest.mark.filterwarnings("ignore:Using `httpx`")
def test_the_fastapi_app_delivers_at_shutdown_what_nobody_flushed() -> None:
    from fastapi.testclient import TestClient  # noqa: PLC0415 - it warns, and only a test can be told to ignore that

    app = runpy.run_path(str(EXAMPLES / "fastapi_app.py"))["app"]
    with TestClient(app) as browser:
        page = {"button": "blue", "tier": "standard", "layout": "val_b"}
        assert browser.get("/checkout?user=user_3").json() == page
        state = browser.app_state
    assert state["client"].stats().delivered == 1
    assert state["mixpanel"].profiles == {"user_3": {"Checkout button": "blue", "Customer tier": False}}
    assert state["mixpanel"].experiments == {"mv_keyed": {"val_b": {"user_3"}}}
