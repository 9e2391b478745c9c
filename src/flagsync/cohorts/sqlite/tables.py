"""The tables of a file of cohorts in one transaction.

Guarantee: it keeps the contracts of ``SessionTables`` and ``CohortTable``. Boundary: ``sessions`` decides what a call
changes.
"""

import json
import sqlite3
from collections.abc import Sequence
from typing import Any

from flagsync._files.sqlite import read
from flagsync.cohorts.keys import KnownCohort
from flagsync.cohorts.sessions import PageTotals, StoredCohort, StoredPage, StoredSession
from flagsync.cohorts.sqlite import schema as sql
from flagsync.cohorts.update import CohortUpdate


class CohortTables:
    """A file of cohorts, as ``SessionTables`` and ``CohortTable``.

    Args:
        file: A connection in a transaction.
    """

    def __init__(self, file: sqlite3.Cursor) -> None:
        self._file = file

    def version(self) -> int:
        """Return the version of the store."""
        return read(self._file, sql.VERSION)

    def known(self) -> list[KnownCohort]:
        """Return the known cohorts."""
        return [KnownCohort(*row) for row in self._file.execute(sql.KNOWN)]

    def cohort(self, update: CohortUpdate, *, make: bool) -> StoredCohort | None:
        """Return the cohort of a call, which has its new name from now on.

        An unknown cohort is created if ``make``; otherwise the result is None.
        """
        cohort_id, name = update.cohort_id, update.cohort_name
        if make:
            self._file.execute(sql.NEW_COHORT, (cohort_id, name, name))
        if self._file.execute(sql.RENAME, {"id": cohort_id, "name": name}).rowcount:
            self.count_change()
        row = self._first(sql.COHORT, cohort_id)
        return None if row is None else StoredCohort(*row)

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
        """Return the digest of a page that has arrived; None if it has not."""
        row = self._first(sql.DIGEST, session, page)
        return None if row is None else row[0]

    def add_page(self, session: int, page: StoredPage) -> None:
        """Note that a page has arrived."""
        self._file.execute(sql.NEW_PAGE, (session, *page))

    def page_totals(self, session: int) -> PageTotals:
        """Return what has arrived of a session."""
        return PageTotals(*self._file.execute(sql.PAGE_TOTALS, (session,)).fetchone())

    def join(self, cohort: int, members: Sequence[str], seen: int) -> None:
        """Make identities members; those that were not members before have changed."""
        self._change(sql.JOIN, cohort, members, seen=seen)

    def leave(self, cohort: int, members: Sequence[str]) -> None:
        """Turn members into former members; they have changed."""
        self._change(sql.LEAVE, cohort, members)

    def raise_floor(self, cohort: int, session: int) -> None:
        """Make a session the cohort's floor, and forget the pages of older sessions."""
        self._file.execute(sql.RAISE_FLOOR, (session, cohort))
        self._file.execute(sql.FORGET_PAGES, {"cohort": cohort, "number": session})

    def sweep(self, rows: int) -> bool:
        """Turn some of those that left into former members."""
        if (unswept := self._first(sql.UNSWEPT)) is None:
            return False
        cohort, after = unswept
        row = self._first(sql.LAST_IN_RANGE, cohort, after, rows)
        last = None if row is None else row[0]
        left = self._file.execute(
            sql.LEFT_IN_RANGE, {"cohort": cohort, "after": after, "last": last}
        ).fetchall()
        self.leave(cohort, [identifier for [identifier] in left])
        self._file.execute(sql.SWEPT_UP_TO, (last, cohort))
        return True

    def count_change(self) -> None:
        """Change the version of the store."""
        self._file.execute(sql.COUNT_CHANGE)

    def _change(self, statement: str, cohort: int, members: Sequence[str], **values: int) -> None:
        """Change members, each at a position of its own."""
        position = read(self._file, sql.POSITION) + 1
        self._file.execute(sql.NEW_POSITIONS, (len(members),))
        listed = json.dumps(members, ensure_ascii=False)
        self._file.execute(statement, {"cohort": cohort, "members": listed, "position": position, **values})

    def _first(self, query: str, *values: object) -> Sequence[Any] | None:
        """Return the first row, if there is one."""
        return self._file.execute(query, values).fetchone()  # type: ignore[no-any-return]
