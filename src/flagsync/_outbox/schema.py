"""The tables of an outbox file, and the queries on them.

``messages`` has one row per key: it is pending while it has a body, and remembered afterwards. A pending message that a
newer one does not replace keeps a row of its own (``latest`` is 0). A row with new content gets a new ``version``,
behind all others.
"""

from flagsync._files.sqlite import Format
from flagsync._outbox.judge import ALL_COUNTS, OUTCOMES

TABLES = f"""
CREATE TABLE stores (id INTEGER);
INSERT INTO stores VALUES (abs(random() / 2) + 1);
CREATE TABLE destinations (number INTEGER PRIMARY KEY, url TEXT, project TEXT,
    pending INTEGER DEFAULT 0, remembered INTEGER DEFAULT 0, UNIQUE (url, project));
CREATE TABLE accounts (number INTEGER PRIMARY KEY AUTOINCREMENT, process TEXT UNIQUE, used_at REAL,
    {", ".join(f"{count} INTEGER DEFAULT 0" for count in ALL_COUNTS)});
INSERT INTO accounts (number, process) VALUES (0, 'former processes');
CREATE TABLE messages (version INTEGER PRIMARY KEY AUTOINCREMENT, destination INTEGER, key TEXT, latest INTEGER,
    boot INTEGER, evaluated_at REAL, waits_since REAL, evaluation INTEGER, fingerprint BLOB, accepted_at REAL,
    resend_after_seconds REAL, account INTEGER, replaces INTEGER, tail INTEGER, body BLOB);
CREATE TABLE tails (number INTEGER PRIMARY KEY AUTOINCREMENT, digest BLOB UNIQUE, last_version INTEGER,
    content BLOB);
CREATE TABLE absences (destination INTEGER, property TEXT, since REAL, PRIMARY KEY (destination, property))
    WITHOUT ROWID;
CREATE INDEX last_used ON tails (last_version);
CREATE UNIQUE INDEX latest ON messages (destination, key) WHERE latest;
CREATE INDEX pending ON messages (destination, version) WHERE body NOTNULL
"""
OUTBOX = Format(
    name="outbox",
    application=0x666C6773,
    version=4,
    tables=TABLES,
    page_bytes=8192,  # several messages fit into a page
    # A process that dies loses nothing; a power failure may lose the last transactions.
    settings="PRAGMA synchronous = NORMAL",
    advice="deliver its pending updates with the version that created it, or remove it",
)

STORE = "SELECT id FROM stores"
NEW_DESTINATION = "INSERT OR IGNORE INTO destinations (url, project) VALUES (?, ?)"
DESTINATION = "SELECT number FROM destinations WHERE url = ? AND project = ?"
IN_TURN = "SELECT number, url, project FROM destinations WHERE pending > 0 ORDER BY number <= ?, number"
COUNT_MESSAGES = "UPDATE destinations SET pending = pending + ?, remembered = remembered + ? WHERE number = ?"
PENDING = "SELECT pending FROM destinations WHERE number = ?"
ALL_PENDING = "SELECT coalesce(sum(pending), 0) FROM destinations"
ALL_REMEMBERED = "SELECT coalesce(sum(remembered), 0) FROM destinations"

NOTE_ABSENCE = "INSERT OR REPLACE INTO absences VALUES (?, ?, ?)"
ABSENCES = "SELECT property, since FROM absences WHERE destination = ?"

NEW_ACCOUNT = "INSERT OR IGNORE INTO accounts (process) VALUES (?)"
ACCOUNT = "SELECT number FROM accounts WHERE process = ?"
USE_ACCOUNT = "UPDATE accounts SET used_at = ? WHERE number = ?"
COUNT = {name: f"UPDATE accounts SET {name} = {name} + ? WHERE number = ?" for name in ALL_COUNTS}
ALL_TOTALS = f"SELECT {', '.join(f'coalesce(sum({name}), 0)' for name in ALL_COUNTS)} FROM accounts"
OWN_TOTALS = f"SELECT number, {', '.join(ALL_COUNTS)} FROM accounts WHERE process = ?"
IDLE_ACCOUNTS = f"""SELECT number FROM accounts WHERE used_at < ? AND number NOT IN (0, ?)
    AND accepted = {" + ".join(OUTCOMES)} LIMIT ?"""
CLOSE_ACCOUNT = f"""UPDATE accounts SET ({", ".join(ALL_COUNTS)}) = (
    SELECT {", ".join(f"former.{name} + closed.{name}" for name in ALL_COUNTS)}
    FROM accounts AS former, accounts AS closed WHERE former.number = 0 AND closed.number = ?) WHERE number = 0"""
DELETE_ACCOUNT = "DELETE FROM accounts WHERE number = ?"

# One statement for many rows: between two statements, another thread may keep the interpreter for milliseconds. CROSS
# JOIN makes SQLite look up each key; otherwise it reads all rows of the destination.
KNOWN = """SELECT messages.key, version, boot, evaluated_at, evaluation, fingerprint, accepted_at,
    resend_after_seconds, account, body NOTNULL
    FROM json_each(?) CROSS JOIN messages ON destination = ? AND messages.key = value AND latest"""
NEW_MESSAGES = """INSERT OR REPLACE INTO messages (destination, key, latest, boot, evaluated_at, waits_since,
    evaluation, fingerprint, accepted_at, resend_after_seconds, account, replaces, tail, body) VALUES {}"""
MESSAGE_COLUMNS = 14
TOUCH = "UPDATE messages SET boot = ?, evaluated_at = ?, evaluation = ? WHERE version = ?"
NOT_LATEST = "UPDATE messages SET latest = 0 WHERE version = ?"
OLDEST = """SELECT key, fingerprint, body, evaluated_at, resend_after_seconds, tail, replaces, version FROM messages
    WHERE destination = ? AND body NOTNULL ORDER BY version LIMIT ?"""
FIRST = "SELECT min(version) FROM messages WHERE destination = ? AND body NOTNULL"
BUSY_DESTINATIONS = "SELECT number FROM destinations WHERE pending > 0"
WAITS_SINCE = "SELECT waits_since FROM messages WHERE version = ?"
LAST = "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'messages'"
CLAIMED = "WHERE body NOTNULL AND version IN (SELECT value FROM json_each(?))"
CLAIMED_OF = (
    f"SELECT account, replaces, count(*), sum(latest) FROM messages {CLAIMED} GROUP BY account, replaces"
)
SETTLE = f"UPDATE messages SET body = NULL, accepted_at = ? {CLAIMED} AND latest"
SETTLE_OLDER = f"DELETE FROM messages {CLAIMED} AND NOT latest"
POSTPONE = f"UPDATE messages SET version = ({LAST}) + 1 WHERE body NOTNULL AND version = ?"
NEW_TAIL = "INSERT OR IGNORE INTO tails (digest, content) VALUES (?, ?)"
TAIL = "SELECT number FROM tails WHERE digest = ?"
TAIL_CONTENT = "SELECT content FROM tails WHERE number = ?"
USE_TAIL = f"UPDATE tails SET last_version = ({LAST}) WHERE number = ?"
USE_TAIL_OF_LAST = f"""UPDATE tails SET last_version = ({LAST})
    WHERE number = (SELECT tail FROM messages WHERE version = ({LAST}))"""
UNUSED_TAILS = """DELETE FROM tails WHERE number IN (
    SELECT number FROM tails WHERE last_version < ? ORDER BY last_version LIMIT ?)"""
COUNT_VERSION = "UPDATE sqlite_sequence SET seq = seq + 1 WHERE name = 'messages'"
OVER_BOUND = """SELECT version, account, replaces FROM messages WHERE destination = ? AND body NOTNULL
    ORDER BY version LIMIT ?"""
# The first rows of the table have the oldest content.
OLD_ROWS = """SELECT version, destination, body ISNULL, accepted_at FROM messages WHERE version > ?
    ORDER BY version LIMIT ?"""
DELETE = "DELETE FROM messages WHERE version = ?"
