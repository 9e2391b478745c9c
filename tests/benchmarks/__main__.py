"""Benchmarks of flagsync, beside ``mixpanel.BufferedConsumer`` and the naive wrapper, as one printed table.

    python -m tests.benchmarks                    # from the root of the repository, about 16 minutes
    python -m tests.benchmarks delivery memory    # some groups of: call stall evaluate delivery file latency
                                                  # unchanged memory web rollout outage kills soak exposures
                                                  # exposure_soak exposure_kills hosts hosts_once
                                                  # host_kills everysec backfill lookup million writer

All sides are measured in the same run, over loopback. Boundary: nothing is asserted about time, and the figures
are the machine's, too: let it do nothing else meanwhile.
"""

import gc
import os
import sys
from time import perf_counter

from tests.benchmarks.backfilling import backfill
from tests.benchmarks.calling import call, stall
from tests.benchmarks.cohorts import lookup, million, writer
from tests.benchmarks.delivering import delivery, file, latency, unchanged
from tests.benchmarks.evaluating import evaluate
from tests.benchmarks.exposing import exposure_kills, exposure_soak, exposures
from tests.benchmarks.hosting import everysec, host_kills, hosts, hosts_once
from tests.benchmarks.remembering import memory
from tests.benchmarks.server import Server
from tests.benchmarks.surviving import kills, outage, rollout, soak
from tests.benchmarks.table import WIDTHS, show
from tests.benchmarks.web import web

FORWARD = (call, stall, evaluate, delivery, file, latency, unchanged, memory, web, rollout, outage, kills, soak)
EXPERIMENTS = (exposures, exposure_soak, exposure_kills)
HOSTS = (hosts, hosts_once, host_kills, everysec)
BULK = (backfill,)
BACK = (lookup, million, writer)
GROUPS = {group.__name__: group for group in (*FORWARD, *EXPERIMENTS, *HOSTS, *BULK, *BACK)}

if __name__ == "__main__":
    began, load = perf_counter(), os.getloadavg()[0]
    show("what", "side", "figure", "target", "verdict")
    with Server() as server:
        for name in sys.argv[1:] or GROUPS:
            print("-" * (sum(WIDTHS) + 25))
            GROUPS[name](server)
            gc.unfreeze()  # the next group's collections cost what they cost
    machine = f"{os.cpu_count()} CPUs, load {load:.1f} before the start"
    print(f"\n{perf_counter() - began:.0f} s, Python {sys.version.split()[0]}, {machine}")
