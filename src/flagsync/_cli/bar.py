"""A bar that shows how far a backfill has come. Without a terminal there is none."""

import sys
from typing import Self

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from flagsync._cli.terminal import console
from flagsync._clock import monotonic
from flagsync.bulk import Report


class Bar:
    """The bar, as a context manager.

    Args:
        rate: How many profiles a second Mixpanel gets at most.
        before: How far earlier runs have come.
    """

    def __init__(self, rate: float, before: Report) -> None:
        self._before, self._began = before, monotonic()
        self._progress = Progress(
            BarColumn(bar_width=None),
            TaskProgressColumn("{task.percentage:.0f} %", ""),
            TextColumn("{task.fields[rows]:,} rows"),
            TextColumn(f"{{task.fields[speed]:,.0f}}/s (at most {rate:,.0f})"),
            TextColumn("{task.fields[rejected]:,} rejected"),
            TimeRemainingColumn(),
            console=console(sys.stderr),
            disable=not sys.stderr.isatty(),
            transient=True,
        )
        self._task = self._progress.add_task(
            "", total=None, rows=before.read, speed=0.0, rejected=before.rejected
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    @property
    def seconds(self) -> float:
        """How long it has been shown."""
        return monotonic() - self._began

    def show(self, report: Report, share: float | None) -> None:
        """Show the counts so far, and how much of the file is read."""
        self._progress.update(
            self._task,
            completed=share or 0.0,
            total=None if share is None else 1.0,
            rows=report.read,
            speed=(report.read - self._before.read) / max(self.seconds, 0.001),
            rejected=report.rejected,
        )
