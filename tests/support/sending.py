"""A sender over a real outbox, and a service that answers as a test says."""

import threading
from collections.abc import Callable, Sequence
from math import inf
from time import monotonic
from typing import Self, TypeAlias

from flagsync._delivery.answers import Answer, Outcome
from flagsync._delivery.destinations import Backoff
from flagsync._delivery.sender import Sender, Sending
from flagsync._outbox.contract import Destination, Limits, Message, Outbox
from flagsync._outbox.memory import MemoryOutbox
from flagsync._report import Reporter
from flagsync._stats import Ledger
from flagsync.exceptions import DeliveryError

ACCEPTED = Answer(Outcome.ACCEPTED)
REFUSED = Answer(Outcome.REFUSED, "Refused", text="missing")
DOWN = Answer(Outcome.UNAVAILABLE, "Down")
FORBIDDEN = Answer(Outcome.MISCONFIGURED, "Forbidden")

HERE, THERE = Destination("here"), Destination("there")
WAIT_SECONDS = 10.0  # until a test fails whose event does not come
MAX_REQUESTS = 5000  # of a test that goes well
LONG_SECONDS = 1e6  # no test lasts so long
# A destination that fails is tried again at once.
AT_ONCE = Backoff(first_seconds=0.0, max_seconds=0.0)
# A destination that is down is tried again at once, and a wrong configuration ends a sender that closes.
AT_ONCE_IF_DOWN = Backoff(first_seconds=0.0, max_seconds=10 * LONG_SECONDS)
# A destination that fails is not tried again.
NEVER = Backoff(first_seconds=100 * LONG_SECONDS, max_seconds=1000 * LONG_SECONDS)

Script: TypeAlias = Callable[[list[str]], Answer]


def accept(_: list[str]) -> Answer:
    """Accept whatever comes."""
    return ACCEPTED


def refuse(*bad: str) -> Script:
    """Refuse each request that has one of these messages."""
    return lambda texts: REFUSED if {*bad} & {*texts} else ACCEPTED


def answers(*first: Answer) -> Script:
    """Give these answers first, and accept what comes then."""
    left = iter(first)
    return lambda _: next(left, ACCEPTED)


def message(name: str, text: str = "", destination: Destination = HERE) -> Message:
    """Return a message of a profile whose body is the text, or else the name."""
    body = (text or name).encode()
    return Message(name, body, body, monotonic(), destination, 300.0)


def names(count: int, prefix: str = "user") -> list[str]:
    return [f"{prefix}_{number}" for number in range(count)]


class Service:
    """Answers each request as it is told, and keeps what it accepts."""

    def __init__(self, answer: Script) -> None:
        self.answer = answer
        self.requests = list[list[str]]()
        self.urls = list[str]()
        self.seconds = list[float]()
        self.accepted = list[str]()

    def post(self, url: str, bodies: Sequence[bytes], seconds: float) -> Answer:
        assert len(self.requests) < MAX_REQUESTS, "the sender goes round in circles"
        texts = [body.decode() for body in bodies]
        self.requests.append(texts)
        self.urls.append(url)
        self.seconds.append(seconds)
        answer = self.answer(texts)
        if answer.outcome is Outcome.ACCEPTED:
            self.accepted += texts
        return answer


class Rig:
    """A sender, its outbox and its service.

    Args:
        answer: How the service answers.
        limits: Of the outbox in memory.
        outbox: Makes another outbox.
        on_error: Called with each error, after it was noted.
    """

    def __init__(
        self,
        answer: Script = accept,
        *,
        limits: Limits = Limits(flush_interval_seconds=LONG_SECONDS),  # noqa: B008 - it is frozen
        backoff: Backoff = AT_ONCE,
        look_seconds: float = LONG_SECONDS,
        outbox: Callable[[Ledger, Reporter], Outbox] | None = None,
        on_error: Callable[[DeliveryError], None] | None = None,
    ) -> None:
        self.errors = list[DeliveryError]()
        self.service, self.ledger, self.ended = Service(answer), Ledger(), threading.Event()

        def note(error: DeliveryError) -> None:
            self.errors.append(error)
            if on_error:
                on_error(error)

        self.report = Reporter(note)
        self.outbox: Outbox = (
            outbox(self.ledger, self.report) if outbox else MemoryOutbox(limits, self.ledger, self.report)
        )
        self.sender = self.new_sender(backoff, look_seconds)

    def new_sender(self, backoff: Backoff, look_seconds: float = LONG_SECONDS) -> Sender:
        """Return a sender over the same outbox."""
        return Sender(
            self.outbox,
            self.service,
            on_end=self._end,
            ledger=self.ledger,
            report=self.report,
            sending=Sending(backoff=backoff, look_seconds=look_seconds),
        )

    def put(self, *names: str, destination: Destination = HERE) -> None:
        for name in names:
            self.outbox.put(message(name, destination=destination))
        self.outbox.save()

    def deliver(self, seconds: float = LONG_SECONDS) -> None:
        """Do the work of the thread by hand, as a client that closes does if no thread can start."""
        self.sender.stop(monotonic() + seconds)
        self.sender.finish()
        self.sender.worker.run()

    def flush(self, seconds: float = WAIT_SECONDS) -> bool:
        return self.sender.flush(monotonic() + seconds)

    def count(self, outcome: str) -> int:
        return self.ledger.counts()[outcome]

    def __enter__(self) -> Self:
        """Start the thread of the sender."""
        assert self.sender.worker.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.sender.stop(-inf)
        assert self.sender.worker.join(monotonic() + WAIT_SECONDS)

    def _end(self) -> None:
        self.outbox.close()
        self.ended.set()
