"""Flagsmith's API for stored traits, and what it answers.

Guarantee: ``Traits.post`` raises nothing and ends within its time. What to do about an answer is the sender's.
"""

import json
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from http import HTTPStatus
from time import monotonic
from typing import Any

from flagsync._http import Answer, Http, Outcome, Reply
from flagsync.cohorts._store import TraitChange

# A self-hosted Flagsmith 2.265 takes 3 ms for each of a bulk, whatever their number.
MAX_BULK, NO_BULK_SECONDS = 5000, 600.0
MAX_SINGLES, CONCURRENT_SINGLES = 200, 8
GATEWAYS = (HTTPStatus.BAD_GATEWAY, HTTPStatus.GATEWAY_TIMEOUT)
NO_BULK = (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.GONE, HTTPStatus.NOT_IMPLEMENTED)


def as_json(change: TraitChange) -> bytes:
    """A change as the bulk endpoint takes it."""
    identity = {"identifier": change.identifier}
    document = {"identity": identity, "trait_key": change.trait_key, "trait_value": change.value}
    return json.dumps(document).encode()


class Traits:
    """Writes traits: in bulk where the server can (self-hosted), else identity by identity.

    Attributes:
        unsure: Whether the server may still be at the last request, which had no answer of its own.
        suspects: Changes that it failed on alone.
        requests: How many were sent.
    """

    def __init__(self, headers: Mapping[str, str], proxies: Mapping[str, str]) -> None:
        headers = {**headers, "Content-Type": "application/json"}
        self._connections = [Http(headers, proxies) for _ in range(CONCURRENT_SINGLES)]
        self._bulk_from, self._successes = 0.0, 0
        self.unsure = False
        self.suspects = dict[bytes, int]()  # and the successes before: who is to blame?
        self.requests = 0

    def close(self) -> None:
        for connection in self._connections:
            connection.close()

    def post(self, url: str, changes: Sequence[bytes], seconds: float) -> Answer:
        """Write changes, each as ``as_json`` has it; say within about ``seconds`` what became of them."""
        if len(changes) > self.limit:
            return Answer(Outcome.REFUSED)  # to come back in halves
        if self.limit == MAX_BULK:
            self.requests += 1
            body = b"".join((b"[", b",".join(changes), b"]"))
            reply = self._connections[0].request("PUT", f"{url}traits/bulk/", body, seconds)
            if not isinstance(reply, str) and reply.status in NO_BULK:
                self._bulk_from = monotonic() + NO_BULK_SECONDS
                return self.post(url, changes, seconds)
        else:
            reply = self._post_singles(f"{url}identities/", changes, monotonic() + seconds)
        return self._judge(reply, changes)

    @property
    def limit(self) -> int:
        """How many changes may come at once."""
        return MAX_BULK if monotonic() >= self._bulk_from else MAX_SINGLES

    def _post_singles(self, url: str, changes: Sequence[bytes], deadline: float) -> Reply | str:
        """Write identity by identity, some at a time, until one fails."""
        bodies, failures = iter([*_by_identity(changes)]), list[Reply | str]()

        def work(connection: Http) -> None:
            for body in bodies:
                reply = connection.request("POST", url, body, max(deadline - monotonic(), 0.1))
                self.requests += 1
                if isinstance(reply, str) or read_answer(*reply).outcome is not Outcome.ACCEPTED:
                    failures.append(reply)
                if failures:
                    break

        mine, *others = self._connections
        threads = [threading.Thread(target=work, args=(http,), daemon=True) for http in others]
        with suppress(RuntimeError):  # where none starts any more, there is this one
            for thread in threads:
                thread.start()
        work(mine)
        for thread in threads:
            if thread.ident:
                thread.join()
        unanswered = [failure for failure in failures if isinstance(failure, str)]
        return (*unanswered, *failures, Reply(HTTPStatus.OK, b""))[0]

    def _judge(self, reply: Reply | str, changes: Sequence[bytes]) -> Answer:
        self.unsure = isinstance(reply, str) or reply.status in GATEWAYS
        if isinstance(reply, str):
            return Answer(Outcome.UNAVAILABLE, f"Flagsmith cannot be reached ({reply})")
        answer = read_answer(*reply)
        if answer.outcome is Outcome.ACCEPTED:
            self._successes += 1
            for change in changes:
                self.suspects.pop(change, None)
        elif reply.status == HTTPStatus.INTERNAL_SERVER_ERROR and len(changes) == 1:
            before = self.suspects.pop(changes[0], None)
            if before is None or before == self._successes:
                self.suspects[changes[0]] = self._successes
                return answer._replace(outcome=Outcome.UNAVAILABLE)
        return answer


def read_answer(status: int, body: bytes, retry_after_seconds: float = 0.0) -> Answer:
    """What Flagsmith said. A 500 may be about the data: values that its database cannot hold get one."""
    reason = f"HTTP {status}"
    if _is_success(status) and not body.lstrip().startswith(b"<"):
        return Answer(Outcome.ACCEPTED)
    if status in (400, 413, 422, 500):
        outcome = Outcome.REFUSED
    elif status in (408, 425, 429) or status > 500:  # noqa: PLR2004
        outcome = Outcome.UNAVAILABLE
    else:
        outcome = Outcome.MISCONFIGURED
        reason += ", not an answer of Flagsmith" if _is_success(status) else ""
        reason += "; check the environment key and api_url"
    text = body.decode(errors="replace")[:500]
    return Answer(outcome, f"Flagsmith does not take traits ({reason})", retry_after_seconds, text)


def _is_success(status: int) -> bool:
    return 200 <= status < 300  # noqa: PLR2004


def _by_identity(changes: Sequence[bytes]) -> Iterator[bytes]:
    """The bodies of single requests: all changes of an identity are in one."""
    traits = defaultdict[str, list[dict[str, Any]]](list)
    for change in map(json.loads, changes):
        traits[change.pop("identity")["identifier"]].append(change)
    for identifier, those in traits.items():
        yield json.dumps({"identifier": identifier, "traits": those}).encode()
