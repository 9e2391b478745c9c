"""The backend in a file: what it forgets, what it survives, and what it does beside other processes."""

import os
import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from itertools import count, islice
from pathlib import Path
from time import monotonic, time
from typing import Any

import pytest

from flagsync._outbox import change, schema, sqlite
from flagsync._outbox.backend import Totals
from flagsync._outbox.boot import boot_number
from flagsync._outbox.contract import Limits
from flagsync._outbox.file import check, open_backend, totals
from flagsync._outbox.options import StoreBounds
from flagsync._outbox.rows import escaped, unescaped
from flagsync._outbox.schema import OUTBOX
from flagsync._outbox.sqlite import SQLiteBackend
from flagsync._stats import Stats
from tests.support.outboxes import BEGAN, BY_HAND_ONCE, HERE, LONG, THERE, Client, message, repeat, texts

Build = Callable[..., SQLiteBackend]
Logged = Callable[[], list[str]]
DAY = 86400.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outbox.db"


@pytest.fixture
def build(path: Path) -> Iterator[Build]:
    """Builds backends of processes that share the file."""
    backends: list[SQLiteBackend] = []

    def build_backend(**bounds: Any) -> SQLiteBackend:
        backends.append(SQLiteBackend(str(path), StoreBounds(**bounds)))
        return backends[-1]

    yield build_backend
    for backend in backends:
        backend.close()


@pytest.fixture
def wall_clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that shows the time of day."""
    now = [time()]
    monkeypatch.setattr(change, "time", lambda: now[0])
    monkeypatch.setattr(sqlite, "time", lambda: now[0])
    return now


@pytest.fixture
def boot(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bytes | None], None]]:
    """Lets the machine boot, which gives it another identifier; with None, the system does not tell it."""

    def boot_again(identifier: bytes | None) -> None:
        def read_bytes(_: Path) -> bytes:
            if identifier is None:
                raise FileNotFoundError
            return identifier

        monkeypatch.setattr(Path, "read_bytes", read_bytes)
        boot_number.cache_clear()

    yield boot_again
    boot_number.cache_clear()


def soon() -> float:
    return monotonic() + LONG


def store(backend: SQLiteBackend, *states: str, second: float = 1.0, **others: Any) -> None:
    backend.store([message(text, second, **others) for text in states], [], [], soon())


def claim(backend: SQLiteBackend) -> list[str]:
    assert backend.try_acquire_lease()
    return texts(backend.claim([], Limits()))


def deliver(backend: SQLiteBackend) -> list[str]:
    assert backend.try_acquire_lease()
    batch = backend.claim([], Limits())
    backend.settle(batch, [], [], soon())
    return texts(batch)


def keys(path: Path) -> list[str]:
    """Return the keys that a file knows, the oldest message first."""
    with closing(sqlite3.connect(path)) as connection:
        return [key for [key] in connection.execute("SELECT key FROM messages ORDER BY version")]


def confirm(backend: SQLiteBackend, *keys: str, evaluation: int = 1, second: float = 2.0) -> list[str]:
    """Return the keys of those repeats that are none."""
    new = backend.store([], [], [repeat(key, evaluation, second) for key in keys], soon())
    return [repeat.key for repeat in new]


def tails(path: Path) -> list[bytes]:
    """Return the tails that a file keeps, the first one first."""
    with closing(sqlite3.connect(path)) as connection:
        return [tail for [tail] in connection.execute("SELECT content FROM tails ORDER BY number")]


def accounts(path: Path) -> int:
    """Return how many processes have an account of their own."""
    with closing(sqlite3.connect(path)) as connection:
        [count] = connection.execute("SELECT count(*) FROM accounts WHERE number > 0").fetchone()
        return int(count)


def remove(path: Path) -> None:
    for file in path.parent.glob(f"{path.name}*"):
        if not file.name.endswith("-sender"):
            file.unlink()


# The latest evaluation, and clocks


def test_latest_evaluation_wins_though_the_wall_clock_was_put_back(
    build: Build, wall_clock: list[float]
) -> None:
    backend = build()
    store(backend, "ann=old", second=1)
    wall_clock[0] -= DAY
    store(backend, "ann=new", second=2)
    store(backend, "ann=old", second=1)
    assert deliver(backend) == ["ann=new"]


def test_accepted_message_is_sent_again_if_the_wall_clock_was_put_back(
    build: Build, wall_clock: list[float]
) -> None:
    backend = build()
    store(backend, "ann=1")
    assert deliver(backend) == ["ann=1"]
    wall_clock[0] -= 1.0
    store(backend, "ann=1", second=2)
    assert deliver(backend) == ["ann=1"]


def test_accepted_message_is_sent_again_after_resend_after_seconds(
    build: Build, wall_clock: list[float]
) -> None:
    backend = build()
    store(backend, "ann=1")
    assert deliver(backend) == ["ann=1"]
    wall_clock[0] += 299
    store(backend, "ann=1", second=2)
    assert deliver(backend) == []
    wall_clock[0] += 1
    store(backend, "ann=1", second=3)
    assert deliver(backend) == ["ann=1"]


def test_latest_evaluation_does_not_go_by_the_clock_of_a_former_boot(
    build: Build, boot: Callable[[bytes | None], None]
) -> None:
    backend = build()
    boot(b"first")
    store(backend, "ann=before", second=900)
    boot(b"second")
    store(backend, "ann=after", second=1)
    assert deliver(backend) == ["ann=after"]
    store(backend, "ann=late", second=0)
    assert deliver(backend) == []


def test_unchanged_message_has_the_clock_of_the_present_boot(
    build: Build, boot: Callable[[bytes | None], None]
) -> None:
    backend = build()
    boot(b"first")
    store(backend, "ann=A", second=900)
    boot(b"second")
    store(backend, "ann=A", second=20)
    store(backend, "ann=B", second=10)
    assert deliver(backend) == ["ann=A"]


def test_boot_that_the_system_does_not_tell_still_lets_the_latest_evaluation_win(
    build: Build, boot: Callable[[bytes | None], None]
) -> None:
    backend = build()
    boot(None)
    assert boot_number() == 0
    store(backend, "ann=new", second=2)
    store(backend, "ann=old", second=1)
    assert deliver(backend) == ["ann=new"]


def test_boot_has_a_number_that_sqlite_can_hold(boot: Callable[[bytes | None], None]) -> None:
    numbers = set[int]()
    for identifier in (b"", b"first", b"second"):
        boot(identifier)
        numbers.add(boot_number())
    assert len(numbers) == 3
    assert all(0 < number < 2**63 for number in numbers)


def test_evaluation_in_the_future_of_the_clock_does_not_win(build: Build) -> None:
    backend = build()
    store(backend, "ann=tomorrow", second=DAY)  # of a boot that the system did not tell apart
    assert deliver(backend) == ["ann=tomorrow"]
    store(backend, "ann=today", second=1)
    assert deliver(backend) == ["ann=today"]


def test_oldest_seconds_go_on_after_a_boot(build: Build, boot: Callable[[bytes | None], None]) -> None:
    backend = build()
    boot(b"first")
    store(backend, "ann=1", second=600)
    boot(b"second")
    assert backend.status([]).oldest_seconds == pytest.approx(monotonic() - BEGAN - 600, abs=LONG)
    store(backend, "ann=1", second=900)
    assert backend.status([]).oldest_seconds == pytest.approx(monotonic() - BEGAN - 600, abs=LONG)


# Bounds, and what is forgotten


def test_row_bound_drops_the_oldest_messages_of_the_destination(build: Build) -> None:
    backend = build(max_pending=2)
    store(backend, "ann=1", destination=THERE)
    store(backend, "ann=1", "bob=1")
    store(backend, "cid=1", "bob=2", "dan=1", second=2)
    assert backend.totals().every == Totals(accepted=6, dropped=2, superseded=1)
    assert sorted([deliver(backend), deliver(backend)]) == [["ann=1"], ["bob=2", "dan=1"]]


def test_row_bound_counts_a_drop_to_the_process_that_stored_the_message(build: Build) -> None:
    one, other = build(max_pending=1), build(max_pending=1)
    store(one, "ann=1")
    store(other, "bob=1")
    assert one.status([]).own == Totals(accepted=1, dropped=1)
    assert other.status([]).own == Totals(accepted=1)


def test_row_bound_forgets_the_key_of_a_dropped_message(build: Build) -> None:
    backend = build(max_pending=1)
    store(backend, "ann=1", "bob=1")
    store(backend, "ann=1", second=2)
    assert deliver(backend) == ["ann=1"]


def test_pruning_forgets_by_age_and_number(path: Path, build: Build, wall_clock: list[float]) -> None:
    backend = build(prune_seconds=-1.0, max_remembered=2)
    for name, days in (("old", 0), ("ann", 31), ("bob", 31), ("cid", 31)):
        wall_clock[0] += DAY * (days if name == "ann" else 0)
        store(backend, f"{name}=1")
        deliver(backend)
    assert keys(path) == ["ann", "bob", "cid"]
    store(backend, "dan=1")
    assert keys(path) == ["bob", "cid", "dan"]


def test_pruning_forgets_by_age_though_there_is_room(path: Path, build: Build, wall_clock: list[float]) -> None:
    backend = build(prune_seconds=-1.0, remember_seconds=100.0)
    store(backend, "ann=1")
    assert deliver(backend) == ["ann=1"]
    wall_clock[0] += 99.0
    store(backend, "bob=1")
    assert keys(path) == ["ann", "bob"]
    wall_clock[0] += 2.0
    store(backend, "cid=1")
    assert keys(path) == ["bob", "cid"]


def test_pruning_never_forgets_a_waiting_message(path: Path, build: Build, wall_clock: list[float]) -> None:
    backend = build(prune_seconds=-1.0, max_remembered=0)
    store(backend, "ann=1")
    assert backend.try_acquire_lease()
    wall_clock[0] += 365 * DAY
    store(backend, "bob=1")
    assert keys(path) == ["ann", "bob"]


def test_pruning_looks_at_so_many_rows_at_once_and_goes_on_behind_them(
    path: Path, build: Build, wall_clock: list[float]
) -> None:
    backend = build(prune_seconds=-1.0, remember_seconds=100.0, prune_rows=2)
    store(backend, "a=1", "b=1", "c=1", "d=1", "e=1")
    assert backend.try_acquire_lease()
    batch = backend.claim([], Limits())
    backend.settle(batch[2:], [], [], soon())  # a and b stay before those that may be forgotten
    wall_clock[0] += 101.0
    left = list[str]()
    for number in range(4):
        store(backend, f"new=1{number}", second=number)
        left.append("".join(keys(path)).removesuffix("new"))
    assert left == ["abcde", "abe", "ab", "ab"]


def test_pruning_begins_anew_when_it_has_seen_all_rows(
    path: Path, build: Build, wall_clock: list[float]
) -> None:
    backend = build(prune_seconds=-1.0, remember_seconds=100.0, prune_rows=10)
    store(backend, "a=1")
    assert backend.try_acquire_lease()
    store(backend, "b=1")
    assert deliver(backend) == ["a=1", "b=1"]
    wall_clock[0] += 101.0
    store(backend, "c=1")
    assert keys(path) == ["c"]


def test_pruning_happens_once_in_a_while_unless_the_bound_is_exceeded(
    path: Path, build: Build, wall_clock: list[float]
) -> None:
    backend = build(prune_seconds=1e9, remember_seconds=100.0, max_remembered=3)
    assert backend.try_acquire_lease()
    store(backend, "a=1")  # the first time
    for name in "bcd":
        deliver(backend)
        wall_clock[0] += 101.0
        store(backend, f"{name}=1")
    assert keys(path) == ["a", "b", "c", "d"]
    deliver(backend)
    store(backend, "e=1")
    assert keys(path) == ["d", "e"]


def test_pruning_is_left_to_the_process_that_sends(path: Path, build: Build, wall_clock: list[float]) -> None:
    sender, other = build(prune_seconds=-1.0), build(prune_seconds=-1.0, max_remembered=0)
    store(sender, "ann=1")
    assert deliver(sender) == ["ann=1"]
    wall_clock[0] += 365 * DAY
    store(other, "bob=1")
    assert keys(path) == ["ann", "bob"]
    store(sender, "cid=1")
    assert keys(path) == ["bob", "cid"]


class Counting(sqlite3.Connection):
    """Counts the instructions of SQLite's virtual machine, in tens."""

    instructions = 0

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.set_progress_handler(self.count, 10)

    def count(self) -> None:
        Counting.instructions += 1


def test_work_under_the_write_lock_does_not_grow_with_the_file(
    path: Path, build: Build, monkeypatch: pytest.MonkeyPatch, wall_clock: list[float]
) -> None:
    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=Counting))

    def work(backend: SQLiteBackend, name: str) -> int:
        before = Counting.instructions
        store(backend, f"{name}=1", f"{name}=2", f"former {name}=1", evaluation=1, tail=name.encode())
        assert confirm(backend, name, f"former {name}", f"unknown {name}") == [f"unknown {name}"]
        assert len(deliver(backend)) == 2
        return Counting.instructions - before

    backend = build(prune_seconds=-1.0, prune_rows=10, max_remembered=100)
    assert backend.try_acquire_lease()
    for number in range(100):
        store(backend, f"{number}=1")
    deliver(backend)
    few = work(backend, "few")
    other = SQLiteBackend(str(path))
    for number in range(3):
        store(other, *(f"{number} {place}=1" for place in range(2000)))
        assert len(deliver(backend)) == 2000
    wall_clock[0] += 365 * DAY
    assert work(backend, "many") < 2 * few
    other.close()


def test_work_under_the_write_lock_does_not_grow_with_the_tails(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=Counting))
    backend, work = build(prune_seconds=-1.0, prune_rows=10, prune_tails=10), list[int]()
    numbers = iter(range(10_000))

    def store_some(count: int) -> None:
        for number in islice(numbers, count):
            store(backend, f"{number}=1", tail=b"%d" % number)

    def measure() -> None:
        before = Counting.instructions
        store_some(1)
        work.append(Counting.instructions - before)

    store_some(30)
    assert backend.try_acquire_lease()
    measure()
    store_some(1000)
    measure()  # all tails are in use
    deliver(backend)
    measure()  # and now none is
    assert max(work[1:]) < 2 * work[0]


# Tails


def test_tail_of_many_messages_is_in_the_file_once(path: Path, build: Build) -> None:
    one, other = build(), build()
    store(one, "ann=1", "bob=1", tail=b"+")
    store(one, "ann=2", "ann=3", second=2, tail=b"+")
    store(other, "ann=1", destination=THERE, tail=b"+")
    store(other, "cid=1", tail=b"-")
    store(one, "dan=1", tail=b"+")
    assert tails(path) == [b"+", b"-"]
    assert sorted([deliver(one), deliver(one)]) == [["ann=1+"], ["bob=1+", "ann=3+", "cid=1-", "dan=1+"]]


def test_tail_is_not_in_the_rows_of_messages(path: Path, build: Build) -> None:
    store(build(), *(f"{number}=1" for number in range(100)), tail=b"+" * 100_000)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert path.stat().st_size < 1_000_000


def test_tail_of_an_unchanged_or_late_message_is_not_kept(path: Path, build: Build) -> None:
    backend = build()
    store(backend, "ann=1", second=2, tail=b"+")
    backend.store([message("ann=2", 1, tail=b"-"), message("ann=1", 3, tail=b"+")], [], [], soon())
    assert tails(path) == [b"+"]


def test_tail_is_forgotten_by_the_process_that_sends_once_nothing_that_waits_has_it(
    path: Path, build: Build
) -> None:
    sender, other = build(prune_seconds=-1.0), build(prune_seconds=-1.0)
    store(sender, "ann=1", tail=b"a")
    store(sender, "bob=1", tail=b"b")
    store(sender, "cid=1", tail=b"a")
    store(sender, "dan=1", tail=b"d")
    assert sender.try_acquire_lease()
    batch = sender.claim([], Limits())
    sender.settle(batch[:2], [], [], soon())
    store(other, "eve=1", tail=b"e")
    assert tails(path) == [b"a", b"b", b"d", b"e"]
    store(sender, "fay=1", tail=b"f")
    assert tails(path) == [b"a", b"d", b"e", b"f"]
    assert deliver(sender) == ["cid=1a", "dan=1d", "eve=1e", "fay=1f"]
    store(sender, "gil=1", tail=b"g")
    assert tails(path) == [b"g"]
    assert deliver(sender) == ["gil=1g"]


def test_tail_of_messages_that_were_superseded_is_forgotten(path: Path, build: Build) -> None:
    backend = build(prune_seconds=-1.0)
    store(backend, "ann=1", "bob=1", tail=b"+")
    assert backend.try_acquire_lease()
    backend.store([message("bob=2", 2, tail=b"-")], [message("ann=2", 2)._replace(body=b"")], [], soon())
    store(backend, "cid=1", tail=b"-")
    assert tails(path) == [b"-"]
    assert deliver(backend) == ["bob=2-", "cid=1-"]


def test_tail_of_messages_that_were_dropped_is_forgotten(path: Path, build: Build) -> None:
    backend = build(prune_seconds=-1.0, max_pending=1)
    assert backend.try_acquire_lease()
    for number in range(3):
        store(backend, f"{number}=1", tail=b"%d" % number)
    assert tails(path)[-1:] == [b"2"]
    assert len(tails(path)) <= 2
    assert deliver(backend) == ["2=12"]


def test_tail_of_a_message_that_waits_behind_all_others_is_kept(path: Path, build: Build) -> None:
    backend = build(prune_seconds=-1.0)
    store(backend, "ann=1", tail=b"a")
    store(backend, "bob=1", tail=b"b")
    assert backend.try_acquire_lease()
    for number in range(3):
        ann, bob, *others = backend.claim([], Limits())
        assert (ann.key, bob.key) == ("ann", "bob")
        backend.settle(others, [], [ann, bob], soon())
        store(backend, f"{number}=1", tail=b"%d" % number)
        kept = tails(path)
        assert kept[:2] == [b"a", b"b"]
        assert len(kept) <= 4  # and not one of each message
    batch = backend.claim([], Limits())
    assert texts(batch) == ["ann=1a", "bob=1b", "2=12"]
    backend.settle([], [], batch[:1], soon())
    backend.settle(batch[1:], [], [], soon())
    store(backend, "cid=1")
    assert tails(path) == [b"a", b""]
    assert deliver(backend) == ["ann=1a", "cid=1"]


def test_tail_of_what_waits_for_a_resting_destination_is_kept(path: Path, build: Build) -> None:
    backend = build(prune_seconds=-1.0)
    store(backend, "ann=1", destination=THERE, tail=b"there")
    assert backend.try_acquire_lease()
    for number in range(3):
        store(backend, f"{number}=1", tail=b"%d" % number)
        batch = backend.claim([THERE], Limits())
        assert texts(batch) == [f"{number}=1{number}"]
        backend.settle(batch, [], [], soon())
    assert b"there" in tails(path)
    assert texts(backend.claim([HERE], Limits())) == ["ann=1there"]


def test_tail_that_was_forgotten_gets_another_number(path: Path, build: Build) -> None:
    backend = build(prune_seconds=-1.0)
    for number, tail in enumerate((b"a", b"b", b"a", b"c")):
        store(backend, f"ann={number}", second=number, tail=tail)
        assert deliver(backend) == [f"ann={number}{tail.decode()}"]
    with closing(sqlite3.connect(path)) as connection:
        numbers = [
            number
            for [number] in connection.execute("SELECT tail FROM messages UNION SELECT number FROM tails")
        ]
    assert len(numbers) == len({*numbers})
    assert len(tails(path)) <= 2


def test_tails_are_forgotten_once_in_a_while(path: Path, build: Build) -> None:
    backend = build(prune_seconds=1e9)
    assert backend.try_acquire_lease()
    for number in range(3):
        store(backend, f"{number}=1", tail=b"%d" % number)
        deliver(backend)
    assert tails(path) == [b"0", b"1", b"2"]


def test_transaction_that_fails_leaves_no_tail(path: Path, build: Build) -> None:
    backend = build()
    store(backend, "ann=1", tail=b"a")
    with pytest.raises(UnicodeEncodeError):
        backend.store([message("bob=1", tail=b"b"), message("\ud800=1")], [], [], soon())
    assert tails(path) == [b"a"]


# Repeats


def test_repeat_of_a_dropped_message_is_new(build: Build) -> None:
    backend = build(max_pending=1)
    store(backend, "ann=1", "bob=1", evaluation=1)
    assert confirm(backend, "ann", "bob") == ["ann"]


def test_repeat_of_a_message_that_the_same_call_drops_is_new(build: Build) -> None:
    backend = build(max_pending=1)
    messages = [message(f"{name}=1", evaluation=1) for name in ("ann", "bob")]
    assert backend.store(messages, [], [repeat("ann"), repeat("bob")], soon()) == [repeat("ann")]


def test_repeat_of_a_message_that_was_forgotten_is_new(build: Build, wall_clock: list[float]) -> None:
    backend = build(prune_seconds=-1.0, remember_seconds=100.0)
    store(backend, "ann=1", evaluation=1, resend_after_seconds=1e6)
    deliver(backend)
    wall_clock[0] += 101.0
    assert confirm(backend, "ann") == []  # which also forgets it
    assert confirm(backend, "ann") == ["ann"]


def test_repeat_is_new_if_the_wall_clock_was_put_back(build: Build, wall_clock: list[float]) -> None:
    backend = build()
    store(backend, "ann=1", evaluation=1)
    deliver(backend)
    wall_clock[0] -= 1.0
    assert confirm(backend, "ann") == ["ann"]


def test_repeat_is_new_after_the_resend_after_seconds_of_its_message(
    build: Build, wall_clock: list[float]
) -> None:
    backend = build()
    store(backend, "ann=1", evaluation=1)
    deliver(backend)
    wall_clock[0] += 299
    assert confirm(backend, "ann") == []
    wall_clock[0] += 1
    assert confirm(backend, "ann") == ["ann"]


def test_repeat_has_the_clock_of_the_present_boot(build: Build, boot: Callable[[bytes | None], None]) -> None:
    backend = build()
    boot(b"first")
    store(backend, "ann=A", second=900, evaluation=1)
    boot(b"second")
    assert confirm(backend, "ann", second=20) == []
    store(backend, "ann=B", second=10)
    assert deliver(backend) == ["ann=A"]


def test_repeat_gives_its_process_an_account_that_is_in_use(
    path: Path, build: Build, wall_clock: list[float]
) -> None:
    sender, other = build(prune_seconds=-1.0, account_seconds=100.0), build()
    store(sender, "ann=1", evaluation=1, resend_after_seconds=1e6)
    assert deliver(sender) == ["ann=1"]
    for _ in range(3):
        wall_clock[0] += 60.0
        assert [confirm(other, "ann"), confirm(sender, "ann")] == [[], []]
    assert accounts(path) == 2
    assert other.status([]).own == Totals(accepted=3, unchanged=3)
    assert sender.status([]).own == Totals(accepted=4, delivered=1, unchanged=3)


def test_repeats_write_no_message_again(path: Path, build: Build) -> None:
    backend = build()
    store(backend, "ann=1", "bob=1", evaluation=1)
    before = [message.version for message in (backend.try_acquire_lease(), backend.claim([], Limits()))[1]]
    assert confirm(backend, "ann", "bob", "cid") == ["cid"]
    assert [message.version for message in backend.claim([], Limits())] == before
    assert backend.status([]).last_version == before[-1]
    assert keys(path) == ["ann", "bob"]


# Accounts


def test_account_of_an_idle_process_is_closed_and_its_counts_are_kept(
    path: Path, build: Build, wall_clock: list[float]
) -> None:
    sender, idle = build(prune_seconds=-1.0, account_seconds=100.0), build()
    store(idle, "ann=1", "bob=1")
    ann, bob = (sender.try_acquire_lease(), sender.claim([], Limits()))[1]
    sender.settle([ann], [bob], [], soon())
    wall_clock[0] += 99.0
    store(sender, "cid=1")
    assert accounts(path) == 2
    wall_clock[0] += 2.0
    store(sender, "dan=1")
    assert accounts(path) == 1
    assert sender.totals().every == Totals(accepted=4, delivered=1, rejected=1)
    assert idle.status([]).own == Totals()
    store(idle, "eve=1")
    assert idle.status([]).own == Totals(accepted=1)


def test_account_is_not_closed_while_a_message_of_it_waits(
    path: Path, build: Build, wall_clock: list[float]
) -> None:
    sender, idle = build(prune_seconds=-1.0, account_seconds=100.0), build()
    store(idle, "ann=1")
    assert sender.try_acquire_lease()
    wall_clock[0] += 365 * DAY
    store(sender, "bob=1")
    assert idle.status([]).own == Totals(accepted=1)
    assert deliver(sender) == ["ann=1", "bob=1"]
    store(sender, "cid=1")
    assert accounts(path) == 1


def test_account_of_the_process_that_prunes_is_kept(path: Path, build: Build, wall_clock: list[float]) -> None:
    backend = build(prune_seconds=-1.0, account_seconds=100.0)
    store(backend, "ann=1")
    assert deliver(backend) == ["ann=1"]
    wall_clock[0] += 101.0
    store(backend, "ann=1", second=2, resend_after_seconds=1e6)
    assert backend.status([]).own == Totals(accepted=2, delivered=1, unchanged=1)


def test_accounts_are_closed_so_many_at_once(path: Path, build: Build, wall_clock: list[float]) -> None:
    sender = build(prune_seconds=-1.0, account_seconds=100.0, prune_rows=3)
    for number in range(7):
        store(build(), f"{number}=1")
    deliver(sender)
    wall_clock[0] += 101.0
    left = list[int]()
    for number in range(3):
        store(sender, f"new=1{number}", second=number)
        left.append(accounts(path))
    assert left == [5, 2, 1]
    assert sender.totals().every == Totals(accepted=10, delivered=7, superseded=2)


def test_process_that_stores_nothing_has_no_account(path: Path, build: Build) -> None:
    one, other = build(), build()
    store(one, "ann=1")
    other.status([HERE, THERE])
    other.totals()
    assert deliver(other) == ["ann=1"]
    assert accounts(path) == 1


# The file itself


def test_file_of_the_first_format_is_refused_with_advice(path: Path, build: Build) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            f"PRAGMA application_id = {OUTBOX.application}; PRAGMA user_version = 1; CREATE TABLE profiles (id)"
        )
    advice = "format 1.*deliver its pending updates with the version that created it, or remove it"
    with pytest.raises(OSError, match=advice):
        build().status([])
    with pytest.raises(ValueError, match=advice):
        check(str(path))


def test_backend_makes_its_file_when_it_is_first_used(path: Path, build: Build) -> None:
    backend = build()
    assert not path.exists()
    backend.status([])
    assert path.exists()


def test_removed_file_is_made_again(path: Path, build: Build) -> None:
    backend = build()
    store(backend, "ann=1")
    before = backend.status([]).store
    remove(path)
    store(backend, "bob=1", second=2)
    assert deliver(backend) == ["bob=1"]
    assert backend.status([]).store != before


def test_settle_ends_nothing_in_a_file_that_took_the_place_of_another(path: Path, build: Build) -> None:
    backend = build()
    store(backend, "ann=1")
    assert backend.try_acquire_lease()
    batch = backend.claim([], Limits())
    remove(path)
    store(backend, "bob=1")
    assert [message.version for message in batch] == [
        message.version for message in backend.claim([], Limits())
    ]
    remove(path)
    store(backend, "cid=1")
    backend.settle(batch, [], [], soon())
    assert claim(backend) == ["cid=1"]


def test_removed_file_has_another_number_though_it_is_made_at_the_same_inode(
    path: Path, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flagsync._files.shared.identity", lambda _: (1, 1))
    client = Client(build(), staging=BY_HAND_ONCE)
    client.save("ann=1")
    assert client.deliver() == ["ann=1"]
    if (child := os.fork()) == 0:  # before a fork each connection is closed
        os._exit(0)
    os.waitpid(child, 0)
    remove(path)
    client.save("bob=1")
    assert client.deliver() == ["bob=1"]
    assert client.stats() == Stats(accepted=2, delivered=2)


def test_removed_file_loses_what_waited_and_keeps_what_was_counted(
    path: Path, build: Build, logged: Logged
) -> None:
    client = Client(build(), staging=BY_HAND_ONCE)
    client.save("ann=1")
    assert client.deliver() == ["ann=1"]
    client.save("bob=1")
    remove(path)
    client.save("cid=1")
    assert client.deliver() == ["cid=1"]
    assert client.stats() == Stats(accepted=3, delivered=2, dropped=1)
    client.report.report_deferred()
    assert logged() == ["The outbox was removed or emptied: 1 update lost"]


def test_totals_of_a_file_are_those_of_the_backend(path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        totals(str(path))
    assert not path.exists()
    backend = open_backend(str(path), StoreBounds())
    backend.store([message("ann=1"), message("bob=1")], [], [], soon())
    of_file, of_backend = totals(str(path)), backend.totals()
    assert of_file[:2] == of_backend[:2] == (Totals(accepted=2), Totals())
    assert of_file.oldest_seconds == pytest.approx(of_backend.oldest_seconds, abs=LONG)
    backend.close()


def test_totals_and_status_see_one_state_of_the_file(
    path: Path, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, writing = build(), build()
    store(writing, "ann=1")
    first_version, states = sqlite._first_version, count(2)

    def first_version_then_write(file: Any) -> int | None:
        first = first_version(file)
        store(writing, f"ann={next(states)}")  # the first message is not there any more
        return first

    monkeypatch.setattr(sqlite, "_first_version", first_version_then_write)
    assert (reading.totals().every, reading.totals().every) == (
        Totals(accepted=1),
        Totals(accepted=2, superseded=1),
    )
    assert totals(str(path)).every == Totals(accepted=3, superseded=2)
    assert (reading.status([HERE]).last_version, reading.status([HERE]).last_version) == (4, 5)


@pytest.mark.parametrize("key", ["", "a", "\\", "\0", "\\0", "\\\0", "\0\\", "\\\\0", "\0000", "a\0\\b\0"])
def test_keys_are_escaped_without_nul_and_unescaped_again(key: str) -> None:
    assert "\0" not in escaped(key)
    assert unescaped(escaped(key)) == key


def test_rejected_message_is_not_taken_for_accepted_however_long_that_counts(build: Build) -> None:
    backend = build()
    store(backend, "ann=1", resend_after_seconds=1e10)
    assert backend.try_acquire_lease()
    backend.settle([], backend.claim([], Limits()), [], soon())
    store(backend, "ann=1", second=2, resend_after_seconds=1e10)
    assert claim(backend) == ["ann=1"]


def test_last_version_is_never_lower_than_before(build: Build) -> None:
    backend = build()
    for second in (2, 1):
        store(backend, f"ann={second}", second=second, replaces=False)
    before = backend.status([]).last_version
    deliver(backend)
    assert backend.status([]).last_version == before


# Other processes


def lock(path: Path) -> Callable[[], None]:
    """Hold the file as another program may; return how to let it go."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    return connection.close


def test_status_and_claim_do_not_wait_for_a_process_that_writes(path: Path, build: Build) -> None:
    backend = build()
    store(backend, "ann=1")
    unlock = lock(path)
    status = backend.status([HERE])
    assert (status.first_version, status.pending, status.own.pending) == (1, 1, 1)
    assert claim(backend) == ["ann=1"]
    assert backend.totals().every == Totals(accepted=1)
    unlock()


@pytest.mark.parametrize("operation", ["store", "settle"])
def test_store_and_settle_wait_for_a_process_that_writes_until_the_deadline(
    operation: str, path: Path, build: Build
) -> None:
    backend = build()
    store(backend, "ann=1")
    assert backend.try_acquire_lease()
    batch = backend.claim([], Limits())
    unlock, began = lock(path), monotonic()
    calls: dict[str, Callable[[], object]] = {
        "store": lambda: backend.store([message("bob=1")], [], [], began + 0.1),
        "settle": lambda: backend.settle(batch, [], [], began + 0.1),
    }
    with pytest.raises(sqlite3.OperationalError, match="another process keeps the file locked"):
        calls[operation]()
    assert 0.1 <= monotonic() - began < 2.0
    unlock()
    assert deliver(backend) == ["ann=1"]


def test_store_goes_on_as_soon_as_the_other_process_has_written(path: Path, build: Build) -> None:
    backend = build()
    store(backend, "ann=1")
    unlock, is_stored = lock(path), threading.Event()

    def store_bob() -> None:
        store(backend, "bob=1")
        is_stored.set()

    thread = threading.Thread(target=store_bob)
    thread.start()
    assert not is_stored.is_set()
    unlock()
    thread.join(LONG)
    assert is_stored.is_set()
    assert deliver(backend) == ["ann=1", "bob=1"]


class Racing(sqlite3.Connection):
    """Lets another process be faster, right before the oldest messages of a destination are read."""

    race: Callable[[], object] = staticmethod(str)

    def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
        if sql == schema.OLDEST:
            race, Racing.race = Racing.race, staticmethod(str)
            race()
        return super().execute(sql, *values)


def test_claim_goes_on_to_the_next_destination_if_another_process_was_faster(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=Racing))
    backend, other = build(), build()
    store(backend, "ann=old")
    store(backend, "bob=1", destination=THERE)
    sent = message("ann=new", 2)._replace(body=b"")
    monkeypatch.setattr(Racing, "race", staticmethod(partial(other.store, [], [sent], [], soon())))
    assert claim(backend) == ["bob=1"]


class FullDisk(sqlite3.Connection):
    """Finds out when it commits."""

    full = True

    def commit(self) -> None:
        if self.full:
            raise sqlite3.OperationalError("database or disk is full")
        super().commit()


def test_commit_that_fails_leaves_no_trace(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=FullDisk))
    client = Client(backend := build(), staging=BY_HAND_ONCE)
    client.save("ann=1")
    assert client.deliver() == ["ann=1"]
    assert (client.kept(), client.flushes()) == (0, True)
    assert client.stats() == Stats(accepted=1, delivered=1)
    assert backend.totals().every == Totals()


def test_full_disk_loses_nothing(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client(build(), staging=BY_HAND_ONCE)
    connect = sqlite3.connect

    def connect_to_full_disk(*args: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*args, **options)
        connection.execute("PRAGMA max_page_count = 1")
        return connection

    monkeypatch.setattr(sqlite3, "connect", connect_to_full_disk)
    client.save(*(f"{number}={number:01000}" for number in range(100)))
    assert len(client.claim()) == 100


def test_process_that_is_killed_loses_nothing_and_leaves_the_lease_to_another(path: Path, build: Build) -> None:
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        own = SQLiteBackend(str(path))
        store(own, "ann=1")
        os.write(write, b"sends" if own.try_acquire_lease() else b"waits")
        signal.pause()
    assert os.read(read, 100) == b"sends"
    os.close(read)
    os.close(write)
    backend = build()
    store(backend, "bob=1", second=2)
    assert not backend.try_acquire_lease()
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert deliver(backend) == ["ann=1", "bob=1"]
    assert backend.totals().every == Totals(accepted=2, delivered=2)


def test_lease_is_lost_with_its_file_to_the_process_that_makes_it_again(path: Path, build: Build) -> None:
    one, other = build(), build()
    assert one.try_acquire_lease()
    Path(f"{path}-sender").unlink()
    assert other.try_acquire_lease()
    assert not one.try_acquire_lease()


def test_lease_of_another_process_costs_no_open_file(build: Build) -> None:
    def next_descriptor() -> int:
        os.close(descriptor := os.dup(0))
        return descriptor

    one, other = build(), build()
    store(one, "ann=1")
    store(other, "bob=1")
    assert one.try_acquire_lease()
    before = next_descriptor()
    assert not other.try_acquire_lease()
    assert next_descriptor() == before


def test_fork_leaves_both_processes_a_backend_that_works(path: Path, build: Build) -> None:
    backend = build()
    store(backend, "ann=1")
    assert backend.try_acquire_lease()
    if (child := os.fork()) == 0:
        own = SQLiteBackend(str(path))
        store(own, "bob=1", second=2)
        os._exit(own.try_acquire_lease())
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert deliver(backend) == ["ann=1", "bob=1"]


@pytest.mark.filterwarnings(
    "ignore:This process:DeprecationWarning"
)  # Python >= 3.12 warns of forks with threads
def test_backend_can_be_used_while_another_thread_forks(build: Build) -> None:
    backend, has_ended = build(), threading.Event()

    def fork() -> None:
        for _ in range(20):
            if (child := os.fork()) == 0:
                os._exit(0)
            os.waitpid(child, 0)
        has_ended.set()

    thread = threading.Thread(target=fork)
    thread.start()
    number = 0
    while not has_ended.is_set():
        number += 1
        store(backend, f"ann={number}", second=number / 1000)
    thread.join()
    assert deliver(backend) == [f"ann={number}"]
