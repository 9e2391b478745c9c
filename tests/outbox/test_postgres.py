"""What a PostgreSQL backend does beyond the contract: clocks of hosts, bounds, tables."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from itertools import count
from math import inf
from time import monotonic
from typing import Any, Protocol

import pytest

from flagsync import outbox_stats
from flagsync._outbox.backend import Totals
from flagsync._outbox.contract import Limits, Message
from flagsync._outbox.options import StoreBounds
from flagsync._outbox.place import check, open_backend
from flagsync._outbox.postgres import PostgresBackend, change, claims
from tests.support.forks import in_child
from tests.support.outboxes import BEGAN, HERE, LONG, THERE, message, repeat, texts
from tests.support.postgres import PostgresServer

HOUR = 3600.0
numbers = count()


class Build(Protocol):
    """Makes the backend of another process on the store of a test."""

    def __call__(self, **bounds: Any) -> PostgresBackend: ...


class Host:
    """A host with clocks of its own: calls of a backend are made on it."""

    def __init__(self, build: Build, boot: int, ahead: float, patch: pytest.MonkeyPatch) -> None:
        patch.setattr("flagsync._outbox.postgres.backend.boot_number", lambda: boot)
        self.backend, self._ahead, self._patch = build(), ahead, patch
        self.backend._process.get()

    def store(self, *states: str, ago: float, **others: Any) -> None:
        """Store messages that were evaluated some seconds ago."""
        with self._patch.context() as patch:
            self._set_clock(patch)
            at = monotonic() + self._ahead - ago - BEGAN
            self.backend.store([message(text, at, **others) for text in states], [], [], monotonic() + LONG)

    def confirm(self, key: str, ago: float) -> bool:
        """Return whether an evaluation some seconds ago is a repeat of the last one."""
        with self._patch.context() as patch:
            self._set_clock(patch)
            at = monotonic() + self._ahead - ago - BEGAN
            return not self.backend.store([], [], [repeat(key, 1, at)], monotonic() + LONG)

    def claim(self) -> Sequence[Message]:
        with self._patch.context() as patch:
            self._set_clock(patch)
            assert self.backend.try_acquire_lease()
            return self.backend.claim([], Limits())

    def clock(self) -> float:
        return monotonic() + self._ahead

    def _set_clock(self, patch: pytest.MonkeyPatch) -> None:
        for module in (change, claims):
            patch.setattr(module, "monotonic", self.clock)


@pytest.fixture
def schema() -> str:
    return f"outbox_{next(numbers)}"


@pytest.fixture
def build(postgres: PostgresServer, schema: str) -> Iterator[Build]:
    with ExitStack() as stack:

        def build(**bounds: Any) -> PostgresBackend:
            backend = PostgresBackend(postgres.url(), schema, bounds=StoreBounds(**bounds))
            return stack.enter_context(closing(backend))

        yield build


@pytest.fixture
def run(postgres: PostgresServer, schema: str) -> Callable[..., list[tuple[Any, ...]]]:
    """Executes statements beside the backends."""
    return lambda *statements: postgres.run(f"SET search_path = {schema}", *statements)


@pytest.fixture
def host(build: Build, monkeypatch: pytest.MonkeyPatch) -> Callable[[int, float], Host]:
    """Makes hosts that have booted, whose clocks are ahead of the one of this machine."""
    return lambda boot, ahead: Host(build, boot, ahead, monkeypatch)


def store(backend: PostgresBackend, *states: str, second: float = 1.0, **others: Any) -> None:
    backend.store([message(text, second, **others) for text in states], [], [], monotonic() + LONG)


def claim(backend: PostgresBackend) -> Sequence[Message]:
    assert backend.try_acquire_lease()
    return backend.claim([], Limits())


def deliver(backend: PostgresBackend) -> list[str]:
    batch = claim(backend)
    backend.settle(batch, [], [], monotonic() + LONG)
    return texts(batch)


# Clocks


@pytest.mark.parametrize("ahead", [0.0, HOUR, -HOUR])
def test_latest_evaluation_of_two_hosts_wins_whatever_their_clocks_say(
    host: Callable[[int, float], Host], ahead: float
) -> None:
    one, other = host(1, 0.0), host(2, ahead)
    one.store("ann=new", ago=10)
    other.store("ann=old", ago=20)
    assert texts(one.claim()) == ["ann=new"]
    other.store("ann=newest", ago=5)
    one.store("ann=late", ago=7)
    assert texts(one.claim()) == ["ann=newest"]
    assert one.backend.totals().every == Totals(accepted=4, superseded=3)


def test_latest_evaluation_of_one_host_wins_though_the_server_took_long(
    host: Callable[[int, float], Host], run: Callable[..., object]
) -> None:
    one, other = host(1, 0.0), host(1, 0.0)
    one.store("ann=new", ago=10)
    run("UPDATE outbox_latest SET moment = moment - 100")
    other.store("ann=old", ago=60)
    assert texts(one.claim()) == ["ann=new"]


def test_latest_evaluation_wins_though_the_clock_of_the_server_was_put_back(
    host: Callable[[int, float], Host], run: Callable[..., object]
) -> None:
    one, other = host(1, 0.0), host(2, 0.0)
    one.store("ann=old", ago=10)
    run(f"UPDATE outbox_latest SET moment = moment + {HOUR}")
    other.store("ann=new", ago=5)
    assert texts(one.claim()) == ["ann=new"]


def test_latest_evaluation_does_not_go_by_the_clock_of_a_former_boot(
    host: Callable[[int, float], Host], run: Callable[..., object]
) -> None:
    host(1, HOUR).store("ann=old", ago=10)
    rebooted = host(1, 0.0)
    rebooted.store("ann=new", ago=5)
    assert texts(rebooted.claim()) == ["ann=new"]


def test_unchanged_evaluation_of_another_host_counts_from_then_on(host: Callable[[int, float], Host]) -> None:
    one, other = host(1, 0.0), host(2, HOUR)
    one.store("ann=new", ago=30, evaluation=1)
    other.store("ann=new", ago=20, evaluation=1)
    one.store("ann=old", ago=25)
    assert other.confirm("ann", ago=10)
    one.store("ann=old", ago=15)
    assert texts(one.claim()) == ["ann=new"]


def test_boot_that_the_system_does_not_tell_is_one_of_the_process(host: Callable[[int, float], Host]) -> None:
    one, other = host(0, 0.0), host(0, HOUR)
    one.store("ann=new", ago=10)
    other.store("ann=old", ago=20)
    assert texts(one.claim()) == ["ann=new"]
    boots = {backend._process.get().boot for backend in (one.backend, other.backend)}
    assert len(boots) == 2
    assert max(boots) < 0


def test_claim_has_the_clock_of_the_host_that_sends(host: Callable[[int, float], Host]) -> None:
    one, other = host(1, 0.0), host(2, HOUR)
    one.store("ann=1", ago=30)
    other.store("bob=1", ago=20)
    other.store("ann=1", ago=10)
    ages = [other.clock() - message.evaluated_at for message in other.claim()]
    assert ages == pytest.approx([30, 20], abs=3)


# How long things last


def test_accepted_message_is_sent_again_after_resend_after_seconds(
    build: Build, run: Callable[..., object]
) -> None:
    backend = build()
    store(backend, "ann=1")
    assert deliver(backend) == ["ann=1"]
    run("UPDATE outbox_latest SET accepted_at = accepted_at - 290")
    store(backend, "ann=1", second=2)
    assert deliver(backend) == []
    run("UPDATE outbox_latest SET accepted_at = accepted_at - 10")
    store(backend, "ann=1", second=3)
    assert deliver(backend) == ["ann=1"]


def test_accepted_message_is_sent_again_if_the_clock_of_the_server_was_put_back(
    build: Build, run: Callable[..., object]
) -> None:
    backend = build()
    store(backend, "ann=1")
    assert deliver(backend) == ["ann=1"]
    run(f"UPDATE outbox_latest SET accepted_at = accepted_at + {HOUR}")
    store(backend, "ann=1", second=2)
    assert deliver(backend) == ["ann=1"]


def test_oldest_seconds_are_long_if_the_clock_of_the_server_was_put_back(
    build: Build, run: Callable[..., object]
) -> None:
    backend = build()
    store(backend, "ann=1")
    run(f"UPDATE outbox_waiting SET waits_since = waits_since + {2 * HOUR}")
    assert backend.status([]).oldest_seconds == 1e9


def test_lease_ends_by_itself_unless_it_is_renewed(build: Build, run: Callable[..., object]) -> None:
    one, other = build(), build()
    assert one.lease_seconds == 45
    assert one.try_acquire_lease()
    run("UPDATE outbox_lease SET ends_at = ends_at - interval '40 seconds'")
    assert not other.try_acquire_lease()
    assert one.try_acquire_lease()
    run("UPDATE outbox_lease SET ends_at = ends_at - interval '44 seconds'")
    assert not other.try_acquire_lease()
    run("UPDATE outbox_lease SET ends_at = ends_at - interval '1 second'")
    assert other.try_acquire_lease()
    assert not one.try_acquire_lease()
    one.close()
    assert not one.try_acquire_lease()


def test_lease_of_another_process_is_not_released(build: Build) -> None:
    one, other = build(), build()
    assert one.try_acquire_lease()
    other.close()
    assert not other.try_acquire_lease()


# Bounds


def test_bound_drops_the_oldest_messages_of_the_destination(build: Build) -> None:
    one, other = build(max_pending=2), build(max_pending=2)
    store(other, "there=1", destination=THERE)
    store(one, "ann=1")
    store(other, "bob=1", "cid=1", "dan=1")
    batches = [deliver(one) for _ in range(2)]
    assert sorted(batches) == [["cid=1", "dan=1"], ["there=1"]]
    assert one.status([]).own == Totals(accepted=1, dropped=1)
    assert other.status([]).own == Totals(accepted=4, dropped=1, delivered=3)


def test_bound_drops_events_and_counts_them_apart(build: Build) -> None:
    backend = build(max_pending=1)
    store(backend, "ann=1", "ann=2", replaces=False)
    assert backend.status([]).own_events == Totals(accepted=2, dropped=1)


def test_bound_forgets_the_key_of_a_dropped_message(build: Build) -> None:
    backend = build(max_pending=1)
    store(backend, "ann=1", "bob=1", evaluation=1)
    assert [one.key for one in backend.store([], [], [repeat("ann"), repeat("bob")], inf)] == ["ann"]
    store(backend, "ann=1")
    assert deliver(backend) == ["ann=1"]


def test_repeat_of_a_message_that_the_same_call_drops_is_new(build: Build) -> None:
    backend = build(max_pending=1)
    messages = [message("ann=1", evaluation=1), message("bob=1", evaluation=1)]
    assert backend.store(messages, [], [repeat("ann"), repeat("bob")], inf) == [repeat("ann")]


def test_pruning_forgets_what_was_accepted_first_beyond_the_bound(
    build: Build, run: Callable[..., list[tuple[Any, ...]]]
) -> None:
    backend = build(max_remembered=2, prune_seconds=1e9)
    for name in ("ann", "bob", "cid", "dan", "eve"):
        store(backend, f"{name}=1")
        assert deliver(backend) == [f"{name}=1"]
    assert run("SELECT count(*) FROM outbox_latest") == [(3,)]  # it counts before it settles
    store(backend, "ann=1", "bob=1", "cid=1", "dan=1", second=2)
    assert deliver(backend) == ["ann=1", "bob=1"]


def test_pruning_forgets_by_age_and_never_what_waits(
    build: Build, run: Callable[..., list[tuple[Any, ...]]]
) -> None:
    backend = build(prune_seconds=-1.0, remember_seconds=HOUR)
    store(backend, "ann=1", "bob=1")
    batch = claim(backend)
    backend.settle(batch[:1], [], [], inf)
    run(f"UPDATE outbox_latest SET accepted_at = accepted_at - {HOUR}")
    store(backend, "cid=1", destination=THERE)
    backend.settle([], batch[1:], [], inf)
    assert run("SELECT count(*) FROM outbox_latest") == [(1,)]
    assert texts(claim(backend)) == ["cid=1"]
    assert run("SELECT sum(remembered)::int FROM outbox_destinations") == [(0,)]


def test_pruning_looks_at_so_many_rows_at_once_and_goes_on_behind_them(
    build: Build, run: Callable[..., list[tuple[Any, ...]]]
) -> None:
    backend = build(prune_seconds=-1.0, remember_seconds=HOUR, prune_rows=2)
    store(backend, "ann=1", "bob=1", "cid=1", "dan=1", "eve=1")
    batch = claim(backend)
    backend.settle(batch[1:], [], [], inf)
    run(f"UPDATE outbox_latest SET accepted_at = accepted_at - {HOUR}")
    left = []
    for _ in range(4):
        backend.settle([], batch[:1], [], inf)
        left += run("SELECT count(*)::int FROM outbox_latest")
    assert left[0] in ((2,), (3,))
    assert left[-1] == (0,)


def test_pruning_happens_once_in_a_while(build: Build, run: Callable[..., list[tuple[Any, ...]]]) -> None:
    backend = build(prune_seconds=HOUR, remember_seconds=-1.0)
    store(backend, "ann=1", "bob=1")
    batch = claim(backend)
    backend.settle(batch[:1], [], [], inf)
    assert run("SELECT count(*) FROM outbox_latest") == [(1,)]
    backend.settle(batch[1:], [], [], inf)
    assert run("SELECT count(*) FROM outbox_latest") == [(1,)]


def test_tail_is_kept_once_while_messages_wait_that_have_it(
    build: Build, run: Callable[..., list[tuple[Any, ...]]]
) -> None:
    backend = build(prune_seconds=-1.0)
    store(backend, "ann=1", "bob=1", tail=b"+")
    store(backend, "cid=1", tail=b"+")
    store(backend, "dan=1", tail=b"-")
    store(backend, "dan=1", second=2, tail=b"-")
    assert run("SELECT content FROM outbox_tails ORDER BY last_version") == [(b"+",), (b"-",)]
    ann, bob, *_ = claim(backend)
    backend.settle([bob], [], [ann], inf)  # ann waits behind all others
    assert texts(claim(backend)) == ["cid=1+", "dan=1-", "ann=1+"]
    assert deliver(backend) == ["cid=1+", "dan=1-", "ann=1+"]
    store(backend, "eve=1")
    assert deliver(backend) == ["eve=1"]
    assert run("SELECT content FROM outbox_tails") == []


def test_account_of_an_idle_process_is_closed_and_its_counts_are_kept(
    build: Build, run: Callable[..., list[tuple[Any, ...]]]
) -> None:
    backend, idle, waiting = build(prune_seconds=-1.0, account_seconds=HOUR), build(), build()
    store(idle, "ann=1", "ann=2", replaces=False)
    assert deliver(backend) == ["ann=1", "ann=2"]
    store(waiting, "bob=1", destination=THERE)
    run(f"UPDATE outbox_accounts SET used_at = used_at - {2 * HOUR}")
    before = idle.status([]).account
    assert before > 0
    backend.store([], [], [], inf)
    store(backend, "cid=1")
    batch = claim(backend)
    while batch[0].key != "cid":
        batch = claim(backend)
    backend.settle(batch, [], [], inf)
    assert idle.status([])[:3] == (idle.status([]).store, 0, Totals())
    assert waiting.status([]).own == Totals(accepted=1)
    totals = backend.totals()
    assert totals.every == Totals(accepted=4, delivered=3)
    assert totals.events == Totals(accepted=2, delivered=2)
    store(idle, "dan=1")
    assert idle.status([]).account > before


def test_repeat_that_is_new_gives_its_process_an_account(build: Build) -> None:
    backend = build()
    assert backend.store([], [], [repeat("ann")], inf) == [repeat("ann")]
    assert backend.status([]).account == 1


def test_repeat_that_comes_late_is_unchanged(build: Build) -> None:
    backend = build()
    store(backend, "ann=1", second=20, evaluation=1)
    assert backend.store([], [], [repeat("ann", second=10)], inf) == []
    store(backend, "ann=2", second=15)
    assert deliver(backend) == ["ann=1"]


def test_store_of_nothing_does_nothing(build: Build) -> None:
    backend = build()
    assert backend.store([], [], [], inf) == []
    assert backend.status([]).account == 0


# Tables


def test_sent_event_that_came_late_is_not_remembered(
    build: Build, run: Callable[..., list[tuple[Any, ...]]]
) -> None:
    backend = build()
    store(backend, "ann=2", second=2, replaces=False)
    backend.store([], [message("ann=1", replaces=False)._replace(body=b"")], [], inf)
    assert deliver(backend) == ["ann=2"]
    assert run("SELECT sum(remembered)::int FROM outbox_destinations") == [(1,)]


def test_message_that_one_call_replaces_never_waits(
    build: Build, run: Callable[..., list[tuple[Any, ...]]]
) -> None:
    backend = build()
    store(backend, "ann=1", "ann=2", "ann=3")
    store(backend, "ann=3", "ann=4", "ann=4", second=2)
    assert run("SELECT count(*) FROM outbox_waiting") == [(1,)]
    assert deliver(backend) == ["ann=4"]
    assert backend.totals().every == Totals(accepted=6, delivered=1, unchanged=2, superseded=3)


def test_claim_goes_on_to_the_next_destination_if_a_count_is_wrong(
    build: Build, run: Callable[..., object]
) -> None:
    backend = build()
    store(backend, "ann=1")
    store(backend, "bob=1", destination=THERE)
    run("DELETE FROM outbox_waiting WHERE destination = 1")
    assert texts(claim(backend)) == ["bob=1"]


def test_claim_passes_no_rows_that_were_settled(
    build: Build, run: Callable[..., list[tuple[Any, ...]]]
) -> None:
    backend = build()
    store(backend, "ann=1", "bob=1")
    ann, bob = claim(backend)
    backend.settle([ann], [], [], inf)
    backend.settle([bob], [], [], inf)
    store(backend, "cid=1")
    [cid] = claim(backend)
    backend.settle([cid], [], [], inf)
    assert run("SELECT first_version FROM outbox_destinations") == [(cid.version,)]


def test_settle_ends_nothing_in_tables_that_were_made_again(
    build: Build, run: Callable[..., object], schema: str
) -> None:
    one, other = build(), build()
    store(one, "ann=1")
    store(other, "ann=1")
    batch = claim(one)
    before = one.status([]).store
    run(f"DROP SCHEMA {schema} CASCADE")
    with pytest.raises(OSError, match="does not exist"):
        store(other, "bob=1")
    store(other, "bob=1")
    one.settle(batch, [], [], inf)
    assert texts(claim(other)) == ["bob=1"]
    assert other.status([]).store != before


@pytest.mark.parametrize("by", ["store", "status"])
def test_tables_that_were_emptied_are_filled_again(
    build: Build, run: Callable[..., list[tuple[Any, ...]]], schema: str, by: str
) -> None:
    backend = build()
    store(backend, "ann=1")
    tables = run(f"SELECT string_agg(tablename, ', ') FROM pg_tables WHERE schemaname = '{schema}'")[0][0]
    run(f"TRUNCATE {tables}")
    with pytest.raises(OSError, match="outbox_store has lost rows; if this goes on, drop all tables"):
        store(backend, "ann=1") if by == "store" else backend.status([])
    store(backend, "ann=1")
    assert deliver(backend) == ["ann=1"]


def test_tails_that_were_deleted_are_said_to_be(build: Build, run: Callable[..., object], schema: str) -> None:
    backend = build()
    store(backend, "ann=1", tail=b"}")
    run(f"TRUNCATE {schema}.outbox_tails")
    with pytest.raises(OSError, match="PostgreSQL: the table outbox_tails has lost rows"):
        claim(backend)


def test_rows_of_known_profiles_are_updated_in_their_pages(
    build: Build, run: Callable[..., list[tuple[Any, ...]]], postgres: PostgresServer
) -> None:
    backend = build()
    for second in range(1, 31):
        store(backend, *(f"user{number}={second}" for number in range(50)), second=second)
        assert len(deliver(backend)) == 50
    backend.close()
    postgres.await_sessions()
    [[updated, in_page]] = run(
        "SELECT sum(n_tup_upd)::int, sum(n_tup_hot_upd)::int FROM pg_stat_user_tables "
        "WHERE schemaname = current_schema AND relname <> 'outbox_tails'"
    )
    assert updated >= 29 * 50
    assert in_page > 0.95 * updated
    [[pages]] = run("SELECT pg_relation_size('outbox_latest') / 8192")
    assert pages <= 4


# Processes, and what the application sees


def test_forked_child_is_another_process(build: Build) -> None:
    backend = build()

    def closes() -> bool:
        backend.close()
        return True

    store(backend, "ann=1")
    assert backend.try_acquire_lease()
    assert in_child(lambda: backend.status([]).account == 0)
    assert in_child(lambda: backend.status([]).pending == 1)
    assert in_child(lambda: not backend.try_acquire_lease())
    assert in_child(closes)
    assert backend.status([]).account == 1
    assert backend.try_acquire_lease()


def test_url_opens_a_backend_whose_totals_are_those_of_the_database(postgres: PostgresServer) -> None:
    postgres.run("CREATE DATABASE application")
    url = postgres.url(database="application")
    check(url)
    with closing(open_backend(url, StoreBounds())) as backend:
        backend.store([message("ann=1")], [], [], monotonic() + LONG)
        assert outbox_stats(url).pending == 1
        assert backend.status([HERE]).first_version == 1
        assert repr(backend) == "PostgresBackend(Database(schema='flagsync'))"


def test_script_makes_the_tables(postgres: PostgresServer, build: Build, schema: str) -> None:
    postgres.run(PostgresBackend.script(schema), PostgresBackend.script(schema))
    backend = build()
    store(backend, "ann=1")
    assert deliver(backend) == ["ann=1"]
    assert 'SCHEMA IF NOT EXISTS "flagsync"' in PostgresBackend.script()
