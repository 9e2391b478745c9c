"""The commands of flagsync in docs/ are run as they stand."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flagsync._cli.doctor.command import CHECKS
from flagsync.testing import MixpanelServer
from tests.support.command_line import ENTRY, profile, store
from tests.support.evaluating_flagsmith import EvaluatingFlagsmith
from tests.support.flagsmith_server import KEY
from tests.support.pages import Block, blocks, rows

COMMANDS = [block for block in blocks("sh") if block.content.startswith(("flagsync ", "psql "))]
PROGRAMS = {
    "flagsync": f"exec '{sys.executable}' -c '{ENTRY}' \"$@\"",
    "psql": "printf 'id,plan\\nuser_43,pro\\n'",
}


@pytest.mark.parametrize("block", COMMANDS, ids=str)
def test_commands_of_flagsync_run(
    block: Block, document: dict[str, Any], mixpanel: MixpanelServer, tmp_path: Path
) -> None:
    (tmp_path / "environment.json").write_text(json.dumps(document), "utf-8")
    store(tmp_path / "flagsync.db", profile("user_42", mixpanel.url))
    (tmp_path / "users.csv").write_text("identifier,age\nuser_43,30\n", "utf-8")
    for name, text in PROGRAMS.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n", "utf-8")
        (tmp_path / name).chmod(0o700)
    with EvaluatingFlagsmith(document) as flagsmith:
        variables = {
            **{
                name: value
                for name, value in os.environ.items()
                if not name.startswith(("FLAGSYNC_", "MIXPANEL_"))
            },
            "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
            "FLAGSMITH_API_URL": flagsmith.api_url,
            "FLAGSMITH_ENVIRONMENT_KEY": KEY,
            "MIXPANEL_URL": mixpanel.url,
            "MIXPANEL_TOKEN": "token",
        }
        command = ["bash", "-euc", block.content]
        ended = subprocess.run(
            command, cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=60, check=False
        )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ("drain" in block.content) == ("user_42" in mixpanel.profiles)
    assert ("backfill" in block.content) == bool(mixpanel.profiles.get("user_43"))


def test_page_names_every_check() -> None:
    _, *named = [cell.strip("`") for cell, *_ in rows("docs/commands.md", "Check a configuration")]
    assert named == [NAMES.get(function.__name__, function.__name__) for function in CHECKS]


NAMES = {
    "key": "flagsmith_key",
    "document": "environment_document",
    "host": "mixpanel_host",
    "token": "mixpanel_token",
}
