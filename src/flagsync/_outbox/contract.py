"""Messages, and the outbox as its three callers see it.

Of each key the latest message wins while it waits, and one that equals the last one that was accepted is not sent
again for a while. What waits or is remembered is kept as text, bytes, numbers and exact tuples of those, which
the garbage collector need not look at; a ``Message`` exists only while it is handled.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import NamedTuple, Protocol, TypeAlias

from flagsync._report import Outage

# https://developer.mixpanel.com/reference/profile-batch-update; the total of a request is not documented.
MAX_BATCH_MESSAGES, MAX_BATCH_BYTES, MAX_MESSAGE_BYTES = 2000, 2_000_000, 1_000_000


class Destination(NamedTuple):
    """Where messages go.

    Attributes:
        url: The endpoint. It may contain a password, and is left out of ``repr()``.
        project: Tells the projects of one endpoint apart, without being a token.
    """

    url: str
    project: str = ""

    def __repr__(self) -> str:
        return f"Destination(project={self.project!r})"


Absences: TypeAlias = Mapping[str, float]
"""Since when properties are absent, by a text that stands for each: seconds since 1970; 0.0 if it is present."""


class Message(NamedTuple):
    """One record for Mixpanel.

    Attributes:
        key: What it is about: the ``distinct_id``, and where that is not enough a NUL and more text.
        fingerprint: Equal for equal content: 16 bytes.
        body: JSON, as Mixpanel receives it, up to its ``tail``.
        evaluated_at: Seconds of ``time.monotonic()``, one clock for all processes of a host.
        destination: Where it goes.
        resend_after_seconds: An equal message is sent again once this time has passed since it was accepted.
        evaluation: A number of 64 bits that is equal, in every process, for evaluations which must have the same
            result; None if unknown.
        tail: The end of the JSON. Many messages have the same one, of which a store keeps one copy.
        replaces: Whether it takes the place of a waiting message of its key. An event does not: both are sent.
        version: Given by the outbox. It rises with each message.
    """

    key: str
    fingerprint: bytes
    body: bytes
    evaluated_at: float
    destination: Destination
    resend_after_seconds: float
    evaluation: int | None = None
    tail: bytes = b""
    replaces: bool = True
    version: int = 0

    @property
    def record(self) -> bytes:
        """The JSON, as Mixpanel receives it."""
        return self.body + self.tail

    @property
    def distinct_id(self) -> str:
        """The Mixpanel profile that it concerns."""
        return self.key.partition("\0")[0]


class Repeat(NamedTuple):
    """An evaluation that may have been made before, with attributes of the message that it would become."""

    destination: Destination
    key: str
    evaluation: int
    evaluated_at: float


class Claim(NamedTuple):
    """What a sender may send now.

    Attributes:
        messages: They fit into one request to one destination. Empty if nothing is due.
        next_at: When to ask again if nobody wakes the sender: ``time.monotonic()``; ``inf`` if nothing waits.
        has_more: Whether more messages wait behind these.
        until: When the last request for them must have ended: ``time.monotonic()``. Others may send after that.
    """

    messages: Sequence[Message] = ()
    next_at: float = inf
    has_more: bool = False
    until: float = inf


class Kept(NamedTuple):
    """Pending messages of a process that are safe in a shared store.

    Attributes:
        messages: Messages that replace others with the same key.
        events: Messages that do not.
    """

    messages: int = 0
    events: int = 0


class Mark(NamedTuple):
    """A place in an outbox: of the message put last in memory, and of the last one in a shared store, if known."""

    memory: int
    store: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much waits, for how long, and how much goes into one request.

    Attributes:
        max_pending: Messages that wait for one destination. Beyond it the oldest are dropped.
        max_remembered: Keys whose last message is remembered, at least; at most twice as many.
        max_batch_messages: Messages in one request.
        max_batch_bytes: Bytes in one request; a single larger message is sent alone.
        flush_interval_seconds: How long a message may wait for others to share its request.
    """

    max_pending: int = 50_000
    max_remembered: int = 50_000
    max_batch_messages: int = MAX_BATCH_MESSAGES
    max_batch_bytes: int = MAX_BATCH_BYTES
    flush_interval_seconds: float = 1.0


def count_events(messages: Iterable[Message]) -> int:
    """Return how many messages do not replace others."""
    return sum(not message.replaces for message in messages)


class Intake(Protocol):
    """The outbox as the encoder sees it; one thread calls these."""

    def confirm(self, repeats: Sequence[Repeat]) -> Sequence[Repeat]:
        """Count repeats of evaluations as unchanged; return those that must be evaluated and put.

        A repeat has the ``evaluation`` of the last message of its key, which waits or was accepted less than
        ``resend_after_seconds`` ago. The keys are different ones.
        """

    def put(self, message: Message) -> None:
        """Let a message wait. It counts as unchanged if Mixpanel has an equal one, or gets it anyway."""

    def save(self) -> None:
        """Make what was put as safe as it will be. Other processes and ``claim`` see it from then on."""

    def has_full_batch(self) -> bool:
        """Return whether enough waits for a full request, as far as this process knows. Does no I/O."""

    def note_absences(self, destination: Destination, absences: Absences) -> Absences | None:
        """Keep these in place of earlier ones; return all of a destination, or None if a store cannot be used now."""


class Delivery(Protocol):
    """The outbox as the sender sees it; one thread calls these, and holds no lock meanwhile."""

    @property
    def is_shared(self) -> bool:
        """Whether other processes put and settle messages, too, which wakes nobody here."""

    def claim(self, resting: Mapping[Destination, float], *, urgent: bool) -> Claim:
        """Put the oldest due messages in flight.

        Args:
            resting: Destinations to which nothing is sent, until a time of ``time.monotonic()``.
            urgent: Whether messages are due at once, and not after ``flush_interval_seconds``.
        """

    def settle(
        self, accepted: Collection[Message], rejected: Collection[Message], *, last: bool = False
    ) -> None:
        """End the flight of the claimed messages.

        Those that are neither accepted nor rejected wait again: before all others, or behind them if ``last``;
        unless a newer message took their place.
        """

    def mark(self) -> Mark:
        """Return a mark behind all that was put before this call."""

    def is_settled(self, mark: Mark) -> bool:
        """Return whether nothing before a mark waits or is in flight any more."""


class Accounts(Protocol):
    """The outbox as the statistics, the beginning and the end of a client see it. Does no I/O, but for the first.

    ``kept``, ``waits_since`` and ``outages`` take no lock.
    """

    @property
    def is_remote(self) -> bool:
        """Whether ``has_pending`` asks a server, which may take seconds to answer."""

    def has_pending(self) -> bool:
        """Return whether messages wait, of this process or of another one that has shared the store."""

    def kept(self) -> Kept:
        """Return how many pending messages of this process are safe in a shared store."""

    def waits_since(self) -> float:
        """Return when the message that is first in line was evaluated: ``time.monotonic()``; ``inf`` if none waits.

        With a shared store these are the messages of all processes, as this one saw them last.
        """

    def outages(self) -> Sequence[Outage]:
        """Return what may have failed: the outages of a shared store, over or not."""

    def set_deadline(self, deadline: float) -> None:
        """Have no call wait for a shared store beyond a time of ``time.monotonic()``."""

    def abandon(self) -> None:
        """Drop what waits in memory, now and from now on."""


class Outbox(Intake, Delivery, Accounts, Protocol):
    """The whole outbox, as the pipeline builds it."""

    def close(self) -> None:
        """Let other processes send. Called by the sender's thread when it ends."""
