"""Stores the first of two pages of a cohort, and is killed in the middle of the second."""

import os
import signal
import sys
from typing import Any

from flagsync.cohorts import CohortUpdate, SQLiteStore


class Killed(SQLiteStore):
    def _sweep(self, file: Any) -> bool:  # the last that is done in the transaction of a page
        if self.doomed:
            os.kill(os.getpid(), signal.SIGKILL)
        return super()._sweep(file)

    doomed = False


store = Killed(sys.argv[1])
store.list_changes()
store.apply(CohortUpdate("add_members", "7", "vips", members=("old",)))
store.apply(CohortUpdate("members", "7", "vips", "s", 1, 2, ("ann",)))
store.doomed = True
store.apply(CohortUpdate("members", "7", "vips", "s", 2, 2, ("bob",)))
