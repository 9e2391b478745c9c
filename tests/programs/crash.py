"""Stores the first of two pages of a cohort, and is killed in the middle of the second."""

import os
import signal
import sys

from flagsync.cohorts import CohortUpdate, SQLiteStore
from flagsync.cohorts.sqlite.tables import CohortTables


def kill(_: CohortTables) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


store = SQLiteStore(sys.argv[1])
store.change_log("production").start()
store.apply(CohortUpdate("add_members", "7", "vips", members=("old",)))
store.apply(CohortUpdate("members", "7", "vips", "s", 1, 2, ("ann",)))
setattr(CohortTables, "count_change", kill)  # noqa: B010 - the last step in the transaction of a page
store.apply(CohortUpdate("members", "7", "vips", "s", 2, 2, ("bob",)))
