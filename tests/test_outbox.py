"""The contract of every outbox; ``outbox`` is to become one of several."""

from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flagsync import _outbox
from flagsync._outbox import MemoryOutbox, Outbox, Update
from flagsync._report import Reporter

Build = Callable[..., Outbox]


@pytest.fixture
def build() -> Build:
    return lambda max_pending=100, resend=300.0: MemoryOutbox(max_pending, resend, Reporter(None))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    now = [1000.0]
    monkeypatch.setattr(_outbox, "monotonic", lambda: now[0])
    return iter([now])


def put(outbox: Outbox, *states: str) -> None:
    """Put states such as ``"ann=1"``; the fingerprint is the state's text."""
    for state in states:
        distinct_id, _, value = state.partition("=")
        outbox.put(distinct_id, value.encode(), value.encode())


def states(updates: list[Update]) -> list[str]:
    return [f"{update.distinct_id}={update.json.decode()}" for update in updates]


def deliver(outbox: Outbox) -> list[str]:
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


def test_a_state_is_unchanged_once_it_waits_is_in_flight_or_accepted(build: Build) -> None:
    outbox = build()
    assert not outbox.unchanged("ann", b"1")
    put(outbox, "ann=1")
    assert outbox.unchanged("ann", b"1")
    batch = outbox.take()
    assert outbox.unchanged("ann", b"1")
    outbox.settle(batch, [])
    assert outbox.unchanged("ann", b"1")
    assert not outbox.unchanged("ann", b"2")


def test_back_and_forth_is_three_updates(build: Build) -> None:
    outbox = build()
    put(outbox, "ann=A")
    deliver(outbox)
    put(outbox, "ann=B")
    batch = outbox.take()
    assert not outbox.unchanged("ann", b"A")
    put(outbox, "ann=A")
    outbox.settle(batch, [])
    assert deliver(outbox) == ["ann=A"]
    assert outbox.counts()["delivered"] == 3


def test_what_may_or_may_not_have_arrived_is_not_taken_for_the_state_before(build: Build) -> None:
    outbox = build(max_pending=1)
    put(outbox, "ann=A")
    deliver(outbox)
    put(outbox, "ann=B")
    outbox.take()
    outbox.settle([], [])  # no answer came
    put(outbox, "bob=1")  # which drops what waits for ann
    assert not outbox.unchanged("ann", b"A")


def test_an_unchanged_state_is_sent_again_after_a_while(build: Build, clock: Iterator[list[float]]) -> None:
    [now] = clock
    outbox = build(resend=300)
    put(outbox, "ann=1")
    deliver(outbox)
    now[0] += 299
    assert outbox.unchanged("ann", b"1")
    now[0] += 1
    assert not outbox.unchanged("ann", b"1")


def test_with_resend_zero_a_delivered_state_is_always_sent_again(build: Build) -> None:
    outbox = build(resend=0)
    put(outbox, "ann=1")
    deliver(outbox)
    assert not outbox.unchanged("ann", b"1")


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
    assert not outbox.unchanged("ann", b"1")
    assert dict(outbox.counts()) == {"delivered": 1, "rejected": 1, "superseded": 0, "dropped": 0}


def test_beyond_the_bound_the_oldest_is_dropped(build: Build) -> None:
    outbox = build(max_pending=2)
    put(outbox, "ann=1", "bob=1", "cid=1")
    assert states(outbox.take()) == ["bob=1", "cid=1"]
    assert outbox.counts()["dropped"] == 1


def test_what_is_in_flight_has_its_place_but_the_newest_always_gets_one(build: Build) -> None:
    outbox = build(max_pending=2)
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
    build: Build,
    max_pending: int,
    count: int,
    full: bool,
) -> None:
    outbox = build(max_pending)
    put(outbox, *(f"{number}=1" for number in range(count)))
    assert outbox.full() is full


def test_a_batch_has_at_most_2000_updates(build: Build) -> None:
    outbox = build(max_pending=5000)
    put(outbox, *(f"{number}=1" for number in range(3000)))
    assert len(deliver(outbox)) == 2000
    assert len(deliver(outbox)) == 1000


@given(st.lists(st.integers(2, 1_000_000), min_size=1, max_size=12))
def test_a_batch_is_as_large_as_two_megabytes_allow_and_never_larger(sizes: list[int]) -> None:
    outbox = MemoryOutbox(100, 300, Reporter(None))
    for number, size in enumerate(sizes):
        outbox.put(str(number), b"", b"x" * size)
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


def test_numbers_say_what_is_not_settled(build: Build) -> None:
    outbox = build()
    assert (outbox.oldest(), outbox.newest) == (None, 0)
    put(outbox, "ann=1", "bob=1", "ann=2")
    assert (outbox.oldest(), outbox.newest) == (2, 3)
    batch = outbox.take()
    put(outbox, "cid=1")
    assert (outbox.oldest(), outbox.newest) == (2, 4)
    outbox.settle(batch, [])
    assert outbox.oldest() == 4


def test_a_closed_outbox_drops_what_waits_and_what_comes_and_what_fails(build: Build) -> None:
    outbox = build(max_pending=3)
    put(outbox, "ann=1", "bob=1")
    outbox.take()
    put(outbox, "cid=1")
    outbox.close()
    put(outbox, "dan=1")
    outbox.settle([], [])
    assert outbox.oldest() is None
    assert outbox.counts()["dropped"] == 4


def test_what_is_remembered_is_bounded(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_outbox, "REMEMBERED_PROFILES", 10)
    outbox = build(max_pending=1000)
    put(outbox, *(f"{number}=1" for number in range(100)))
    deliver(outbox)
    remembered = [number for number in range(100) if outbox.unchanged(str(number), b"1")]
    assert 10 <= len(remembered) <= 20
    assert remembered[-1] == 99
