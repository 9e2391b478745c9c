"""A file that processes share: its connection, and which of them sends.

Guarantee: a forked child inherits no connection, no lock that is held and no right to send; a file that cannot
be used is left alone for a while. Boundary: POSIX.
"""

import os
import sqlite3
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from time import monotonic

from flagsync._database import Format, connect, identity

with suppress(ImportError):  # elsewhere, no file is made
    import fcntl

BROKEN_SECONDS = 60.0
INHERITED = "a process that had it open was forked past Python's hooks; build what uses it after the fork"


class Process:
    """What the files of one process have in common.

    ``lock`` is for who adds a file and for who forks; neither waits for it with the lock of a file.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.files: weakref.WeakSet[SharedFile] = weakref.WeakSet()
        self.connected: list[SharedFile] = []
        # path -> the descriptor of the lock, and whose it is
        self.elections: dict[str, tuple[int, SharedFile]] = {}
        self.voting = threading.RLock()
        self.forks: list[SharedFile] | None = None  # whose locks are held meanwhile

    @staticmethod
    def current() -> "Process":
        """That of this process."""
        return _processes.setdefault(os.getpid(), Process())


class OutOfUseError(Exception):
    """The file is closed, or not needed yet, or rests after an error."""


class SharedFile:
    """A file, in one process, for who holds its ``lock``; ``sign_in`` is called with each new connection."""

    def __init__(
        self, path: str, kind: Format, sign_in: Callable[[sqlite3.Connection], object] = lambda _: None
    ) -> None:
        self.identity: tuple[int, int] | None = None  # of the file that is open
        self.error: Exception | None = None  # what made it unusable, until it is not
        self.closed = False
        self._path, self._kind, self._sign_in = path, kind, sign_in
        self._process = Process.current()
        self.lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._usable_from = 0.0
        with self._process.lock:
            self._process.files.add(self)

    @contextmanager
    def guard(self) -> Iterator[None]:
        """What the file cannot do is undone, and ``error`` tells why."""
        try:
            yield
        except OutOfUseError:
            pass
        except Exception as error:  # noqa: BLE001 - whatever it is, the thread and its updates go on
            self.disconnect()
            self.resign()
            self.error, self._usable_from = error, monotonic() + BROKEN_SECONDS

    def open(self, *, write: bool = False) -> sqlite3.Connection:
        """The connection; in a transaction, if it is to write."""
        if self._connection and identity(self._path) != self.identity:
            self.disconnect()  # somebody has removed the file
        if self._connection is None:
            if self.closed or monotonic() < self._usable_from:
                raise OutOfUseError
            # SQLite keeps the locks of a process in its memory, which a fork copies, and the locks are gone.
            others = (process for process in _processes.values() if process is not self._process)
            if any(file._path == self._path for other in others for file in other.connected):  # noqa: SLF001 - a sibling
                raise OSError(INHERITED)
            self._connection = connect(self._path, self._kind)
            self._process.connected.append(self)
            self.identity = identity(self._path)
            self._sign_in(self._connection)
        if write:
            self._connection.execute("BEGIN IMMEDIATE")
        return self._connection

    def disconnect(self) -> None:
        """Close the connection until it is needed again."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
            self._process.connected.remove(self)

    def try_again(self) -> None:
        """Do not wait any longer after an error."""
        self._usable_from = 0.0

    def elected(self) -> bool:
        """Whether this is the one of the host that sends what is in the file."""
        elections = self._process.elections
        with self._process.voting:
            if self._path not in elections:
                descriptor = os.open(f"{self._path}-sender", os.O_RDWR | os.O_CREAT, 0o600)
                try:
                    fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # a lock that no fork copies
                    elections[self._path] = descriptor, self
                except OSError:
                    os.close(descriptor)
        return self.sends()

    def sends(self) -> bool:
        """Whether it was elected before."""
        return self._process.elections.get(self._path, (0, None))[1] is self

    def resign(self) -> None:
        """Let another one of the host send."""
        with self._process.voting:
            if self.sends():
                os.close(self._process.elections.pop(self._path)[0])


def _before_fork() -> None:
    """Wait until no thread is in the middle of anything, and close what is open until it is needed again."""
    process = Process.current()
    process.lock.acquire()
    process.forks = [*process.files]
    for file in process.forks:
        file.lock.acquire()
    for file in process.forks:
        with suppress(sqlite3.Error):
            file.disconnect()


def _after_fork() -> None:
    """In the parent, go on; in the child, close what only the parent has a use for."""
    for pid, process in _processes.items():
        if process.forks is not None and pid == os.getpid():
            while process.forks:
                process.forks.pop().lock.release()
            process.forks = None
            process.lock.release()
        elif process.forks is not None:
            process.voting = threading.RLock()
            for _, file in [*process.elections.values()]:
                file.resign()


_processes: dict[int, Process] = {}  # by process id: of this one, and of its parents
# Where there is no fork, there is nothing to register.
getattr(os, "register_at_fork", dict)(
    before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork
)
