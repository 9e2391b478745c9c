"""What became of rows."""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, TypeAlias

Result: TypeAlias = Literal["delivered", "evaluated", "superseded", "skipped", "rejected"]


@dataclass(slots=True)
class Outcome:
    """What became of a row.

    Attributes:
        row: The number of the row, from 1.
        identifier: Its identifier; None if it has none that can be read.
        outcome: ``"delivered"`` if Mixpanel has the flags, ``"evaluated"`` in a dry run, ``"superseded"`` if a later
            row for the same profile took its place, ``"skipped"`` if ``distinct_id`` gives it no profile, and
            ``"rejected"``.
        reason: Why it was rejected.
    """

    row: int
    identifier: str | None
    outcome: Result
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """How far a backfill has come. ``read`` is the sum of the other counts.

    Attributes:
        read: Rows that are settled. All rows before these are settled, too.
        delivered: Mixpanel accepted the update.
        unchanged: Mixpanel has these flags already, or they are about to be sent.
        superseded: A later row for the same profile took the place of this one.
        skipped: ``distinct_id`` gives the identifier no profile.
        rejected: Not readable, impossible to evaluate, or refused by Mixpanel.
        evaluated: In a dry run, rows that would have been sent.
    """

    read: int = 0
    delivered: int = 0
    unchanged: int = 0
    superseded: int = 0
    skipped: int = 0
    rejected: int = 0
    evaluated: int = 0


class RowCounts:
    """Counts outcomes of rows.

    Args:
        after: The counts of an earlier run, which go on.
    """

    def __init__(self, after: Report) -> None:
        self._before, self._read, self._counts = after, 0, Counter[str]()

    def add(self, outcomes: Collection[Outcome]) -> None:
        """Count outcomes."""
        self._read += len(outcomes)
        self._counts.update(outcome.outcome for outcome in outcomes)

    def report(self, unchanged: int, lost: int) -> Report:
        """Return the counts.

        Args:
            unchanged: Rows of this run that were not sent, since Mixpanel has their flags.
            lost: Rows of this run that another process has sent, from an outbox that both share, and Mixpanel refused.
        """
        before, new = self._before, self._counts
        lost = min(lost, new["delivered"])
        unchanged = min(unchanged, new["delivered"] - lost)
        return Report(
            read=before.read + self._read,
            delivered=before.delivered + new["delivered"] - lost - unchanged,
            unchanged=before.unchanged + unchanged,
            superseded=before.superseded + new["superseded"],
            skipped=before.skipped + new["skipped"],
            rejected=before.rejected + new["rejected"] + lost,
            evaluated=before.evaluated + new["evaluated"],
        )
