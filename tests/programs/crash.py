"""Stores the first of two pages of a cohort, and is killed in the middle of the second."""

import os
import signal
import sys

from flagsync.cohorts import CohortUpdate, SQLiteStore, _sqlite


def kill(_: object) -> bool:
    os.kill(os.getpid(), signal.SIGKILL)
    return False


store = SQLiteStore(sys.argv[1])
store.list_changes()
store.apply(CohortUpdate("add_members", "7", "vips", members=("old",)))
store.apply(CohortUpdate("members", "7", "vips", "s", 1, 2, ("ann",)))
setattr(_sqlite, "sweep", kill)  # noqa: B010 - the last that is done in the transaction of a page
store.apply(CohortUpdate("members", "7", "vips", "s", 2, 2, ("bob",)))
