"""Help for tests: a loopback Mixpanel, and the contracts that a store of one's own must keep.

mixpanel   MixpanelServer, a loopback Mixpanel; ``python -m flagsync.testing`` serves one
fixtures   for pytest the fixture ``mixpanel_server``
contracts  the contracts of outbox backends and membership stores, as classes of tests
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

if not TYPE_CHECKING:  # pragma: no branch - type checkers would take every name for one of the package
    __getattr__ = importer(__name__, _IMPORTED_WHEN_USED)


def __dir__() -> list[str]:
    return sorted({*globals(), *_IMPORTED_WHEN_USED})
