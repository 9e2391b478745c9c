"""The way back: Mixpanel's cohorts become Flagsmith traits.

Mixpanel's webhook ─> CohortWebhook ─> CohortUpdate      _webhook, _update
                        └─> MembershipStore.apply()      _store, _sqlite, _schema; _traits names them
FlagSync(…, cohorts=store) <─ traits of an identity ─┤   _lookup
Flagsmith, stored traits <─ TraitWriter <─ changes ──┘   _writer, _flagsmith
"""

from flagsync.cohorts._sqlite import SQLiteStore
from flagsync.cohorts._store import MembershipStore, TraitChange
from flagsync.cohorts._traits import Cohort
from flagsync.cohorts._update import CohortUpdate
from flagsync.cohorts._webhook import CohortWebhook
from flagsync.cohorts._writer import TraitStats, TraitWriter
from flagsync.exceptions import StoreUnavailableError

__all__ = [
    "Cohort",
    "CohortUpdate",
    "CohortWebhook",
    "MembershipStore",
    "SQLiteStore",
    "StoreUnavailableError",
    "TraitChange",
    "TraitStats",
    "TraitWriter",
]
