"""Stores one of two pages of a cohort, and is killed in the middle of the other one; the argument names the store."""

import os
import signal
import sys

from stores import open_store

from flagsync.cohorts import CohortUpdate
from flagsync.cohorts.postgres import tables as postgres
from flagsync.cohorts.sqlite import tables as sqlite


def kill(_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


store = open_store(sys.argv[1])
store.change_log("production").start()
store.apply(CohortUpdate("add_members", "7", "vips", members=("old",)))
store.apply(CohortUpdate("members", "7", "vips", "s", 1, 2, ("ann",)))
for tables in (sqlite.CohortTables, postgres.CohortTables):
    setattr(tables, "count_change", kill)  # noqa: B010 - the last step in the transaction of a page
store.apply(CohortUpdate("members", "7", "vips", "s", 2, 2, ("bob",)))
