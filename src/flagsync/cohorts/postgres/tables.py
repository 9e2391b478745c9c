"""The tables of cohorts in PostgreSQL, in one transaction.

Guarantee: it keeps the contracts of ``SessionTables`` and ``CohortTable``. A page takes as many round trips as one
member. Boundary: ``sessions`` decides what a call changes.
"""

from collections.abc import Sequence
from functools import cached_property
from hashlib import blake2b

from flagsync._postgres.database import Row, Transaction
from flagsync.cohorts.keys import KnownCohort
from flagsync.cohorts.postgres import schema as sql
from flagsync.cohorts.sessions import PageTotals, StoredCohort, StoredPage, StoredSession
from flagsync.cohorts.update import CohortUpdate

# PostgreSQL can index 2,704 bytes, beside which there is the cohort.
MAX_KEY, DIGEST_BYTES = 1024, 16


class _State:
    """The version of the store and the last position, as this transaction changes them."""

    def __init__(self, version: int, position: int) -> None:
        self.version, self.position = version, position
        self._before = version, position

    @property
    def has_changed(self) -> bool:
        return (self.version, self.position) != self._before


class CohortTables:
    """The tables, as ``SessionTables`` and ``CohortTable``.

    Args:
        transaction: A transaction on them.
    """

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    def version(self) -> int:
        """Return the version of the store, before this transaction."""
        return int(self._transaction.rows(sql.VERSION)[0][0])

    def known(self) -> list[KnownCohort]:
        """Return the known cohorts."""
        rows = self._transaction.rows(sql.KNOWN)
        return [KnownCohort(number, *(text.decode() for text in texts)) for number, *texts in rows]

    def members(self, cohort_id: str, after: bytes, limit: int) -> list[Row]:
        """Return keys behind another one, each with the identifier if that is too long for a key."""
        named = cohort_id.encode()
        return self._transaction.rows(sql.MEMBERS, named, named, after, limit)

    def cohorts_of(self, keys: Sequence[bytes]) -> list[Row]:
        """Return which keys are in which cohorts, by number."""
        return self._transaction.rows(sql.COHORTS_OF, keys)

    def cohort(self, update: CohortUpdate, *, make: bool) -> StoredCohort | None:
        """Return the cohort of a call, which has its new name from now on.

        An unknown cohort is created if ``make``; otherwise the result is None.
        """
        cohort_id, name = update.cohort_id.encode(), update.cohort_name.encode()
        state = self._state  # locked before looking, so that one of two hosts creates it
        rows = self._transaction.rows(sql.COHORT, cohort_id)
        if not rows and make:
            rows = self._transaction.rows(sql.NEW_COHORT, cohort_id, name, name)
        if not rows:
            return None
        [[number, floor, last_name]] = rows
        if name != last_name:
            self._transaction.run(sql.RENAME, name, number)
            state.version += 1
        return StoredCohort(number, floor)

    def session(self, cohort: int, session_id: str) -> StoredSession | None:
        """Return the session of a cohort with an id, if it is remembered."""
        row = self._first(sql.SESSION, cohort, session_id.encode())
        return None if row is None else StoredSession(*row)

    def last_session(self, cohort: int) -> int:
        """Return the number of the cohort's newest session; 0 if there is none."""
        return int(self._transaction.rows(sql.LAST_SESSION, cohort)[0][0])

    def add_session(self, cohort: int, session_id: str, pages: int, kept: int) -> int:
        """Begin a session, and forget the cohort's oldest ones."""
        [[number]] = self._transaction.rows(sql.NEW_SESSION, cohort, session_id.encode() or None, pages)
        self._transaction.run(sql.FORGET_SESSIONS, cohort, cohort, kept)
        return int(number)

    def forget_session(self, session: int) -> None:
        """Forget a session, and its pages."""
        self._transaction.run(sql.FORGET_SESSION, session)

    def page_digest(self, session: int, page: int) -> bytes | None:
        """Return the digest of a page that has arrived; None if it has not."""
        row = self._first(sql.DIGEST, session, page)
        return None if row is None else bytes(row[0])

    def add_page(self, session: int, page: StoredPage) -> None:
        """Note that a page has arrived."""
        self._transaction.run(sql.NEW_PAGE, session, *page)

    def page_totals(self, session: int) -> PageTotals:
        """Return what has arrived of a session."""
        return PageTotals(*self._transaction.rows(sql.PAGE_TOTALS, session)[0])

    def join(self, cohort: int, members: Sequence[str], seen: int) -> None:
        """Make identities members; those that were not members before have changed."""
        keys = [key_of(member) for member in members]
        identifiers = [long_identifier(member) for member in members]
        values = cohort, seen, self._state.position, keys, identifiers, cohort
        self._transaction.run(sql.JOIN, *values)
        self._state.position += len(members)

    def leave(self, cohort: int, members: Sequence[str]) -> None:
        """Turn members into former members; they have changed."""
        keys = [key_of(member) for member in members]
        self._transaction.run(sql.LEAVE, cohort, self._state.position, keys, cohort)
        self._state.position += len(members)

    def raise_floor(self, cohort: int, session: int) -> None:
        """Make a session the cohort's floor, and forget the pages of older sessions."""
        self._transaction.run(sql.RAISE_FLOOR, session, cohort)
        self._transaction.run(sql.FORGET_PAGES, cohort, session)

    def sweep(self, rows: int) -> bool:
        """Turn some of those that left into former members."""
        state = self._state
        if (unswept := self._first(sql.UNSWEPT)) is None:
            return False
        cohort, after, floor = unswept
        row = self._first(sql.LAST_IN_RANGE, cohort, after, rows)
        last = None if row is None else row[0]
        state.position += self._transaction.run(sql.SWEEP, state.position, cohort, after, last, last, floor)
        self._transaction.run(sql.SWEPT_UP_TO, last, cohort)
        return True

    def count_change(self) -> None:
        """Change the version of the store."""
        self._state.version += 1

    def finish(self) -> None:
        """Write the version and the last position, if they have changed."""
        if "_state" in vars(self) and self._state.has_changed:
            self._transaction.run(sql.FINISH, self._state.version, self._state.position)

    @cached_property
    def _state(self) -> _State:
        """What this transaction changes, and until its end nobody else: it has the lock of the store from now on."""
        self._transaction.rows(sql.LOCK)
        if (row := self._first(sql.STATE)) is None:  # somebody has emptied the table
            self._transaction.run(sql.NEW_STATE)
            [row] = self._transaction.rows(sql.STATE)
        return _State(*row)

    def _first(self, query: str, *values: object) -> Row | None:
        """Return the first row, if there is one."""
        return next(iter(self._transaction.rows(query, *values)), None)


def key_of(identifier: str) -> bytes:
    """Return the key of an identifier."""
    content = identifier.encode()
    if len(content) <= MAX_KEY:
        return content
    # It is longer than any identifier that is its own key.
    return content[: MAX_KEY + 1 - DIGEST_BYTES] + blake2b(content, digest_size=DIGEST_BYTES).digest()


def long_identifier(identifier: str) -> bytes | None:
    """Return an identifier that is too long for a key; None if it is not."""
    content = identifier.encode()
    return content if len(content) > MAX_KEY else None


def identifier_of(key: bytes, long: bytes | None) -> str:
    """Return the identifier of a row."""
    return (key if long is None else long).decode()
