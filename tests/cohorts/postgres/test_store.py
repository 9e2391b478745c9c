"""The membership store in PostgreSQL: several hosts, long identifiers, rights, leases, and what stays in no session."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from threading import Barrier, Thread
from typing import Any

import pytest
from psycopg_pool import ConnectionPool

from flagsync.cohorts import CohortWebhook, PostgresStore, StoreUnavailableError
from flagsync.cohorts.change_log import StoredChangeLog
from flagsync.cohorts.postgres import schema as sql
from flagsync.cohorts.postgres.store import StoreLimits
from flagsync.cohorts.postgres.tables import MAX_KEY
from tests.conftest import PYTHON
from tests.support.postgres import PostgresServer, schema_of
from tests.support.updates import KEY, add, after, drain, page, remove
from tests.support.webhook_calls import PASSWORD, USER, basic, call, over_wsgi

Open = Callable[..., PostgresStore]


@pytest.fixture
def schema(tmp_path: Path) -> str:
    return schema_of(tmp_path)


@pytest.fixture
def open_store(postgres: PostgresServer, schema: str) -> Iterator[Open]:
    """Opens stores on the schema of a test, each as if it were another host; closes them."""
    stores = list[PostgresStore]()

    def build(url: str = "", **limits: Any) -> PostgresStore:
        stores.append(PostgresStore(url or postgres.url(), schema=schema, limits=StoreLimits(**limits)))
        return stores[-1]

    yield build
    for store in stores:
        store.close()


def production(store: PostgresStore) -> StoredChangeLog:
    """Return the log of an environment, which was started."""
    log = store.change_log("production")
    log.start()
    return log


# Several hosts


def test_pages_come_in_any_order_from_hosts_at_the_same_time(open_store: Open) -> None:
    hosts = open_store(), open_store()
    hosts[0].apply(add("old"))
    pages = [page("s", number, 20, f"{number:02}", "all") for number in range(1, 21)]
    Random(7).shuffle(pages)

    def work(host: PostgresStore, updates: list[Any]) -> None:
        for update in updates:
            host.apply(update)

    parts = pages[::2] + pages[5:9], pages[1::2] + pages[2:6]
    threads = [Thread(target=work, args=both) for both in zip(hosts, parts, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = [*(f"{number:02}" for number in range(1, 21)), "all"]
    assert [*hosts[0].members("7")] == [*hosts[1].members("7")] == expected


def test_hosts_that_use_a_schema_first_at_the_same_time_make_it_once(open_store: Open) -> None:
    hosts, barrier = [open_store() for _ in range(4)], Barrier(4)

    def work(host: PostgresStore, member: str) -> None:
        barrier.wait()
        host.apply(add(member))

    threads = [Thread(target=work, args=both) for both in zip(hosts, "abcd", strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [*hosts[0].members("7")] == [*"abcd"]
    assert len(hosts[0].cohorts()) == 1


def test_position_is_seen_only_with_all_lower_ones(open_store: Open, postgres: PostgresServer) -> None:
    """Otherwise a cursor could pass a change that is committed later."""
    one, other = open_store(), open_store()
    log = production(one)
    with one._database.work() as transaction:
        transaction.rows(sql.LOCK)
        writing = Thread(target=other.apply, args=(add("ann"),))
        writing.start()
        assert log.state().last == 0
    writing.join()
    assert drain(log) == [("ann", True)]


def test_rows_of_members_that_stay_are_not_written_again(open_store: Open, postgres: PostgresServer) -> None:
    store = open_store()
    after(store, page("s", 1, 1, "ann", "bob"), add("ann", "bob"))
    where = f"SELECT count(*) FROM {store._schema}.cohort_members WHERE xmin::text = (SELECT xmin::text FROM "
    written = f"{where}{store._schema}.cohorts_state)"
    assert postgres.run(written) == [(0,)]
    store.apply(page("t", 1, 1, "ann"))
    assert postgres.run(written) == [(2,)]  # one was seen, one has left


def test_webhooks_of_two_hosts_take_the_pages_of_a_cohort_in_any_order(open_store: Open) -> None:
    hosts = [open_store(), open_store()]
    webhooks = [CohortWebhook(host, credentials=[(USER, PASSWORD)]) for host in hosts]
    hosts[0].apply(add("old"))

    def post(host: int, number: int, *members: str) -> int:
        paging = {"total_pages": 3, "page_count": number}
        body = call("members", *members, mixpanel_session_id="s", page_info=paging)
        headers = {"authorization": basic(), "Content-Type": "application/json"}
        [reply] = over_wsgi(webhooks[host], "POST", headers, [body])
        return reply.status

    assert [post(1, 3, "eve"), post(0, 1, "ann"), post(0, 3, "eve")] == [200] * 3
    assert [*hosts[1].members("7")] == ["ann", "eve", "old"]
    assert [post(1, 1, "ann"), post(1, 2, "bob"), post(0, 2, "bob")] == [200] * 3
    assert [*hosts[0].members("7")] == [*hosts[1].members("7")] == ["ann", "bob", "eve"]


# Identifiers


@pytest.mark.parametrize("length", [MAX_KEY, MAX_KEY + 1, 8000])
def test_identifier_may_be_longer_than_what_an_index_holds(open_store: Open, length: int) -> None:
    chance = Random(length)
    long = "".join(chr(chance.randrange(0x10000, 0x10FFFF)) for _ in range(length // 4)) + "x" * (length % 4)
    assert len(long.encode()) == length
    alike = long[:-1] + "y"
    store = open_store(page_rows=1, swept_rows=0)
    log = production(store)
    assert {*after(store, add("ann", long, alike), remove(alike))} == {"ann", long}
    assert store.traits_of([long, alike]) == {long: {KEY: True}, alike: {KEY: False}}
    assert dict(drain(log)) == {"ann": True, long: True, alike: False}
    assert after(store, page("s", 1, 1, alike)) == [alike]
    assert dict(drain(log)) == {"ann": False, long: False, alike: True}


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_identifier_may_be_any_text_whatever_the_encoding_of_the_database(
    postgres: PostgresServer, encoding: str
) -> None:
    name = f"db_{encoding.lower()}"
    postgres.run(
        f"DROP DATABASE IF EXISTS {name}",
        f"CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0",
    )
    with PostgresStore(postgres.url(database=name)) as store:
        log = production(store)
        store.apply(add("Zoë", "\N{SNOWMAN}", "\0", cohort="Ä", name="\N{SNOWMAN}"))
        assert [*store.members("Ä")] == ["\0", "Zoë", "\N{SNOWMAN}"]
        assert [cohort.name for cohort in store.cohorts()] == ["\N{SNOWMAN}"]
        assert {who for who, _ in drain(log)} == {"Zoë", "\N{SNOWMAN}", "\0"}


# The lease


def pass_time(server: PostgresServer, schema: str, seconds: float) -> None:
    """Let time pass for leases, by the server's clock."""
    server.run(f"UPDATE {schema}.cohort_leases SET ends_at = ends_at - make_interval(secs => {seconds})")


def test_lease_ends_after_its_time_by_the_clock_of_the_server(
    open_store: Open, postgres: PostgresServer, schema: str
) -> None:
    logs = [production(open_store(lease_seconds=45.0)) for _ in range(2)]
    assert [log.lease_seconds for log in logs] == [45.0, 45.0]
    assert [log.try_acquire_lease() for log in logs] == [True, False]
    pass_time(postgres, schema, 44.0)
    assert [log.try_acquire_lease() for log in logs] == [True, False]  # which renews it
    pass_time(postgres, schema, 46.0)
    assert [log.try_acquire_lease() for log in reversed(logs)] == [True, False]


def test_log_of_a_process_whose_lease_another_one_has_got_changes_nothing(
    open_store: Open, postgres: PostgresServer, schema: str
) -> None:
    stores = open_store(), open_store()
    late, new = (production(store) for store in stores)
    stores[0].apply(add("ann", "bob"))
    assert late.try_acquire_lease()
    changes = late.claim(10)
    pass_time(postgres, schema, 61.0)
    assert new.try_acquire_lease()
    assert [change.is_unsure for change in new.claim(10)] == [True, True]
    late.settle(changes[:1])
    late.postpone(changes[1:], 3600.0)
    assert (late.claim(10), late.pending()) == ([], 2)
    late.release_lease()
    assert [change.is_unsure for change in new.claim(10)] == [True, True]


def test_log_of_a_process_that_lost_its_lease_while_it_claims_gets_nothing(
    open_store: Open, postgres: PostgresServer, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores = open_store(), open_store()
    late, new = (production(store) for store in stores)
    stores[0].apply(add("ann"))
    acquire = late._lease.try_acquire

    def acquire_and_lose() -> bool:
        assert acquire()
        pass_time(postgres, schema, 61.0)
        return new.try_acquire_lease()

    monkeypatch.setattr(late._lease, "try_acquire", acquire_and_lose)
    assert late.claim(10) == []
    assert [change.is_unsure for change in new.claim(10)] == [False]


def test_lease_of_each_environment_is_its_own(open_store: Open) -> None:
    one, other = open_store(), open_store()
    logs = one.change_log("production"), other.change_log("staging")
    assert [log.try_acquire_lease() for log in logs] == [True, True]
    others = other.change_log("production"), one.change_log("staging")
    assert [log.try_acquire_lease() for log in others] == [False, False]


def test_lease_that_was_never_held_is_released_without_the_server(open_store: Open) -> None:
    log = open_store("postgresql://127.0.0.1:1/nowhere").change_log("production")
    log.release_lease()
    with pytest.raises(StoreUnavailableError, match="Connection refused"):
        log.try_acquire_lease()
    with pytest.raises(StoreUnavailableError, match="Connection refused"):
        log.release_lease()  # the server may have granted it


def test_postponed_change_is_due_also_if_the_clock_of_the_server_was_put_back(
    open_store: Open, postgres: PostgresServer, schema: str
) -> None:
    store = open_store()
    log = production(store)
    store.apply(add("ann"))
    assert log.try_acquire_lease()
    log.postpone(log.claim(10), 3600.0)
    assert (log.claim(10), log.state().due_in_seconds > 3000) == ([], True)
    postgres.run(f"UPDATE {schema}.cohort_unsettled SET due = due + 86400")
    assert log.state().due_in_seconds == 0
    assert [change.identifier for change in log.claim(10)] == ["ann"]


# Environments


def test_environment_that_nobody_writes_to_any_more_costs_nothing(
    open_store: Open, postgres: PostgresServer, schema: str
) -> None:
    store = open_store()
    abandoned, log = production(store), store.change_log("staging")
    for round_ in range(10):
        after(store, add(*"abcdef") if round_ % 2 else remove(*"abcdef"))
        drain(log)
    assert abandoned.pending() == 6
    assert postgres.run(f"SELECT count(*) FROM {schema}.cohort_unsettled") == [(0,)]


def test_log_looks_at_some_members_at_a_time(open_store: Open, postgres: PostgresServer, schema: str) -> None:
    store = open_store(swept_rows=1)
    after(store, add(*"abcdef"), remove("a"))
    log = production(store)
    assert log.try_acquire_lease()
    assert [change.identifier for change in log.claim(1)] == ["b"]
    assert postgres.run(f"SELECT count(*) FROM {schema}.cohort_unsettled") == [(2,)]
    assert dict(drain(log, limit=1)) == dict.fromkeys("bcdef", True)


# Tables


def test_statements_look_for_what_they_need_in_an_index_without_statistics(
    open_store: Open, postgres: PostgresServer, schema: str
) -> None:
    store = open_store()
    for number in range(10):
        store.apply(add(*(f"{number}-{member}" for member in range(1000)), cohort="7"))
    keys, positions = [b"5-%d" % number for number in range(500)], [*range(500)]
    values: dict[str, tuple[str, tuple[object, ...]]] = {
        "MEMBERS": ("key > ", (b"7", b"7", b"5", 1000)),
        "COHORTS_OF": ("key = ANY", (keys[:1],)),
        "JOIN": ("", (1, 1, 0, keys, [None] * 500, 1)),
        "LEAVE": ("key = t.key", (1, 0, keys, 1)),
        "LAST_IN_RANGE": ("key > ", (1, b"5", 2000)),
        "SWEEP": ("key <= ", (0, 1, b"5", b"6", b"6", 1)),
        "LAST_TO_LOOK_AT": ("changed > ", (5000, 2000)),
        "FIRST_UNCLAIMED": ("changed > ", (5000, 10**9, 0)),
        "CLAIM_UP_TO": ("changed <= ", (1, 5000, 7000, 0)),
        "UNSETTLED": ("environment = ", (1,)),
        "FIRST_TRIED": ("key = cohort_unsettled.key", (1, 1.0, 1)),
        "FIRST_DUE": ("key = cohort_unsettled.key", (1, 1.0, 500)),
        "MARK_UNSURE": ('"position" = ANY', (1, positions)),
        "SETTLE": ('"position" = ANY', (1, positions)),
        "POSTPONE": ('"position" = ANY', (1.0, 1.0, True, 0, 1, positions)),
    }
    for name, (condition, given) in values.items():
        with store._database.work() as transaction:
            plan = [line for [line] in transaction.rows(f"EXPLAIN {getattr(sql, name)}", *given)]
        ways = [
            line for line in plan if any(way in line for way in ("Seq Scan", "Bitmap", "Hash", "Materialize"))
        ]
        assert (name, ways) == (name, [])
        assert any("Index Cond" in line and condition in line for line in plan), (name, plan)


def test_emptied_tables_are_used_again_and_give_other_versions(
    open_store: Open, postgres: PostgresServer, schema: str
) -> None:
    store = open_store()
    log = production(store)
    store.apply(add("ann"))
    assert log.try_acquire_lease()
    changes, versions = log.claim(10), [store.version()]
    postgres.run(f"TRUNCATE {', '.join(f'{schema}.{table}' for table in TABLES)}")
    log.settle(changes)
    log.postpone(changes, 0.0)
    assert (log.state().is_complete, log.pending(), [*store.members("7")]) == (False, 0, [])
    versions.append(store.version())
    assert after(store, add("bob")) == ["bob"]
    assert drain(log) == [("bob", True)]
    assert len({*versions, store.version()}) == 3


TABLES = (
    "cohorts_state cohorts cohort_members cohort_sessions cohort_pages cohort_environments cohort_leases "
    "cohort_unsettled"
).split()


def test_tables_of_a_schema_that_was_dropped_are_made_again(
    open_store: Open, postgres: PostgresServer, schema: str
) -> None:
    store = open_store()
    store.apply(add("ann"))
    postgres.run(f"DROP SCHEMA {schema} CASCADE")
    with pytest.raises(StoreUnavailableError, match="does not exist"):
        store.version()
    assert after(store, add("bob")) == ["bob"]


def test_tables_of_an_administrator_need_no_right_to_create(
    open_store: Open, postgres: PostgresServer, schema: str
) -> None:
    postgres.run(
        f"CREATE ROLE {schema} LOGIN PASSWORD 's3cret/p@ss'",
        PostgresStore.script(schema),
        f"GRANT USAGE ON SCHEMA {schema} TO {schema}",
    )
    store = open_store(postgres.url(schema))
    with pytest.raises(StoreUnavailableError, match="permission denied for table"):
        store.version()
    postgres.run(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {schema}")
    log = production(store)
    assert after(store, page("s", 1, 2, "ann"), page("s", 2, 2, "bob"), page("t", 1, 1, "bob")) == ["bob"]
    assert dict(drain(log)) == {"ann": False, "bob": True}


def test_sessions_beyond_the_bound_are_forgotten_with_their_pages(
    open_store: Open, postgres: PostgresServer, schema: str
) -> None:
    store = open_store(kept_sessions=3)
    for number in range(10):
        after(store, page(f"abandoned-{number}", 1, 2, "ann"), page(f"whole-{number}", 1, 1, "bob"))
    sessions = postgres.run(
        f"SELECT convert_from(id, 'UTF8'), (SELECT count(*) FROM {schema}.cohort_pages WHERE session = number) "
        f"FROM {schema}.cohort_sessions ORDER BY number"
    )
    assert sessions == [("whole-8", 0), ("abandoned-9", 0), ("whole-9", 1)]
    assert postgres.run(f"SELECT count(*) FROM {schema}.cohort_pages") == [(1,)]


# Connections


@pytest.mark.parametrize("autocommit", [True, False])
def test_pool_of_the_application_stays_open(postgres: PostgresServer, schema: str, *, autocommit: bool) -> None:
    with ConnectionPool(postgres.url(), min_size=1, max_size=2, kwargs={"autocommit": autocommit}) as pool:
        with PostgresStore(pool, schema=schema) as store:
            assert after(store, add("ann"), page("s", 1, 1, "bob")) == ["bob"]
        with pool.connection() as connection:
            assert connection.execute("SHOW search_path").fetchall() == [('"$user", public',)]
            assert connection.execute("SHOW enable_seqscan").fetchall() == [("on",)]


def test_collected_store_closes_its_connections(
    open_store: Open, postgres: PostgresServer, schema: str
) -> None:
    url = f"{postgres.url()}?application_name={schema}"
    store = PostgresStore(url, schema=schema)
    store.apply(add("ann"))
    sessions = f"SELECT count(*) FROM pg_stat_activity WHERE application_name = '{schema}'"
    assert postgres.run(sessions) == [(1,)]
    del store
    assert any(postgres.run(sessions) == [(0,)] for _ in range(1000))


def test_repr_has_neither_a_password_nor_a_host(open_store: Open, schema: str) -> None:
    assert repr(open_store()) == f"PostgresStore(schema='{schema}')"


# What is accepted


@pytest.mark.parametrize(
    ("place", "options", "remedy"),
    [
        (
            "postgresql://user:s3cret@host:port:5432/db",
            {},
            "cohorts: this is not a connection string of PostgreSQL",
        ),
        ("/var/lib/app/s3cret.db", {}, "cohorts: this is not a connection string of PostgreSQL"),
        (7, {}, "cohorts: 7 is neither a connection string nor a pool"),
        ("postgresql://host/db", {"schema": "my-schema"}, "schema: 'my-schema' cannot be used"),
    ],
)
def test_place_that_cannot_be_used_is_an_error_at_once(
    place: Any, options: dict[str, Any], remedy: str
) -> None:
    with pytest.raises(ValueError, match=remedy) as error:
        PostgresStore(place, **options)
    assert "s3cret" not in str(error.value)


def test_missing_extra_is_an_error_that_says_what_to_install() -> None:
    program = (
        "import sys; sys.modules['psycopg'] = None\n"
        "import flagsync, flagsync.cohorts\n"
        "try:\n    flagsync.cohorts.PostgresStore\n"
        "except ValueError as error:\n    print(isinstance(error, ImportError), error)"
    )
    ended = subprocess.run([*PYTHON, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout.startswith("True a PostgreSQL server needs psycopg 3")
    assert ended.stdout.endswith("pip install 'flagsync[postgres]'\n")
