"""The tables of a file of cohorts, and the queries on them; see ``Sessions`` for ``seen`` and ``floor``.

``swept`` of a cohort is the identifier that the sweep has reached; NULL if there is nothing to sweep. Former members
stay, with -1 as ``seen``, so that an environment can be told again that they have left. ``changed`` is the position of
the last change, so that the members are the change log of every environment: those behind its ``cursor`` are not
claimed yet, and ``unsettled`` has the claimed ones. Members that left before an environment ``began`` are not on its
log.
"""

from flagsync._files.sqlite import Format

TABLES = """
CREATE TABLE state (version INTEGER, position INTEGER);
INSERT INTO state VALUES (random() / 2, 0);
CREATE TABLE cohorts (number INTEGER PRIMARY KEY, id TEXT UNIQUE, first_name TEXT, name TEXT,
    floor INTEGER DEFAULT 0, swept TEXT);
CREATE TABLE members (cohort INTEGER, identifier TEXT, seen INTEGER, changed INTEGER,
    PRIMARY KEY (cohort, identifier)) WITHOUT ROWID;
CREATE INDEX members_by_change ON members (changed);
CREATE TABLE sessions (number INTEGER PRIMARY KEY AUTOINCREMENT, cohort INTEGER, id TEXT, pages INTEGER,
    UNIQUE (cohort, id));
CREATE TABLE pages (session INTEGER, page INTEGER, digest BLOB, usable INTEGER, skipped INTEGER,
    PRIMARY KEY (session, page)) WITHOUT ROWID;
CREATE TABLE environments (number INTEGER PRIMARY KEY, name TEXT UNIQUE, cursor INTEGER DEFAULT 0, began INTEGER);
CREATE TABLE unsettled (environment INTEGER, cohort INTEGER, identifier TEXT, position INTEGER, due REAL,
    unsure INTEGER, tries INTEGER, PRIMARY KEY (environment, cohort, identifier)) WITHOUT ROWID;
CREATE INDEX unsettled_by_position ON unsettled (environment, position)
"""
COHORTS = Format(
    name="SQLiteStore",
    application=0x666C6763,
    version=2,
    tables=TABLES,
    page_bytes=4096,
    # A page of members changes as many pages of the file. With rare checkpoints, each of them is written only once.
    settings="PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 10000; PRAGMA cache_size = -16000",
    advice="remove it, and sync the cohorts to a new connection in Mixpanel",
)

VERSION = "SELECT version FROM state"
COUNT_CHANGE = "UPDATE state SET version = version + 1"
NEW_POSITIONS = "UPDATE state SET position = position + ?"
POSITION = "SELECT position FROM state"

KNOWN = "SELECT number, id, first_name, name FROM cohorts"
COHORT = "SELECT number, floor FROM cohorts WHERE id = ?"
NEW_COHORT = "INSERT OR IGNORE INTO cohorts (id, first_name, name) VALUES (?, ?, ?)"
RENAME = "UPDATE cohorts SET name = :name WHERE id = :id AND name != :name"
MEMBERS = """SELECT identifier FROM members JOIN cohorts ON number = cohort
    WHERE id = ? AND seen >= floor AND identifier > ? ORDER BY identifier LIMIT ?"""
# CROSS JOIN keeps the order of the tables; otherwise SQLite looks through all members.
COHORTS_OF = """SELECT number FROM cohorts
    CROSS JOIN members ON cohort = number AND identifier = ? AND seen >= floor"""

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

# The position of each member is the last one before the call, plus its place in the call.
JOIN = """INSERT INTO members SELECT :cohort, value, :seen, :position + key FROM json_each(:members)
    WHERE true ORDER BY value
    ON CONFLICT (cohort, identifier) DO UPDATE SET seen = max(seen, excluded.seen), changed = CASE
    WHEN seen >= (SELECT floor FROM cohorts WHERE number = :cohort) THEN changed ELSE excluded.changed END"""
LEAVE = """INSERT INTO members SELECT :cohort, value, -1, :position + key FROM json_each(:members)
    WHERE EXISTS (SELECT 1 FROM members WHERE cohort = :cohort AND identifier = value AND seen >= 0)
    ON CONFLICT (cohort, identifier) DO UPDATE SET seen = -1, changed = excluded.changed"""

UNSWEPT = "SELECT number, swept FROM cohorts WHERE swept NOTNULL LIMIT 1"
LAST_IN_RANGE = """SELECT identifier FROM members WHERE cohort = ? AND identifier > ?
    ORDER BY identifier LIMIT 1 OFFSET ?"""
# In SQLite every text is below any blob.
LEFT_IN_RANGE = """SELECT identifier FROM members WHERE cohort = :cohort AND identifier > :after
    AND identifier <= coalesce(:last, x'')
    AND seen >= 0 AND seen < (SELECT floor FROM cohorts WHERE number = :cohort)"""
SWEPT_UP_TO = "UPDATE cohorts SET swept = ? WHERE number = ?"

START_LOG = "INSERT OR IGNORE INTO environments (name, began) SELECT ?, position FROM state"
RESTART_LOG = """INSERT INTO environments (name, began) VALUES (?, 0)
    ON CONFLICT (name) DO UPDATE SET cursor = 0, began = 0"""
ENVIRONMENT = "SELECT number, cursor, began FROM environments WHERE name = ?"
IS_SWEPT = "SELECT NOT EXISTS (SELECT 1 FROM cohorts WHERE swept NOTNULL)"

LAST_TO_LOOK_AT = "SELECT changed FROM members WHERE changed > :cursor ORDER BY changed LIMIT 1 OFFSET :rows"
UNCLAIMED = """FROM members JOIN cohorts ON number = cohort
    WHERE changed > :cursor AND (seen >= floor OR changed > :began)"""
FIRST_UNCLAIMED = f"SELECT changed {UNCLAIMED} ORDER BY changed LIMIT 1"
COUNT_UNCLAIMED = f"SELECT count(*) {UNCLAIMED}"
CLAIM_UP_TO = f"""INSERT INTO unsettled SELECT :number, cohort, identifier, changed, 0, 0, 0 {UNCLAIMED}
    AND changed <= :last
    ON CONFLICT (environment, cohort, identifier)
    DO UPDATE SET position = excluded.position, unsure = unsure OR due > :now, due = 0"""
MOVE_CURSOR = "UPDATE environments SET cursor = :last WHERE number = :number"

COUNT_UNSETTLED = "SELECT count(*), min(position), min(due) FROM unsettled WHERE environment = ?"
DUE = """SELECT position, unsettled.cohort, unsettled.identifier, seen >= floor, unsure, tries
    FROM unsettled JOIN members USING (cohort, identifier) JOIN cohorts ON number = unsettled.cohort
    WHERE environment = :number AND (due <= :now OR due > :too_late)"""
FIRST_TRIED = f"{DUE} AND tries > 0 ORDER BY due LIMIT :limit"
FIRST_DUE = f"{DUE} AND tries = 0 ORDER BY position LIMIT :limit"
MARK_UNSURE = (
    "UPDATE unsettled SET unsure = 1 WHERE environment = ? AND position IN (SELECT value FROM json_each(?))"
)
SETTLE = "DELETE FROM unsettled WHERE environment = ? AND position IN (SELECT value FROM json_each(?))"
POSTPONE = "UPDATE unsettled SET due = ?, unsure = ?, tries = ? WHERE environment = ? AND position = ?"
