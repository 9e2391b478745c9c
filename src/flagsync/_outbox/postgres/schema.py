"""The tables of an outbox in PostgreSQL, and the queries on them.

``outbox_latest`` knows the last message of each key, in narrow rows without an index on what changes: PostgreSQL
updates such a row in its page. ``outbox_waiting`` has the messages that wait, which are inserted and deleted, and are
updated only if they are put behind all others; the server vacuums it whenever its autovacuum looks. The other tables
are small. Whoever writes has the one lock of the store: versions are in the order of commits, and no two writers wait
for each other.

Keys are found by a digest of destination and key, so that an index has no text. Text that messages contain is bytes,
whatever the encoding of the database.
"""

from functools import cache

from flagsync._outbox.judge import ALL_COUNTS, OUTCOMES
from flagsync._postgres.tables import Tables

OUTBOX = Tables(
    name="outbox",
    version=2,
    sql=f"""CREATE TABLE IF NOT EXISTS {{schema}}.outbox_store (
    one boolean PRIMARY KEY DEFAULT true CHECK (one), id bigint NOT NULL, last_version bigint NOT NULL DEFAULT 0,
    last_account integer NOT NULL DEFAULT 0) WITH (fillfactor = 10);
INSERT INTO {{schema}}.outbox_store (id) VALUES (1 + floor(random() * 9e15)) ON CONFLICT DO NOTHING;
CREATE TABLE IF NOT EXISTS {{schema}}.outbox_lease (
    one boolean PRIMARY KEY DEFAULT true CHECK (one), owner text NOT NULL DEFAULT '',
    ends_at timestamptz NOT NULL DEFAULT '-infinity') WITH (fillfactor = 10);
INSERT INTO {{schema}}.outbox_lease DEFAULT VALUES ON CONFLICT DO NOTHING;
CREATE TABLE IF NOT EXISTS {{schema}}.outbox_destinations (
    number integer PRIMARY KEY, url bytea NOT NULL, project bytea NOT NULL, first_version bigint NOT NULL DEFAULT 0,
    pending bigint NOT NULL DEFAULT 0, remembered bigint NOT NULL DEFAULT 0, UNIQUE (url, project)
) WITH (fillfactor = 20);
CREATE TABLE IF NOT EXISTS {{schema}}.outbox_accounts (
    number integer PRIMARY KEY, process text NOT NULL UNIQUE, used_at double precision NOT NULL DEFAULT 0,
    {", ".join(f"{count} bigint NOT NULL DEFAULT 0" for count in ALL_COUNTS)}) WITH (fillfactor = 20);
INSERT INTO {{schema}}.outbox_accounts (number, process) VALUES (0, 'former processes') ON CONFLICT DO NOTHING;
CREATE TABLE IF NOT EXISTS {{schema}}.outbox_latest (
    digest bytea PRIMARY KEY, destination integer NOT NULL, version bigint NOT NULL, boot bigint NOT NULL,
    evaluated_at double precision NOT NULL, moment double precision NOT NULL, evaluation bigint,
    accepted_at double precision NOT NULL, resend_after_seconds double precision NOT NULL, account integer NOT NULL,
    waits boolean NOT NULL, fingerprint bytea NOT NULL)
    WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);
CREATE TABLE IF NOT EXISTS {{schema}}.outbox_waiting (
    destination integer, version bigint, boot bigint NOT NULL, evaluated_at double precision NOT NULL,
    waits_since double precision NOT NULL, resend_after_seconds double precision NOT NULL, account integer NOT NULL,
    size integer NOT NULL, replaces boolean NOT NULL, digest bytea NOT NULL, key bytea NOT NULL,
    fingerprint bytea NOT NULL, tail bytea NOT NULL, body bytea NOT NULL,
    PRIMARY KEY (destination, version))
    WITH (toast_tuple_target = 8160, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
        autovacuum_vacuum_cost_delay = 0);
ALTER TABLE {{schema}}.outbox_waiting ALTER COLUMN body SET STORAGE EXTERNAL;
CREATE TABLE IF NOT EXISTS {{schema}}.outbox_tails (
    digest bytea PRIMARY KEY, last_version bigint NOT NULL, content bytea NOT NULL)
    WITH (fillfactor = 50, toast_tuple_target = 128);
CREATE TABLE IF NOT EXISTS {{schema}}.outbox_absences (
    destination integer, property text, since double precision NOT NULL, PRIMARY KEY (destination, property));
CREATE INDEX IF NOT EXISTS outbox_last_used ON {{schema}}.outbox_tails (last_version);
""",
    advice="deliver their pending updates with the version that created them, and drop them",
    # The planner knows nothing of tables that have just been made, or filled. Each query has an index to go by.
    settings=(
        *(f"enable_{way} = off" for way in ("seqscan", "bitmapscan", "hashjoin", "mergejoin", "sort")),
        "jit = off",
    ),
)

LOCK_SPACE = int.from_bytes(b"outb") << 32  # of advisory locks, beside those of the application
NOW = "extract(epoch FROM clock_timestamp())::double precision"

# A change
# Whoever waits gets it in turn; a row that each writer changes would be had by whoever comes last.
LOCK = f"SELECT 1 FROM pg_advisory_xact_lock({LOCK_SPACE} + 'outbox_store'::regclass::oid::bigint)"
STATE = f"""SELECT {NOW}, id, last_version, last_account, (SELECT number FROM outbox_accounts WHERE process = %s),
    number, url, project, pending, remembered FROM outbox_store LEFT JOIN outbox_destinations ON true"""
NEW_ACCOUNT = "INSERT INTO outbox_accounts (number, process, used_at) VALUES (%s, %s, %s)"
NEW_DESTINATION = "INSERT INTO outbox_destinations (number, url, project) VALUES (%s, %s, %s)"
KNOWN = """SELECT digest, version, boot, evaluated_at, evaluation, fingerprint, accepted_at,
    resend_after_seconds, account, waits, moment FROM outbox_latest WHERE digest = ANY(%b::bytea[])"""
NOTE_LATEST = """INSERT INTO outbox_latest (boot, account, moment, accepted_at, digest, destination, version,
        evaluated_at, evaluation, fingerprint, resend_after_seconds, waits)
    SELECT %s, %s, evaluated_at + %s, CASE WHEN waits THEN '-infinity' ELSE %s END, new.*
    FROM unnest(%b::bytea[], %b::integer[], %b::bigint[], %b::double precision[], %b::bigint[], %b::bytea[],
        %b::double precision[], %b::boolean[])
        AS new (digest, destination, version, evaluated_at, evaluation, fingerprint, resend_after_seconds, waits)
    ON CONFLICT (digest) DO UPDATE SET boot = excluded.boot, account = excluded.account, moment = excluded.moment,
        accepted_at = excluded.accepted_at, version = excluded.version, evaluated_at = excluded.evaluated_at,
        evaluation = excluded.evaluation, fingerprint = excluded.fingerprint,
        resend_after_seconds = excluded.resend_after_seconds, waits = excluded.waits"""
TOUCH = """UPDATE outbox_latest SET boot = %s, moment = later.evaluated_at + %s, evaluated_at = later.evaluated_at,
    evaluation = later.evaluation
    FROM unnest(%b::bytea[], %b::double precision[], %b::bigint[]) AS later (digest, evaluated_at, evaluation)
    WHERE outbox_latest.digest = later.digest"""
WAITING = {
    "destination": "int4",
    "version": "int8",
    "boot": "int8",
    "evaluated_at": "float8",
    "waits_since": "float8",
    "resend_after_seconds": "float8",
    "account": "int4",
    "size": "int4",
    "replaces": "bool",
    "digest": "bytea",
    "key": "bytea",
    "fingerprint": "bytea",
    "tail": "bytea",
    "body": "bytea",
}
NEW_WAITING = f"COPY outbox_waiting ({', '.join(WAITING)}) FROM STDIN (FORMAT BINARY)"
REMOVE = """DELETE FROM outbox_waiting USING unnest(%b::integer[], %b::bigint[]) AS gone (destination, version)
    WHERE outbox_waiting.destination = gone.destination AND outbox_waiting.version = gone.version"""
USE_TAILS = "UPDATE outbox_tails SET last_version = %s WHERE digest = ANY(%b::bytea[]) RETURNING digest"
NEW_TAILS = """INSERT INTO outbox_tails (last_version, digest, content)
    SELECT %s, digest, content FROM unnest(%b::bytea[], %b::bytea[]) AS new (digest, content)"""
OVER_BOUND = """WITH gone AS (DELETE FROM outbox_waiting WHERE (destination, version) IN (
        SELECT destination, version FROM outbox_waiting WHERE destination = %s AND version >= (
            SELECT first_version FROM outbox_destinations WHERE number = %s) ORDER BY version LIMIT %s)
        RETURNING digest, version, account, replaces),
    forgotten AS (DELETE FROM outbox_latest USING gone
        WHERE outbox_latest.digest = gone.digest AND outbox_latest.version = gone.version)
    SELECT account, replaces, count(*), max(version) FROM gone GROUP BY account, replaces"""
SETTLE = """WITH gone AS (DELETE FROM outbox_waiting WHERE destination = %s AND version = ANY(%b::bigint[])
        RETURNING digest, version, account, replaces),
    kept AS (UPDATE outbox_latest SET waits = false, accepted_at = %s FROM gone
        WHERE outbox_latest.digest = gone.digest AND outbox_latest.version = gone.version RETURNING 1)
    SELECT account, replaces, count(*), (SELECT count(*) FROM kept) FROM gone GROUP BY account, replaces"""
POSTPONE = """WITH moved AS (UPDATE outbox_waiting SET version = later.version
        FROM unnest(%b::bigint[], %b::bigint[]) AS later (before, version)
        WHERE destination = %s AND outbox_waiting.version = later.before
        RETURNING digest, later.before, later.version, tail),
    followed AS (UPDATE outbox_latest SET version = moved.version FROM moved
        WHERE outbox_latest.digest = moved.digest AND outbox_latest.version = moved.before)
    UPDATE outbox_tails SET last_version = %s WHERE digest IN (SELECT tail FROM moved)"""


@cache
def finish(counts: tuple[str, ...]) -> str:
    """Return the statement that ends a change with some counts of accounts, and those of destinations."""
    added = "".join(f", {name} = outbox_accounts.{name} + more.{name}" for name in counts)
    return f"""WITH counted AS (UPDATE outbox_accounts
        SET used_at = CASE outbox_accounts.number WHEN %s THEN %s ELSE used_at END{added}
        FROM unnest(%b::integer[]{", %b::bigint[]" * len(counts)}) AS more ({", ".join(["number", *counts])})
        WHERE outbox_accounts.number = more.number),
    placed AS (UPDATE outbox_destinations SET pending = outbox_destinations.pending + more.pending,
        remembered = outbox_destinations.remembered + more.remembered,
        first_version = greatest(outbox_destinations.first_version, more.first_version)
        FROM unnest(%b::integer[], %b::bigint[], %b::bigint[], %b::bigint[])
            AS more (number, pending, remembered, first_version)
        WHERE outbox_destinations.number = more.number)
    UPDATE outbox_store SET last_version = %s, last_account = %s"""


# Pruning
SOME_LATEST = """SELECT digest, destination, accepted_at, waits FROM outbox_latest WHERE digest > %b
    ORDER BY digest LIMIT %s"""
FORGET = "DELETE FROM outbox_latest WHERE digest = ANY(%b::bytea[])"
FIRSTS = """CROSS JOIN LATERAL (SELECT version, waits_since FROM outbox_waiting WHERE destination = number
    AND version >= first_version ORDER BY version LIMIT 1) AS first"""
UNUSED_TAILS = f"""DELETE FROM outbox_tails WHERE digest IN (SELECT digest FROM outbox_tails
    WHERE last_version < coalesce((SELECT min(version) FROM outbox_destinations {FIRSTS} WHERE pending > 0), %s)
    ORDER BY last_version LIMIT %s)"""
CLOSE_ACCOUNTS = f"""WITH closed AS (DELETE FROM outbox_accounts WHERE number IN (
        SELECT number FROM outbox_accounts WHERE used_at < %s AND number NOT IN (0, %s)
        AND accepted = {" + ".join(OUTCOMES)} LIMIT %s) RETURNING *),
    sums AS (SELECT {", ".join(f"coalesce(sum({name}), 0)::bigint AS {name}" for name in ALL_COUNTS)} FROM closed)
    UPDATE outbox_accounts SET {", ".join(f"{name} = outbox_accounts.{name} + sums.{name}" for name in ALL_COUNTS)}
    FROM sums WHERE number = 0"""

# Properties
NOTE_ABSENCES = """INSERT INTO outbox_absences SELECT %s, * FROM unnest(%b::text[], %b::double precision[])
    ON CONFLICT (destination, property) DO UPDATE SET since = excluded.since"""
ABSENCES = "SELECT property, since FROM outbox_absences WHERE destination = %s"

# Claims, the state, the lease
IN_TURN = """SELECT id, number, url, project, first_version FROM outbox_store, outbox_destinations WHERE pending > 0
    ORDER BY number <= %s, number"""
FITTING = """SELECT version FROM (SELECT version, sum(size) OVER (ORDER BY version) - size AS before
    FROM outbox_waiting WHERE destination = %s AND version >= %s ORDER BY version LIMIT %s) AS first
    WHERE before < %s ORDER BY version DESC LIMIT 1"""
CLAIM = f"""SELECT key, fingerprint, body, boot, evaluated_at, {NOW} - waits_since, resend_after_seconds, replaces,
    version, tail FROM outbox_waiting WHERE destination = %s AND version BETWEEN %s AND %s ORDER BY version"""
TAILS = "SELECT digest, content FROM outbox_tails WHERE digest = ANY(%b::bytea[])"
STATUS = f"""SELECT id, last_version, (SELECT coalesce(sum(pending), 0)::bigint FROM outbox_destinations), {NOW},
    coalesce(own.number, 0), {", ".join(f"coalesce(own.{name}, 0)" for name in ALL_COUNTS)},
    d.url, d.project, d.version, d.waits_since
    FROM outbox_store LEFT JOIN outbox_accounts AS own ON own.process = %s LEFT JOIN (
        SELECT url, project, version, waits_since FROM outbox_destinations {FIRSTS} WHERE pending > 0) AS d ON true"""
TOTALS = f"SELECT {', '.join(f'coalesce(sum({name}), 0)::bigint' for name in ALL_COUNTS)} FROM outbox_accounts"
ACQUIRE = """UPDATE outbox_lease SET owner = %s, ends_at = clock_timestamp() + make_interval(secs => %s)
    WHERE owner = %s OR ends_at < clock_timestamp()"""
RELEASE = "UPDATE outbox_lease SET owner = '', ends_at = '-infinity' WHERE owner = %s"
