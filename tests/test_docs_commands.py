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
from typing import Any

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
        case ["pip", "install", name] if re.fullmatch(r"flagsync(\[\w+\])?|\.(\[test\])?", name):
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


MANIFESTS = [
    (block, manifest) for block in blocks("yaml") if "kind" in (manifest := yaml.safe_load(block.content))
]


@pytest.mark.parametrize(
    "manifest", [manifest for _, manifest in MANIFESTS], ids=[str(block) for block, _ in MANIFESTS]
)
def test_manifest_gives_time_to_end_and_an_outbox_that_outlives_the_pod(manifest: dict[str, Any]) -> None:
    from gunicorn.config import Config  # noqa: PLC0415

    spec = manifest["spec"]
    pod = spec["template"]["spec"]
    [container] = pod["containers"]
    variables = {variable["name"]: variable["value"] for variable in container["env"]}
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    claims = {claim["metadata"]["name"] for claim in spec.get("volumeClaimTemplates", ())}
    is_on_server = "://" in variables["FLAGSYNC_OUTBOX"]
    assert is_on_server or mounts[str(Path(variables["FLAGSYNC_OUTBOX"]).parent)] in claims
    assert manifest["kind"] == ("Deployment" if is_on_server else "StatefulSet")
    assert {*mounts.values()} == claims | {volume["name"] for volume in pod["volumes"]}
    assert spec["selector"]["matchLabels"] == spec["template"]["metadata"]["labels"]
    assert pod["terminationGracePeriodSeconds"] > Config().settings["graceful_timeout"].get()


def test_compose_file_gives_time_to_end_and_keeps_what_redis_holds() -> None:
    [services] = [
        file["services"] for block in blocks("yaml") if "services" in (file := yaml.safe_load(block.content))
    ]
    assert services["shop"]["environment"]["FLAGSYNC_OUTBOX"].startswith(
        f"redis://{services['shop']['depends_on'][0]}:"
    )
    assert int(services["shop"]["stop_grace_period"].removesuffix("s")) > 30
    assert "--appendonly yes" in services["redis"]["command"]
    assert services["redis"]["volumes"] == ["redis:/data"]


@pytest.mark.parametrize("block", blocks("dockerfile"), ids=str)
def test_dockerfile_starts_the_server_without_a_shell(block: Block) -> None:
    instructions = dict(line.split(" ", 1) for line in block.content.splitlines())
    assert {*instructions} <= {"FROM", "RUN", "COPY", "USER", "CMD"}
    assert json.loads(instructions["CMD"])[0] == "gunicorn"
