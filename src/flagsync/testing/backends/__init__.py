"""The contract of an outbox backend, as a class of tests that every backend can run; needs pytest.

Guarantee: a backend that passes keeps what ``Backend`` promises to processes that share a store. Boundary: tests of its
bounds, of damaged stores, of processes that die, and of waiting for others are its own.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from flagsync._outbox.backend import Backend
from flagsync.testing.backends.events import EventContract
from flagsync.testing.backends.repeating import RepeatContract
from flagsync.testing.backends.reporting import ReportingContract
from flagsync.testing.backends.sending import SendingContract
from flagsync.testing.backends.storing import StoringContract
from flagsync.testing.backends.support import Connect, connections
from flagsync.testing.backends.tails import TailContract


class OutboxBackendContract(
    StoringContract, RepeatContract, EventContract, SendingContract, TailContract, ReportingContract
):
    """Tests that an outbox backend of your own must pass.

    Subclass them in a test module, and override ``make_backend``.
    """

    def make_backend(self, path: Path) -> Backend:
        """Return the backend of one process on the store at a path. Override this method.

        It is called once for each process of a test. The same path, an existing directory, stands for the same store.
        The backends are closed after the test.

            from flagsync.testing.contracts import OutboxBackendContract

            class TestMyBackend(OutboxBackendContract):
                def make_backend(self, path):
                    return MyBackend(path / "outbox")
        """
        raise NotImplementedError(
            f"{type(self).__name__}.make_backend must be overridden: it gets {path}, and returns a backend"
        )

    @pytest.fixture
    def connect(self, tmp_path: Path) -> Iterator[Connect]:
        """Makes backends of processes that share a store."""
        with connections(self.make_backend, tmp_path) as connect:
            yield connect
