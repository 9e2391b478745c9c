"""The lease of the change log in a file of cohorts: a lock file beside it.

Guarantee: the kernel releases it with its process. A forked child leaves it to its parent. Boundary: local file
systems.
"""

import weakref

from flagsync._files.shared import SharedFile
from flagsync._process import PerProcess
from flagsync.cohorts.sqlite.schema import COHORTS
from flagsync.exceptions import StoreUnavailableError


class LogLease:
    """A ``Lease``, which is released when it is garbage-collected.

    Args:
        path: Absolute path of the file of cohorts.
        name: The name of the environment.
    """

    seconds = 0.0

    def __init__(self, path: str, name: str) -> None:
        # This file is never made: only its lease is used, which a forked child leaves to its parent.
        self._files = PerProcess[SharedFile](lambda _: SharedFile(f"{path}-{name}", COHORTS))
        weakref.finalize(self, _abandon, self._files).atexit = False

    def try_acquire(self) -> bool:
        """Acquire the lease if no other process holds it; return whether this process holds it."""
        try:
            return self._files.get().lease.try_acquire()
        except OSError as error:
            raise StoreUnavailableError(f"The lock file of the cohorts cannot be used ({error})") from error

    def release(self) -> None:
        """Release the lease."""
        self._files.get().lease.release()


def _abandon(files: PerProcess[SharedFile]) -> None:
    """Release the lease. Takes no lock."""
    if (file := files.existing()) is not None:
        file.abandon()
