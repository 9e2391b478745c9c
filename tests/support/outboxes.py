"""Messages for outboxes, written as texts such as ``"ann=1"``, and outboxes with real parts around them."""

from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from hashlib import blake2b
from math import inf
from time import monotonic
from typing import Protocol

from flagsync._outbox.backend import Backend
from flagsync._outbox.contract import Claim, Destination, Limits, Message, Outbox, Repeat
from flagsync._outbox.durable import DurableOutbox
from flagsync._outbox.memory import MemoryOutbox
from flagsync._outbox.options import Staging
from flagsync._report import Reporter
from flagsync._stats import Ledger, Stats, stats_of

HERE, THERE = Destination("http://here.invalid"), Destination("http://there.invalid")
BEGAN = monotonic() - 1000.0
BOUNDLESS = Limits()
LONG = 10.0  # seconds until a test fails whose event does not come
# Saves when it is told to, tries again at once after a failure, and waits for no other process.
BY_HAND = Staging(save_seconds=inf, save_messages=1_000_000, busy_seconds=0.0, retry_seconds=0.0)
BY_HAND_ONCE = replace(BY_HAND, retry_seconds=inf, max_retry_seconds=inf)


class Settler(Protocol):
    """An outbox, as far as delivering is concerned."""

    def claim(self, resting: Mapping[Destination, float], *, urgent: bool) -> Claim: ...

    def settle(
        self, accepted: Collection[Message], rejected: Collection[Message], *, last: bool = False
    ) -> None: ...


def message(
    text: str,
    second: float = 1.0,
    destination: Destination = HERE,
    *,
    resend_after_seconds: float = 300.0,
    evaluation: int | None = None,
    tail: bytes = b"",
    replaces: bool = True,
) -> Message:
    """Return a message of a text such as ``"ann=1"``: of key and body, evaluated at a second since ``BEGAN``."""
    key, _, body = text.rpartition("=")
    fingerprint = blake2b(body.encode() + tail, digest_size=16).digest()
    content = fingerprint, body.encode(), BEGAN + second, destination, resend_after_seconds
    return Message(key, *content, evaluation, tail, replaces)


def repeat(key: str, evaluation: int = 1, second: float = 2.0, destination: Destination = HERE) -> Repeat:
    """Return a repeat of an evaluation, made at a second since ``BEGAN``."""
    return Repeat(destination, key, evaluation, BEGAN + second)


def texts(messages: Iterable[Message]) -> list[str]:
    return [f"{message.key}={message.record.decode()}" for message in messages]


def waiting(memory: MemoryOutbox) -> list[Message]:
    """Return what waits, and let it wait."""
    with suppress(InterruptedError), memory.hand_over() as messages:
        raise InterruptedError
    return messages


def claim(outbox: Settler) -> list[str]:
    """Put what waits in flight, and return it."""
    return texts(outbox.claim({}, urgent=True).messages)


def deliver(outbox: Settler) -> list[str]:
    """Send what waits, have it accepted, and return it."""
    batch = outbox.claim({}, urgent=True).messages
    outbox.settle(batch, ())
    return texts(batch)


class Client:
    """An outbox with a ledger and a reporter, used as an encoder does.

    Args:
        limits: Of the outbox.
        backend: Of a durable outbox; without one it is in memory.
        staging: Of a durable outbox.

    Attributes:
        outbox: The outbox.
        memory: The outbox in memory, which may be the same one.
        submitted: Messages so far.
    """

    def __init__(
        self,
        backend: Backend | None = None,
        *,
        limits: Limits = BOUNDLESS,
        staging: Staging = BY_HAND,
    ) -> None:
        self.report, self.ledger, self.submitted = Reporter(None), Ledger(), 0
        self.memory = MemoryOutbox(limits, self.ledger, self.report)
        self.outbox: Outbox = self.memory
        if backend is not None:
            self.outbox = DurableOutbox(
                self.memory, backend, limits=limits, staging=staging, ledger=self.ledger, report=self.report
            )

    def put(
        self, *states: str, second: float = 1.0, destination: Destination = HERE, replaces: bool = True
    ) -> None:
        """Put messages, without saving them."""
        for text in states:
            self.put_message(message(text, second, destination, replaces=replaces))

    def put_message(self, message: Message) -> None:
        """Put a message as an encoder does."""
        self.submitted += 1
        self.outbox.put(message)

    def confirm(self, *repeats: Repeat) -> list[str]:
        """Confirm repeats as an encoder does; return the keys of those that must be put."""
        new = self.outbox.confirm(repeats)
        assert {*new} <= {*repeats}
        self.submitted += len(repeats) - len(new)
        return [repeat.key for repeat in new]

    def save(
        self, *states: str, second: float = 1.0, destination: Destination = HERE, replaces: bool = True
    ) -> None:
        """Put messages and save them."""
        self.put(*states, second=second, destination=destination, replaces=replaces)
        self.outbox.save()

    def claim(self) -> list[str]:
        return claim(self.outbox)

    def kept(self) -> int:
        return sum(self.outbox.kept())

    def deliver(self) -> list[str]:
        return deliver(self.outbox)

    def stats(self) -> Stats:
        """Return the counts, which add up and are never negative."""
        events = self.ledger.events()
        counts = {name: count + events.get(name, 0) for name, count in self.ledger.counts().items()}
        stats = stats_of(counts, self.submitted)
        parts = stats.delivered, stats.unchanged, stats.superseded, stats.dropped, stats.rejected, stats.pending
        assert stats.accepted == sum(parts)
        assert min(parts) >= 0
        return stats

    def flushes(self) -> bool:
        """Return whether a flush that begins now would be over at once."""
        return self.outbox.is_settled(self.outbox.mark())
