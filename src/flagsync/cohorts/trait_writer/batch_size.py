"""How many changes go into one request, so that it takes a few seconds.

Guarantee: a size that got no answer is not reached again soon. Boundary: the caller measures the time.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Batches:
    """How many changes are written at once.

    A self-hosted Flagsmith 2.265 takes 2 ms for each trait while it has nothing else to do, and 30 times as long during
    30 evaluations a second. While it writes, evaluations wait.

    Attributes:
        first: The first batch.
        least: Batches get no smaller than this, however slow the server is.
        max_bulk: The most changes in one bulk request.
        max_singles: The most changes at a time where there is no bulk endpoint.
        aim_seconds: How long a request should take.
        growth: A batch is at most this many times as large as the last one.
        caution: A batch without an answer halves the limit for later ones. Each success raises the limit by this
            factor.
        no_bulk_seconds: A server without the bulk endpoint is asked for it again after this time.
        concurrent_singles: Requests in flight at the same time where there is no bulk endpoint.
        max_alone: If more different changes than this fail alone in a row, the server itself is failing.
    """

    first: int = 50
    least: int = 10
    max_bulk: int = 500
    max_singles: int = 200
    aim_seconds: float = 3.0
    growth: float = 1.5
    caution: float = 1.05
    no_bulk_seconds: float = 600.0
    concurrent_singles: int = 8
    max_alone: int = 10


class BatchSize:
    """The size of the next batch.

    Args:
        batches: How many changes are written at once.
        most: The most changes in one batch.
    """

    def __init__(self, batches: Batches, most: int) -> None:
        self._batches, self._most = batches, most
        self._ceiling = float(most)
        self.size = min(batches.first, most)

    def note_answer(self, count: int, seconds: float) -> None:
        """Note that a batch of ``count`` changes took ``seconds``."""
        batches = self._batches
        if count < self.size and seconds <= batches.aim_seconds:
            return  # a part of a batch says nothing about a whole one
        wanted = count * batches.aim_seconds / max(seconds, 0.001)
        self._ceiling = min(self._most, self._ceiling * batches.caution)
        self._set(min(wanted, self.size * batches.growth, self._ceiling))

    def note_silence(self, count: int) -> None:
        """Note that a batch of ``count`` changes got no answer in time."""
        self._ceiling = count / 2
        self._set(min(self.size, self._ceiling))

    def _set(self, size: float) -> None:
        self.size = max(min(self._batches.least, self._most), int(size))
