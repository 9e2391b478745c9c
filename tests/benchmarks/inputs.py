"""What the benchmarks evaluate: environments of any size, in the shape that a Flagsmith server recorded."""

import json
from pathlib import Path
from typing import Any, cast

from flagsmith import Flagsmith
from flagsmith.api.types import EnvironmentModel
from flagsmith.models import Flags
from mixpanel import BufferedConsumer, Mixpanel

RECORDED = Path(__file__).parent.parent / "data" / "environment-document.json"
VALUES = (None, None, True, "blue-button", 42, None, "variant-b", "#00aa88", None)
SEGMENTS = 5


def local_client(features: int) -> Flagsmith:
    """A client that evaluates without network; offline mode takes the path of local evaluation."""
    return Flagsmith(offline_mode=True, offline_handler=_Handler(features))


def remote_flags(number: int, features: int = 50) -> Flags:
    """Evaluated flags, different for each number, as an answer of the remote API gives them."""
    states = [_state(index, number) for index in range(features)]
    return Flags.from_api_flags(states, None, None)


def properties_of(flags: Flags) -> dict[str, Any]:
    """What somebody without flagsync would write: every flag, with the value that Flagsmith's server sends."""
    return {
        flag.feature_name: flag.value if flag.enabled and flag.value else flag.enabled
        for flag in flags.all_flags()
    }


def buffered(url: str) -> tuple[Mixpanel, BufferedConsumer]:
    """The Mixpanel SDK with the consumer that batches."""
    consumer = BufferedConsumer(people_url=f"{url}/engage")
    return Mixpanel("token", consumer=consumer), consumer


class _Handler:
    def __init__(self, features: int) -> None:
        self._document = json.loads(RECORDED.read_text())
        self._document.update(identity_overrides=[], feature_states=[_state(index) for index in range(features)])
        (recorded,) = self._document["project"]["segments"]
        self._document["project"]["segments"] = [
            {**recorded, "id": number, "name": f"segment-{number}", "feature_states": [_override(number)]}
            for number in range(1, SEGMENTS + 1)
        ]

    def get_environment(self) -> EnvironmentModel:
        return cast("EnvironmentModel", self._document)


def _state(index: int, number: int = 0) -> dict[str, Any]:
    """The state of a feature: every fourth disabled, which ones depends on ``number``; every tenth multivariate."""
    multivariate = index % 10 == 9  # noqa: PLR2004
    return {
        "feature": {
            "id": index + 1,
            "name": f"my_feature_{index}",
            "type": "MULTIVARIATE" if multivariate else "STANDARD",
        },
        "enabled": (index + number) % 4 > 0,
        "django_id": index + 1,
        "feature_segment": None,
        "featurestate_uuid": f"00000000-0000-0000-0000-{index:012}",
        "feature_state_value": "control" if multivariate else VALUES[index % 10],
        "multivariate_feature_state_values": [_variant(index, letter) for letter in "ab" if multivariate],
    }


def _override(segment: int) -> dict[str, Any]:
    return {**_state(segment), "feature_segment": {"priority": segment}, "feature_state_value": "gold"}


def _variant(index: int, letter: str) -> dict[str, Any]:
    number = 2 * index + (letter == "b")
    return {
        "multivariate_feature_option": {"value": f"variant_{letter}", "id": number, "key": letter},
        "percentage_allocation": 30.0,
        "id": number,
        "mv_fs_value_uuid": f"00000000-0000-0000-0001-{number:012}",
    }
