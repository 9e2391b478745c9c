"""Mirrors the flags that Flagsmith evaluates to Mixpanel profiles.

    application ─> FlagSync.get_identity_flags() ─> Flags, Flagsmith's own    _client, _options, _evaluator
    application ─> FlagSync.track_exposure()                                  _experiments
                     └─> Encoder.submit()   a queue; latest wins              _pipeline wires it all
                         ── encoder thread ──
                         evaluation ─> properties ─> Message ─> Outbox.put()  _encoding/
                                       in memory | DurableOutbox: a file      _outbox/, _files/
                         ── sender thread ──
                         Outbox.claim() ─> /engage, /track ─> .settle()       _delivery/

    a table, file or partition ─> backfill() ─> get_identity_flags()         bulk/, _cli/
    Mixpanel cohort webhook ─> CohortUpdate ─> membership store ─> traits     cohorts/

_process      one object per process, and what runs before a process exits
_pipelines    makes the pipeline of a client in each process
_signals      delivers pending updates at SIGTERM
_async_calls  the asynchronous methods of a client
_call_threads threads in which asynchronous code runs blocking calls
_event_loops  what asynchronous code needs from asyncio and trio
_worker       a background thread
_report       logs problems and passes them to ``on_error``
_client_rules what must hold for the Flagsmith client that is wrapped
_messages     warnings about how an application uses its client
_loss         reports what a closing client gives up
_stats        counts the outcomes of calls
_health       says whether mirroring works and, if not, why
_thresholds   what a health check tolerates
_refresh      how old the environment document is
_oldest       the first of what other threads change meanwhile
_recent       a bounded map of the entries used last
_clock        clocks that keep running while a test freezes the time
_experiments  records exposures with Flagsmith as well, where its events are enabled
_observation  shows a hook of OpenFeature what is evaluated meanwhile
_delegation   the names of the Flagsmith client on a client
_identifiers  the text of an identifier
_rules        rules that options must meet
_environment  reads options from environment variables
_lazy         imports names when they are first used
exceptions    what flagsync reports and raises
metrics       for OpenTelemetry and Prometheus
openfeature   records exposures of flags that OpenFeature evaluates
outboxes      the backends that an application may pass as its outbox
testing       a loopback Mixpanel, and the contracts of stores
"""

from typing import TYPE_CHECKING

from flagsync._lazy import importer

if TYPE_CHECKING:
    from flagsync._client import FlagSync
    from flagsync._encoding.properties import PropertyValue
    from flagsync._outbox.place import outbox_stats
    from flagsync._signals import close_on_sigterm
    from flagsync._stats import Stats
    from flagsync.exceptions import DeliveryError

__all__ = ["DeliveryError", "FlagSync", "PropertyValue", "Stats", "close_on_sigterm", "outbox_stats"]
__version__ = "0.1.0"

# pytest imports this package wherever it is installed, for the fixture in ``testing``. That must not import requests or
# ssl, which gevent has to patch before anybody imports them.
_IMPORTED_WHEN_USED = {
    "DeliveryError": "flagsync.exceptions",
    "FlagSync": "flagsync._client",
    "PropertyValue": "flagsync._encoding.properties",
    "Stats": "flagsync._stats",
    "bulk": "flagsync.bulk",
    "close_on_sigterm": "flagsync._signals",
    "cohorts": "flagsync.cohorts",
    "exceptions": "flagsync.exceptions",
    "outbox_stats": "flagsync._outbox.place",
}

if not TYPE_CHECKING:  # pragma: no branch - with it, type checkers would accept any name
    __getattr__, __dir__ = importer(__name__, _IMPORTED_WHEN_USED)
