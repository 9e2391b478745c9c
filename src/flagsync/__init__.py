"""Flagsmith decides who sees what; Mixpanel shows what it did; flagsync joins the two.

    application ─> FlagSync.get_identity_flags() ─> Flags, Flagsmith's own    _client, _options
                     └─> Encoder.submit()   a queue; latest wins              _pipeline wires it all
                         ── encoder thread ──
                         evaluation ─> properties ─> Message ─> Outbox.put()  _encoding/
                                       in memory | DurableOutbox: a file      _outbox/, _files/
                         ── sender thread ──
                         Outbox.claim() ─> /engage ─> Outbox.settle()         _delivery/

    Mixpanel cohort webhook ─> CohortUpdate ─> membership store ─> traits     cohorts/

``_process`` makes one object for each process and closes it before the exit, ``_worker`` is a background thread,
``_report`` says what goes wrong, ``_stats`` counts what became of the calls, ``_recent`` is a bounded map,
``exceptions`` is what ``on_error`` gets, ``testing`` has a loopback Mixpanel and the contracts of stores.
"""

from flagsync._client import FlagSync
from flagsync._encoding.properties import PropertyValue
from flagsync._pipeline import outbox_stats
from flagsync._stats import Stats
from flagsync.exceptions import DeliveryError

__all__ = ["DeliveryError", "FlagSync", "PropertyValue", "Stats", "outbox_stats"]
