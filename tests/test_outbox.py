"""The contract of every outbox, and what only the one in memory promises."""

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flagsync import _outbox, _sqlite
from flagsync._outbox import Destination, MemoryOutbox, Update
from flagsync._report import Reporter
from flagsync._sqlite import FileOutbox

WHERE = Destination("url")
moments = count()  # of evaluation
Build = Callable[..., MemoryOutbox]


@pytest.fixture
def report() -> Reporter:
    return Reporter(None)


@pytest.fixture(params=[MemoryOutbox, FileOutbox])
def build(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, report: Reporter
) -> Iterator[Build]:
    built: list[MemoryOutbox] = []

    def build_outbox(max_pending: int = 100, resend: float = 300.0) -> MemoryOutbox:
        monkeypatch.setattr(_sqlite, "MAX_ROWS", max_pending)
        place = [str(tmp_path / "outbox")] * (request.param is FileOutbox)
        built.append(request.param(*place, WHERE, max_pending, resend, report))
        return built[-1]

    yield build_outbox
    for outbox in built:
        outbox.close()


@pytest.fixture
def build_in_memory() -> Build:
    return lambda max_pending=100: MemoryOutbox(WHERE, max_pending, 300, Reporter(None))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(_outbox, "monotonic", lambda: now[0])
    monkeypatch.setattr(_sqlite, "time", lambda: now[0])
    return now


def put(outbox: MemoryOutbox, *states: str) -> None:
    """Let states such as ``"ann=1"`` wait; the fingerprint is the text of the state, the key its hash."""
    for state in states:
        distinct_id, _, value = state.partition("=")
        if not outbox.unchanged(distinct_id, hash(value)):
            outbox.put(distinct_id, hash(value), value.encode(), value.encode(), next(moments))


def states(updates: list[Update]) -> list[str]:
    return [f"{update.distinct_id}={update.json.decode()}" for update in updates]


def deliver(outbox: MemoryOutbox) -> list[str]:
    batch = outbox.take()
    outbox.settle(batch, [])
    return states(batch)


def test_updates_leave_in_the_order_in_which_they_came(build: Build) -> None:
    outbox = build()
    put(outbox, "ann=1", "bob=1", "cid=1")
    assert states(outbox.take()) == ["ann=1", "bob=1", "cid=1"]


def test_the_latest_state_of_a_profile_wins_and_waits_at_the_end(build: Build) -> None:
    outbox = build()
    put(outbox, "ann=1", "bob=1", "ann=2")
    assert states(outbox.take()) == ["bob=1", "ann=2"]
    assert outbox.counts()["superseded"] == 1


def test_a_state_is_not_sent_again_once_it_waits_is_in_flight_or_accepted(build: Build) -> None:
    outbox = build()
    put(outbox, "ann=1", "ann=1")
    batch = outbox.take()
    put(outbox, "ann=1")
    outbox.settle(batch, [])
    assert states(batch) == ["ann=1"]
    put(outbox, "ann=1")
    assert deliver(outbox) == []
    put(outbox, "ann=2")
    assert deliver(outbox) == ["ann=2"]


def test_back_and_forth_is_three_updates(build: Build) -> None:
    outbox = build()
    put(outbox, "ann=A")
    assert deliver(outbox) == ["ann=A"]
    put(outbox, "ann=B")
    batch = outbox.take()
    put(outbox, "ann=A")
    outbox.settle(batch, [])
    assert states(batch) == ["ann=B"]
    assert deliver(outbox) == ["ann=A"]


def test_what_may_or_may_not_have_arrived_is_not_taken_for_the_state_before(build: Build) -> None:
    outbox = build(max_pending=1)
    put(outbox, "ann=A")
    deliver(outbox)
    put(outbox, "ann=B")
    outbox.take()
    outbox.settle([], [])  # no answer came
    put(outbox, "bob=1")  # which drops what waits for ann
    assert deliver(outbox) == ["bob=1"]
    put(outbox, "ann=A")
    assert deliver(outbox) == ["ann=A"]


def test_an_unchanged_state_is_sent_again_after_a_while(build: Build, clock: list[float]) -> None:
    outbox = build(resend=300)
    put(outbox, "ann=1")
    deliver(outbox)
    clock[0] += 299
    put(outbox, "ann=1")
    assert deliver(outbox) == []
    clock[0] += 1
    put(outbox, "ann=1")
    assert deliver(outbox) == ["ann=1"]


def test_with_resend_zero_a_delivered_state_is_always_sent_again(build: Build) -> None:
    outbox = build(resend=0)
    for _ in range(2):
        put(outbox, "ann=1")
        assert deliver(outbox) == ["ann=1"]


def test_a_destination_that_rests_is_left_alone(build: Build) -> None:
    outbox = build()
    put(outbox, "ann=1")
    assert outbox.take({WHERE}) == []
    assert outbox.waiting()
    assert deliver(outbox) == ["ann=1"]
    assert not outbox.waiting()


def test_what_failed_waits_again_before_all_else(build: Build) -> None:
    outbox = build()
    put(outbox, "ann=1", "bob=1")
    outbox.take()
    put(outbox, "cid=1")
    outbox.settle([], [])
    assert states(outbox.take()) == ["ann=1", "bob=1", "cid=1"]


def test_what_failed_never_replaces_a_newer_state(build: Build) -> None:
    outbox = build()
    put(outbox, "ann=1", "bob=1")
    outbox.take()
    put(outbox, "ann=2")
    outbox.settle([], [])
    assert states(outbox.take()) == ["bob=1", "ann=2"]
    assert outbox.counts()["superseded"] == 1


def test_what_is_rejected_is_gone_and_not_taken_for_accepted(build: Build) -> None:
    outbox = build()
    put(outbox, "ann=1", "bob=1")
    ann, bob = outbox.take()
    outbox.settle([bob], [ann])
    assert outbox.oldest() is None
    assert +outbox.counts() == {"delivered": 1, "rejected": 1}
    put(outbox, "ann=1")
    assert deliver(outbox) == ["ann=1"]


def test_beyond_the_bound_the_oldest_is_dropped_and_told(
    build: Build, report: Reporter, logged: Callable[[], list[str]]
) -> None:
    outbox = build(max_pending=2)
    for state in ("ann=1", "bob=1", "cid=1"):
        put(outbox, state)
        outbox.save()
    assert states(outbox.take()) == ["bob=1", "cid=1"]
    assert outbox.counts()["dropped"] == 1
    report.losses()
    assert logged() == ["max_pending is reached, the oldest make room: 1 update lost"]


def test_what_is_in_flight_has_its_place_but_the_newest_always_gets_one(build_in_memory: Build) -> None:
    outbox = build_in_memory(max_pending=2)
    put(outbox, "ann=1", "bob=1")
    outbox.take()
    put(outbox, "cid=1", "dan=1")
    assert outbox.counts()["dropped"] == 1
    outbox.settle([], [])
    assert states(outbox.take()) == ["bob=1", "dan=1"]


@pytest.mark.parametrize(
    ("max_pending", "count", "full"), [(5, 4, False), (5, 5, True), (9999, 1999, False), (9999, 2000, True)]
)
def test_an_outbox_is_full_when_a_request_or_the_bound_is(
    build_in_memory: Build,
    max_pending: int,
    count: int,
    full: bool,
) -> None:
    outbox = build_in_memory(max_pending)
    put(outbox, *(f"{number}=1" for number in range(count)))
    assert outbox.full() is full


def test_a_batch_has_at_most_2000_updates(build: Build) -> None:
    outbox = build(max_pending=5000)
    put(outbox, *(f"{number}=1" for number in range(3000)))
    assert len(deliver(outbox)) == 2000
    assert len(deliver(outbox)) == 1000


@given(st.lists(st.integers(2, 1_000_000), min_size=1, max_size=12))
def test_a_batch_is_as_large_as_two_megabytes_allow_and_never_larger(sizes: list[int]) -> None:
    outbox = MemoryOutbox(WHERE, 100, 300, Reporter(None))
    for number, size in enumerate(sizes):
        outbox.put(str(number), None, b"", b"x" * size, 0.0)
    batches: list[list[int]] = []
    while batch := outbox.take():
        batches.append([len(update.json) for update in batch])
        outbox.settle(batch, [])
    assert [size for batch in batches for size in batch] == sizes
    bodies = [len(f"[{','.join('x' * size for size in batch)}]") for batch in batches]
    assert max(bodies) <= 2_000_000
    assert all(body + 1 + after[0] > 2_000_000 for body, after in pairwise_of(bodies, batches))


def pairwise_of(bodies: list[int], batches: list[list[int]]) -> list[tuple[int, list[int]]]:
    """Each body with the batch that came after it."""
    return list(zip(bodies[:-1], batches[1:], strict=True))


def test_moments_say_what_is_not_settled(build: Build) -> None:
    outbox = build()
    assert (outbox.oldest(), outbox.newest) == (None, 0)
    before = next(moments)
    put(outbox, "ann=1", "bob=1", "ann=2")
    assert (outbox.oldest(), outbox.newest) == (before + 2, before + 3)
    batch = outbox.take()
    put(outbox, "cid=1")
    assert (outbox.oldest(), outbox.newest) == (before + 2, before + 4)
    outbox.settle(batch, [])
    assert outbox.oldest() == before + 4


def test_a_clock_that_is_put_back_settles_nothing(build: Build) -> None:
    outbox = build()
    outbox.put("ann", None, b"1", b"1", 1000.0)
    outbox.put("bob", None, b"1", b"1", 10.0)
    oldest = outbox.oldest()
    assert oldest is not None
    assert oldest <= outbox.newest


@pytest.mark.parametrize(("max_bytes", "fit"), [(9, 2), (8, 1), (1, 1)])
def test_brackets_and_commas_have_their_place_in_a_request(
    max_bytes: int, fit: int, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_outbox, "MAX_BATCH_BYTES", max_bytes)
    outbox = build()
    put(outbox, "ann=123", "bob=123")
    assert len(outbox.take()) == fit


def test_a_closed_outbox_drops_what_waits_and_what_comes_and_what_fails(build_in_memory: Build) -> None:
    outbox = build_in_memory(max_pending=3)
    put(outbox, "ann=1", "bob=1")
    outbox.take()
    put(outbox, "cid=1")
    outbox.close()
    assert outbox.counts()["dropped"] == 1
    put(outbox, "dan=1")
    outbox.settle([], [])
    assert outbox.oldest() is None
    assert outbox.counts()["dropped"] == 4


@pytest.mark.parametrize("again", ["bob=2", "bob=1"])
def test_at_its_bound_a_newer_state_of_a_profile_costs_no_other(again: str, build: Build) -> None:
    outbox = build(max_pending=2)
    for state in ("ann=1", "bob=1", again):
        put(outbox, state)
        outbox.save()
    assert outbox.counts()["dropped"] == 0
    assert states(outbox.take()) == ["ann=1", again]


def test_an_equal_state_of_another_evaluation_is_unchanged_and_known_by_its_key_from_then_on(
    build_in_memory: Build,
) -> None:
    outbox = build_in_memory()
    assert outbox.put("ann", 1, b"A", b"A", 1.0)
    assert not outbox.put("ann", 2, b"A", b"A", 2.0)
    assert [outbox.unchanged("ann", key) for key in (1, 2)] == [False, True]
    assert deliver(outbox) == ["ann=A"]
    assert outbox.unchanged("ann", 2)


def test_evaluating_it_again_does_not_put_off_when_a_state_is_sent_again(
    build_in_memory: Build, clock: list[float]
) -> None:
    outbox = build_in_memory()
    put(outbox, "ann=A")
    assert deliver(outbox) == ["ann=A"]
    clock[0] += 200
    assert not outbox.put("ann", 2, b"A", b"A", 2.0)
    clock[0] += 101
    assert outbox.put("ann", 3, b"A", b"A", 3.0)


def test_what_was_dropped_is_not_taken_for_known(build_in_memory: Build) -> None:
    outbox = build_in_memory(max_pending=1)
    put(outbox, "ann=1", "bob=1")
    assert [outbox.unchanged(name, hash("1")) for name in ("ann", "bob")] == [False, True]


def test_what_is_remembered_is_bounded(build_in_memory: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_outbox, "REMEMBERED_PROFILES", 10)
    outbox = build_in_memory(max_pending=1000)
    put(outbox, *(f"{number}=1" for number in range(100)))
    deliver(outbox)
    remembered = [number for number in range(100) if outbox.unchanged(str(number), hash("1"))]
    assert 10 <= len(remembered) <= 20
    assert remembered[-1] == 99
