"""Help for tests: a loopback Mixpanel, and the contracts that a store of one's own must keep.

mixpanel   MixpanelServer, and for pytest the fixture ``mixpanel_server``
contracts  the contracts of outbox backends and membership stores, as classes of tests
"""

from contextlib import suppress

from flagsync.testing.mixpanel import MixpanelServer, Request

__all__ = ["MixpanelServer", "Request", "mixpanel_server"]

with suppress(ImportError):  # without pytest there are no fixtures
    from flagsync.testing.fixtures import mixpanel_server
