"""Writes traits to Flagsmith, and learns from its answers: how many at once, and what it fails on.

Guarantee: ``FlagsmithTraits.post`` raises nothing and ends within its time. Boundary: the sender decides what to do
about an answer, and ``ChangeList`` what to do about a change that failed.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus

from flagsync._delivery.answers import Answer, Outcome, Reply
from flagsync._delivery.http import Http
from flagsync._report import Reporter
from flagsync.cohorts.environment import Environment
from flagsync.cohorts.trait_writer.batch_size import Batches, BatchSize
from flagsync.cohorts.trait_writer.service import CANNOT_TELL, STORES_NOTHING, judge_reply
from flagsync.cohorts.trait_writer.singles import Singles

# The server behind a gateway may still be working. 520 to 527 are answers of Cloudflare.
GATEWAYS = frozenset((HTTPStatus.BAD_GATEWAY, HTTPStatus.GATEWAY_TIMEOUT, *range(520, 528)))
NO_BULK = (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.GONE, HTTPStatus.NOT_IMPLEMENTED)
REMEMBERED_REQUESTS = 20


class FailedAlone:
    """The changes that the server failed on while they were sent alone.

    Args:
        max_alone: So many may fail one after the other. Beyond it, the server itself is failing.
    """

    def __init__(self, max_alone: int) -> None:
        self._max_alone = max_alone
        self._answers: dict[bytes, Answer] = {}
        self._in_a_row = set[bytes]()

    def add(self, body: bytes, answer: Answer) -> Answer:
        """Set a change aside, so that others can be tried; return its answer, as ``take`` will."""
        self._in_a_row.add(body)
        if len(self._in_a_row) > self._max_alone:
            answer = answer._replace(outcome=Outcome.UNAVAILABLE)
        self._answers[body] = answer
        return answer

    def forget(self) -> None:
        """Start to count anew: something was accepted."""
        self._in_a_row.clear()

    def take(self) -> Mapping[bytes, Answer]:
        """Return those set aside since the last call: as unavailable if the server itself was failing."""
        answers, self._answers = self._answers, {}
        return answers


class FlagsmithTraits:
    """Writes traits: in bulk where the server can (self-hosted), else identity by identity. For one thread.

    Args:
        environment: Where they are written.
        report: Where it is reported if Flagsmith does not tell whether it stores what it accepts.
        batches: How many traits are written at once.
        clock: Returns the time in seconds, to measure requests.

    Attributes:
        is_unsure: Whether the server may still be working on the last request, which got no answer from Flagsmith.
    """

    def __init__(
        self,
        environment: Environment,
        report: Reporter,
        batches: Batches,
        clock: Callable[[], float],
    ) -> None:
        self._connections = [_connect(environment) for _ in range(batches.concurrent_singles)]
        self._singles = Singles(self._connections)
        self._sizes = BatchSize(batches, batches.max_bulk), BatchSize(batches, batches.max_singles)
        self._report, self._batches, self._clock = report, batches, clock
        self._bulk_from, self._bulks = 0.0, 0
        self._is_verified = False
        self._took = deque[float](maxlen=REMEMBERED_REQUESTS)
        self._failed_alone = FailedAlone(batches.max_alone)
        self.is_unsure = False

    @property
    def max_batch(self) -> int:
        """How many changes may be sent at once."""
        return self._size.size

    @property
    def requests(self) -> int:
        """How many requests were sent."""
        return self._bulks + self._singles.requests

    @property
    def slowest_seconds(self) -> float:
        """How long the slowest of the last requests took."""
        return max(self._took, default=0.0)

    def take_failures(self) -> Mapping[bytes, Answer]:
        """Return the changes that the server failed on alone since the last call, though it may accept them later.

        The outcome is ``UNAVAILABLE`` if it is likely that the server fails on all changes.
        """
        return self._failed_alone.take()

    def post(self, url: str, bodies: Sequence[bytes], seconds: float) -> Answer:
        """Write changes, each as ``as_json`` has it; within about ``seconds``, return what became of them.

        A change that the server fails on alone counts as accepted, so that others can follow; ``take_failures`` returns
        it.
        """
        began, size = self._clock(), self._size
        if self._has_bulk:
            self._bulks += 1
            body = b"[%b]" % b",".join(bodies)
            reply = self._connections[0].request("PUT", f"{url}traits/bulk/", body, seconds)
            if isinstance(reply, Reply) and reply.status in NO_BULK:
                self._bulk_from = self._clock() + self._batches.no_bulk_seconds
                return self.post(url, bodies, seconds)
        else:
            reply = self._singles.write(url, bodies, seconds)
        took = self._clock() - began
        self._took.append(took)
        answer = judge_reply(reply)
        has_no_answer = isinstance(reply, str) or reply.status in GATEWAYS
        self.is_unsure = has_no_answer and answer.outcome is Outcome.UNAVAILABLE
        if self.is_unsure:
            size.note_silence(len(bodies))
        elif answer.outcome is Outcome.ACCEPTED:
            size.note_answer(len(bodies), took)
            self._failed_alone.forget()
            return answer if self._has_bulk else self._verified(answer, url, bodies[0], seconds)
        return self._judge_alone(answer, reply, bodies)

    def close(self) -> None:
        """Close the connections."""
        for connection in self._connections:
            connection.close()

    @property
    def _has_bulk(self) -> bool:
        return self._clock() >= self._bulk_from

    @property
    def _size(self) -> BatchSize:
        bulk, singles = self._sizes
        return bulk if self._has_bulk else singles

    def _judge_alone(self, answer: Answer, reply: Reply | str, bodies: Sequence[bytes]) -> Answer:
        """Return the answer for failed changes: one that alone gets a 500 is set aside."""
        is_error = isinstance(reply, Reply) and reply.status == HTTPStatus.INTERNAL_SERVER_ERROR
        if not is_error or len(bodies) > 1:
            return answer
        answer = self._failed_alone.add(bodies[0], answer)
        return answer if answer.outcome is Outcome.UNAVAILABLE else Answer(Outcome.ACCEPTED)

    def _verified(self, answer: Answer, url: str, body: bytes, seconds: float) -> Answer:
        """Return the answer to single requests. The first one is read back, since a 200 may store nothing."""
        if self._is_verified:
            return answer
        has_stored = self._singles.has_stored(url, body, seconds)
        if has_stored is False:
            return STORES_NOTHING
        if has_stored is None:
            self._report.warn_once(CANNOT_TELL)
        self._is_verified = True
        return answer


def _connect(environment: Environment) -> Http:
    headers = {**environment.headers, "Content-Type": "application/json"}
    return Http(headers, environment.proxies, verify=environment.verify, cert=environment.cert)
