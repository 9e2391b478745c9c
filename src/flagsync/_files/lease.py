"""The lease of a shared file: of the processes that share it, the holder sends.

Guarantee: the kernel releases the lease when its process ends. A process loses the lease when its lock file is removed
or replaced. Boundary: local file systems on POSIX.
"""

import os
from contextlib import suppress
from pathlib import Path

from flagsync._clock import time
from flagsync._files.place import make

with suppress(ImportError):  # without it sqlite.prepare refuses every file
    import fcntl


class FileLease:
    """A lock on a file next to the shared one.

    Args:
        path: Absolute path of the shared file.
    """

    def __init__(self, path: str) -> None:
        self._shared, self._path = path, f"{path}-sender"
        self._descriptor: int | None = None
        self._is_refused = False  # another process held it at the last attempt

    @property
    def is_held(self) -> bool:
        """Whether this process held the lease when it last tried to acquire it."""
        return self._descriptor is not None

    def try_acquire(self) -> bool:
        """Acquire the lease if no other process holds it; return whether this process holds it.

        The holder shows a sign of life with each call.
        """
        if self._descriptor is not None and not self._is_in_place(self._descriptor):
            self.release()
        if self._descriptor is None:
            self._acquire()
        if self._descriptor is not None:
            os.utime(self._descriptor)
        return self._descriptor is not None

    def release(self) -> None:
        """Release the lease. In a forked child, the parent keeps it."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def silent_seconds(self) -> float:
        """Return how long the holder has shown no sign of life; 0.0 unless it refused the last attempt."""
        if self._is_refused:
            with suppress(OSError):
                return max(0.0, time() - Path(self._path).stat().st_mtime)
        return 0.0

    def _acquire(self) -> None:
        make(self._path, self._shared)
        descriptor = os.open(self._path, os.O_RDWR)
        self._is_refused = False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if self._is_in_place(descriptor):  # somebody may have removed the file since it was opened
                self._descriptor = descriptor
        except OSError:
            self._is_refused = True
        finally:
            if self._descriptor is None:
                os.close(descriptor)

    def _is_in_place(self, descriptor: int) -> bool:
        """Return whether the path still leads to the file that is locked."""
        with suppress(FileNotFoundError):
            return os.path.samestat(os.fstat(descriptor), Path(self._path).stat())
        return False
