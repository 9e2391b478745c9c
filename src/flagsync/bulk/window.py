"""The rows in flight: a window that moves over a source as rows are settled, in the source's order.

Guarantee: memory does not grow with the source, and a bad row does not stop the others. While Mixpanel is down, the
window waits.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from itertools import islice
from typing import Protocol

from flagsync._encoding.distinct_id import NotMirrored
from flagsync.bulk.pace import Pace
from flagsync.bulk.report import Outcome, Result
from flagsync.bulk.rows import Row, Unreadable, read
from flagsync.bulk.settling import Settling

# A request takes 2 MB, some 1,600 profiles of 50 flags. While one is in flight the next one fills. A crash repeats at
# most these rows.
CHUNK_ROWS, MAX_CHUNKS = 1000, 5


class Target(Protocol):
    """What is done with rows.

    Attributes:
        max_rows: How many rows may be in flight, so that none is dropped.
        success: What becomes of a row if all is well.
    """

    max_rows: int
    success: Result

    def distinct_id(self, identifier: str) -> str | NotMirrored:
        """Return the profile of an identifier."""

    def submit(self, row: Row, distinct_id: str) -> str:
        """Begin with a row; return why that is impossible, or nothing."""

    def settle(self) -> Settling | None:
        """Begin to wait until what was submitted is settled; None if nothing is sent."""

    def followed_by(self, reject: Callable[[str, str], bool]) -> AbstractContextManager[None]:
        """Meanwhile call a function with the ``distinct_id`` of each profile that is not updated, and the reason.

        It returns whether it knows the profile, and must not raise.
        """

    def counts(self) -> tuple[int, int]:
        """Return how many rows were unchanged, and how many were lost without a word of it, since the beginning.

        A word is missing where another process has sent them, from an outbox that both share.
        """


class Chunk:
    """Rows that are settled together.

    Attributes:
        outcomes: One for each row.
        profiles: Rows that may be mirrored, by ``distinct_id``.
        failure: What ended the source, or the evaluation, behind these rows.
        settling: Waits for the rows; None if there is nothing to wait for.
    """

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []
        self.profiles: list[tuple[str, Outcome]] = []
        self.failure: Exception | None = None
        self.settling: Settling | None = None

    @property
    def is_settled(self) -> bool:
        """Whether nobody would have to wait for it."""
        return self.settling is None or not self.settling.is_alive()


class Window:
    """Evaluates the rows of a source, and tells what became of each.

    Args:
        target: What is done with them.
        column: The column with the identifier.
        pace: Keeps below Mixpanel's limit.
        chunk_rows: How many rows are settled together.
    """

    def __init__(self, target: Target, column: str, pace: Pace, chunk_rows: int = CHUNK_ROWS) -> None:
        self._target, self._column, self._pace = target, column, pace
        self._chunk_rows = max(1, min(chunk_rows, target.max_rows // MAX_CHUNKS))
        self._chunks = deque[Chunk]()
        self._in_flight: dict[str, Outcome] = {}  # the latest row of each profile

    def outcomes(self, rows: Iterable[object], first: int = 1) -> Iterator[list[Outcome]]:
        """Yield what became of the rows, in their order, some at a time.

        What the source raises comes through, after the outcomes of the rows before it.

        Args:
            rows: The source.
            first: The number of its first row.

        Raises:
            DeliveryError: Mixpanel accepts nothing until a person corrects the configuration, or the client is closed.
        """
        numbered = enumerate(rows, first)
        is_end = False
        with self._target.followed_by(self._reject):
            while not is_end:
                chunk = self._chunk(numbered)
                self._chunks.append(chunk)
                is_end = len(chunk.outcomes) < self._chunk_rows
                while self._chunks and (is_end or self._is_full or self._chunks[0].is_settled):
                    yield self._settled()
        if chunk.failure is not None:
            raise chunk.failure

    @property
    def _is_full(self) -> bool:
        return len(self._chunks) >= MAX_CHUNKS

    def _chunk(self, numbered: Iterator[tuple[int, object]]) -> Chunk:
        """Submit the next rows. Fewer than asked for are the last ones."""
        self._pace.wait(self._chunk_rows)
        chunk = Chunk()
        try:
            for number, row in islice(numbered, self._chunk_rows):
                self._submit(chunk, number, row)
        except Exception as error:  # noqa: BLE001 - it is raised once these rows are settled
            chunk.failure = error
        chunk.settling = self._target.settle() if chunk.profiles else None
        return chunk

    def _submit(self, chunk: Chunk, number: int, row: object) -> None:
        found = read(row, self._column)
        if isinstance(found, Unreadable):
            chunk.outcomes.append(Outcome(number, found.identifier, "rejected", found.reason))
            return
        outcome = Outcome(number, found.identifier, self._target.success)
        distinct_id = self._target.distinct_id(found.identifier)
        if isinstance(distinct_id, NotMirrored):
            outcome.outcome, outcome.reason = (
                "rejected" if distinct_id.reason else "skipped",
                distinct_id.reason,
            )
        else:
            self._evaluate(chunk, outcome, found, distinct_id)
        chunk.outcomes.append(outcome)

    def _evaluate(self, chunk: Chunk, outcome: Outcome, row: Row, distinct_id: str) -> None:
        before, self._in_flight[distinct_id] = self._in_flight.get(distinct_id), outcome
        chunk.profiles.append((distinct_id, outcome))
        if reason := self._target.submit(row, distinct_id):
            outcome.outcome, outcome.reason = "rejected", reason
        elif before is not None and before.outcome == self._target.success:
            before.outcome = "superseded"

    def _settled(self) -> list[Outcome]:
        """Wait for the oldest chunk; return its outcomes."""
        chunk = self._chunks.popleft()
        if chunk.settling is not None:
            chunk.settling.wait()
        for distinct_id, outcome in chunk.profiles:
            if self._in_flight.get(distinct_id) is outcome:
                del self._in_flight[distinct_id]
        return chunk.outcomes

    def _reject(self, distinct_id: str, reason: str) -> bool:
        """Note why a row in flight does not arrive; return whether there is one. The client's threads call this."""
        if (outcome := self._in_flight.get(distinct_id)) is None:
            return False
        outcome.outcome, outcome.reason = "rejected", reason
        return True
