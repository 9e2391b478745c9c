"""What the tests of the contract share: messages as texts, and calls after which the counts must add up."""

# ruff: noqa: D103, S101 - it consists of tests, whose names say what they are for
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Protocol

from flagsync._clock import monotonic
from flagsync._outbox.backend import Backend, Status, Totals
from flagsync._outbox.contract import Destination, Limits, Message, Repeat

BEGAN = monotonic() - 1000.0
HERE, THERE = Destination("https://here.invalid/engage", "1"), Destination("https://there.invalid/engage", "1")
WAIT_SECONDS = 10.0
NO_LIMITS = Limits()


class Connect(Protocol):
    """Makes the backend of another process."""

    def __call__(self, store: str = "store") -> Backend:
        """Return the backend of another process, on one of several stores."""


@contextmanager
def connections(make_backend: Callable[[Path], Backend], path: Path) -> Iterator[Connect]:
    """Make backends on stores below a directory, and close them at the end."""
    backends = list[Backend]()

    def connect(store: str = "store") -> Backend:
        (path / store).mkdir(exist_ok=True)
        backends.append(make_backend(path / store))
        return backends[-1]

    yield connect
    for backend in backends:
        backend.close()


def message_of(
    text: str,
    second: float = 1.0,
    *,
    destination: Destination = HERE,
    resend_after_seconds: float = 3600.0,
    evaluation: int | None = None,
    tail: bytes = b"",
    replaces: bool = True,
) -> Message:
    """Return the message of a text such as ``"ann=1"`` (key and body), evaluated ``second`` after ``BEGAN``."""
    key, _, body = text.rpartition("=")
    evaluated_at = BEGAN + second
    owner = fingerprint_of(body), body.encode(), evaluated_at, destination, resend_after_seconds
    return Message(key, *owner, evaluation, tail, replaces)


def repeat_of(key: str, evaluation: int = 1, second: float = 2.0, destination: Destination = HERE) -> Repeat:
    """Return a repeat of an evaluation, made ``second`` after ``BEGAN``."""
    return Repeat(destination, key, evaluation, BEGAN + second)


@cache
def fingerprint_of(body: str) -> bytes:
    return blake2b(body.encode(), digest_size=16).digest()


def sent_message(text: str, second: float = 1.0, *, replaces: bool = True) -> Message:
    """Return a message without its body. If the text has no body, the fingerprint is empty, too."""
    message = message_of(text, second, replaces=replaces)
    return message._replace(body=b"", fingerprint=message.fingerprint if message.body else b"")


def store(
    backend: Backend,
    *texts: str,
    second: float = 1.0,
    destination: Destination = HERE,
    resend_after_seconds: float = 3600.0,
    evaluation: int | None = None,
    tail: bytes = b"",
    replaces: bool = True,
) -> None:
    messages = [
        message_of(
            text,
            second,
            destination=destination,
            resend_after_seconds=resend_after_seconds,
            evaluation=evaluation,
            tail=tail,
            replaces=replaces,
        )
        for text in texts
    ]
    assert not backend.store(messages, [], [], soon())
    assert_adds_up(backend)


def confirm(
    backend: Backend,
    *keys: str,
    evaluation: int = 1,
    second: float = 2.0,
    destination: Destination = HERE,
) -> list[str]:
    """Store repeats of one evaluation; return the keys of those that must be evaluated."""
    repeats = [repeat_of(key, evaluation, second, destination) for key in keys]
    new = backend.store([], [], repeats, soon())
    assert {*new} <= {*repeats}
    assert_adds_up(backend)
    return sorted(repeat.key for repeat in new)


def tell_sent(backend: Backend, text: str, *, second: float = 1.0, replaces: bool = True) -> None:
    assert not backend.store([], [sent_message(text, second, replaces=replaces)], [], soon())
    assert_adds_up(backend)


def claim(
    backend: Backend,
    limits: Limits = NO_LIMITS,
    *,
    resting: Sequence[Destination] = (),
) -> list[Message]:
    assert backend.try_acquire_lease()
    batch = [*backend.claim(resting, limits)]
    assert len({message.destination for message in batch}) <= 1
    assert_adds_up(backend)
    return batch


def settle(
    backend: Backend,
    *,
    accepted: Sequence[Message] = (),
    rejected: Sequence[Message] = (),
    last: Sequence[Message] = (),
) -> None:
    backend.settle(accepted, rejected, last, soon())
    assert_adds_up(backend)


def waiting(backend: Backend) -> list[str]:
    """Return the texts of the batch that a sender would get."""
    return texts_of(claim(backend))


def deliver(
    backend: Backend,
    limits: Limits = NO_LIMITS,
    *,
    resting: Sequence[Destination] = (),
) -> list[str]:
    """Claim a batch, have it accepted, and return its texts."""
    batch = claim(backend, limits, resting=resting)
    settle(backend, accepted=batch)
    return texts_of(batch)


def texts_of(batch: Sequence[Message]) -> list[str]:
    return [f"{message.key}={message.record.decode()}" for message in batch]


def own_totals(backend: Backend) -> Totals:
    return backend.status([]).own


def reading(status: Status) -> tuple[object, ...]:
    """Return a status without the parts that change with time alone."""
    return tuple(status._replace(oldest_seconds=0.0, silent_seconds=0.0))


def assert_adds_up(backend: Backend) -> None:
    """Assert that each message is counted once."""
    totals, status = backend.totals().every, backend.status([])
    assert totals.pending == status.pending
    assert min(*totals, *status.own, totals.pending, status.own.pending) >= 0
    assert all(own <= every for own, every in zip(status.own, totals, strict=True))
    assert all(0 <= event <= own for event, own in zip(status.own_events, status.own, strict=True))
    assert 0 <= status.own_events.pending <= status.own.pending


def soon() -> float:
    return monotonic() + WAIT_SECONDS
