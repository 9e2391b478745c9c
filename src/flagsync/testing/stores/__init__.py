"""The contract of a membership store, as a class of tests that every store can run; needs pytest.

Guarantee: a store that passes keeps what ``flagsync.cohorts.store`` promises, in one process. Boundary: whether a store
survives crashes, and what other processes see of it, is for its own tests.
"""

from pathlib import Path

import pytest

from flagsync.testing.stores.change_log import ChangeLogContract
from flagsync.testing.stores.memberships import MembershipContract
from flagsync.testing.stores.support import Memberships


class MembershipStoreContract(MembershipContract, ChangeLogContract):
    """Tests that a store of your own must pass.

    Subclass them in a test module:

        from flagsync.testing.contracts import MembershipStoreContract

        class TestMyStore(MembershipStoreContract):
            def make_store(self, path):
                return MyStore(path / "cohorts")

    ``make_store`` gets an empty directory, and returns an empty store. Override the fixture ``store`` instead if a
    store must be closed. A store without a change log is not tested for one.
    """

    def make_store(self, path: Path) -> Memberships:
        """Return an empty store. Override this method."""
        raise NotImplementedError(
            f"{type(self).__name__}.make_store must be overridden: it gets {path}, and returns a store"
        )

    @pytest.fixture
    def store(self, tmp_path: Path) -> Memberships:
        """An empty store."""
        return self.make_store(tmp_path)
