"""The contracts that a backend or a store of your own must keep, as classes of tests; needs pytest.

Subclass one in a test module, and override the method that makes the object under test.
"""

from flagsync.testing.backends import OutboxBackendContract
from flagsync.testing.stores import MembershipStoreContract

__all__ = ["MembershipStoreContract", "OutboxBackendContract"]
