"""The tables of a file of cohorts, and what is asked of them; see ``sessions`` for ``seen`` and ``floor``.

``swept`` of a cohort is the identifier up to which the sweep has come; NULL if there is nothing to sweep.
``listing`` is 0 while there is no change log, 2 while the sweep puts all members on it, and 1 from then on.
"""

from flagsync._files.sqlite import Format

TABLES = """
CREATE TABLE state (version INTEGER, listing INTEGER, in_flight INTEGER);
INSERT INTO state VALUES (random() / 2, 0, 0);
CREATE TABLE cohorts (number INTEGER PRIMARY KEY, id TEXT UNIQUE, first_name TEXT, name TEXT,
    floor INTEGER DEFAULT 0, swept TEXT);
CREATE TABLE members (cohort INTEGER, identifier TEXT, seen INTEGER, PRIMARY KEY (cohort, identifier))
    WITHOUT ROWID;
CREATE TABLE sessions (number INTEGER PRIMARY KEY AUTOINCREMENT, cohort INTEGER, id TEXT, pages INTEGER,
    UNIQUE (cohort, id));
CREATE TABLE pages (session INTEGER, page INTEGER, digest BLOB, usable INTEGER, skipped INTEGER,
    PRIMARY KEY (session, page)) WITHOUT ROWID;
CREATE TABLE changes (number INTEGER PRIMARY KEY AUTOINCREMENT, cohort INTEGER, identifier TEXT)
"""
COHORTS = Format(
    name="SQLiteStore",
    application=0x666C6763,
    version=1,
    tables=TABLES,
    page_bytes=4096,
    # A page of members changes as many pages of the file: rare checkpoints write each of them once.
    settings="PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 10000; PRAGMA cache_size = -16000",
    advice="remove it, and sync the cohorts to a new connection in Mixpanel",
)

VERSION = "SELECT version FROM state"
COUNT_CHANGE = "UPDATE state SET version = version + 1"
LISTING = "SELECT listing FROM state"
START_LOG = "UPDATE state SET listing = 2 WHERE listing = 0"
ALL_LISTED = "UPDATE state SET listing = 1 WHERE listing = 2"
SWEEP_ALL = "UPDATE cohorts SET swept = ''"

KNOWN = "SELECT number, id, first_name, name FROM cohorts"
COHORT = "SELECT number, floor FROM cohorts WHERE id = ?"
NEW_COHORT = "INSERT OR IGNORE INTO cohorts (id, first_name, name) VALUES (?, ?, ?)"
RENAME = "UPDATE cohorts SET name = :name WHERE id = :id AND name != :name"
MEMBERS = """SELECT identifier FROM members JOIN cohorts ON number = cohort
    WHERE id = ? AND seen >= floor AND identifier > ? ORDER BY identifier LIMIT ?"""
COHORTS_OF = """SELECT number FROM cohorts
    JOIN members ON cohort = number AND identifier = ? AND seen >= floor"""

SESSION = "SELECT number, pages FROM sessions WHERE cohort = ? AND id = ?"
LAST_SESSION = "SELECT coalesce(max(number), 0) FROM sessions WHERE cohort = ?"
NEW_SESSION = "INSERT INTO sessions (cohort, id, pages) VALUES (?, ?, ?)"
NEW_PAGE = "INSERT INTO pages VALUES (?, ?, ?, ?, ?)"
DIGEST = "SELECT digest FROM pages WHERE session = ? AND page = ?"
PAGE_TOTALS = (
    "SELECT count(*), coalesce(sum(usable), 0), coalesce(sum(skipped), 0) FROM pages WHERE session = ?"
)
FORGET_SESSION = "DELETE FROM sessions WHERE number = ?"
FORGET_SESSIONS = """DELETE FROM sessions WHERE cohort = :cohort AND number <= (
    SELECT number FROM sessions WHERE cohort = :cohort ORDER BY number DESC LIMIT 1 OFFSET :kept)"""
FORGET_PAGES = """DELETE FROM pages WHERE session NOT IN (
    SELECT number FROM sessions WHERE cohort != :cohort OR number >= :number)"""
RAISE_FLOOR = "UPDATE cohorts SET floor = ?, swept = '' WHERE number = ?"

ON_PAGE = "SELECT value FROM json_each(:members)"
JOIN = f"""INSERT INTO members SELECT :cohort, value, :seen FROM ({ON_PAGE}) WHERE true ORDER BY value
    ON CONFLICT (cohort, identifier) DO UPDATE SET seen = max(seen, excluded.seen)"""
LEAVE = f"DELETE FROM members WHERE cohort = :cohort AND identifier IN ({ON_PAGE})"
LOG_JOINERS = f"""INSERT INTO changes (cohort, identifier) SELECT :cohort, value FROM ({ON_PAGE})
    WHERE NOT EXISTS (SELECT 1 FROM members JOIN cohorts ON number = cohort
    WHERE cohort = :cohort AND identifier = value AND seen >= floor)"""
LOG_LEAVERS = f"""INSERT INTO changes (cohort, identifier) SELECT cohort, identifier FROM members
    WHERE cohort = :cohort AND identifier IN ({ON_PAGE})"""

UNSWEPT = "SELECT number, swept FROM cohorts WHERE swept NOTNULL LIMIT 1"
LAST_IN_RANGE = """SELECT identifier FROM members WHERE cohort = ? AND identifier > ?
    ORDER BY identifier LIMIT 1 OFFSET ?"""
# No text is above a blob.
IN_RANGE = """FROM members WHERE cohort = :cohort AND identifier > :after
    AND identifier <= coalesce(:last, x'')"""
LEFT = f"{IN_RANGE} AND seen < (SELECT floor FROM cohorts WHERE number = :cohort)"
LOG_ALL = f"INSERT INTO changes (cohort, identifier) SELECT cohort, identifier {IN_RANGE}"
LOG_LEFT = f"INSERT INTO changes (cohort, identifier) SELECT cohort, identifier {LEFT}"
DELETE_LEFT = f"DELETE {LEFT}"
SWEPT_UP_TO = "UPDATE cohorts SET swept = ? WHERE number = ?"

LOG_STATE = """SELECT (SELECT min(number) FROM changes), coalesce((SELECT max(number) FROM changes), 0),
    listing AND NOT EXISTS (SELECT 1 FROM cohorts WHERE swept NOTNULL), in_flight FROM state"""
SET_IN_FLIGHT = "UPDATE state SET in_flight = ?"
PENDING = "SELECT count(*) FROM changes"
FIRST_CHANGES = """SELECT number, cohort, identifier, EXISTS (
    SELECT 1 FROM members JOIN cohorts ON cohorts.number = members.cohort
    WHERE members.cohort = changes.cohort AND members.identifier = changes.identifier AND seen >= floor)
    FROM changes ORDER BY number LIMIT ?"""
SETTLE = "DELETE FROM changes WHERE number IN (SELECT value FROM json_each(?))"
