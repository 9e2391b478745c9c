"""The README's promises that can be run."""

import re
from pathlib import Path
from typing import Any

import pytest
from flagsmith import Flagsmith

import flagsync as package
from flagsync import FlagSync, Stats, cohorts
from flagsync._options import PLACEHOLDER_TOKEN
from flagsync.testing import MixpanelServer

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def test_the_first_screen_has_two_commands() -> None:
    assert [command.count("&&") for command in blocks("console")] == [2, 2]
    assert README.index(blocks("console")[1]) < README.index("## ")


@pytest.mark.parametrize("code", [block for block in blocks("python") if not block.startswith(">>>")])
def test_the_examples_run(
    code: str,
    offline: Flagsmith,
    mixpanel_server: MixpanelServer,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)  # for the files they make

    class User:
        id, traits = "user_42", {"plan": "pro"}

    def build(flagsmith: Flagsmith, token: str, **options: Any) -> FlagSync:
        token = "token" if token == PLACEHOLDER_TOKEN else token
        return FlagSync(flagsmith, token, **{"mixpanel_url": mixpanel_server.url, **options})

    assert cohorts.TraitWriter.__doc__  # it looks at Flagsmith's class when it is imported
    monkeypatch.setattr("flagsmith.Flagsmith", lambda **_: offline)
    monkeypatch.setattr(package, "FlagSync", build)
    names: dict[str, Any] = {"FlagSync": build, "flagsmith": offline, "token": "token", "users": [User]}
    names["client"] = client = build(offline, "token")
    exec(code, names)
    if handler := names.get("handler"):
        handler({"user_id": "user_42"}, None)
    for name, test in list(names.items()):
        if name.startswith("test_"):
            test(mixpanel_server)
    if writer := names.get("writer"):
        writer.close()
    for built in {client, names["client"]}:
        built.get_identity_flags("user_43")
        assert built.close()
    assert "user_43" in mixpanel_server.profiles


def test_the_stats_shown_are_those_there_are() -> None:
    [shown] = [block for block in blocks("python") if block.startswith(">>>")]
    stats: Stats = eval(shown.splitlines()[1], {"Stats": Stats})
    assert repr(stats) == shown.splitlines()[1]
    parts = (stats.delivered, stats.unchanged, stats.superseded, stats.dropped, stats.rejected, stats.pending)
    assert stats.accepted == sum(parts)


def test_every_option_is_in_the_table_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]*) \|", README, re.MULTILINE))
    defaults = FlagSync.__init__.__kwdefaults__ or {}
    assert [*rows] == [*defaults]
    for option, default in defaults.items():
        if not callable(default):
            assert rows[option].replace("_", "").strip("`").replace('"', "") == str(default)


def test_every_link_inside_the_project_leads_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", README):
        assert (ROOT / target).exists(), target
    headings = {
        re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-")
        for heading in re.findall(r"^#+ (.+)$", README, re.MULTILINE)
    }
    assert set(re.findall(r"\]\(#([^)]+)\)", README)) <= headings


def test_every_public_name_is_documented() -> None:
    public = [getattr(package, name) for name in package.__all__ if name != "PropertyValue"]
    members = [getattr(FlagSync, name) for name in vars(FlagSync) if not name.startswith("_")]
    assert [item for item in (*public, *members) if not item.__doc__] == []
