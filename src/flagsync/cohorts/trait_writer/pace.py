"""When changes are written, and how many at a time.

Guarantee: what holds last comes last, if a server ends a request within ``unsure_seconds`` after its client. Boundary:
does not know where changes come from and go to.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import inf
from time import monotonic

from flagsync._outbox.contract import Message
from flagsync.cohorts.store import TraitChange
from flagsync.cohorts.trait_writer.flagsmith import as_json


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """When changes are written, and how many at a time.

    Attributes:
        interval_seconds: How long a change may wait for others, and how often a store that failed is tried again.
        unsure_seconds: How long a server may go on with a request whose client has given up or died.
        min_batch: Batches get no smaller than this, however slow the server is.
    """

    interval_seconds: float = 1.0
    unsure_seconds: float = 30.0
    min_batch: int = 10


class Batch:
    """The changes in flight, and how many are claimed next: fewer where the server does not manage so many.

    Args:
        max_size: The most changes in one batch.
        min_size: Batches get no smaller than this.
    """

    def __init__(self, max_size: int, min_size: int) -> None:
        self.size = self._max_size = max_size
        self._min_size = min_size
        self._changes: dict[bytes, TraitChange] = {}
        self._postponed: frozenset[bytes] = frozenset()  # the last batch that was refused as a whole

    def count_last(self, suspects: Collection[bytes]) -> int:
        """Return how many changes are sent after all others."""
        return len(suspects) + len(self._postponed)

    def begin(
        self, claimed: Collection[TraitChange], suspects: Collection[bytes], limit: int
    ) -> Mapping[bytes, TraitChange]:
        """Put changes in flight; those that are to be sent last only if there are no others."""
        found = {as_json(change): change for change in claimed}
        first = [body for body in found if body not in suspects and body not in self._postponed]
        self._changes = {body: found[body] for body in (first or [*found])[:limit]}
        return self._changes

    def end(self, ended: Collection[Message], *, last: bool) -> list[TraitChange]:
        """End the flight; return the changes of messages that are not sent again."""
        changes, self._changes = self._changes, {}
        if last:
            self._postponed = frozenset(changes)
        half = max(self._min_size, len(changes) // 2)
        self.size = min(self._max_size, self.size * 2) if ended else half
        return [changes[message.body] for message in ended]


class Turn:
    """When this process may write: not while a request of its own or of another process may be under way.

    Args:
        unsure_seconds: How long a request may be under way that got no answer.

    Attributes:
        is_own_doubt: Whether the log is unsure because of what this process has claimed.
    """

    def __init__(self, unsure_seconds: float) -> None:
        self._unsure_seconds, self._writes_at = unsure_seconds, -inf
        self.is_own_doubt = False

    def comes_at(self, *, is_unsure: bool) -> float:
        """Return from when on this process, which has the lease, may write: ``time.monotonic()``."""
        if is_unsure and not self.is_own_doubt:
            self.is_own_doubt = True
            self.wait()
        return self._writes_at

    def wait(self) -> None:
        """Have nothing written before a request that got no answer must have ended."""
        self._writes_at = monotonic() + self._unsure_seconds

    def lose(self) -> None:
        """Note that another process writes."""
        self.is_own_doubt = False
