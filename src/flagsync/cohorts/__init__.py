"""Makes Mixpanel cohorts available as Flagsmith traits.

    Mixpanel's webhook ─> CohortWebhook ─> CohortUpdate        webhook/, update
                            └─> MembershipSink.apply()         store; sqlite/, postgres/
    FlagSync(…, cohorts=store) <─ MembershipReader <─┤         lookup
    Flagsmith's stored traits <─ TraitWriter <─ ChangeLogs     trait_writer/

A store fills the three roles of ``store``, or those that its callers need. What the stores of this package share is in
``sessions``, ``change_log``, ``catalog`` and ``keys``. ``environment`` is an environment of Flagsmith, as a client
reaches it.
"""

from typing import TYPE_CHECKING

from flagsync._lazy import importer
from flagsync.cohorts.keys import Cohort
from flagsync.cohorts.store import (
    ChangeLog,
    ChangeLogs,
    LogState,
    MembershipReader,
    MembershipSink,
    MembershipStore,
    TraitChange,
)
from flagsync.cohorts.update import CohortUpdate
from flagsync.exceptions import StoreUnavailableError

if TYPE_CHECKING:
    from flagsync.cohorts.postgres.store import PostgresStore
    from flagsync.cohorts.sqlite.store import SQLiteStore
    from flagsync.cohorts.trait_writer.writer import TraitStats, TraitWriter
    from flagsync.cohorts.webhook.app import CohortWebhook

__all__ = [
    "ChangeLog",
    "ChangeLogs",
    "Cohort",
    "CohortUpdate",
    "CohortWebhook",
    "LogState",
    "MembershipReader",
    "MembershipSink",
    "MembershipStore",
    "PostgresStore",
    "SQLiteStore",
    "StoreUnavailableError",
    "TraitChange",
    "TraitStats",
    "TraitWriter",
]

# Every client imports this package, and few need SQLite, PostgreSQL, asyncio or a second sender.
_IMPORTED_WHEN_USED = {
    "CohortWebhook": "flagsync.cohorts.webhook.app",
    "PostgresStore": "flagsync.cohorts.postgres.store",
    "SQLiteStore": "flagsync.cohorts.sqlite.store",
    "TraitStats": "flagsync.cohorts.trait_writer.writer",
    "TraitWriter": "flagsync.cohorts.trait_writer.writer",
}

if not TYPE_CHECKING:  # pragma: no branch - with it, type checkers would accept any name
    __getattr__, __dir__ = importer(__name__, _IMPORTED_WHEN_USED)
