"""A file that processes share: its connection, and which of them sends.

Guarantee: a forked child inherits no connection, no lock that is held and no right to send. Boundary: POSIX.
"""

import os
import sqlite3
import threading
import weakref
from contextlib import ExitStack, suppress

from flagsync._database import Format, connect, identity

with suppress(ImportError):  # elsewhere, no file is made
    import fcntl

INHERITED = "a process that had it open was forked past Python's hooks; build what uses it after the fork"


class Process:
    """What the files of one process have in common.

    ``lock`` is for who adds a file and for who forks; neither waits for it with the lock of a file.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.files: weakref.WeakSet[SharedFile] = weakref.WeakSet()
        self.connected: list[SharedFile] = []
        self.held = ExitStack()  # the locks, during a fork

    @staticmethod
    def current() -> "Process":
        """That of this process; a child's begins with closing what only its parent has a use for."""
        if (pid := os.getpid()) not in _processes:
            for file in [file for parent in [*_processes.values()] for file in parent.files]:
                file.resign()
            _processes.setdefault(pid, Process())
        return _processes[pid]


class OutOfUseError(Exception):
    """The file is closed, or not needed yet, or rests after an error."""


class SharedFile:
    """A file, in one process, for who holds its ``lock``."""

    def __init__(self, path: str, kind: Format) -> None:
        self.found = 0  # files at the path, one after the other
        self.ballot: int | None = None  # the descriptor of the lock, of the one that sends
        self.lock = threading.RLock()
        self._path, self._kind = path, kind
        self._process = Process.current()
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        with self._process.lock:
            self._process.files.add(self)

    def open(self) -> sqlite3.Connection:
        """The connection."""
        if self._connection and identity(self._path) != self._identity:
            self.disconnect()
            self._identity = None  # somebody has removed the file, and the next may have its number
        if self._connection is None:
            # SQLite keeps the locks of a process in its memory, which a fork copies, and the locks are gone.
            others = (process for process in _processes.values() if process is not self._process)
            if any(file._path == self._path for other in others for file in other.connected):  # noqa: SLF001 - a sibling
                raise OSError(INHERITED)
            self._connection = connect(self._path, self._kind)
            self._process.connected.append(self)
            if (found := identity(self._path)) != self._identity:
                self._identity = found
                self.found += 1
        return self._connection

    def disconnect(self) -> None:
        """Close the connection until it is needed again."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
            self._process.connected.remove(self)

    def elected(self) -> bool:
        """Whether this is the one of the host that sends what is in the file."""
        if self.ballot is None:
            ballot = os.open(f"{self._path}-sender", os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(ballot, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self.ballot = ballot
            except OSError:
                os.close(ballot)
        return self.ballot is not None

    def resign(self) -> None:
        """Let another one of the host send; in a forked child, leave it to the parent."""
        ballot, self.ballot = self.ballot, None
        if ballot is not None:
            os.close(ballot)


def _before_fork() -> None:
    """Wait until no thread is in the middle of anything, and close what is open until it is needed again."""
    process = Process.current()
    process.held.enter_context(process.lock)
    files = [*process.files]
    for file in files:
        process.held.enter_context(file.lock)
    for file in files:
        with suppress(sqlite3.Error):
            file.disconnect()


def _after_fork() -> None:
    Process.current().held.pop_all().close()  # not close() alone: another fork may fill it meanwhile


_processes: dict[int, Process] = {}  # by process id: of this one, and of its parents
# Where there is no fork, there is nothing to register. In a child, the stack of its own Process is empty.
getattr(os, "register_at_fork", dict)(
    before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork
)
