"""Traits written identity by identity, where Flagsmith has no bulk endpoint: its cloud, and its edge API.

Guarantee: all changes of an identity in a batch are in one request; all requests of a batch have ended when ``write``
returns. Boundary: ``flagsmith`` decides what a reply means for the batch.
"""

import json
import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

from flagsync._clock import monotonic
from flagsync._delivery.answers import Outcome, Reply, document_of, judge
from flagsync._delivery.http import Http
from flagsync.cohorts.trait_writer.service import FLAGSMITH

LAST_SECONDS = 0.1  # at least this for each request


class Singles:
    """Requests for one identity each, several at a time.

    Args:
        connections: One for each request that may be sent at the same time.

    Attributes:
        requests: How many requests were sent.
    """

    def __init__(self, connections: Sequence[Http]) -> None:
        self._connections = connections
        self.requests = 0

    def write(self, url: str, bodies: Sequence[bytes], seconds: float) -> Reply | str:
        """Write changes until one fails; return a failure, or an empty 200 if there is none."""
        singles, failures, sent = iter([*_by_identity(bodies)]), list[Reply | str](), list[None]()
        deadline = monotonic() + seconds

        def work(connection: Http) -> None:
            for body in singles:
                sent.append(None)
                left = max(deadline - monotonic(), LAST_SECONDS)
                reply = connection.request("POST", f"{url}identities/", body, left)
                if judge(FLAGSMITH, reply).outcome is not Outcome.ACCEPTED:
                    failures.append(reply)
                if failures:
                    break

        own, *others = self._connections
        threads = [
            threading.Thread(target=work, args=(http,), daemon=True) for http in others[: len(bodies) - 1]
        ]
        with suppress(RuntimeError):  # where no thread can start any more, this one does it all
            for thread in threads:
                thread.start()
        work(own)
        for thread in threads:
            if thread.ident:
                thread.join()
        self.requests += len(sent)
        unanswered = [failure for failure in failures if isinstance(failure, str)]
        return (*unanswered, *failures, Reply(HTTPStatus.OK, b""))[0]

    def has_stored(self, url: str, body: bytes, seconds: float) -> bool | None:
        """Return whether a change that was accepted can be read back; None if the answer does not tell."""
        change = json.loads(body)
        query = urlencode({"identifier": change["identity"]["identifier"]})
        self.requests += 1
        reply = self._connections[0].request("GET", f"{url}identities/?{query}", b"", seconds)
        document: Any = document_of(reply.body) if isinstance(reply, Reply) else None
        try:
            stored = {trait["trait_key"]: trait["trait_value"] for trait in document["traits"]}
        except (TypeError, LookupError):
            return None
        return bool(stored.get(change["trait_key"]) is change["trait_value"])


def _by_identity(bodies: Sequence[bytes]) -> Iterator[bytes]:
    """Yield the bodies of single requests: all changes of an identity are in one."""
    traits = defaultdict[str, list[dict[str, object]]](list)
    for change in map(json.loads, bodies):
        traits[change.pop("identity")["identifier"]].append(change)
    for identifier, those in traits.items():
        yield json.dumps({"identifier": identifier, "traits": those}).encode()
