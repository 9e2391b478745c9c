"""The file of cohorts: its tables and what is asked of them.

Who was ``seen`` in the session that is the cohort's ``floor``, the last one that is complete, or in a later
one, is a member. So a session replaces a cohort by raising its floor; who is below is swept out by and by.
"""

from flagsync._database import Format

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
# A page of members changes as many pages of the file: rare checkpoints write each of them once.
SETTINGS = "PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 10000; PRAGMA cache_size = -16000"
COHORTS = Format("The store of cohorts", 0x666C6763, TABLES, page_bytes=4096, settings=SETTINGS)

VERSION = "SELECT version FROM state"
CHANGED = "UPDATE state SET version = version + 1"
LISTING = "SELECT listing FROM state"
LIST = "UPDATE state SET listing = 1 WHERE NOT listing"
LIST_ALL = """INSERT INTO changes (cohort, identifier) SELECT cohort, identifier FROM members
    JOIN cohorts ON number = cohort WHERE seen >= floor"""

KNOWN = "SELECT number, id, first_name, name FROM cohorts"
COHORT = "SELECT number, floor FROM cohorts WHERE id = ?"
NEW_COHORT = "INSERT OR IGNORE INTO cohorts (id, first_name, name) VALUES (?, ?, ?)"
RENAME = "UPDATE cohorts SET name = :name WHERE id = :id AND name != :name"
MEMBERS = """SELECT identifier FROM members JOIN cohorts ON number = cohort
    WHERE id = ? AND seen >= floor AND identifier > ? ORDER BY identifier LIMIT ?"""
COHORTS_OF = """SELECT number FROM cohorts
    JOIN members ON cohort = number AND identifier = ? AND seen >= floor"""

SESSION = "SELECT number, pages FROM sessions WHERE cohort = ? AND id = ?"
LATEST = "SELECT coalesce(max(number), 0) FROM sessions WHERE cohort = ?"
NEW_SESSION = "INSERT INTO sessions (cohort, id, pages) VALUES (?, ?, ?)"
NEW_PAGE = "INSERT INTO pages VALUES (?, ?, ?, ?, ?)"
DIGEST = "SELECT digest FROM pages WHERE session = ? AND page = ?"
PAGES = "SELECT count(*), sum(usable), sum(skipped) FROM pages WHERE session = ?"
FORGET_SESSION = "DELETE FROM sessions WHERE number = ?"
FORGET_SESSIONS = """DELETE FROM sessions WHERE cohort = :cohort AND number <= (
    SELECT number FROM sessions WHERE cohort = :cohort ORDER BY number DESC LIMIT 1 OFFSET :kept)"""
FORGET_PAGES = """DELETE FROM pages WHERE session NOT IN (
    SELECT number FROM sessions WHERE cohort != :cohort OR number >= :number)"""
REPLACE = "UPDATE cohorts SET floor = ?, swept = '' WHERE number = ?"

ON_PAGE = "SELECT value FROM json_each(:members)"
JOIN = f"""INSERT INTO members SELECT :cohort, value, :seen FROM ({ON_PAGE}) WHERE true ORDER BY value
    ON CONFLICT DO UPDATE SET seen = max(seen, excluded.seen)"""
LEAVE = f"DELETE FROM members WHERE cohort = :cohort AND identifier IN ({ON_PAGE})"
JOINERS = f"""INSERT INTO changes (cohort, identifier) SELECT :cohort, value FROM ({ON_PAGE})
    WHERE NOT EXISTS (SELECT 1 FROM members JOIN cohorts ON number = cohort
    WHERE cohort = :cohort AND identifier = value AND seen >= floor)"""
LEAVERS = f"""INSERT INTO changes (cohort, identifier) SELECT cohort, identifier FROM members
    WHERE cohort = :cohort AND identifier IN ({ON_PAGE})"""

UNSWEPT = "SELECT number, swept FROM cohorts WHERE swept NOTNULL LIMIT 1"
LAST = """SELECT identifier FROM members WHERE cohort = ? AND identifier > ?
    ORDER BY identifier LIMIT 1 OFFSET ?"""
# No text is above a blob.
BELOW = """FROM members WHERE cohort = :cohort AND identifier > :after
    AND identifier <= coalesce(:last, x'') AND seen < (SELECT floor FROM cohorts WHERE number = :cohort)"""
LIST_SWEPT = f"INSERT INTO changes (cohort, identifier) SELECT cohort, identifier {BELOW}"
DELETE_SWEPT = f"DELETE {BELOW}"
SWEPT = "UPDATE cohorts SET swept = ? WHERE number = ?"

BOUNDS = """SELECT CASE WHEN NOT listing OR EXISTS (SELECT 1 FROM cohorts WHERE swept NOTNULL) THEN 0
    ELSE (SELECT min(number) FROM changes) END, coalesce((SELECT max(number) FROM changes), 0) FROM state"""
IN_FLIGHT = "SELECT in_flight FROM state"
FLY = "UPDATE state SET in_flight = ?"
PENDING = "SELECT count(*) FROM changes"
OLDEST = """SELECT number, cohort, identifier, EXISTS (
    SELECT 1 FROM members JOIN cohorts ON cohorts.number = members.cohort
    WHERE members.cohort = changes.cohort AND members.identifier = changes.identifier AND seen >= floor)
    FROM changes ORDER BY number LIMIT ?"""
SETTLE = "DELETE FROM changes WHERE number IN (SELECT value FROM json_each(?))"
