"""A loopback Flagsmith that stores traits, as a real server 2.265 with PostgreSQL was measured to do.

It has the faults of the loopback Mixpanel, and those of its own: it works on after its client has given up, and takes
its time for each trait, on a clock that stands still meanwhile.
"""

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, urlsplit

from flagsync.testing import MixpanelServer, Request

KEY, OTHER_KEY, CLIENT_KEY = "ser.key", "ser.other", "client-side-key"
MAX_IDENTIFIER_BYTES = 2688  # beyond, PostgreSQL's index refuses it
GATEWAY_SECONDS = 30.0  # how long what stands before the server waits for it

Traits = dict[tuple[str, str], Any]
Change = tuple[str, str, Any]


class Clock:
    """Tells the seconds, which pass by ``sleep`` only."""

    def __init__(self) -> None:
        self._seconds, self._lock = 1000.0, threading.Lock()

    def __call__(self) -> float:
        return self._seconds

    def sleep(self, seconds: float) -> None:
        with self._lock:
            self._seconds += seconds


@dataclass
class StoredEnvironment:
    """What an environment stores.

    Attributes:
        traits: (identifier, trait key) -> value.
        history: Every trait that was written, the oldest first.
        persists_traits: Whether its organisation has ``persist_trait_data``.
        allows_client_traits: Whether traits may be set with a client-side key.
    """

    traits: Traits = field(default_factory=dict)
    history: list[Change] = field(default_factory=list)
    persists_traits: bool = True
    allows_client_traits: bool = True

    def write(self, changes: list[Change]) -> None:
        for identifier, trait_key, value in changes:
            self.traits[identifier, trait_key] = value
        self.history += changes


class FlagsmithServer(MixpanelServer):
    """Takes traits in bulk, as a self-hosted Flagsmith does, or only by identity, as the cloud.

    Args:
        sleep: How time passes.

    Attributes:
        api_url: For ``Flagsmith``.
        clock: Tells the seconds.
        environments: By key; the client-side key is of the same one as ``KEY``.
        document: The environment document.
        refused: identifier -> the status that a request with it gets.
        bulk: Whether there is a bulk endpoint.
        trait_seconds: How long each trait takes.
        fails: Whether a request that writes gets a 500; called once for each.
    """

    def __init__(self, sleep: Callable[[float], None] | None = None) -> None:
        self.clock = Clock()
        self._sleep = sleep or self.clock.sleep
        own = StoredEnvironment()
        self.environments = {KEY: own, CLIENT_KEY: own, OTHER_KEY: StoredEnvironment()}
        self.document: dict[str, Any] = {}
        self.refused: Mapping[str, int] = {}
        self.bulk = True
        self.trait_seconds = 0.0
        self.fails: Callable[[], bool] = lambda: False
        self._held, self._holds, self._is_silent = list[Callable[[], None]](), 0.0, False
        super().__init__()
        self.api_url = f"{self.url}/api/v1/"

    @property
    def traits(self) -> Traits:
        """What the environment of ``KEY`` stores."""
        return self.environments[KEY].traits

    @property
    def history(self) -> list[Change]:
        """What was written to the environment of ``KEY``."""
        return self.environments[KEY].history

    def hold(self, times: float = 1, *, is_silent: bool = False) -> None:
        """Give the next requests that write no answer, or that of a gateway, and work on them until ``finish``."""
        self._holds, self._is_silent = times, is_silent

    def finish(self) -> int:
        """Store what was in requests without an answer; return how many there were."""
        self._holds, held, self._held = 0, self._held, []
        for write in held:
            write()
        return len(held)

    def backup(self) -> Traits:
        """Return what the environment of ``KEY`` stores now, for ``restore``."""
        return self.traits.copy()

    def restore(self, backup: Traits) -> None:
        """Store what was there before, and nothing else."""
        self.environments[KEY].traits = backup.copy()

    def _answer(self, request: Request) -> tuple[int, bytes]:
        key = request.headers.get("X-Environment-Key", "")
        if (environment := self.environments.get(key)) is None:
            return 403, b'{"detail": "Invalid or missing Environment Key"}'
        where = urlsplit(request.path)
        match request.method, where.path:
            case "GET", "/api/v1/environment-document/":
                return 200, json.dumps(self.document).encode()
            case "GET", "/api/v1/identities/":
                return 200, _identity(environment, parse_qs(where.query)["identifier"][0])
            case "PUT", "/api/v1/traits/bulk/" if self.bulk:
                if not environment.persists_traits:
                    return 403, b'{"detail": "Organisation is not authorised\\n to store traits."}'
                traits = [(trait["identity"]["identifier"], trait) for trait in json.loads(request.body)]
            case "POST", "/api/v1/identities/":
                identity = json.loads(request.body)
                traits = [(identity["identifier"], trait) for trait in identity["traits"]]
                if not _stores(environment, key):
                    return 200, b'{"traits": [], "flags": []}'
            case _:
                return 404, b"Not found"
        changes = [(who, trait["trait_key"], trait["trait_value"]) for who, trait in traits]
        return self._write(environment, changes)

    def _write(self, environment: StoredEnvironment, changes: list[Change]) -> tuple[int, bytes]:
        statuses = [self.refused[who] for who, _, _ in changes if who in self.refused]
        if self.fails() or any(len(who.encode()) > MAX_IDENTIFIER_BYTES for who, _, _ in changes):
            statuses = [HTTPStatus.INTERNAL_SERVER_ERROR]
        if statuses:
            return statuses[0], b'{"identifier": ["is refused"]}'
        seconds = self.trait_seconds * len(changes)
        self._sleep(min(seconds, GATEWAY_SECONDS))
        if self._holds < 1 and seconds <= GATEWAY_SECONDS:
            environment.write(changes)
            return 200, b"{}"
        self._holds -= 1
        self._held.append(lambda: environment.write(changes))
        if self._is_silent:
            self._ending.wait()
        return HTTPStatus.GATEWAY_TIMEOUT, b""


def _stores(environment: StoredEnvironment, key: str) -> bool:
    is_allowed = environment.allows_client_traits or key.startswith("ser.")
    return environment.persists_traits and is_allowed


def _identity(environment: StoredEnvironment, identifier: str) -> bytes:
    traits = [
        {"trait_key": trait_key, "trait_value": value}
        for (who, trait_key), value in environment.traits.items()
        if who == identifier
    ]
    return json.dumps({"flags": [], "traits": traits}).encode()
