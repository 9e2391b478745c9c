"""A SQLite file that processes share: its connection in one process.

Guarantee: a forked child inherits no open connection, no lock that is held, and no lease. Waiting for another process
ends at a deadline, and does not hold up other threads. Boundary: POSIX.
"""

import os
import sqlite3
import threading
import weakref
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from time import sleep

from flagsync._clock import monotonic
from flagsync._files.lease import FileLease
from flagsync._files.sqlite import Format, begin, connect, identity
from flagsync._process import PerProcess

INHERITED = (
    "a process that had it open was forked without Python's hooks; build clients and stores after the fork"
)
PAUSE_SECONDS = 0.001


class _OpenFiles:
    """The open files of one process.

    Acquire ``lock`` to register a file or to fork. Never acquire it while holding a file's own lock.
    """

    def __init__(self, inherited: "_OpenFiles | None") -> None:
        self.lock = threading.RLock()
        self.files: weakref.WeakSet[SharedFile] = weakref.WeakSet()
        self.released = deque[sqlite3.Cursor]()  # of garbage-collected files
        # SQLite notes its locks in memory. A fork copies the notes, but the child does not have the locks. The child's
        # own children get the notes, too.
        self.unusable: set[str] = set()
        if inherited is not None:
            files = [*inherited.files]
            self.unusable = {*inherited.unusable, *(file.path for file in files if file.is_connected)}
            for file in files:
                file.lease.release()

    def close_released(self) -> None:
        """Close the connections that finalizers have left."""
        while self.released:
            with suppress(IndexError):  # another thread was faster
                self.released.popleft().connection.close()


class _Fork(threading.local):
    """What a thread holds while it forks, and must release in both processes."""

    def __init__(self) -> None:
        self.held = ExitStack()


class SharedFile:
    """A shared file, as one process uses it.

    Args:
        path: Absolute path of the file.
        kind: The format of its content.
    """

    def __init__(self, path: str, kind: Format) -> None:
        self.path, self.lease = path, FileLease(path)
        self._kind = kind
        self._lock = threading.RLock()  # held while the connection is used
        self._process = _open_files.get()
        # The only one of its connection, which keeps a reference to each: one more for the garbage collector to follow.
        self._cursor: sqlite3.Cursor | None = None
        self._identity: tuple[int, int] | None = None
        with self._process.lock:
            self._process.files.add(self)

    @property
    def is_connected(self) -> bool:
        """Whether it has an open connection."""
        return self._cursor is not None

    @contextmanager
    def read(self, deadline: float) -> Iterator[sqlite3.Cursor]:
        """Use the connection through its only cursor. An error closes it, and the next call opens it again."""
        with self._lock, self._disconnect_on_error():
            yield self._open(deadline)

    @contextmanager
    def write(self, deadline: float) -> Iterator[sqlite3.Cursor]:
        """Use the connection, as ``read`` does, in a transaction, which is committed at the end.

        Raises:
            sqlite3.OperationalError: Another process kept the file locked until the deadline.
        """
        with ExitStack() as stack:
            while True:
                stack.enter_context(self._lock)
                with self._disconnect_on_error():
                    cursor = self._open(deadline)
                    has_begun = begin(cursor)
                if has_begun:
                    break
                stack.close()  # so that other threads get their turn
                if monotonic() >= deadline:
                    raise sqlite3.OperationalError("another process keeps the file locked")
                sleep(PAUSE_SECONDS)
            with self._disconnect_on_error():
                yield cursor
                cursor.connection.commit()

    def disconnect(self) -> None:
        """Close the connection until it is needed again."""
        with self._lock:
            if self._cursor is not None:
                cursor, self._cursor = self._cursor, None
                cursor.connection.close()

    def close(self) -> None:
        """Release the lease and close the connection, until they are needed again."""
        self.lease.release()
        self.disconnect()

    def abandon(self) -> None:
        """Release what a garbage-collected store held. For finalizers: takes no lock, and does not call SQLite."""
        self.lease.release()
        cursor, self._cursor = self._cursor, None
        if cursor is not None:
            self._process.released.append(cursor)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the file, disconnected, during a fork."""
        with self._lock:
            with suppress(sqlite3.Error):
                self.disconnect()
            yield

    @contextmanager
    def _disconnect_on_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.disconnect()  # this rolls back
            raise

    def _open(self, deadline: float) -> sqlite3.Cursor:
        if self._cursor and identity(self.path) != self._identity:
            self.disconnect()  # the file was removed or replaced
        if self._cursor is None:
            if self.path in self._process.unusable:
                raise OSError(INHERITED)
            self._process.close_released()
            self._cursor = connect(self.path, self._kind, deadline).cursor()
            self._identity = identity(self.path)
        return self._cursor


_open_files: PerProcess[_OpenFiles] = PerProcess(_OpenFiles)
_fork = _Fork()


def _before_fork() -> None:
    """Wait until no thread uses a connection, and close all connections until they are needed again."""
    process, held = _open_files.get(), _fork.held
    held.enter_context(process.lock)
    process.close_released()
    for file in [*process.files]:
        held.enter_context(file.held())


def _after_fork() -> None:
    _open_files.get()  # a child lets go of the leases of its parent
    _fork.held.close()


if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows has no fork, and no file either
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
