"""Flagsmith's API for stored traits, and what it answers.

Guarantee: ``FlagsmithTraits.post`` raises nothing and ends within its time. Boundary: what to do about an answer is
decided by the sender.
"""

import json
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from time import monotonic

from flagsync._delivery.answers import Answer, Outcome, Reply, Service, judge
from flagsync._delivery.http import Http
from flagsync.cohorts.store import TraitChange

GATEWAYS = (HTTPStatus.BAD_GATEWAY, HTTPStatus.GATEWAY_TIMEOUT)
NO_BULK = (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.GONE, HTTPStatus.NOT_IMPLEMENTED)
LAST_SECONDS = 0.1  # a request gets so much at least


@dataclass(frozen=True, slots=True, kw_only=True)
class Batches:
    """How many traits are written at once.

    Attributes:
        max_bulk: Changes in one bulk request. A self-hosted Flagsmith 2.265 takes 3 ms for each, whatever their
            number.
        no_bulk_seconds: A server without the bulk endpoint is asked for it again after this time.
        max_singles: Changes at a time where there is no bulk endpoint.
        concurrent_singles: Requests in flight at the same time where there is no bulk endpoint.
    """

    max_bulk: int = 5000
    no_bulk_seconds: float = 600.0
    max_singles: int = 200
    concurrent_singles: int = 8


def read_body(body: bytes) -> tuple[Outcome, str]:
    """Return what the body of a successful answer means: a page for people is no answer of the API."""
    if body.lstrip().startswith(b"<"):
        return Outcome.MISCONFIGURED, ", not an answer of Flagsmith"
    return Outcome.ACCEPTED, ""


FLAGSMITH = Service(
    name="Flagsmith",
    content="traits",
    successes=range(200, 300),
    read_body=read_body,
    # A 500 may be about the data: values that Flagsmith's database cannot hold get one.
    refused=frozenset({400, 413, 422, 500}),
    remedy="the environment key and api_url",
)


def as_json(change: TraitChange) -> bytes:
    """Return a change as the bulk endpoint takes it."""
    identity = {"identifier": change.identifier}
    document = {"identity": identity, "trait_key": change.trait_key, "trait_value": change.value}
    return json.dumps(document).encode()


class FlagsmithTraits:
    """Writes traits: in bulk where the server can (self-hosted), else identity by identity. For one thread.

    Args:
        headers: Those of a Flagsmith client, with its key.
        proxies: Those of a Flagsmith client.
        batches: How many traits are written at once.

    Attributes:
        is_unsure: Whether the server may still be working on the last request, which got no answer of Flagsmith.
        requests: How many requests were sent.
    """

    def __init__(
        self, headers: Mapping[str, str], proxies: Mapping[str, str], batches: Batches = Batches()
    ) -> None:
        headers = {**headers, "Content-Type": "application/json"}
        self._connections = [Http(headers, proxies) for _ in range(batches.concurrent_singles)]
        self._batches, self._bulk_from = batches, 0.0
        self._failures = _FailuresAlone()
        self.is_unsure = False
        self.requests = 0

    @property
    def suspects(self) -> frozenset[bytes]:
        """Changes that the server failed on when each was sent alone; they may be bad, or the server is."""
        return self._failures.suspects

    @property
    def max_batch(self) -> int:
        """How many changes may come at once."""
        return self._batches.max_bulk if monotonic() >= self._bulk_from else self._batches.max_singles

    def post(self, url: str, bodies: Sequence[bytes], seconds: float) -> Answer:
        """Write changes, each as ``as_json`` has it; within about ``seconds``, return what became of them."""
        if len(bodies) > self.max_batch:
            return Answer(Outcome.REFUSED)  # to come back in halves
        if monotonic() < self._bulk_from:
            return self._judge(self._post_singles(f"{url}identities/", bodies, monotonic() + seconds), bodies)
        self.requests += 1
        reply = self._connections[0].request("PUT", f"{url}traits/bulk/", b"[%b]" % b",".join(bodies), seconds)
        if isinstance(reply, Reply) and reply.status in NO_BULK:
            self._bulk_from = monotonic() + self._batches.no_bulk_seconds
            return self.post(url, bodies, seconds)
        return self._judge(reply, bodies)

    def close(self) -> None:
        """Close the connections."""
        for connection in self._connections:
            connection.close()

    def _post_singles(self, url: str, bodies: Sequence[bytes], deadline: float) -> Reply | str:
        """Write identity by identity, some at a time, until one fails; return a failure, if there is one."""
        singles, failures = iter([*_by_identity(bodies)]), list[Reply | str]()

        def work(connection: Http) -> None:
            for body in singles:
                reply = connection.request("POST", url, body, max(deadline - monotonic(), LAST_SECONDS))
                self.requests += 1
                if judge(FLAGSMITH, reply).outcome is not Outcome.ACCEPTED:
                    failures.append(reply)
                if failures:
                    break

        own, *others = self._connections
        threads = [threading.Thread(target=work, args=(http,), daemon=True) for http in others]
        with suppress(RuntimeError):  # where no thread starts any more, this one does it all
            for thread in threads:
                thread.start()
        work(own)
        for thread in threads:
            if thread.ident:
                thread.join()
        unanswered = [failure for failure in failures if isinstance(failure, str)]
        return (*unanswered, *failures, Reply(HTTPStatus.OK, b""))[0]

    def _judge(self, reply: Reply | str, bodies: Sequence[bytes]) -> Answer:
        self.is_unsure = isinstance(reply, str) or reply.status in GATEWAYS
        answer = judge(FLAGSMITH, reply)
        if answer.outcome is Outcome.ACCEPTED:
            self._failures.note_success(bodies)
            return answer
        is_error = isinstance(reply, Reply) and reply.status == HTTPStatus.INTERNAL_SERVER_ERROR
        if is_error and len(bodies) == 1 and not self._failures.is_bad(bodies[0]):
            return answer._replace(outcome=Outcome.UNAVAILABLE)
        return answer


class _FailuresAlone:
    """Tells a bad change from a failing server, both of which get a 500.

    A change is bad if it failed alone twice and something else was written in between.
    """

    def __init__(self) -> None:
        self._successes = 0
        self._successes_before: dict[bytes, int] = {}  # the failure of a change

    @property
    def suspects(self) -> frozenset[bytes]:
        return frozenset(self._successes_before)

    def note_success(self, bodies: Sequence[bytes]) -> None:
        self._successes += 1
        for body in bodies:
            self._successes_before.pop(body, None)

    def is_bad(self, body: bytes) -> bool:
        """Note a failure; return whether the change is bad."""
        before = self._successes_before.pop(body, self._successes)
        if before == self._successes:
            self._successes_before[body] = before
        return before != self._successes


def _by_identity(bodies: Sequence[bytes]) -> Iterator[bytes]:
    """Yield the bodies of single requests: all changes of an identity are in one."""
    traits = defaultdict[str, list[dict[str, object]]](list)
    for change in map(json.loads, bodies):
        traits[change.pop("identity")["identifier"]].append(change)
    for identifier, those in traits.items():
        yield json.dumps({"identifier": identifier, "traits": those}).encode()
