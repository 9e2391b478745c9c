"""Flagsmith decides who sees what; Mixpanel shows what it did; flagsync joins the two.

    application ─> FlagSync.get_identity_flags() ─> Flags, Flagsmith's own   _client
                     └─> Encoder.submit()   a queue; latest wins             _encoder
                         ── encoder thread ──
                         Flags ─> properties ─> JSON ─> Outbox.put()         _snapshot, _properties
                                  Outbox: in memory | in a file              _outbox | _sqlite, _schema
                         ── sender thread ──
                         Outbox.take() ─> /engage ─> Outbox.settle()         _sender, _mixpanel

    Mixpanel cohort webhook ─> CohortUpdate ─> membership store ─> traits    cohorts

``_pipeline`` starts and ends the threads, ``_config`` checks the options, ``_host`` and ``_database`` are
files that processes share, ``_fork`` tells a child from its parent, ``_http`` is requests with deadlines,
``exceptions`` is what ``on_error`` gets, ``testing`` is a loopback Mixpanel.
"""

from flagsync._client import FlagSync
from flagsync._pipeline import Stats, outbox_stats
from flagsync._properties import PropertyValue
from flagsync.exceptions import DeliveryError

__all__ = ["DeliveryError", "FlagSync", "PropertyValue", "Stats", "outbox_stats"]
