"""Flagsmith decides who sees what; Mixpanel shows what it did; flagsync joins the two.

    application ─> FlagSync.get_identity_flags() ─> Flags, Flagsmith's own    _client, _options
    application ─> FlagSync.track_exposure()                                  _experiments
                     └─> Encoder.submit()   a queue; latest wins              _pipeline wires it all
                         ── encoder thread ──
                         evaluation ─> properties ─> Message ─> Outbox.put()  _encoding/
                                       in memory | DurableOutbox: a file      _outbox/, _files/
                         ── sender thread ──
                         Outbox.claim() ─> /engage, /track ─> .settle()       _delivery/

    Mixpanel cohort webhook ─> CohortUpdate ─> membership store ─> traits     cohorts/

``_process`` makes one object for each process and closes it before the exit, ``_pipelines`` those of a client,
``_signals`` closes them before SIGTERM ends the process,
``_worker`` is a background thread, ``_clock`` a clock that tests of applications do not stop,
``_report`` says what goes wrong, ``_messages`` what is odd about the application, ``_loss`` what a client gave up,
``_stats`` counts what became of the calls, ``_recent`` is a bounded map,
``_identifiers`` tells what an identifier is, ``_rules`` what an option must be, ``_environment`` reads options,
``_lazy`` imports what is used, ``exceptions`` is what ``on_error`` gets, ``testing`` has a loopback Mixpanel and the
contracts of stores.
"""

from typing import TYPE_CHECKING

from flagsync._lazy import importer

if TYPE_CHECKING:
    from flagsync._client import FlagSync
    from flagsync._encoding.properties import PropertyValue
    from flagsync._pipeline import outbox_stats
    from flagsync._signals import close_on_sigterm
    from flagsync._stats import Stats
    from flagsync.exceptions import DeliveryError

__all__ = ["DeliveryError", "FlagSync", "PropertyValue", "Stats", "close_on_sigterm", "outbox_stats"]
__version__ = "0.1.0"

# pytest imports this package wherever it is installed, for the fixture of ``testing``: it must not import requests and
# ssl for that, which gevent patches before they are imported.
_IMPORTED_WHEN_USED = {
    "DeliveryError": "flagsync.exceptions",
    "FlagSync": "flagsync._client",
    "PropertyValue": "flagsync._encoding.properties",
    "Stats": "flagsync._stats",
    "close_on_sigterm": "flagsync._signals",
    "cohorts": "flagsync.cohorts",
    "exceptions": "flagsync.exceptions",
    "outbox_stats": "flagsync._pipeline",
}

if not TYPE_CHECKING:  # pragma: no branch - type checkers would take every name for one of the package
    __getattr__ = importer(__name__, _IMPORTED_WHEN_USED)


def __dir__() -> list[str]:
    return sorted({*globals(), *_IMPORTED_WHEN_USED})
