"""What the backend on a Redis server does beside its contract: several hosts, bounds, and a lease that ends by time."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.crc import key_slot

from flagsync._clock import monotonic
from flagsync._outbox.backend import Totals
from flagsync._outbox.boot import boot_number
from flagsync._outbox.contract import Limits
from flagsync._outbox.options import StoreBounds
from flagsync._outbox.redis import RedisBackend, scripts
from flagsync._outbox.redis.keys import NAMES, keys_of
from flagsync.testing.backends.support import (
    BEGAN,
    HERE,
    THERE,
    claim,
    confirm,
    deliver,
    message_of,
    own_totals,
    settle,
    soon,
    store,
    tell_sent,
    waiting,
)
from tests.support.forks import in_child
from tests.support.redis import backend_at, move_clock, new_namespace, on_host
from tests.support.valkey import ValkeyServer

Build = Callable[..., RedisBackend]
ALL_THE_TIME = StoreBounds(prune_seconds=-1.0)


@pytest.fixture
def namespace() -> str:
    return new_namespace()


@pytest.fixture
def build(valkey: ValkeyServer, namespace: str) -> Iterator[Build]:
    """Builds backends that share a store; closes them."""
    backends: list[RedisBackend] = []

    def build_backend(bounds: StoreBounds = StoreBounds()) -> RedisBackend:  # noqa: B008 - it is frozen
        backends.append(backend_at(valkey.url, namespace, bounds))
        return backends[-1]

    yield build_backend
    for backend in backends:
        backend.close()


@pytest.fixture
def client(valkey: ValkeyServer) -> Iterator[redis.Redis]:
    with valkey.client() as client:
        yield client


@pytest.fixture
def size(client: redis.Redis, namespace: str) -> Callable[[str], int]:
    """Returns how many fields a key has."""
    keys = dict(zip(NAMES, keys_of(namespace), strict=True))
    return lambda name: int(client.hlen(keys[name].decode()))


def emptied(client: redis.Redis, namespace: str) -> None:
    client.delete(*keys_of(namespace))


# Hosts


def test_host_with_a_clock_far_behind_wins_if_it_evaluated_later(build: Build) -> None:
    one, other = build(), build()
    with on_host(one, b"1 boot", ahead=5000.0):
        store(one, "ann=old", second=5900)
    with on_host(other, b"2 boot", ahead=0.0):
        store(other, "ann=new", second=950)
        assert waiting(other) == ["ann=new"]


def test_host_with_a_clock_far_ahead_loses_if_it_evaluated_earlier(build: Build) -> None:
    one, other = build(), build()
    with on_host(one, b"1 boot", ahead=0.0):
        store(one, "ann=new", second=950)
    with on_host(other, b"2 boot", ahead=5000.0):
        store(other, "ann=old", second=5900)
        assert waiting(other) == ["ann=new"]
        assert own_totals(other) == Totals(accepted=1, superseded=1)


def test_host_that_repeats_an_evaluation_counts_with_its_own_clock(build: Build) -> None:
    one, other = build(), build()
    with on_host(one, b"1 boot", ahead=0.0):
        store(one, "ann=A", second=900, evaluation=1)
    with on_host(other, b"2 boot", ahead=5000.0):
        assert confirm(other, "ann", second=5950) == []
    with on_host(one, b"1 boot", ahead=0.0):
        store(one, "ann=B", second=940)
        assert waiting(one) == ["ann=A"]


def test_host_claims_messages_of_another_one_with_times_of_its_own_clock(build: Build) -> None:
    one, other = build(), build()
    with on_host(one, b"1 boot", ahead=5000.0):
        store(one, "ann=A", second=5900)
    with on_host(other, b"2 boot", ahead=0.0):
        [ann] = claim(other)
    assert ann.evaluated_at == pytest.approx(BEGAN + 900, abs=5.0)


def test_host_whose_boot_is_unknown_shares_no_clock_with_others(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_bytes(_: Path) -> bytes:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    boot_number.cache_clear()
    try:
        one, other = build(), build()
        assert one._process.get().boot != other._process.get().boot
    finally:
        monkeypatch.undo()
        boot_number.cache_clear()


def test_clock_of_the_server_that_was_set_back_lets_later_evaluations_win(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = build(), build()
    with on_host(one, b"1 boot", ahead=0.0):
        store(one, "ann=A", second=950)
    move_clock(monkeypatch, -86400.0)
    with on_host(other, b"2 boot", ahead=0.0):
        store(other, "ann=B", second=960)
        assert waiting(other) == ["ann=B"]


def test_clock_of_the_server_that_was_set_back_lets_messages_be_due(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = build()
    store(backend, "ann=A")
    move_clock(monkeypatch, -86400.0)
    assert backend.status([HERE]).oldest_seconds > 86400.0


# The lease


def test_lease_ends_by_time(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = build(), build()
    assert one.lease_seconds == 45.0
    assert one.try_acquire_lease()
    move_clock(monkeypatch, 44.0)
    assert not other.try_acquire_lease()
    move_clock(monkeypatch, 46.0)
    assert other.try_acquire_lease()
    assert not one.try_acquire_lease()


def test_lease_is_renewed_by_its_holder(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = build(), build()
    assert one.try_acquire_lease()
    move_clock(monkeypatch, 40.0)
    assert one.try_acquire_lease()
    move_clock(monkeypatch, 80.0)
    assert not other.try_acquire_lease()


def test_lease_is_not_released_by_a_process_that_has_lost_it(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = build(), build()
    assert one.try_acquire_lease()
    move_clock(monkeypatch, 46.0)
    assert other.try_acquire_lease()
    one.close()
    assert not one.try_acquire_lease()
    assert other.try_acquire_lease()


def test_lease_lasts_no_longer_though_the_clock_of_the_server_was_set_back(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = build(), build()
    assert one.try_acquire_lease()
    move_clock(monkeypatch, -86400.0)
    assert not other.try_acquire_lease()
    move_clock(monkeypatch, -86400.0 + 46.0)
    assert other.try_acquire_lease()


def test_lease_is_as_long_as_its_holder_said(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = build(StoreBounds(lease_seconds=90.5)), build(StoreBounds(lease_seconds=10.0))
    assert one.try_acquire_lease()
    assert not other.try_acquire_lease()
    move_clock(monkeypatch, 90.0)
    assert not other.try_acquire_lease()
    move_clock(monkeypatch, 91.0)
    assert other.try_acquire_lease()


def test_lease_ends_when_the_store_is_emptied(build: Build, client: redis.Redis, namespace: str) -> None:
    one, other = build(), build()
    assert one.try_acquire_lease()
    emptied(client, namespace)
    assert other.try_acquire_lease()


# Stores that were emptied


def test_emptied_store_has_another_number_and_nothing_in_it(
    build: Build, client: redis.Redis, namespace: str
) -> None:
    backend = build()
    store(backend, "ann=1")
    before = backend.status([HERE])
    emptied(client, namespace)
    after = backend.status([HERE])
    assert after.store not in (0, before.store)
    assert (after.account, after.pending, after.own) == (0, 0, Totals())
    store(backend, "ann=1")
    assert deliver(backend) == ["ann=1"]


def test_emptied_store_keeps_messages_that_have_the_versions_of_former_ones(
    build: Build, client: redis.Redis, namespace: str
) -> None:
    backend = build()
    store(backend, "ann=1")
    batch = claim(backend)
    emptied(client, namespace)
    settle(backend, accepted=batch)
    store(backend, "bob=1")
    settle(backend, accepted=batch, rejected=batch, last=batch)
    assert deliver(backend) == ["bob=1"]


def test_emptied_store_ends_a_claim_that_is_half_read(
    build: Build, client: redis.Redis, namespace: str
) -> None:
    backend = build(StoreBounds(call_messages=1))
    store(backend, "ann=1", "bob=1")
    messages = backend._waiting(backend._process.get(), (), Limits())
    assert next(messages).key == "ann"
    emptied(client, namespace)
    store(backend, "cid=1", "dan=1", "eve=1")
    assert [*messages] == []


# Bounds


@pytest.mark.parametrize("name", sorted({*NAMES} - {"latest", "tail_uses", "absences"}))
def test_store_that_has_lost_a_key_counts_as_emptied(
    build: Build, client: redis.Redis, namespace: str, name: str
) -> None:
    one, other = build(), build()
    store(one, "ann=1")
    store(one, "bob=1", destination=THERE)
    before = one.status([])
    client.delete(dict(zip(NAMES, keys_of(namespace), strict=True))[name])
    # It has another number first, the same name, and its message is equal to one that waited.
    store(other, "bob=1", destination=THERE)
    after = one.status([])
    assert after.store != before.store
    assert (after.own, other.status([]).own) == (Totals(), Totals(accepted=1))
    [message] = claim(other)
    assert (message.key, message.destination) == ("bob", THERE)
    settle(other, accepted=[message])
    assert one.totals().every == Totals(accepted=1, delivered=1)
    assert not claim(other)


@pytest.mark.parametrize("name", ["latest", "tail_uses", "absences"])
def test_store_that_has_lost_a_key_without_messages_delivers_them_all_the_same(
    build: Build, client: redis.Redis, namespace: str, name: str
) -> None:
    backend = build()
    store(backend, "ann=1", "bob=1")
    client.delete(dict(zip(NAMES, keys_of(namespace), strict=True))[name])
    store(backend, "cid=1")
    assert deliver(backend) == ["ann=1", "bob=1", "cid=1"]
    assert own_totals(backend) == Totals(accepted=3, delivered=3)


def test_lease_goes_on_though_the_store_has_lost_a_key(
    build: Build, client: redis.Redis, namespace: str
) -> None:
    holder, other = build(), build()
    assert holder.try_acquire_lease()
    store(holder, "ann=1")
    client.delete(dict(zip(NAMES, keys_of(namespace), strict=True))["waiting"])
    assert not other.try_acquire_lease()


def test_bound_of_the_store_drops_the_oldest_of_the_destination(build: Build) -> None:
    one, other = build(StoreBounds(max_pending=2)), build(StoreBounds(max_pending=2))
    store(one, "ann=1", "bob=1")
    store(one, "ann=1", destination=THERE)
    store(other, "cid=1", "dan=1", "eve=1")
    assert deliver(one, resting=[THERE]) == ["dan=1", "eve=1"]
    assert (own_totals(one), own_totals(other)) == (
        Totals(accepted=3, dropped=2),
        Totals(accepted=3, delivered=2, dropped=1),
    )
    assert deliver(one) == ["ann=1"]


def test_bound_of_the_store_forgets_what_it_drops(build: Build) -> None:
    backend = build(StoreBounds(max_pending=1))
    store(backend, "ann=1")
    store(backend, "bob=1")
    store(backend, "ann=1", second=2)
    assert deliver(backend) == ["ann=1"]


def test_bound_of_the_store_drops_events_of_one_key(build: Build) -> None:
    backend = build(StoreBounds(max_pending=1))
    store(backend, "ann=1", "ann=2", "ann=3", replaces=False)
    assert backend.status([]).own_events == Totals(accepted=3, dropped=2)
    assert deliver(backend) == ["ann=3"]


@pytest.mark.parametrize(("messages", "calls"), [(0, 1), (500, 1), (501, 2), (1001, 3)])
def test_scripts_move_at_most_500_messages_each(
    build: Build, client: redis.Redis, messages: int, calls: int
) -> None:
    backend = build()
    batch = [message_of(f"user_{number}=1", evaluation=1) for number in range(messages)]

    def count(work: Callable[[], object]) -> int:
        before = _evals(client)
        work()
        return _evals(client) - before

    assert count(lambda: backend.store(batch, [], [], soon())) == calls
    claimed = backend.claim((), Limits())
    assert len(claimed) == messages
    if messages:
        assert count(lambda: backend.claim((), Limits())) == messages // 500 + 1  # until there are no more
        assert count(lambda: backend.settle(claimed, (), (), soon())) == calls
        assert backend.totals().every == Totals(accepted=messages, delivered=messages)


def _evals(client: redis.Redis) -> int:
    statistics: Any = client.info("commandstats")
    return sum(statistics.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("evalsha", "eval"))


def test_scripts_move_at_most_some_megabytes_each(build: Build, client: redis.Redis) -> None:
    backend = build()
    batch = [message_of(f"user_{number}={'x' * 900_000}") for number in range(7)]
    before = _evals(client)
    backend.store(batch, [], [], soon())
    assert _evals(client) - before == 3
    assert [len(deliver(backend)) for _ in range(4)] == [2, 2, 2, 1]


def test_claim_reads_large_messages_in_parts(build: Build, client: redis.Redis) -> None:
    backend = build()
    backend.store([message_of(f"user_{number}={'x' * 40_000}") for number in range(120)], [], [], soon())
    before = _evals(client)
    assert len(backend.claim((), Limits(max_batch_bytes=3_000_000))) == 74
    assert _evals(client) - before == 1
    assert len(backend.claim((), Limits(max_batch_bytes=10_000_000))) == 120


def test_store_refuses_more_projects_than_it_can_number(
    build: Build, client: redis.Redis, namespace: str
) -> None:
    backend = build()
    backend.status([])  # which makes a store
    destinations = keys_of(namespace)[NAMES.index("destinations")]
    client.hset(destinations.decode(), mapping={f"{number}": number for number in range(1, 1024)})
    with pytest.raises(OSError, match=r"the namespace has messages of 1023 projects already; use another one"):
        backend.store([message_of("ann=1")], [], [], soon())


def test_a_store_of_another_format_is_refused_and_left_alone(
    build: Build, client: redis.Redis, namespace: str
) -> None:
    backend, meta = build(), keys_of(namespace)[NAMES.index("meta")].decode()
    store(backend, "ann=1")
    client.hset(meta, "format", "0")
    for work in (backend.try_acquire_lease, backend.totals, lambda: store(backend, "bob=1")):
        with pytest.raises(
            OSError, match=r"updates of another version of flagsync; deliver them with that version, or "
        ):
            work()
    client.hset(meta, "format", "1")
    assert deliver(backend) == ["ann=1"]


def test_store_keeps_projects_of_the_highest_numbers_apart(
    build: Build, client: redis.Redis, namespace: str
) -> None:
    backend = build()
    backend.status([])  # which makes a store
    destinations = keys_of(namespace)[NAMES.index("destinations")]
    client.hset(destinations.decode(), mapping={f"{number}": number for number in range(1, 1022)})
    store(backend, "ann=1", "bob=1")
    store(backend, "ann=2", "bob=2", destination=THERE)
    first = backend.status([HERE]).first_version
    assert [deliver(backend), deliver(backend)] == [["ann=1", "bob=1"], ["ann=2", "bob=2"]]
    assert (first, backend.status([HERE]).last_version) == (1, 4)


# Pruning, by the process that holds the lease


def test_prune_forgets_what_was_remembered_too_long(build: Build, size: Callable[[str], int]) -> None:
    backend = build(replace(ALL_THE_TIME, remember_seconds=0.0))
    store(backend, "ann=1", "bob=1", "cid=1")
    claimed = claim(backend)
    settle(backend, accepted=claimed[:1], rejected=claimed[1:2])
    backend.store([], [], [], soon())
    assert size("latest") == 1
    assert deliver(backend) == ["cid=1"]
    assert backend.totals().every == Totals(accepted=3, delivered=2, rejected=1)


def test_prune_forgets_nothing_without_the_lease(build: Build, size: Callable[[str], int]) -> None:
    one, other = build(), build(replace(ALL_THE_TIME, remember_seconds=0.0))
    store(one, "ann=1", "bob=1")
    assert deliver(one) == ["ann=1", "bob=1"]
    other.store([], [], [], soon())
    assert size("latest") == 2


def test_prune_forgets_the_oldest_beyond_the_bound(build: Build, size: Callable[[str], int]) -> None:
    backend = build(StoreBounds(max_remembered=3, prune_seconds=3600.0))
    for number in range(8):
        store(backend, f"user_{number}=1")
        assert len(deliver(backend)) == 1
    for _ in range(4):  # each call forgets half of what it looks at
        backend.store([], [], [], soon())
    assert size("latest") == 3
    store(backend, "user_7=1", "user_6=1", "user_5=1")
    assert deliver(backend) == []


def test_prune_rests_while_nothing_is_beyond_the_bound(
    build: Build, client: redis.Redis, size: Callable[[str], int]
) -> None:
    backend = build(StoreBounds(remember_seconds=0.0, prune_seconds=3600.0))
    store(backend, "ann=1")
    assert deliver(backend) == ["ann=1"]
    backend.store([], [], [], soon())
    assert size("latest") == 0
    store(backend, "bob=1")
    assert deliver(backend) == ["bob=1"]
    backend.store([], [], [], soon())
    assert size("latest") == 1


def test_prune_looks_at_a_large_store_in_parts(build: Build, size: Callable[[str], int]) -> None:
    backend = build(replace(ALL_THE_TIME, remember_seconds=0.0, prune_rows=100))
    backend.store([message_of(f"user_{number}=1") for number in range(3000)], [], [], soon())
    while deliver(backend):
        pass
    sizes = []
    while size("latest"):
        backend.store([], [], [], soon())
        sizes.append(size("latest"))
    assert len(sizes) > 10
    assert sizes == sorted(sizes, reverse=True)


def test_prune_deletes_unused_tails_and_keeps_the_others(build: Build, size: Callable[[str], int]) -> None:
    backend = build(ALL_THE_TIME)
    store(backend, "ann=1", tail=b"+")
    store(backend, "bob=1", "cid=1", tail=b"-")
    settle(backend, accepted=claim(backend)[:2])
    backend.store([], [], [], soon())
    assert (size("tails"), size("tail_uses")) == (1, 1)
    assert deliver(backend) == ["cid=1-"]
    store(backend, "dan=1", tail=b"+")
    assert deliver(backend) == ["dan=1+"]


def test_tail_is_kept_only_for_messages_that_wait(build: Build, size: Callable[[str], int]) -> None:
    backend = build(ALL_THE_TIME)
    store(backend, "ann=1", tail=b"+")
    assert deliver(backend) == ["ann=1+"]
    store(backend, "bob=1")
    assert deliver(backend) == ["bob=1"]
    backend.store([], [], [], soon())
    before = size("tails")
    store(backend, "ann=1", second=2, tail=b"+")
    assert (size("tails"), size("tail_uses")) == (before, before)


def test_prune_merges_the_accounts_of_idle_processes(build: Build, size: Callable[[str], int]) -> None:
    idle, busy = build(), build()
    own = build(replace(ALL_THE_TIME, account_seconds=-1.0))
    store(idle, "ann=1")
    assert deliver(own) == ["ann=1"]
    store(busy, "bob=1")
    store(own, "cid=1")
    before = idle.status([]).account
    own.store([], [], [], soon())
    assert (idle.status([]).account, own_totals(idle)) == (0, Totals())
    assert own_totals(busy) == Totals(accepted=1)
    assert own.totals().every == Totals(accepted=3, delivered=1)
    store(idle, "dan=1")
    assert idle.status([]).account not in (0, before)


def test_prune_keeps_the_account_of_a_process_whose_messages_wait(build: Build) -> None:
    one, other = build(), build(replace(ALL_THE_TIME, account_seconds=-1.0))
    store(one, "ann=1")
    assert other.try_acquire_lease()
    other.store([], [], [], soon())
    assert own_totals(one) == Totals(accepted=1)


# Keys and scripts


@pytest.mark.parametrize(
    "namespace", ["flagsync", "ann's {", "}", "{}", "", 7, None, "\ud800", "a\0", "n" * 256]
)
def test_namespace_is_a_hash_tag_of_all_keys(namespace: Any) -> None:
    if namespace == "flagsync":
        assert len({key_slot(key) for key in keys_of(namespace)}) == 1
        return
    with pytest.raises(ValueError, match="namespace must be a text without braces, such as 'flagsync'"):
        RedisBackend(redis.Redis(), namespace)


def test_namespace_has_no_keys_but_those_that_scripts_are_told(
    build: Build, client: redis.Redis, namespace: str
) -> None:
    backend = build(ALL_THE_TIME)
    store(backend, "ann=1", "bob=1", tail=b"+", evaluation=1)
    assert confirm(backend, "ann") == []
    settle(backend, accepted=claim(backend)[:1])
    tell_sent(backend, "cid=1")
    backend.note_absences(HERE, {"[1]": 0.0})
    assert {*client.scan_iter(f"*{namespace}*")} == {*keys_of(namespace)}
    assert [client.ttl(key) for key in keys_of(namespace)] == [-1] * len(
        NAMES
    )  # none can be evicted as volatile


def test_namespaces_are_stores_of_their_own(valkey: ValkeyServer) -> None:
    one, other = (backend_at(valkey.url, new_namespace()) for _ in range(2))
    store(one, "ann=1")
    assert (one.status([]).pending, other.status([]).pending) == (1, 0)
    one.close()
    other.close()


def test_scripts_that_the_server_has_forgotten_are_loaded_again(build: Build, client: redis.Redis) -> None:
    backend = build()
    store(backend, "ann=1")
    client.script_flush()
    assert deliver(backend) == ["ann=1"]


def test_scripts_are_known_by_their_digests(build: Build, client: redis.Redis) -> None:
    backend = build()
    store(backend, "ann=1")
    deliver(backend)
    digests = [scripts.script(name)[1] for name in ("store", "claim", "settle", "lease", "status", "totals")]
    assert client.script_exists(*digests) == [True] * len(digests)


# Processes


def test_fork_has_a_connection_and_an_account_of_its_own(build: Build, namespace: str) -> None:
    backend = build()
    store(backend, "ann=1")
    assert backend.try_acquire_lease()

    def child() -> bool:
        assert not backend.try_acquire_lease()
        store(backend, "bob=1", "cid=1")
        is_own = own_totals(backend) == Totals(accepted=2)
        backend.close()
        return is_own

    assert in_child(child)
    assert backend.try_acquire_lease()
    assert own_totals(backend) == Totals(accepted=1)
    assert deliver(backend) == ["ann=1", "bob=1", "cid=1"]


def test_close_ends_the_connection(build: Build, valkey: ValkeyServer) -> None:
    before = valkey.connections()
    backend = build()
    store(backend, "ann=1")
    opened = valkey.connections() - before
    assert len(opened) == 1
    backend.close()
    valkey.await_end(opened)


def test_close_of_a_backend_that_was_never_used_does_not_connect(tmp_path: Path) -> None:
    backend_at(f"unix://{tmp_path}/no-socket", "flagsync").close()


def test_deadline_that_is_over_is_none_for_a_server_that_answers(build: Build) -> None:
    backend = build()
    backend.store([message_of("ann=1")], [], [], -inf)
    backend.settle(claim(backend), (), (), monotonic() - 1.0)
    assert backend.totals().every == Totals(accepted=1, delivered=1)
