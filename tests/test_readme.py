"""README.md and docs/ say what is so: options, messages, links. Their blocks are run by ``test_docs_code``."""

import json
import re

import pytest
from flagsmith import Flagsmith
from flagsmith.offline_handlers import LocalFileHandler

import flagsync as package
from flagsync import FlagSync, Stats
from flagsync._stats import ExposureStats
from flagsync.testing import MixpanelServer
from tests.support.pages import PAGES, README, REPOSITORY, ROOT, anchors, blocks, prose, rows, says, texts

TEXTS = [pieces for pieces in texts() if max(map(len, pieces)) > 2]
CONFIGURATION_ERROR = "Configuration error: "
MESSAGES = [
    (page, message.removeprefix(CONFIGURATION_ERROR))
    for page, headings in {
        "docs/troubleshooting.md": (
            "Mixpanel does not accept updates",
            "Users and flags that are left out",
            "Processes",
            "The outbox",
            "Cohorts",
        ),
        "docs/webhook-answers.md": ("What the log says",),
        "docs/stored-traits.md": ("What the log says",),
    }.items()
    for heading in headings
    for [cell, *_] in rows(page, heading)
    for message in re.findall(r"`([^`]+)`", cell)
]


def test_readme_is_one_short_page() -> None:
    assert README.count("\n") <= 150
    assert len(README.split()) <= 900


def test_readme_has_two_commands() -> None:
    assert [block.content.count("&&") for block in blocks("console", "README.md")] == [2, 2]


def test_readme_shows_a_profile_as_it_is(mixpanel: MixpanelServer) -> None:
    handler = LocalFileHandler(str(ROOT / "examples" / "shop.json"))
    with FlagSync(
        Flagsmith(offline_mode=True, offline_handler=handler), "token", mixpanel_url=mixpanel.url
    ) as client:
        client.get_identity_flags("alice")
    [picture] = blocks("text", "README.md")
    shown = re.findall(r"^ {4}(\w+) {2,}(\S+)", picture.content, re.MULTILINE)
    assert {name: json.loads(value) for name, value in shown} == mixpanel.profiles["alice"]


def test_readme_leads_to_every_page() -> None:
    assert {f"{REPOSITORY}{page}" for page in PAGES} - {*re.findall(r"\]\(([^)]+)\)", README)} == {
        f"{REPOSITORY}README.md"
    }


def test_readme_has_no_relative_links_since_they_are_dead_on_a_package_index() -> None:
    assert re.findall(r"\]\((?!https://)[^)]*\)", README) == []


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    here = (ROOT / page).parent
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(PAGES[page])):
        target, _, anchor = link.removeprefix(REPOSITORY).partition("#")
        if target.startswith("https://"):
            continue
        path = (ROOT if link.startswith(REPOSITORY) else here) / target if target else ROOT / page
        assert path.exists(), link
        if anchor:
            assert anchor in anchors(PAGES[str(path.resolve().relative_to(ROOT))]), link


@pytest.mark.parametrize("page", PAGES)
def test_page_has_one_title(page: str) -> None:
    assert len(re.findall(r"^# ", prose(PAGES[page]), re.MULTILINE)) == 1


def test_shown_stats_are_those_there_are() -> None:
    [shown] = [block.content for block in blocks("python") if block.content.startswith(">>>")]
    stats: Stats = eval(shown.splitlines()[1], {"Stats": Stats, "ExposureStats": ExposureStats})
    assert repr(stats) == shown.splitlines()[1]
    parts = (stats.delivered, stats.unchanged, stats.superseded, stats.dropped, stats.rejected, stats.pending)
    assert stats.accepted == sum(parts)


def test_every_option_is_in_the_table_with_its_default() -> None:
    [_, *table] = rows("docs/configuration.md", "Options")
    shown = {option.strip("`"): default for option, default, _ in table}
    defaults = FlagSync.__init__.__kwdefaults__ or {}
    assert [*shown] == [*defaults]
    for option, default in defaults.items():
        if not callable(default):
            assert shown[option].replace("_", "").strip("`").replace('"', "") == str(default)


def test_every_variable_is_in_the_table() -> None:
    [_, *table] = rows("docs/configuration.md", "From the environment")
    documented = re.findall(r"``((?:FLAG|MIXPANEL)\w+)", FlagSync.from_env.__doc__ or "")
    assert {row[0].strip("`") for row in table} == {*documented}


@pytest.mark.parametrize(("page", "message"), MESSAGES)
def test_messages_are_those_of_the_code(page: str, message: str) -> None:
    assert any(says(pieces, message) for pieces in TEXTS), f"{page}: {message}"


def test_every_public_name_is_documented() -> None:
    public = [getattr(package, name) for name in package.__all__ if name != "PropertyValue"]
    members = [getattr(FlagSync, name) for name in vars(FlagSync) if not name.startswith("_")]
    assert [item for item in (*public, *members) if not item.__doc__] == []


@pytest.mark.parametrize("page", PAGES)
def test_no_code_has_a_key_or_token_that_would_be_copied(page: str) -> None:
    code = "".join(block.content for block in blocks("python", page))
    assert re.findall(r"""["'](?:ser\.|mixpanel-project-token)[^"']*["']""", code) == []
