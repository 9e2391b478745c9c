"""Benchmarks of flagsync, beside ``mixpanel.BufferedConsumer`` and the naive wrapper, as one printed table.

    python -m tests.benchmarks                    # from the root of the repository, about 2.5 minutes
    python -m tests.benchmarks delivery memory    # some groups: caller stalls delivery latency unchanged memory

All sides are measured in the same run. Guarantee: loopback only, ends by itself, asserts nothing about time.
Boundary: absolute figures are this machine's; leave it alone while they are taken.
"""

import sys
from time import perf_counter

from tests.benchmarks.caller import caller, stalls
from tests.benchmarks.delivery import delivery, latency, unchanged
from tests.benchmarks.memory import memory
from tests.benchmarks.report import HEAD, Row
from tests.benchmarks.server import Server

GROUPS = {group.__name__: group for group in (caller, stalls, delivery, latency, unchanged, memory)}
WIDTHS = (34, 38, 26, 20, 16)


def show(row: Row) -> None:
    """One line of the table."""
    print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, WIDTHS, strict=True)).rstrip(), flush=True)


def main(names: list[str]) -> None:
    """The table, each line as soon as it is measured."""
    began = perf_counter()
    show(HEAD)
    with Server() as server:
        for name in names or GROUPS:
            show(Row(*("-" * width for width in WIDTHS)))
            for row in GROUPS[name](server):
                show(row)
    print(f"\n{perf_counter() - began:.0f} s, Python {sys.version.split()[0]}")


if __name__ == "__main__":
    main(sys.argv[1:])
