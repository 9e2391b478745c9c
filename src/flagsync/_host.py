"""What the outboxes of a process share: a lock, the files that are open, and who of the host sends.

Guarantee: a forked child inherits no connection, no lock that is held and no right to send. Boundary: POSIX.
"""

import os
import threading
from contextlib import suppress
from typing import Protocol

with suppress(ImportError):  # elsewhere, no outbox is made
    import fcntl


class Connected(Protocol):
    """An outbox whose file is open."""

    path: str

    def disconnect(self) -> None: ...


class Process:
    """The outboxes of one process. SQLite keeps the locks of a process in its memory, which a fork copies."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.connected: list[Connected] = []
        self.elections: dict[
            str, tuple[int, object]
        ] = {}  # path -> the descriptor of the lock, and whose it is
        self.forks = False

    @staticmethod
    def current() -> "Process":
        """That of this process."""
        return _processes.setdefault(os.getpid(), Process())

    def inherited(self, path: str) -> bool:
        """Whether a parent had the file open when it was forked past Python's hooks."""
        others = (other for other in _processes.values() if other is not self)
        return any(outbox.path == path for other in others for outbox in other.connected)

    def elected(self, path: str, outbox: object) -> bool:
        """Whether this is the one outbox of the host that sends what is in the file."""
        if path not in self.elections:
            descriptor = os.open(f"{path}-sender", os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # a lock that no fork copies
                self.elections[path] = descriptor, outbox
            except OSError:
                os.close(descriptor)
        return self.elections.get(path, (0, None))[1] is outbox

    def resign(self, path: str, outbox: object) -> None:
        """Let another outbox of the host be the one that sends."""
        if self.elections.get(path, (0, None))[1] is outbox:
            os.close(self.elections.pop(path)[0])


def _before_fork() -> None:
    """Wait until no thread is in the middle of anything, and close what is open until it is needed again."""
    process = Process.current()
    process.lock.acquire()
    process.forks = True
    for outbox in [*process.connected]:
        outbox.disconnect()


def _after_fork() -> None:
    """In the parent, go on; in the child, close what only the parent has a use for."""
    for pid, process in _processes.items():
        if process.forks and pid == os.getpid():
            process.forks = False
            process.lock.release()
        elif process.forks:
            for path, (_, outbox) in [*process.elections.items()]:
                process.resign(path, outbox)


_processes: dict[int, Process] = {}  # by process id: of this one, and of its parents
# Where there is no fork, there is nothing to register.
getattr(os, "register_at_fork", dict)(
    before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork
)
