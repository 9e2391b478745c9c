"""How a call of the webhook changes a cohort, and how a whole cohort replaces another in constant time.

Every member has a number, ``seen``: the last session that mentioned it. Every cohort has a ``floor``: the last session
that is complete. Whoever was last seen below the floor has left. So a cohort of any size is replaced by one assignment,
and those who left become former members afterwards, some at a time: the sweep. Two of three members, replaced:

    what comes                          ann   bob   eve   floor   who is a member
    add_members: ann, bob                 0     0             0   ann, bob
    session 1, page 1 of 2: bob           0     1             0   ann, bob
    add_members: eve                      0     1     1       0   ann, bob, eve
    session 1, page 2 of 2: nobody        0     1     1       1   bob, eve
    sweep                                -1     1     1       1   bob, eve

Members that are added while a session is under way get its number, and stay. Late pages of a session below the floor
mean nothing.

Guarantee: only a session whose pages have all come, and do not contradict each other, replaces a cohort. Boundary: how
the tables are stored is behind ``SessionTables``.
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
    """A page that has come: its number, a digest of its members, how many there are, and how many were skipped."""

    number: int
    digest: bytes
    members: int
    skipped: int


class PageTotals(NamedTuple):
    """What has come of a session: how many pages, members and skipped members."""

    pages: int
    members: int
    skipped: int


class SweptRange(NamedTuple):
    """Some rows of a cohort: those behind an identifier, up to another one; up to the end if that is None."""

    cohort: int
    after: str
    last: str | None


class SessionTables(Protocol):
    """The tables of a store, in one transaction: what a database does so that sessions work in it.

    Numbers of sessions rise with each new one, across all cohorts.
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
        """Forget a session; its pages mean nothing any more."""

    def page_digest(self, session: int, page: int) -> bytes | None:
        """Return the digest of a page that has come."""

    def add_page(self, session: int, page: StoredPage) -> None:
        """Note that a page has come."""

    def page_totals(self, session: int) -> PageTotals:
        """Return what has come of a session."""

    def join(self, cohort: int, members: Sequence[str], seen: int) -> None:
        """Make identities members, seen in a session; whoever was none before has changed."""

    def leave(self, cohort: int, members: Sequence[str]) -> None:
        """Make members former ones, who have changed."""

    def raise_floor(self, cohort: int, session: int) -> None:
        """Make a session the cohort's floor, to be swept from its first row; forget the pages of older sessions."""

    def next_range(self, rows: int) -> SweptRange | None:
        """Return the next rows that are to be swept, at most so many and one; None if there are none."""

    def sweep(self, swept: SweptRange) -> None:
        """Make those former members who left in a range; they have changed. Go on behind the range."""

    def count_change(self) -> None:
        """Give the store another version."""


class Sessions:
    """Applies calls of the webhook to the tables of a store.

    Args:
        kept_sessions: How many sessions of a cohort are remembered, whose late pages are recognised.
        swept_rows: How many rows are swept at a time.
        report: Told, deferred, of pages that contradict each other.
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
        """Make some of those former members who left; return False if there was nobody."""
        swept = tables.next_range(self._swept_rows)
        if swept is not None:
            tables.sweep(swept)
        return swept is not None

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
        """Let those leave whom the session did not mention, if all its pages have come."""
        came = tables.page_totals(session)
        if came.pages == pages and (came.members or not came.skipped):
            tables.raise_floor(cohort.number, session)
