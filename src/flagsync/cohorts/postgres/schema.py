"""The tables of cohorts in PostgreSQL, and the queries on them; see ``Sessions`` for ``seen`` and ``floor``.

They are those of a file of cohorts; see ``flagsync.cohorts.sqlite.schema`` for what their columns mean. Whoever changes
members has the one lock of the store: positions are in the order of commits, and no two writers wait for each other.
Text of Mixpanel is bytes of UTF-8, whatever the encoding of the database. ``key`` is an identifier, or the beginning
and a digest of one that is too long for an index, which is then in ``long_identifier``.
"""

from flagsync._postgres.tables import Tables

COHORTS = Tables(
    name="cohorts",
    version=1,
    sql="""CREATE TABLE IF NOT EXISTS {schema}.cohorts_state (
    one boolean PRIMARY KEY DEFAULT true CHECK (one), version bigint NOT NULL DEFAULT 1 + floor(random() * 9e15),
    position bigint NOT NULL DEFAULT 0) WITH (fillfactor = 10);
INSERT INTO {schema}.cohorts_state DEFAULT VALUES ON CONFLICT DO NOTHING;
CREATE TABLE IF NOT EXISTS {schema}.cohorts (
    number integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, id bytea NOT NULL UNIQUE, first_name bytea NOT NULL,
    name bytea NOT NULL, floor bigint NOT NULL DEFAULT 0, swept bytea) WITH (fillfactor = 20);
CREATE TABLE IF NOT EXISTS {schema}.cohort_members (
    seen bigint NOT NULL, changed bigint NOT NULL, cohort integer, key bytea, long_identifier bytea,
    PRIMARY KEY (cohort, key)) WITH (fillfactor = 80);
CREATE INDEX IF NOT EXISTS cohort_members_by_change ON {schema}.cohort_members (changed);
CREATE TABLE IF NOT EXISTS {schema}.cohort_sessions (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, cohort integer NOT NULL, id bytea,
    pages integer NOT NULL, UNIQUE (cohort, id));
CREATE TABLE IF NOT EXISTS {schema}.cohort_pages (
    session bigint REFERENCES {schema}.cohort_sessions ON DELETE CASCADE, page integer, digest bytea NOT NULL,
    usable integer NOT NULL, skipped integer NOT NULL, PRIMARY KEY (session, page));
CREATE TABLE IF NOT EXISTS {schema}.cohort_environments (
    number integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL UNIQUE,
    cursor bigint NOT NULL DEFAULT 0, began bigint NOT NULL) WITH (fillfactor = 20);
CREATE TABLE IF NOT EXISTS {schema}.cohort_leases (
    environment text PRIMARY KEY, owner text NOT NULL, ends_at timestamptz NOT NULL) WITH (fillfactor = 20);
CREATE TABLE IF NOT EXISTS {schema}.cohort_unsettled (
    position bigint NOT NULL, due double precision NOT NULL DEFAULT 0, environment integer, cohort integer,
    tries integer NOT NULL DEFAULT 0, unsure boolean NOT NULL DEFAULT false, key bytea,
    PRIMARY KEY (cohort, key, environment)) WITH (fillfactor = 50);
CREATE INDEX IF NOT EXISTS cohort_unsettled_by_position ON {schema}.cohort_unsettled (environment, position);
CREATE INDEX IF NOT EXISTS cohort_unsettled_tried ON {schema}.cohort_unsettled (environment, due) WHERE tries > 0;
""",
    advice="drop them, and sync the cohorts to a new connection in Mixpanel",
    # Each query has an index for what it needs. In a table that has grown since its statistics were collected, such as
    # during the first sync of a cohort, the planner would rather read all of it.
    settings=(
        *(f"enable_{way} = off" for way in ("seqscan", "bitmapscan", "hashjoin", "mergejoin", "sort")),
        "jit = off",
    ),
)

LOCK_SPACE = int.from_bytes(b"coho") << 32  # of advisory locks, beside those of the application
NOW = "extract(epoch FROM clock_timestamp())::double precision"

VERSION = "SELECT coalesce((SELECT version FROM cohorts_state), 0)"
POSITION = "SELECT coalesce((SELECT position FROM cohorts_state), 0)"
# Whoever waits gets it in turn; a row that each writer changes would be had by whoever comes last.
LOCK = f"SELECT 1 FROM pg_advisory_xact_lock({LOCK_SPACE} + 'cohorts_state'::regclass::oid::bigint)"
STATE = "SELECT version, position FROM cohorts_state"
NEW_STATE = "INSERT INTO cohorts_state DEFAULT VALUES ON CONFLICT DO NOTHING"
FINISH = "UPDATE cohorts_state SET version = %s, position = %s"

KNOWN = "SELECT number, id, first_name, name FROM cohorts"
COHORT = "SELECT number, floor, name FROM cohorts WHERE id = %b"
NEW_COHORT = "INSERT INTO cohorts (id, first_name, name) VALUES (%b, %b, %b) RETURNING number, floor, name"
RENAME = "UPDATE cohorts SET name = %b WHERE number = %s"
# The planner knows that there is one cohort, and that the index has its members in this order.
MEMBERS = """SELECT key, long_identifier FROM cohort_members WHERE cohort = (SELECT number FROM cohorts WHERE id = %b)
    AND seen >= (SELECT floor FROM cohorts WHERE id = %b) AND key > %b ORDER BY key LIMIT %s"""
COHORTS_OF = """SELECT key, cohort FROM cohorts JOIN cohort_members ON cohort = number
    WHERE key = ANY(%b::bytea[]) AND seen >= floor"""

SESSION = "SELECT number, pages FROM cohort_sessions WHERE cohort = %s AND id = %b"
LAST_SESSION = "SELECT coalesce(max(number), 0) FROM cohort_sessions WHERE cohort = %s"
NEW_SESSION = "INSERT INTO cohort_sessions (cohort, id, pages) VALUES (%s, %b, %s) RETURNING number"
NEW_PAGE = "INSERT INTO cohort_pages VALUES (%s, %s, %b, %s, %s)"
DIGEST = "SELECT digest FROM cohort_pages WHERE session = %s AND page = %s"
PAGE_TOTALS = """SELECT count(*), coalesce(sum(usable), 0)::bigint, coalesce(sum(skipped), 0)::bigint
    FROM cohort_pages WHERE session = %s"""
FORGET_SESSION = "DELETE FROM cohort_sessions WHERE number = %s"
FORGET_SESSIONS = """DELETE FROM cohort_sessions WHERE cohort = %s AND number <= (
    SELECT number FROM cohort_sessions WHERE cohort = %s ORDER BY number DESC LIMIT 1 OFFSET %s)"""
FORGET_PAGES = """DELETE FROM cohort_pages USING cohort_sessions
    WHERE session = number AND cohort = %s AND number < %s"""
RAISE_FLOOR = "UPDATE cohorts SET floor = %s, swept = '' WHERE number = %s"

# A member whose ``seen`` is below the floor gets one that is not. Others keep their rows if nothing changes.
JOIN = """INSERT INTO cohort_members AS m (cohort, seen, changed, key, long_identifier)
    SELECT %s, %s, %s + place, key, long_identifier
    FROM unnest(%b::bytea[], %b::bytea[]) WITH ORDINALITY AS t (key, long_identifier, place) ORDER BY key
    ON CONFLICT (cohort, key) DO UPDATE SET seen = excluded.seen, changed = CASE
    WHEN m.seen >= (SELECT floor FROM cohorts WHERE number = %s) THEN m.changed ELSE excluded.changed END
    WHERE m.seen < excluded.seen"""
# These insert nothing. The planner cannot look at a whole cohort to find some rows, as it could for an UPDATE.
_LEFT = "ON CONFLICT (cohort, key) DO UPDATE SET seen = excluded.seen, changed = excluded.changed"
LEAVE = f"""INSERT INTO cohort_members (cohort, seen, changed, key) SELECT %s, -1, %s + place, key
    FROM unnest(%b::bytea[]) WITH ORDINALITY AS t (key, place)
    WHERE (SELECT seen FROM cohort_members AS m WHERE m.cohort = %s AND m.key = t.key) >= 0 ORDER BY key {_LEFT}"""

UNSWEPT = "SELECT number, swept, floor FROM cohorts WHERE swept IS NOT NULL LIMIT 1"
LAST_IN_RANGE = "SELECT key FROM cohort_members WHERE cohort = %s AND key > %b ORDER BY key LIMIT 1 OFFSET %s"
SWEEP = f"""INSERT INTO cohort_members (cohort, seen, changed, key)
    SELECT cohort, -1, %s + row_number() OVER (ORDER BY key), key FROM cohort_members
    WHERE cohort = %s AND key > %b AND (%b::bytea IS NULL OR key <= %b) AND seen >= 0 AND seen < %s {_LEFT}"""
SWEPT_UP_TO = "UPDATE cohorts SET swept = %b WHERE number = %s"

# The change log
START_LOG = f"INSERT INTO cohort_environments (name, began) SELECT %s, ({POSITION}) ON CONFLICT DO NOTHING"
RESTART_LOG = """INSERT INTO cohort_environments (name, began) VALUES (%s, 0)
    ON CONFLICT (name) DO UPDATE SET cursor = 0, began = 0"""
ENVIRONMENT = "SELECT number, cursor, began FROM cohort_environments WHERE name = %s"
OWN_ENVIRONMENT = """SELECT number, cursor, began FROM cohort_environments JOIN cohort_leases ON environment = name
    WHERE name = %s AND owner = %s FOR UPDATE"""
IS_SWEPT = "SELECT NOT EXISTS (SELECT 1 FROM cohorts WHERE swept IS NOT NULL)"

LAST_TO_LOOK_AT = "SELECT changed FROM cohort_members WHERE changed > %s ORDER BY changed LIMIT 1 OFFSET %s"
# The order has the planner use the index of ``changed``.
UNCLAIMED = """FROM (SELECT * FROM cohort_members WHERE changed > %s AND changed <= %s ORDER BY changed) AS m
    JOIN cohorts ON number = cohort WHERE seen >= floor OR changed > %s"""
FIRST_UNCLAIMED = f"SELECT changed {UNCLAIMED} ORDER BY changed LIMIT 1"
# These may be all members.
COUNTING = "SET LOCAL enable_seqscan = on; SET LOCAL enable_hashjoin = on"
COUNT_UNCLAIMED = """SELECT count(*) FROM cohort_members JOIN cohorts ON number = cohort
    WHERE changed > %s AND (seen >= floor OR changed > %s)"""
CLAIM_UP_TO = f"""INSERT INTO cohort_unsettled AS u (environment, cohort, key, position)
    SELECT %s, cohort, key, changed {UNCLAIMED}
    ON CONFLICT (cohort, key, environment)
    DO UPDATE SET position = excluded.position, unsure = u.unsure OR u.due > {NOW}, due = 0"""
MOVE_CURSOR = "UPDATE cohort_environments SET cursor = %s WHERE number = %s"

UNSETTLED = f"SELECT count(*), min(position), min(due) - {NOW} FROM cohort_unsettled WHERE environment = %s"
DUE = f"""SELECT position, cohort, key, long_identifier, seen >= floor, unsure, tries
    FROM cohort_unsettled JOIN cohort_members USING (cohort, key) JOIN cohorts ON cohorts.number = cohort
    WHERE environment = %s AND (due <= {NOW} OR due > {NOW} + %s)"""
FIRST_TRIED = f"{DUE} AND tries > 0 ORDER BY due LIMIT %s"
FIRST_DUE = f"{DUE} AND tries = 0 ORDER BY position LIMIT %s"
MARK_UNSURE = """UPDATE cohort_unsettled SET unsure = true
    WHERE environment = %s AND position = ANY(%b::bigint[]) AND NOT unsure"""
SETTLE = "DELETE FROM cohort_unsettled WHERE environment = %s AND position = ANY(%b::bigint[])"
POSTPONE = f"""UPDATE cohort_unsettled SET due = CASE WHEN %s > 0 THEN {NOW} + %s ELSE 0 END, unsure = %s, tries = %s
    WHERE environment = %s AND position = ANY(%b::bigint[])"""

ACQUIRE = """INSERT INTO cohort_leases AS l VALUES (%s, %s, clock_timestamp() + make_interval(secs => %s))
    ON CONFLICT (environment) DO UPDATE SET owner = excluded.owner, ends_at = excluded.ends_at
    WHERE l.owner = excluded.owner OR l.ends_at < clock_timestamp()"""
RELEASE = "DELETE FROM cohort_leases WHERE environment = %s AND owner = %s"
