"""What processes share: the contract of a backend behind a durable outbox.

Guarantee: a backend that passes ``flagsync.testing.contracts.OutboxBackendContract`` does what is said here, as far as
one machine can show it. Boundary: staging, fallback and accounting are the durable outbox's.
"""

from collections.abc import Collection, Sequence
from typing import NamedTuple, Protocol

from flagsync._outbox.contract import Destination, Limits, Message, Repeat


class Totals(NamedTuple):
    """What a backend knows of messages.

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


class Status(NamedTuple):
    """The state of a backend at one moment.

    Attributes:
        store: Another number for each store: a file that was removed and made again has another one.
        account: Another number for each account of this process; 0 if there is none. A store may forget the accounts
            of idle processes of which nothing waits.
        own: What became of the messages that this process has stored.
        own_events: What became of those among them that do not replace others.
        pending: Messages that wait, of every process and destination.
        oldest_seconds: How long the first of them has waited since it was evaluated; 0.0 if none waits.
        first_version: The lowest version that waits for the destinations asked for; None if there is none.
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


class Backend(Protocol):
    """A store that processes share: what a file, Redis or PostgreSQL does for a durable outbox.

    One process has one backend, and calls it from one thread at a time. Every method may raise: the durable outbox
    then undoes nothing, reports it, and uses memory until ``store`` works again. A method that raises has
    changed nothing, or the whole of what it was asked to.
    """

    def store(
        self, messages: Sequence[Message], sent: Sequence[Message], repeats: Sequence[Repeat], deadline: float
    ) -> Sequence[Repeat]:
        """Store messages as one change, in their order, and count them to this process.

        A message is unchanged if it equals the last one of its key and that one waits, or was accepted less than
        ``resend_after_seconds`` ago; if it was evaluated later, its time of evaluation counts from then on. Otherwise
        it is superseded if it ``replaces`` and its key has a message that was evaluated later on this host. Else it
        waits, behind all others, in the place of a waiting one of its key if it ``replaces``. At the bound of the
        store, the oldest waiting messages are dropped.

        Then look at the repeats. One is unchanged if the last message of its key has this ``evaluation``, and waits or
        was accepted less than its ``resend_after_seconds`` ago; it counts as stored, and if it was evaluated later, its
        time of evaluation counts from then on. The others are returned, and change nothing.

        Args:
            messages: What is to wait.
            sent: What this process has sent meanwhile without the store, one message a key, without bodies. If
                it ``replaces``, an older waiting message of its key is superseded. An empty fingerprint says that
                Mixpanel may or may not have it.
            repeats: Evaluations that may have been made before, of different keys.
            deadline: The time of ``time.monotonic()`` until which another process may be waited for.
        """

    def claim(self, resting: Collection[Destination], limits: Limits) -> list[Message]:
        """Return the oldest waiting messages that fit into one request.

        They are of one destination that does not rest; destinations take turns. They go on waiting until they
        are settled. Only the process that holds the lease claims.
        """

    def settle(
        self,
        accepted: Collection[Message],
        rejected: Collection[Message],
        last: Collection[Message],
        deadline: float,
    ) -> None:
        """End the waiting of messages, if they still have the version that was claimed.

        What is accepted is remembered, what is rejected is not. ``last`` are messages that go on waiting behind all
        others.
        """

    def status(self, destinations: Collection[Destination]) -> Status:
        """Return the state of the store. Changes nothing, and does not wait for other processes."""

    def totals(self) -> Totals:
        """Return what became of all messages that any process has stored."""

    def try_acquire_lease(self) -> bool:
        """Become the process that sends, if no other process is; return whether this process is the one.

        Called before each batch. The lease ends with the process, or when the store is another one.
        """

    def release_lease(self) -> None:
        """Let another process send."""

    def close(self) -> None:
        """Release the lease and the connection; both are made again when they are needed."""
