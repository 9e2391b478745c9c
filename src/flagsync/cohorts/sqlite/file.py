"""A file of cohorts in each process that uses it: one connection that reads, and one that writes.

Guarantee: readers do not wait for writers. What the file cannot do now raises ``StoreUnavailableError``. Boundary: it
does not know what is read and written.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from flagsync._clock import monotonic
from flagsync._files.shared import SharedFile
from flagsync._files.sqlite import prepare
from flagsync._process import PerProcess
from flagsync.cohorts.sqlite.schema import COHORTS
from flagsync.exceptions import StoreUnavailableError


class _Connections(NamedTuple):
    reading: SharedFile
    writing: SharedFile


class CohortFile:
    """The file, with connections of its own in each process.

    Args:
        path: Absolute path of the file, which is created if there is none.
        busy_seconds: How long one operation waits for another process.

    Raises:
        ValueError: The file cannot be opened or created; the message says why.
    """

    def __init__(self, path: str, busy_seconds: float) -> None:
        prepare(path, COHORTS).close()
        self.path, self._busy_seconds = path, busy_seconds
        self._connections = PerProcess[_Connections](
            lambda _: _Connections(SharedFile(path, COHORTS), SharedFile(path, COHORTS))
        )

    @contextmanager
    def read(self) -> Iterator[sqlite3.Cursor]:
        """Use the connection that reads."""
        with _unavailable(), self._connections.get().reading.read(self._deadline()) as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[sqlite3.Cursor]:
        """Use the connection that writes, in a transaction that is committed at the end."""
        with _unavailable(), self._connections.get().writing.write(self._deadline()) as connection:
            yield connection

    def disconnect(self) -> None:
        """Close the connections of this process until they are needed again. The lease stays."""
        for file in self._connections.existing() or ():
            file.disconnect()

    def abandon(self) -> None:
        """Release what a garbage-collected store held. For finalizers: takes no lock and does no I/O."""
        for file in self._connections.existing() or ():
            file.abandon()

    def _deadline(self) -> float:
        return monotonic() + self._busy_seconds


@contextmanager
def _unavailable() -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise StoreUnavailableError(f"The file of cohorts cannot be used ({error})") from error
