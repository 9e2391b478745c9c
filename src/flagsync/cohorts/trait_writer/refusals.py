"""Identities that Flagsmith has refused: their changes are sent alone, and given up after many tries.

Guarantee: no change is given up while nothing else is written either, since then the server itself is failing.
Boundary: it remembers a bounded number of identities, in one process.
"""

from collections.abc import Collection

from flagsync._recent import Recent
from flagsync.cohorts.store import TraitChange

MAX_REMEMBERED = 10_000


class Refusals:
    """Remembers which identities were refused.

    Args:
        max_tries: After this many tries a change is given up.
    """

    def __init__(self, max_tries: int) -> None:
        self._max_tries, self._written, self._batches = max_tries, 0, 0
        # identifier -> how many changes were written before its last refusal
        self._written_before: Recent[str, int] = Recent(MAX_REMEMBERED)

    def note_written(self, changes: Collection[TraitChange]) -> None:
        """Note that Flagsmith has accepted changes."""
        self._written += len(changes)
        if changes:
            self._batches = 0
        for change in changes:
            self._written_before.forget(change.identifier)

    def note_refused(self, changes: Collection[TraitChange]) -> None:
        """Note that Flagsmith has refused changes, or failed on each alone."""
        for change in changes:
            self._written_before[change.identifier] = self._written

    def count_batch(self) -> int:
        """Count a batch that was refused as a whole; return how many were since a change was written."""
        self._batches += 1
        return self._batches

    def has(self, change: TraitChange) -> bool:
        """Return whether the identity of a change was refused before."""
        return self._written_before.get(change.identifier) is not None

    def is_last(self, change: TraitChange) -> bool:
        """Return whether a change that was refused now is given up."""
        written = self._written_before.get(change.identifier)
        is_proven = written is not None and written < self._written
        return is_proven and change.tries + 1 >= self._max_tries
