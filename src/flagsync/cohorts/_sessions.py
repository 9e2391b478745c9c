"""The pages of a whole cohort, as they come: a session in the file of a store.

Guarantee: only a session whose pages are all there, and do not contradict each other, replaces a cohort.
"""

import hashlib
import sqlite3

from flagsync._database import read
from flagsync._report import Reporter
from flagsync.cohorts import _schema as sql
from flagsync.cohorts._update import CohortUpdate

KEPT_SESSIONS = 100  # of a cohort: their late pages are recognised
SWEPT_ROWS = 2000  # at a time
STARTS_OVER = (
    "Pages of a cohort contradict each other: its session starts over, nobody leaves before it is complete"
)


def open_session(
    file: sqlite3.Connection, cohort: int, floor: int, update: CohortUpdate, report: Reporter
) -> int | None:
    """Note a page; the number of its session, or None if the page says nothing new."""
    digest = hashlib.blake2b("\0".join(update.members).encode(), digest_size=16).digest()
    number, pages = file.execute(sql.SESSION, (cohort, update.session_id)).fetchone() or (None, 0)
    if number is not None:
        [known] = file.execute(sql.DIGEST, (number, update.page)).fetchone() or (None,)
        if number < floor or (pages, known) == (update.pages, digest):
            return None
        if pages != update.pages or known is not None:
            report.note(STARTS_OVER)
            file.execute(sql.FORGET_SESSION, (number,))
            number = None
    if number is None:
        session = cohort, update.session_id or None, update.pages
        number = file.execute(sql.NEW_SESSION, session).lastrowid
        file.execute(sql.FORGET_SESSIONS, {"cohort": cohort, "kept": KEPT_SESSIONS})
    file.execute(sql.NEW_PAGE, (number, update.page, digest, len(update.members), update.skipped))
    return number


def complete(file: sqlite3.Connection, cohort: int, session: int, pages: int) -> None:
    """Let those leave whom the session did not mention, if all its pages have come."""
    came, usable, skipped = file.execute(sql.PAGES, (session,)).fetchone()
    if came == pages and (usable or not skipped):
        file.execute(sql.REPLACE, (session, cohort))
        file.execute(sql.FORGET_PAGES, {"cohort": cohort, "number": session})


def sweep(file: sqlite3.Connection) -> bool:
    """Delete some of those who left with a session, and put them on the list; False if there are none."""
    if (unswept := file.execute(sql.UNSWEPT).fetchone()) is None:
        return False
    cohort, after = unswept
    [last] = file.execute(sql.LAST, (cohort, after, SWEPT_ROWS)).fetchone() or (None,)
    values = {"cohort": cohort, "after": after, "last": last}
    if read(file, sql.LISTING):
        file.execute(sql.LIST_SWEPT, values)
    file.execute(sql.DELETE_SWEPT, values)
    file.execute(sql.SWEPT, (last, cohort))
    return True
