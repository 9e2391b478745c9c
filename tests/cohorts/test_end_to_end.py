"""The loop closes: a cohort in Mixpanel decides which flag a user gets, which Mixpanel then shows."""

import json
import subprocess
from base64 import b64encode
from collections.abc import Callable
from typing import Any
from urllib.request import Request, urlopen

from flagsync.testing import MixpanelServer
from tests.support.flagsmith_server import FlagsmithServer

AUTHORIZATION = f"Basic {b64encode(b'mixpanel:secret').decode()}"


def port_of(webhook: subprocess.Popen[str]) -> str:
    assert webhook.stdout
    return webhook.stdout.readline().strip()


def say(process: subprocess.Popen[str], line: str) -> str:
    assert process.stdin
    assert process.stdout
    process.stdin.write(f"{line}\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


def call(port: str, action: str, *members: str) -> dict[str, Any]:
    """Call the webhook as Mixpanel does."""
    parameters = {
        "mixpanel_project_id": "1",
        "mixpanel_cohort_id": "42",
        "mixpanel_cohort_name": "VIPs",
        "mixpanel_session_id": "a-session",
        "page_info": {"total_pages": 1, "page_count": 1},
        "members": [{"mixpanel_distinct_id": member} for member in members],
    }
    body = json.dumps({"action": action, "parameters": parameters}).encode()
    headers = {"Authorization": AUTHORIZATION, "Content-Type": "application/json"}
    with urlopen(Request(f"http://127.0.0.1:{port}/", body, headers)) as answer:
        reply: dict[str, Any] = json.load(answer)
    return reply


def test_cohort_decides_which_flag_a_user_gets_and_mixpanel_shows_it(
    start: Callable[..., subprocess.Popen[str]],
    mixpanel: MixpanelServer,
    document: dict[str, Any],
    place: str,
) -> None:
    [segment] = document["project"]["segments"]
    condition = {"operator": "EQUAL", "property_": "mixpanel_cohort_vips", "value": "true"}
    segment["rules"][0]["rules"][0]["conditions"] = [condition]
    states = document["feature_states"]
    document["feature_states"] = [state for state in states if state["feature"]["name"] == "seg_override"]
    ports = [port_of(start("webhook.py", place)) for _ in range(2)]  # processes of a host, or hosts
    with FlagsmithServer() as flagsmith:
        flagsmith.document = document
        application = start("evaluating.py", flagsmith.api_url, place)
        assert say(application, "ann") == "None"
        assert mixpanel.profiles["ann"]["seg_override"] is False
        changes = ("add_members", "gold", "gold"), ("remove_members", "None", False)
        for port, (action, value, shown) in zip(ports, changes, strict=True):
            assert call(port, action, "ann") == {"action": action, "status": "success"}
            assert any(say(application, "ann") == value for _ in range(10_000))  # a second later at most
            assert mixpanel.profiles["ann"]["seg_override"] == shown
        assert say(application, "bob") == "None"
        _, errors = application.communicate()
    assert (application.returncode, errors) == (0, "")
    assert {request.path for request in flagsmith.requests} == {"/api/v1/environment-document/"}
