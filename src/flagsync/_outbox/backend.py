"""The contract of a backend: the store behind a durable outbox, which processes share.

Guarantee: a backend that passes ``flagsync.testing.contracts.OutboxBackendContract`` keeps this contract, as far as one
machine can show it. Boundary: the durable outbox does the staging, fallback and accounting.
"""

from collections.abc import Collection, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from flagsync._outbox.contract import Absences, Destination, Limits, Message, Repeat


class Totals(NamedTuple):
    """What became of the messages of a backend.

    Attributes:
        accepted: Messages stored so far.
        delivered: Accepted by Mixpanel.
        unchanged: Equal to what Mixpanel had or was about to get.
        superseded: Replaced by a newer message.
        dropped: Given up at the store's own bound.
        rejected: Refused by Mixpanel.
    """

    accepted: int = 0
    delivered: int = 0
    unchanged: int = 0
    superseded: int = 0
    dropped: int = 0
    rejected: int = 0

    @property
    def pending(self) -> int:
        """Messages that wait or are in flight."""
        return self.accepted - sum(self[1:])

    def without(self, some: "Totals") -> "Totals":
        """Return the totals of the other messages."""
        return Totals(*(every - one for every, one in zip(self, some, strict=True)))


LONG_AGO = 1e9  # seconds


class StoreTotals(NamedTuple):
    """What became of all messages that any process has stored.

    Attributes:
        every: Of all messages.
        events: Of those that do not replace others.
        oldest_seconds: How long the first message in line has waited since it was evaluated; 0.0 if none waits.
    """

    every: Totals = Totals()
    events: Totals = Totals()
    oldest_seconds: float = 0.0


def totals_of(counts: Sequence[int]) -> tuple[Totals, Totals]:
    """Divide the counts that a store keeps: of all messages, and then of those that do not replace others."""
    middle = len(Totals._fields)
    return Totals(*counts[:middle]), Totals(*counts[middle:])


def waited_seconds(seconds: float) -> float:
    """Return how long a message has waited; ``LONG_AGO`` if the clock was set back since."""
    return seconds if seconds >= 0 else LONG_AGO


class Status(NamedTuple):
    """The state of a backend at one moment.

    Attributes:
        store: Number of the store. A file that was removed and created again has another one.
        account: Number of this process's account; 0 if there is none. A store may forget the account of an idle process
            without pending messages, which then gets a new one.
        own: What became of the messages that this process has stored.
        own_events: What became of those of them that do not replace others.
        pending: Messages that wait, of every process and destination.
        oldest_seconds: How long the first of them has waited since it was evaluated; 0.0 if none waits.
        first_version: The lowest pending version of the given destinations; None if there is none.
        last_version: The highest version given so far.
        silent_seconds: How long the process that holds the lease has shown no sign of life; 0.0 if it is this one,
            there is none, or its lease ends by itself.
    """

    store: int = 0
    account: int = 0
    own: Totals = Totals()
    own_events: Totals = Totals()
    pending: int = 0
    oldest_seconds: float = 0.0
    first_version: int | None = None
    last_version: int = 0
    silent_seconds: float = 0.0


@runtime_checkable
class Backend(Protocol):
    """A store that processes share: what a file or a server does for a durable outbox.

    One client has one backend, and calls it from one thread at a time. A forked child is another process, also for a
    backend that it inherits. Every method may raise: the durable outbox then undoes nothing, reports it, and uses
    memory until ``store`` works again. A method that raises has made none of its changes, or all of them. A store
    behind a network may have made some, if a message that is stored again is then unchanged or superseded.

    Attributes:
        lease_seconds: How long a process may send after it acquired the lease. Nobody else acquires it meanwhile,
            unless it is released. 0.0 if the lease does not end before the process does.
    """

    lease_seconds: float

    def store(
        self, messages: Sequence[Message], sent: Sequence[Message], repeats: Sequence[Repeat], deadline: float
    ) -> Sequence[Repeat]:
        """Store messages as one change, in their order, and count them to this process's account.

        Each message has one of three outcomes:

        - It is unchanged if it equals the last message of its key, and that one waits or was accepted less than
          ``resend_after_seconds`` ago. If it was evaluated later, its evaluation time counts from then on.
        - Otherwise it is superseded if it ``replaces`` and a message of its key was evaluated later.
        - Otherwise it waits, behind all others. If it ``replaces``, it takes the place of a waiting message of its key.

        At the bound of the store, the oldest waiting messages are dropped.

        The repeats come after the messages. A repeat is unchanged if the last message of its key has the same
        ``evaluation``, and waits or was accepted less than its ``resend_after_seconds`` ago. It then counts as stored,
        and if it was evaluated later, its evaluation time counts from then on. The other repeats are returned, and
        change nothing.

        Args:
            messages: The messages to store.
            sent: Messages that this process has sent without the store, at most one per key, without bodies. One that
                ``replaces`` supersedes an older waiting message of its key. An empty fingerprint says that Mixpanel may
                or may not have it.
            repeats: Evaluations that may have been made before, at most one per key.
            deadline: How long to wait for other processes: until this time of ``time.monotonic()``.
        """

    def claim(self, resting: Collection[Destination], limits: Limits) -> Sequence[Message]:
        """Return the oldest waiting messages that fit into one request.

        All go to one destination that does not rest; destinations take turns. The messages stay pending until they are
        settled. Only the process that holds the lease claims.
        """

    def settle(
        self,
        accepted: Collection[Message],
        rejected: Collection[Message],
        last: Collection[Message],
        deadline: float,
    ) -> None:
        """Settle messages, if they still have the version that was claimed.

        Accepted messages are remembered, rejected ones are not. Those in ``last`` stay pending, behind all others.
        """

    def status(self, destinations: Collection[Destination]) -> Status:
        """Return the state of the store. Changes nothing, and does not wait for other processes."""

    def totals(self) -> StoreTotals:
        """Return what became of all messages that any process has stored, and how long the first in line has waited."""

    def try_acquire_lease(self) -> bool:
        """Acquire or renew the lease if no other process holds it; return whether this process holds it.

        Called before each batch. The lease ends with the process or after ``lease_seconds``, and when the store is
        replaced.
        """

    def note_absences(self, destination: Destination, absences: Absences) -> Absences:
        """Keep these in place of earlier ones; return all of the destination."""

    def close(self) -> None:
        """Release the lease, so that another process can send, and the connection, until they are needed again."""
