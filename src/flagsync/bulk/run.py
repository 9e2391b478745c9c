"""Mirrors the rows of any source.

Guarantee: memory does not grow with the source. While Mixpanel is down, no more rows are read. A bad row does not stop
the others.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import TypeAlias

from flagsync._client import FlagSync
from flagsync._rules import is_number, require, shown
from flagsync.bulk.client import Client
from flagsync.bulk.pace import PROFILES_PER_SECOND, Pace
from flagsync.bulk.report import Outcome, Report, RowCounts
from flagsync.bulk.window import CHUNK_ROWS, Target, Window

OnProgress: TypeAlias = Callable[[Report], object]
OnReject: TypeAlias = Callable[[Outcome], object]
CHUNKS_PER_SECOND = 10  # at least, so that a low rate is an even one


def backfill(
    rows: Iterable[Mapping[str, object]],
    client: FlagSync,
    *,
    identifier: str = "identifier",
    rate: float | None = PROFILES_PER_SECOND,
    dry_run: bool = False,
    after: Report | None = None,
    on_progress: OnProgress | None = None,
    on_reject: OnReject | None = None,
) -> Report:
    """Evaluate the flags of each row's user, and mirror them; return once all is settled.

    Of several rows for one profile, the last one counts. While Mixpanel is down, ``backfill`` waits. The client should
    do nothing else meanwhile, since the counts are those of the whole client.

    Args:
        rows: Mappings of column names to values. Each is read once, at most a few thousand before they are settled.
        client: Evaluates and mirrors. Close it afterwards.
        identifier: The column with the identifier, text or a whole number. Every other column is a trait with the type
            of its value; None and NaN are no values.
        rate: Profiles a second, at most; None: as many as possible. By default just below what Mixpanel takes.
        dry_run: Evaluate and send nothing. The client needs no token for that.
        after: The last report of an earlier run: its rows are skipped, and its counts continue.
        on_progress: Called with the counts so far each time that more rows are settled, after ``on_reject``.
        on_reject: Called once for each rejected row, in the order of the rows.

    Raises:
        ValueError: An argument is invalid.
        DeliveryError: Mixpanel accepts nothing until somebody corrects the configuration, or the client is closed. The
            report that ``on_progress`` got last says how many rows are settled.
        flagsmith.exceptions.FlagsmithAPIError: Flagsmith's API cannot evaluate now.
    """
    require(
        {
            f"after must be a Report of an earlier run, or None, not {shown(after)}": isinstance(
                after, Report | None
            ),
            **rules(identifier, rate),
        }
    )
    target = Client(client, dry_run=dry_run)
    return run(
        rows,
        target,
        identifier,
        rate=None if dry_run else rate,
        after=after or Report(),
        on_progress=on_progress,
        on_reject=on_reject,
    )


def run(
    rows: Iterable[object],
    target: Target,
    identifier: str,
    *,
    rate: float | None,
    after: Report,
    on_progress: OnProgress | None,
    on_reject: OnReject | None,
) -> Report:
    """Do with rows what the target does; see ``backfill``."""
    tally, rest = RowCounts(after), islice(rows, after.read, None)
    for settled in outcomes(rest, target, identifier, rate, first=after.read + 1):
        tally.add(settled)
        for outcome in settled:
            if on_reject is not None and outcome.outcome == "rejected":
                on_reject(outcome)
        if on_progress is not None:
            on_progress(tally.report(*target.counts()))
    return tally.report(*target.counts())


def rules(identifier: str, rate: float | None) -> dict[str, bool]:
    """Return what must hold for the options of a backfill: a sentence for each, and whether it does."""
    return {
        f"identifier must be the name of a column, not {shown(identifier)}": isinstance(identifier, str)
        and bool(identifier),
        f"rate must be a number above 0, or None, not {shown(rate)}": rate is None
        or (is_number(rate) and rate > 0),
    }


def outcomes(
    rows: Iterable[object], target: Target, identifier: str, rate: float | None, first: int = 1
) -> Iterator[list[Outcome]]:
    """Yield what became of each row, in their order, some at a time; see ``Window.outcomes``."""
    chunk_rows = CHUNK_ROWS if rate is None else min(CHUNK_ROWS, max(1, int(rate / CHUNKS_PER_SECOND)))
    return Window(target, identifier, Pace(rate), chunk_rows).outcomes(rows, first)
