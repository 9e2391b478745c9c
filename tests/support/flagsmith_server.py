"""A loopback Flagsmith that stores traits, with the faults of the loopback Mixpanel."""

import json
from time import sleep
from typing import Any

from flagsync.testing import MixpanelServer, Request

KEY = "ser.key"


class FlagsmithServer(MixpanelServer):
    """Takes traits in bulk, as a self-hosted Flagsmith does, or only by identity, as the cloud.

    Attributes:
        api_url: For ``Flagsmith``.
        traits: (identifier, trait key) -> value.
        history: Every trait that was written, the oldest first.
        document: The environment document.
        refused: identifier -> the status that a request with it gets.
        bulk: Whether there is a bulk endpoint.
        trait_seconds: How long each trait takes.
    """

    def __init__(self) -> None:
        self.traits: dict[tuple[str, str], Any] = {}
        self.history: list[tuple[str, str, Any]] = []
        self.document: dict[str, Any] = {}
        self.refused: dict[str, int] = {}
        self.bulk = True
        self.trait_seconds = 0.0
        super().__init__()
        self.api_url = f"{self.url}/api/v1/"

    def _answer(self, request: Request) -> tuple[int, bytes]:
        if request.headers.get("X-Environment-Key") != KEY:
            return 403, b'{"detail": "Invalid or missing Environment Key"}'
        match request.method, request.path:
            case "GET", "/api/v1/environment-document/":
                return 200, json.dumps(self.document).encode()
            case "PUT", "/api/v1/traits/bulk/" if self.bulk:
                traits = [(t["identity"]["identifier"], t) for t in json.loads(request.body)]
            case "POST", "/api/v1/identities/":
                identity = json.loads(request.body)
                traits = [(identity["identifier"], trait) for trait in identity["traits"]]
            case _:
                return 404, b"Not found"
        for identifier, _ in traits:
            if identifier in self.refused:
                return self.refused[identifier], b'{"identifier": ["is refused"]}'
        sleep(self.trait_seconds * len(traits))
        for identifier, trait in traits:
            self.traits[identifier, trait["trait_key"]] = trait["trait_value"]
            self.history.append((identifier, trait["trait_key"], trait["trait_value"]))
        return 200, b"{}"
