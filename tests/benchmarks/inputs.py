"""What is evaluated and sent: a recorded environment, repeated to any number of features."""

import json
from pathlib import Path
from typing import Any

from flagsmith import Flagsmith
from flagsmith.models import Flags
from flagsmith.offline_handlers import LocalFileHandler
from mixpanel import BufferedConsumer, Mixpanel

RECORDED = str(Path(__file__).parent.parent / "data" / "environment-document.json")
IDENTITIES = [f"user-{number}" for number in range(20_000)]
SEGMENTS = 5


def local_client(features: int) -> Flagsmith:
    """A client that evaluates without network; offline mode takes the path of local evaluation."""
    handler = LocalFileHandler(RECORDED)
    document: Any = handler.environment_document
    (segment,), states = document["project"]["segments"], _states(features)
    overrides = [{**segment["feature_states"][0], "feature": state["feature"]} for state in states[:SEGMENTS]]
    document.update(feature_states=states, identity_overrides=[])
    document["project"]["segments"] = [
        {**segment, "id": number, "feature_states": [override]} for number, override in enumerate(overrides, 1)
    ]
    return Flagsmith(offline_mode=True, offline_handler=handler)


def environment_client(constant: int, multivariate: int, overridden: int) -> Flagsmith:
    """A client with features that are the same for everybody, have variants, and are overridden by a segment each."""
    handler = LocalFileHandler(RECORDED)
    document: Any = handler.environment_document
    count = constant + multivariate + overridden
    states = [{**state, "multivariate_feature_state_values": []} for state in _states(count)]
    for state in states[constant : constant + multivariate]:
        state["multivariate_feature_state_values"] = [_variant(number) for number in (1, 2, 3)]
    conditions = [
        {"property_": "plan", "operator": "IN", "value": "pro,gold"},
        {"property_": "age", "operator": "GREATER_THAN", "value": "40"},
    ]
    rules = [
        {"type": "ALL", "rules": [{"type": "ANY", "conditions": conditions, "rules": []}], "conditions": []}
    ]
    document["project"]["segments"] = [
        {
            "id": number,
            "name": f"segment {number}",
            "rules": rules,
            "feature_states": [{**state, "enabled": not state["enabled"]}],
        }
        for number, state in enumerate(states[constant + multivariate :], 1)
    ]
    document.update(feature_states=states, identity_overrides=[])
    return Flagsmith(offline_mode=True, offline_handler=handler)


def _variant(number: int) -> dict[str, Any]:
    option = {"value": f"variant {number}", "key": f"variant-{number}"}
    return {"id": number, "percentage_allocation": 25.0, "multivariate_feature_option": option}


def remote_flags(number: int, features: int = 50) -> Flags:
    """Flags as an answer of the remote API gives them, a quarter of them disabled: ``number`` says which."""
    states = [{**state, "enabled": (i + number) % 4 > 0} for i, state in enumerate(_states(features))]
    return Flags.from_api_flags(states, None, None)


def properties_of(flags: Flags) -> dict[str, Any]:
    """What somebody without flagsync would write."""
    return {
        flag.feature_name: flag.value if flag.enabled and flag.value else flag.enabled
        for flag in flags.all_flags()
    }


def buffered(url: str) -> tuple[Mixpanel, BufferedConsumer]:
    """The Mixpanel SDK with its consumer that batches."""
    consumer = BufferedConsumer(people_url=f"{url}/engage")
    return Mixpanel("token", consumer=consumer), consumer


def _states(features: int) -> list[dict[str, Any]]:
    """The recorded states of features over and over, each time as other features."""
    states = []
    for number in range(1, features + 1):
        state = STATES[number % len(STATES)]
        feature = {**state["feature"], "id": number, "name": f"{state['feature']['name']}_{number}"}
        states.append({**state, "feature": feature, "django_id": number})
    return states


STATES = [
    state
    for state in json.loads(Path(RECORDED).read_text())["feature_states"]
    if len(str(state["feature_state_value"])) < 255  # what Mixpanel would cut is logged
]
