"""How a call of the webhook changes a cohort, and how a session replaces a whole cohort in constant time.

Guarantee: only a session whose pages have all arrived, and do not contradict each other, replaces a cohort. Boundary:
how the tables are stored is behind ``SessionTables``.
"""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from flagsync._report import Reporter
from flagsync.cohorts.update import CohortUpdate

STARTS_OVER = (
    "Pages of a cohort contradict each other: its session starts over, and nobody leaves before it is complete"
)


class StoredCohort(NamedTuple):
    """A cohort in the tables: its number, and the last session that is complete."""

    number: int
    floor: int


class StoredSession(NamedTuple):
    """A session in the tables: its number, and how many pages it has."""

    number: int
    pages: int


class StoredPage(NamedTuple):
    """A page that has arrived: its number, a digest of its members, and how many were usable and skipped."""

    number: int
    digest: bytes
    members: int
    skipped: int


class PageTotals(NamedTuple):
    """What has arrived of a session: how many pages, members and skipped members."""

    pages: int
    members: int
    skipped: int


class SessionTables(Protocol):
    """The tables of a store, in one transaction: what a database must do for sessions to work.

    The numbers of sessions rise across all cohorts.
    """

    def session(self, cohort: int, session_id: str) -> StoredSession | None:
        """Return the session of a cohort with an id, if it is remembered."""

    def last_session(self, cohort: int) -> int:
        """Return the number of the cohort's newest session; 0 if there is none."""

    def add_session(self, cohort: int, session_id: str, pages: int, kept: int) -> int:
        """Begin a session, and return its number. Of the cohort's sessions, forget all but the newest ones.

        Args:
            cohort: Number of the cohort.
            session_id: Empty for a session that is never asked for again.
            pages: How many pages it has.
            kept: How many sessions of the cohort are remembered.
        """

    def forget_session(self, session: int) -> None:
        """Forget a session; its pages do not count any more."""

    def page_digest(self, session: int, page: int) -> bytes | None:
        """Return the digest of a page that has arrived; None if it has not."""

    def add_page(self, session: int, page: StoredPage) -> None:
        """Note that a page has arrived."""

    def page_totals(self, session: int) -> PageTotals:
        """Return what has arrived of a session."""

    def join(self, cohort: int, members: Sequence[str], seen: int) -> None:
        """Make identities members, seen in a session. Those that were not members before have changed."""

    def leave(self, cohort: int, members: Sequence[str]) -> None:
        """Turn members into former members; they have changed."""

    def raise_floor(self, cohort: int, session: int) -> None:
        """Make a session the cohort's floor, start a sweep at its first row, and forget pages of older sessions."""

    def sweep(self, rows: int) -> bool:
        """Look at the next ``rows + 1`` rows, and turn those that left into former members, who have changed.

        The next call continues behind them. Return False if there was nothing to look at.
        """

    def count_change(self) -> None:
        """Change the version of the store."""


class Sessions:
    """Applies calls of the webhook to the tables of a store.

    Every member has a number, ``seen``: the last session that mentioned it. Every cohort has a ``floor``: its last
    complete session. A member whose ``seen`` is below the floor has left. So one assignment replaces a cohort of any
    size. Afterwards the sweep turns those who left into former members, some at a time. An example:

        call                                ann   bob   eve   floor   members
        add_members: ann, bob                 0     0             0   ann, bob
        session 1, page 1 of 2: bob           0     1             0   ann, bob
        add_members: eve                      0     1     1       0   ann, bob, eve
        session 1, page 2 of 2: nobody        0     1     1       1   bob, eve
        sweep                                -1     1     1       1   bob, eve

    Members that are added during a session get its number, and stay. Late pages of a session below the floor are
    ignored.

    Args:
        kept_sessions: How many sessions of a cohort are remembered, to recognise their late pages.
        swept_rows: How many rows are swept at a time.
        report: Where pages that contradict each other are reported, deferred.
    """

    def __init__(self, *, kept_sessions: int, swept_rows: int, report: Reporter) -> None:
        self._kept_sessions, self._swept_rows, self._report = kept_sessions, swept_rows, report

    def apply(self, tables: SessionTables, cohort: StoredCohort, update: CohortUpdate) -> None:
        """Apply one call, in one transaction."""
        if update.action == "members":
            session = self._note_page(tables, cohort, update)
            if session is None:
                return
            tables.join(cohort.number, update.members, session)
            self._replace_if_complete(tables, cohort, session, update.pages)
        elif update.action == "add_members":
            tables.join(cohort.number, update.members, tables.last_session(cohort.number))
        else:
            tables.leave(cohort.number, update.members)
        self.sweep(tables)
        tables.count_change()

    def sweep(self, tables: SessionTables) -> bool:
        """Turn some of those who left into former members; return False if there was nothing to sweep."""
        return tables.sweep(self._swept_rows)

    def _note_page(self, tables: SessionTables, cohort: StoredCohort, update: CohortUpdate) -> int | None:
        """Return the number of the page's session; None if the page says nothing new."""
        digest = hashlib.blake2b("\0".join(update.members).encode(), digest_size=16).digest()
        known = tables.session(cohort.number, update.session_id)
        if known is not None:
            known_digest = tables.page_digest(known.number, update.page)
            if known.number < cohort.floor or (known.pages, known_digest) == (update.pages, digest):
                return None
            if known.pages != update.pages or known_digest is not None:
                self._report.defer(STARTS_OVER)
                tables.forget_session(known.number)
                known = None
        if known is None:
            session = tables.add_session(cohort.number, update.session_id, update.pages, self._kept_sessions)
        else:
            session = known.number
        tables.add_page(session, StoredPage(update.page, digest, len(update.members), update.skipped))
        return session

    def _replace_if_complete(
        self, tables: SessionTables, cohort: StoredCohort, session: int, pages: int
    ) -> None:
        """If all pages of the session have arrived, let the members leave that it did not mention."""
        came = tables.page_totals(session)
        if came.pages == pages and (came.members or not came.skipped):
            tables.raise_floor(cohort.number, session)
