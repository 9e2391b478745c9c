"""Help for tests: a loopback Mixpanel, and the contracts that a store of your own must keep.

mixpanel   MixpanelServer, a loopback Mixpanel; updates has what Mixpanel refuses
__main__   ``python -m flagsync.testing`` serves one, and shows what arrives
fixtures   the pytest fixture ``mixpanel_server``
contracts  the contracts of outbox backends and membership stores, as classes of tests; see backends and stores
"""

from contextlib import suppress
from typing import TYPE_CHECKING

from flagsync._lazy import importer

if TYPE_CHECKING:
    from flagsync.testing.mixpanel import MixpanelServer, Request

__all__ = ["MixpanelServer", "Request", "mixpanel_server"]

with suppress(ImportError):  # without pytest there are no fixtures
    from flagsync.testing.fixtures import mixpanel_server

_IMPORTED_WHEN_USED = dict.fromkeys(("MixpanelServer", "Request"), "flagsync.testing.mixpanel")

if not TYPE_CHECKING:  # pragma: no branch - with it, type checkers would accept any name
    __getattr__, __dir__ = importer(__name__, _IMPORTED_WHEN_USED)
