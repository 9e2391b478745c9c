"""One run of a command over the rows of a file: shows how far it is, and what became of them."""

from collections import Counter
from dataclasses import asdict
from typing import Protocol

from flagsmith.exceptions import FlagsmithAPIError

from flagsync._cli.bar import Bar
from flagsync._cli.failure import WRONG, Failure
from flagsync._cli.journal import Journal
from flagsync._cli.rows.source import Source
from flagsync._cli.terminal import count, say, show, show_json, table
from flagsync._messages import no_answer
from flagsync.bulk import Outcome, Report
from flagsync.bulk.run import OnProgress, OnReject
from flagsync.exceptions import DeliveryError

MAX_REASONS, SHOWN_REASONS = 100, 5


class Work(Protocol):
    """What is done with rows: ``bulk.backfill``, or what takes the same arguments."""

    def __call__(
        self, *, rate: float, after: Report, on_progress: OnProgress, on_reject: OnReject
    ) -> Report: ...


class Run:
    """One run of a command.

    Args:
        source: Where the rows are read.
        journal: Where progress is written.
        rate: Profiles a second, at most.
    """

    def __init__(self, source: Source, journal: Journal, rate: float) -> None:
        self._source, self._journal, self._rate = source, journal, rate
        self._report, self._reasons, self._seconds = journal.before, Counter[str](), 0.0

    def of(self, work: Work) -> Report:
        """Do the work on the rows.

        Raises:
            Failure: It cannot be done to the end.
        """
        try:
            with Bar(self._rate, self._journal.before) as bar:
                self._report = work(
                    rate=self._rate,
                    after=self._journal.before,
                    on_progress=lambda report: self._note(report, bar),
                    on_reject=self._reject,
                )
        except (Failure, DeliveryError, FlagsmithAPIError) as error:
            raise Failure(f"{_reason(error)}. {self._settled()}", WRONG) from error
        except KeyboardInterrupt:
            say(self._settled())
            raise
        return self._report

    def show(self, *, as_json: bool, has_rejects: bool) -> None:
        """Print what became of the rows."""
        report, new = self._report, self._report.read - self._journal.before.read
        speed = round(new / self._seconds) if self._seconds else 0
        if as_json:
            reasons = dict(self._reasons.most_common())
            times = {"seconds": round(self._seconds, 3), "rows_per_second": speed}
            show_json({**asdict(report), **times, "reasons": reasons})
            return
        counts = [(name, f"{rows:,}") for name, rows in asdict(report).items() if rows or name == "read"]
        show(table(("rows", "count"), [*counts, ("a second", f"{speed:,}")], numbers=("count",)))
        if self._reasons:
            rejected = [(reason, f"{rows:,}") for reason, rows in self._reasons.most_common(SHOWN_REASONS)]
            show("", table(("why rows were rejected", "count"), rejected, numbers=("count",)))
        if report.rejected and not has_rejects:
            say("--rejects FILE tells which rows were rejected.")

    def _note(self, report: Report, bar: Bar) -> None:
        self._report, self._seconds = report, bar.seconds
        self._journal.save(report)
        bar.show(report, self._source.share)

    def _reject(self, outcome: Outcome) -> None:
        self._journal.reject(outcome)
        if outcome.reason in self._reasons or len(self._reasons) < MAX_REASONS:
            self._reasons[outcome.reason] += 1

    def _settled(self) -> str:
        rows = count(self._report.read, "row")
        return f"{rows} settled; with --checkpoint, the same command continues from there"


def _reason(error: Exception) -> str:
    if isinstance(error, DeliveryError):
        return error.reason
    return (no_answer(error) if isinstance(error, FlagsmithAPIError) else None) or f"{error}"
