"""The rows of a partition of Apache Spark; pyspark itself is not imported.

Guarantee: a task that is repeated writes the same profiles again, which changes nothing. Boundary: partitions do not
know of each other, so the caller divides Mixpanel's limit among them.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain, islice
from typing import Protocol, TypeAlias, TypeGuard

from flagsync._client import FlagSync
from flagsync._rules import call_fault, require
from flagsync.bulk.client import Client
from flagsync.bulk.pace import PROFILES_PER_SECOND
from flagsync.bulk.report import Outcome, Report
from flagsync.bulk.run import backfill, outcomes, rules


class Frame(Protocol):
    """A data frame of pandas."""

    def __init__(self, data: Mapping[str, list[str | None]]) -> None: ...

    def __len__(self) -> int: ...

    def to_dict(self, orient: str) -> list[dict[str, object]]:
        """With ``"records"``, return a mapping for each row."""


Partition: TypeAlias = Iterable[object]


def partition_writer(
    make_client: Callable[[], FlagSync],
    *,
    identifier: str = "identifier",
    rate: float | None = PROFILES_PER_SECOND,
    on_reject: Callable[[Outcome], object] | None = None,
) -> Callable[[Partition], Report | Iterator[Frame]]:
    """Return a function that mirrors a partition, for ``foreachPartition`` and ``mapInPandas``.

    With ``foreachPartition``, the rows are mirrored as by ``backfill``. With ``mapInPandas`` and the schema
    ``"identifier string, outcome string, reason string"``, the result has an outcome for each row, in the same order. A
    task that cannot reach Mixpanel waits; a task whose configuration is wrong fails.

    Args:
        make_client: Builds the client, in the process that runs the task; each partition gets its own, and closes it.
        identifier: The column with the identifier; every other one is a trait.
        rate: Profiles a second of one partition, at most: divide Mixpanel's limit by the partitions that run at the
            same time.
        on_reject: Called for each rejected row, in the process that runs the task; only with ``foreachPartition``.

    Raises:
        ValueError: An argument is invalid.
    """
    fault = call_fault(make_client, 0)
    require(
        {
            f"make_client must be a function that builds a FlagSync, not {fault}": not fault,
            **rules(identifier, rate),
        }
    )

    def write(partition: Partition) -> Report | Iterator[Frame]:
        items = iter(partition)
        first = [*islice(items, 1)]
        if first and is_frame(first[0]):
            return _frames(chain(first, items), make_client, identifier, rate)  # type: ignore[arg-type]
        with make_client() as client:
            rows = map(as_mapping, chain(first, items))
            return backfill(rows, client, identifier=identifier, rate=rate, on_reject=on_reject)  # type: ignore[arg-type]

    return write


def is_frame(item: object) -> TypeGuard[Frame]:
    """Return whether an item of a partition is a data frame, and not a row."""
    return hasattr(item, "to_dict") and hasattr(item, "columns")


def as_mapping(row: object) -> object:
    """Return a row of Spark as a mapping, and anything else as it is."""
    as_dict = getattr(row, "asDict", None)
    return row if as_dict is None else as_dict()


def _frames(
    frames: Iterable[Frame], make_client: Callable[[], FlagSync], identifier: str, rate: float | None
) -> Iterator[Frame]:
    """Yield a data frame with the outcomes of each one, in their order."""
    waiting, done = deque[tuple[type[Frame], int]](), list[Outcome]()

    def rows() -> Iterator[object]:
        for frame in frames:
            waiting.append((type(frame), len(frame)))
            yield from frame.to_dict("records")

    with make_client() as client:
        settled = outcomes(rows(), Client(client, dry_run=False), identifier, rate)
        for some in chain(settled, [[]]):  # once more, for empty frames at the end
            done += some
            while waiting and len(done) >= waiting[0][1]:
                kind, count = waiting.popleft()
                yield kind(_columns(done[:count]))
                del done[:count]


def _columns(rows: list[Outcome]) -> dict[str, list[str | None]]:
    return {
        "identifier": [row.identifier for row in rows],
        "outcome": [row.outcome for row in rows],
        "reason": [row.reason or None for row in rows],
    }
