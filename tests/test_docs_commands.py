# mypy: disable-error-code="import-untyped"
# gunicorn and PyYAML are not typed.
"""Every block of README.md and docs/ that is not Python is checked, as far as it can be without the network."""

import configparser
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from flagsmith.flagsmith import DEFAULT_API_URL

from tests.benchmarks.__main__ import GROUPS
from tests.support.pages import PAGES, ROOT, Block, blocks

LANGUAGES = ("python", "console", "sh", "ini", "yaml", "dockerfile", "text")


def test_every_block_says_its_language_and_is_run_or_checked() -> None:
    assert sum(text.count("\n```") for text in PAGES.values()) == 2 * len(blocks())
    assert {block.language for block in blocks()} <= {*LANGUAGES}


@pytest.mark.parametrize("block", blocks("sh|console"), ids=str)
def test_shell_commands_name_what_there_is(block: Block) -> None:
    subprocess.run(["bash", "-n"], input=block.content, text=True, check=True, timeout=60)
    commands = [shlex.split(part) for line in block.content.splitlines() for part in line.split("&&")]
    assert [command for command in commands if not is_known(command)] == []


def is_known(command: list[str]) -> bool:
    """Return whether a command can work, as far as it can be told without the network."""
    match [command[0].removeprefix(".venv/bin/").replace("python3", "python"), *command[1:]]:
        case (
            ["python", "-m", "venv", ".venv"]
            | ["python", "-m", "pytest"]
            | ["export", "FLAGSYNC_ENABLED=false"]
            | ["export", "FLAGSMITH_LOCAL_EVALUATION=true"]
        ):
            return True
        case ["pip", "install", "flagsync" | "flagsync[cli]" | "." | ".[test]"]:
            return True
        case ["flagsync", *_] | ["psql", *_]:
            return True  # tests/cli/test_docs.py runs them
        case ["python", "-m", "flagsync.testing", *options]:
            shown = subprocess.run(
                [sys.executable, "-m", "flagsync.testing", "--help"],
                capture_output=True,
                text=True,
                timeout=60,
                check=True,
            ).stdout
            return all(option in shown for option in options if option.startswith("--"))
        case ["python", "-m", "tests.benchmarks", *groups]:
            return {*groups} <= {*GROUPS}
        case ["python", "-c", code]:
            return (
                subprocess.run([sys.executable, "-c", code], timeout=60, check=False, stdout=-3).returncode == 0
            )
        case ["python", script]:
            return (ROOT / script).exists()
        case ["curl", *_, url]:
            return url == f"{DEFAULT_API_URL}environment-document/"
    return False


def test_measurements_are_those_of_the_benchmarks() -> None:
    named = re.findall(r"\| `(\w+)` \|$", PAGES["docs/measurements.md"], re.MULTILINE)
    assert {*named} == {*GROUPS}


@pytest.mark.parametrize("block", blocks("ini"), ids=str)
def test_ini_is_a_section_for_uwsgi(block: Block) -> None:
    parser = configparser.ConfigParser()
    parser.read_string(block.content)
    assert parser.sections() == ["uwsgi"]


@pytest.mark.parametrize("block", blocks("yaml"), ids=str)
def test_manifest_mounts_the_directory_of_the_outbox_and_gives_time_to_end(block: Block) -> None:
    from gunicorn.config import Config  # noqa: PLC0415

    manifest = yaml.safe_load(block.content)
    pod = manifest["spec"]["template"]["spec"]
    [container] = pod["containers"]
    variables = {variable["name"]: variable["value"] for variable in container["env"]}
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    claims = {claim["metadata"]["name"] for claim in manifest["spec"]["volumeClaimTemplates"]}
    assert mounts[str(Path(variables["OUTBOX"]).parent)] in claims
    assert manifest["spec"]["selector"]["matchLabels"] == manifest["spec"]["template"]["metadata"]["labels"]
    assert pod["terminationGracePeriodSeconds"] > Config().settings["graceful_timeout"].get()


@pytest.mark.parametrize("block", blocks("dockerfile"), ids=str)
def test_dockerfile_starts_the_server_without_a_shell(block: Block) -> None:
    instructions = dict(line.split(" ", 1) for line in block.content.splitlines())
    assert {*instructions} <= {"FROM", "RUN", "COPY", "USER", "CMD"}
    assert json.loads(instructions["CMD"])[0] == "gunicorn"
