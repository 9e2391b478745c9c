"""The tables of a file of cohorts in one transaction.

Guarantee: what ``SessionTables`` says. Boundary: which calls change what is decided by ``sessions``.
"""

import json
import sqlite3
from collections.abc import Sequence
from typing import Any

from flagsync._files.sqlite import read
from flagsync.cohorts.sessions import PageTotals, StoredCohort, StoredPage, StoredSession, SweptRange
from flagsync.cohorts.sqlite import schema as sql
from flagsync.cohorts.update import CohortUpdate

ALL_MEMBERS = 2  # of ``listing``


class CohortTables:
    """A file of cohorts, as ``SessionTables``.

    Args:
        file: A connection in a transaction.
    """

    def __init__(self, file: sqlite3.Connection) -> None:
        self._file = file

    def cohort(self, update: CohortUpdate, *, make: bool) -> StoredCohort | None:
        """Return the cohort of a call, by its new name from now on.

        A cohort that is not known is made if ``make``; else there is none.
        """
        cohort_id, name = update.cohort_id, update.cohort_name
        if make:
            self._file.execute(sql.NEW_COHORT, (cohort_id, name, name))
        if self._file.execute(sql.RENAME, {"id": cohort_id, "name": name}).rowcount:
            self.count_change()
        row = self._first(sql.COHORT, cohort_id)
        return None if row is None else StoredCohort(*row)

    def start_log(self) -> None:
        """Have changes logged from now on, and all members by the sweep."""
        if self._file.execute(sql.START_LOG).rowcount:
            self._file.execute(sql.SWEEP_ALL)

    def session(self, cohort: int, session_id: str) -> StoredSession | None:
        """Return the session of a cohort with an id, if it is remembered."""
        row = self._first(sql.SESSION, cohort, session_id)
        return None if row is None else StoredSession(*row)

    def last_session(self, cohort: int) -> int:
        """Return the number of the cohort's newest session; 0 if there is none."""
        return read(self._file, sql.LAST_SESSION, cohort)

    def add_session(self, cohort: int, session_id: str, pages: int, kept: int) -> int:
        """Begin a session, and forget the cohort's oldest ones."""
        number = self._file.execute(sql.NEW_SESSION, (cohort, session_id or None, pages)).lastrowid
        self._file.execute(sql.FORGET_SESSIONS, {"cohort": cohort, "kept": kept})
        return number or 0

    def forget_session(self, session: int) -> None:
        """Forget a session."""
        self._file.execute(sql.FORGET_SESSION, (session,))

    def page_digest(self, session: int, page: int) -> bytes | None:
        """Return the digest of a page that has come."""
        row = self._first(sql.DIGEST, session, page)
        return None if row is None else row[0]

    def add_page(self, session: int, page: StoredPage) -> None:
        """Note that a page has come."""
        self._file.execute(sql.NEW_PAGE, (session, *page))

    def page_totals(self, session: int) -> PageTotals:
        """Return what has come of a session."""
        return PageTotals(*self._file.execute(sql.PAGE_TOTALS, (session,)).fetchone())

    def join(self, cohort: int, members: Sequence[str], seen: int) -> None:
        """Make identities members, and log who was none before."""
        values = {"cohort": cohort, "members": _as_json(members), "seen": seen}
        if read(self._file, sql.LISTING):
            self._file.execute(sql.LOG_JOINERS, values)
        self._file.execute(sql.JOIN, values)

    def leave(self, cohort: int, members: Sequence[str]) -> None:
        """Delete members, and log who was one before."""
        values = {"cohort": cohort, "members": _as_json(members)}
        if read(self._file, sql.LISTING):
            self._file.execute(sql.LOG_LEAVERS, values)
        self._file.execute(sql.LEAVE, values)

    def raise_floor(self, cohort: int, session: int) -> None:
        """Make a session the cohort's floor, and forget the pages of older sessions."""
        self._file.execute(sql.RAISE_FLOOR, (session, cohort))
        self._file.execute(sql.FORGET_PAGES, {"cohort": cohort, "number": session})

    def next_range(self, rows: int) -> SweptRange | None:
        """Return the next rows that are to be swept."""
        unswept = self._first(sql.UNSWEPT)
        if unswept is None:
            self._file.execute(sql.ALL_LISTED)
            return None
        cohort, after = unswept
        last = self._first(sql.LAST_IN_RANGE, cohort, after, rows)
        return SweptRange(cohort, after, None if last is None else last[0])

    def sweep(self, swept: SweptRange) -> None:
        """Delete who left in a range, and log those who belong on the log."""
        values = swept._asdict()
        if listing := read(self._file, sql.LISTING):
            self._file.execute(sql.LOG_ALL if listing == ALL_MEMBERS else sql.LOG_LEFT, values)
        self._file.execute(sql.DELETE_LEFT, values)
        self._file.execute(sql.SWEPT_UP_TO, (swept.last, swept.cohort))

    def count_change(self) -> None:
        """Give the store another version."""
        self._file.execute(sql.COUNT_CHANGE)

    def _first(self, query: str, *values: object) -> Sequence[Any] | None:
        """Return the first row, if there is one."""
        return self._file.execute(query, values).fetchone()  # type: ignore[no-any-return]


def _as_json(members: Sequence[str]) -> str:
    return json.dumps(members, ensure_ascii=False)
