"""What every outbox promises to the threads of a client, and what only the one in memory does."""

import gc
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count, pairwise
from math import inf
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flagsync._outbox import change, memory, queue, sqlite
from flagsync._outbox.contract import Claim, Destination, Limits, Mark
from flagsync._outbox.options import StoreBounds
from flagsync._outbox.sqlite import SQLiteBackend
from flagsync._stats import Stats
from tests.support.outboxes import BEGAN, BY_HAND, HERE, THERE, Client, message, repeat, texts, waiting

moments = count()  # of evaluation
Build = Callable[..., Client]
Logged = Callable[[], list[str]]


@pytest.fixture(params=["memory", "durable"])
def build(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Build]:
    """Builds outboxes of either kind, the durable ones with a file."""
    built: list[Client] = []

    def build_outbox(max_pending: int = 100, **limits: Any) -> Client:
        if request.param == "memory":
            built.append(Client(limits=Limits(max_pending=max_pending, **limits)))
        else:
            backend = SQLiteBackend(str(tmp_path / "outbox"), StoreBounds(max_pending=max_pending))
            built.append(Client(backend, limits=Limits(**limits), staging=BY_HAND))
        return built[-1]

    yield build_outbox
    for client in built:
        client.outbox.close()


@pytest.fixture
def build_in_memory() -> Build:
    return lambda max_pending=100, **limits: Client(limits=Limits(max_pending=max_pending, **limits))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    for module in (memory, queue):
        monkeypatch.setattr(module, "monotonic", lambda: now[0])
    monkeypatch.setattr(change, "time", lambda: now[0])
    monkeypatch.setattr(sqlite, "time", lambda: now[0])
    return now


def put(client: Client, *states: str, resend: float = 300.0, destination: Destination = HERE) -> None:
    """Put texts, each evaluated later than the one before, where they are no repeats; save them."""
    for text in states:
        key, _, body = text.partition("=")
        moment = next(moments) / 1000
        if client.confirm(repeat(key, hash(body), moment, destination)):
            put_one = message(text, moment, destination, resend_after_seconds=resend, evaluation=hash(body))
            client.put_message(put_one)
    client.outbox.save()


def known(
    client: Client, *keys: str, evaluation: int = hash("1"), destination: Destination = HERE
) -> list[str]:
    """Return the keys whose last evaluation is this one."""
    repeats = [repeat(key, evaluation, next(moments) / 1000, destination) for key in keys]
    new = client.confirm(*repeats)
    return [key for key in keys if key not in new]


def test_claim_has_messages_in_the_order_in_which_they_came(build: Build) -> None:
    client = build()
    put(client, "ann=1", "bob=1", "cid=1")
    assert client.claim() == ["ann=1", "bob=1", "cid=1"]


def test_newer_message_of_a_key_wins_and_waits_at_the_end(build: Build) -> None:
    client = build()
    put(client, "ann=1", "bob=1", "ann=2")
    assert client.claim() == ["bob=1", "ann=2"]
    assert client.stats() == Stats(accepted=3, superseded=1, pending=2)


def test_unchanged_message_is_not_sent_while_its_equal_waits_flies_or_is_accepted(build: Build) -> None:
    client = build()
    put(client, "ann=1", "ann=1")
    batch = client.outbox.claim({}, urgent=True).messages
    put(client, "ann=1")
    client.outbox.settle(batch, [])
    assert texts(batch) == ["ann=1"]
    put(client, "ann=1")
    assert client.deliver() == []
    put(client, "ann=2")
    assert client.deliver() == ["ann=2"]
    stats = client.stats()
    assert (stats.delivered, stats.unchanged + stats.superseded, stats.pending) == (2, 3, 0)


def test_back_and_forth_is_three_messages(build: Build) -> None:
    client = build()
    put(client, "ann=A")
    assert client.deliver() == ["ann=A"]
    put(client, "ann=B")
    batch = client.outbox.claim({}, urgent=True).messages
    put(client, "ann=A")
    client.outbox.settle(batch, [])
    assert texts(batch) == ["ann=B"]
    assert client.deliver() == ["ann=A"]


def test_message_that_may_have_arrived_is_not_taken_for_the_state_before(build: Build) -> None:
    client = build(max_pending=1)
    put(client, "ann=A")
    client.deliver()
    put(client, "ann=B")
    client.claim()
    client.outbox.settle([], [])  # no answer came
    put(client, "bob=1")  # which drops the pending message of ann
    assert client.deliver() == ["bob=1"]
    put(client, "ann=A")
    assert client.deliver() == ["ann=A"]


def test_unchanged_message_is_sent_again_after_resend_after_seconds(build: Build, clock: list[float]) -> None:
    client = build()
    put(client, "ann=1")
    client.deliver()
    clock[0] += 299
    put(client, "ann=1")
    assert client.deliver() == []
    clock[0] += 1
    put(client, "ann=1")
    assert client.deliver() == ["ann=1"]


def test_resend_after_zero_seconds_sends_a_delivered_message_always(build: Build) -> None:
    client = build()
    for _ in range(2):
        put(client, "ann=1", resend=0.0)
        assert client.deliver() == ["ann=1"]


def test_repeat_is_unchanged_while_its_equal_waits_flies_or_is_accepted(build: Build) -> None:
    client = build()
    client.put_message(message("ann=1", evaluation=7))
    assert client.confirm(repeat("ann", 7, 2), repeat("bob", 7, 2)) == ["bob"]
    batch = client.outbox.claim({}, urgent=True).messages
    assert client.confirm(repeat("ann", 7, 3)) == []
    client.outbox.settle(batch, [])
    assert client.confirm(repeat("ann", 7, 4)) == []
    assert client.deliver() == []
    assert client.stats() == Stats(accepted=4, delivered=1, unchanged=3)


def test_repeat_that_must_be_put_counts_nothing(build: Build) -> None:
    client = build()
    client.save("ann=1")
    before = client.stats()
    assert client.confirm(repeat("ann", 1), repeat("bob", 1), repeat("ann", 1, destination=THERE)) == [
        *("ann", "bob", "ann")
    ]
    assert client.stats() == before == Stats(accepted=1, pending=1)
    assert client.confirm() == []


def test_repeat_of_the_last_but_one_evaluation_must_be_put(build: Build) -> None:
    client = build()
    for second, (text, evaluation) in enumerate([("ann=A", 1), ("ann=B", 2)]):
        client.put_message(message(text, second, evaluation=evaluation))
    assert client.confirm(repeat("ann", 1)) == ["ann"]
    assert client.deliver() == ["ann=B"]
    assert client.confirm(repeat("ann", 1)) == ["ann"]
    assert client.confirm(repeat("ann", 2)) == []


def test_repeat_must_be_put_after_resend_after_seconds(build: Build, clock: list[float]) -> None:
    client = build()
    client.put_message(message("ann=1", evaluation=1))
    client.outbox.save()
    clock[0] += 1000
    assert client.confirm(repeat("ann", 1)) == []
    client.deliver()
    clock[0] += 299
    assert client.confirm(repeat("ann", 1)) == []
    clock[0] += 1
    assert client.confirm(repeat("ann", 1)) == ["ann"]


def test_repeat_of_a_rejected_message_must_be_put(build: Build) -> None:
    client = build()
    client.put_message(message("ann=1", evaluation=1))
    client.outbox.save()
    client.outbox.settle([], client.outbox.claim({}, urgent=True).messages)
    assert client.confirm(repeat("ann", 1)) == ["ann"]


def test_repeat_of_a_message_that_failed_is_unchanged(build: Build) -> None:
    client = build()
    client.put_message(message("ann=1", evaluation=1))
    client.outbox.save()
    client.claim()
    client.outbox.settle([], [])
    assert client.confirm(repeat("ann", 1)) == []
    assert client.deliver() == ["ann=1"]


def test_repeat_of_a_dropped_message_must_be_put(build: Build) -> None:
    client = build(max_pending=1)
    for name in ("ann", "bob"):
        client.put_message(message(f"{name}=1", evaluation=1))
        client.outbox.save()
    assert client.stats() == Stats(accepted=2, dropped=1, pending=1)
    assert client.confirm(repeat("ann", 1), repeat("bob", 1)) == ["ann"]


def test_record_comes_back_whole_and_the_same_tail_is_of_many(build: Build) -> None:
    client = build()
    for number in range(6):
        client.put_message(message(f"{number}=1", tail=(b"", b"+", b"+-")[number % 3]))
    client.outbox.save()
    client.claim()
    client.outbox.settle([], [], last=True)
    assert sorted(client.deliver()) == ["0=1", "1=1+", "2=1+-", "3=1", "4=1+", "5=1+-"]


def test_message_of_another_tail_is_another_message(build: Build) -> None:
    client = build()
    client.put_message(message("ann=1", 1, tail=b"+"))
    client.outbox.save()
    assert client.deliver() == ["ann=1+"]
    client.put_message(message("ann=1", 2, tail=b"-"))
    client.put_message(message("bob=1", 2, tail=b"-"))
    client.outbox.save()
    assert client.deliver() == ["ann=1-", "bob=1-"]


def test_claim_leaves_a_resting_destination_alone(build: Build) -> None:
    client = build()
    put(client, "ann=1")
    assert client.outbox.claim({HERE: 12345e6}, urgent=True) == Claim(next_at=12345e6)
    assert client.deliver() == ["ann=1"]
    assert client.outbox.claim({HERE: 12345e6}, urgent=True) == Claim()


def test_claim_has_one_destination_and_they_take_turns(build: Build) -> None:
    client = build()
    for number in range(2):
        put(client, f"ann=h{number}")
        put(client, f"ann=t{number}", f"bob=t{number}", destination=THERE)
        batches = [client.deliver() for _ in range(2)]
        assert sorted(batches) == [[f"ann=h{number}"], [f"ann=t{number}", f"bob=t{number}"]]


def test_failed_messages_wait_again_before_all_others(build: Build) -> None:
    client = build()
    put(client, "ann=1", "bob=1")
    client.claim()
    put(client, "cid=1")
    client.outbox.settle([], [])
    assert client.claim() == ["ann=1", "bob=1", "cid=1"]


def test_failed_messages_wait_behind_all_others_if_they_are_to_be_last(build: Build) -> None:
    client = build(max_batch_messages=2)
    put(client, "ann=1", "bob=1", "cid=1")
    batch = client.outbox.claim({}, urgent=True).messages
    client.outbox.settle([], batch[:1], last=True)
    assert client.deliver() == ["cid=1", "bob=1"]


def test_failed_message_never_replaces_a_newer_one(build: Build) -> None:
    client = build()
    put(client, "ann=1", "bob=1")
    client.claim()
    put(client, "ann=2")
    client.outbox.settle([], [])
    assert client.claim() == ["bob=1", "ann=2"]
    assert client.stats().superseded == 1


def test_rejected_message_is_gone_and_not_taken_for_accepted(build: Build) -> None:
    client = build()
    put(client, "ann=1", "bob=1")
    ann, bob = client.outbox.claim({}, urgent=True).messages
    client.outbox.settle([bob], [ann])
    assert client.flushes()
    assert client.stats() == Stats(accepted=2, delivered=1, rejected=1)
    put(client, "ann=1")
    assert client.deliver() == ["ann=1"]


def test_events_of_a_key_are_all_sent_in_their_order(build: Build) -> None:
    client = build()
    client.save("ann=1", "bob=1", "ann=2", replaces=False)
    assert client.claim() == ["ann=1", "bob=1", "ann=2"]
    client.save("ann=3", second=2, replaces=False)
    client.outbox.settle([], [])
    assert client.deliver() == ["ann=1", "bob=1", "ann=2", "ann=3"]
    assert client.stats() == Stats(accepted=4, delivered=4)


def test_event_that_equals_the_last_one_is_unchanged(build: Build) -> None:
    client = build()
    client.save("ann=1", replaces=False)
    assert client.deliver() == ["ann=1"]
    client.save("ann=1", second=2, replaces=False)
    assert client.deliver() == []
    assert client.stats() == Stats(accepted=2, delivered=1, unchanged=1)


def test_bound_drops_the_oldest_message_and_reports_it(build: Build, logged: Logged) -> None:
    client = build(max_pending=2)
    for state in ("ann=1", "bob=1", "cid=1"):
        put(client, state)
    assert client.claim() == ["bob=1", "cid=1"]
    assert client.stats() == Stats(accepted=3, dropped=1, pending=2)
    client.report.report_deferred()
    [line] = logged()
    assert line.endswith("dropped: 1 update lost")
    assert ("max_pending" in line) == (client.outbox is client.memory)  # each bound has its own name


@pytest.mark.parametrize("again", ["bob=2", "bob=1"])
def test_bound_drops_nobody_for_a_newer_message_of_a_waiting_key(again: str, build: Build) -> None:
    client = build(max_pending=2)
    for state in ("ann=1", "bob=1", again):
        put(client, state)
    assert client.stats().dropped == 0
    assert client.claim() == ["ann=1", again]


def test_claim_has_at_most_2000_messages(build: Build) -> None:
    client = build(max_pending=5000)
    put(client, *(f"{number}=1" for number in range(3000)))
    claim = client.outbox.claim({}, urgent=True)
    client.outbox.settle(claim.messages, [])
    assert (len(claim.messages), claim.has_more) == (2000, True)
    claim = client.outbox.claim({}, urgent=True)
    assert (len(claim.messages), claim.has_more) == (1000, False)


@pytest.mark.parametrize("tail", [b"", b"45"])
@pytest.mark.parametrize(("max_bytes", "fit"), [(9, 2), (8, 1), (1, 1)])
def test_claim_has_room_for_brackets_and_commas(max_bytes: int, fit: int, tail: bytes, build: Build) -> None:
    client = build(max_batch_bytes=max_bytes)
    body = "123"[len(tail) :]
    for name in ("ann", "bob"):
        client.put_message(message(f"{name}={body}", tail=tail))
    client.outbox.save()
    assert len(client.claim()) == fit


def test_mark_is_settled_once_all_before_it_is(build: Build) -> None:
    client = build()
    assert client.flushes()
    put(client, "ann=1", "bob=1", "ann=2")
    mark = client.outbox.mark()
    batch = client.outbox.claim({}, urgent=True).messages
    put(client, "cid=1")
    assert not client.outbox.is_settled(mark)
    client.outbox.settle(batch[:1], [])
    assert not client.outbox.is_settled(mark)
    client.deliver()
    assert client.outbox.is_settled(mark)


def test_mark_is_settled_though_newer_messages_wait(build: Build) -> None:
    client = build()
    put(client, "ann=1")
    mark, batch = client.outbox.mark(), client.outbox.claim({}, urgent=True).messages
    put(client, "bob=1")
    client.outbox.settle(batch, [])
    assert client.outbox.is_settled(mark)
    assert not client.flushes()


def test_mark_does_not_go_by_the_time_of_evaluation(build: Build) -> None:
    client = build()
    client.save("ann=1", second=100.0)
    mark = client.outbox.mark()
    client.save("bob=1", second=10.0)
    assert not client.outbox.is_settled(mark)
    assert not client.flushes()


# Only in memory


def test_bound_counts_messages_in_flight_but_the_newest_always_gets_a_place(build_in_memory: Build) -> None:
    client = build_in_memory(max_pending=2)
    put(client, "ann=1", "bob=1")
    client.claim()
    put(client, "cid=1", "dan=1")
    assert client.stats().dropped == 1
    client.outbox.settle([], [])
    assert client.claim() == ["bob=1", "dan=1"]


def test_bound_of_a_destination_does_not_count_messages_in_flight_to_another_one(
    build_in_memory: Build,
) -> None:
    client = build_in_memory(max_pending=3)
    put(client, "ann=1", "bob=1", "cid=1")
    client.claim()
    client.put("ann=x", "bob=x", "cid=x", "dan=x", destination=THERE, replaces=False)
    assert [message.key for message in waiting(client.memory)] == ["bob", "cid", "dan"]
    assert client.ledger.events()["dropped"] == 1


@pytest.mark.parametrize(
    ("max_pending", "count", "full"), [(5, 4, False), (5, 5, True), (9999, 1999, False), (9999, 2000, True)]
)
def test_full_batch_waits_when_a_request_or_the_bound_is_full(
    build_in_memory: Build,
    max_pending: int,
    count: int,
    full: bool,
) -> None:
    client = build_in_memory(max_pending)
    put(client, *(f"{number}=1" for number in range(count)))
    assert client.outbox.has_full_batch() is full


@pytest.mark.parametrize(("max_bytes", "full"), [(9, True), (10, False)])
def test_full_batch_waits_when_there_are_bytes_enough(
    build_in_memory: Build, max_bytes: int, full: bool
) -> None:
    client = build_in_memory(max_batch_bytes=max_bytes)
    client.put_message(message("ann=123"))
    client.put_message(message("bob=1", tail=b"23"))
    assert client.outbox.has_full_batch() is full
    assert client.deliver() == ["ann=123", "bob=123"]
    assert not client.outbox.has_full_batch()


@given(st.lists(st.integers(2, 1_000_000), min_size=1, max_size=12))
def test_batch_is_as_large_as_two_megabytes_allow_and_never_larger(sizes: list[int]) -> None:
    outbox = Client().outbox
    for number, size in enumerate(sizes):
        tail = b"x" * (size // 2)
        one = message(f"{number}=", tail=tail)
        outbox.put(one._replace(body=b"x" * (size - len(tail)), fingerprint=b"%16d" % number))
    batches: list[list[int]] = []
    while batch := outbox.claim({}, urgent=True).messages:
        batches.append([len(message.record) for message in batch])
        outbox.settle(batch, [])
    assert [size for batch in batches for size in batch] == sizes
    bodies = [len(f"[{','.join('x' * size for size in batch)}]") for batch in batches]
    assert max(bodies) <= 2_000_000
    followed = zip(bodies, pairwise(batches), strict=False)
    assert all(body + 1 + after[0] > 2_000_000 for body, (_, after) in followed)


def test_claim_lets_messages_wait_for_others_to_share_their_request(
    build_in_memory: Build, clock: list[float]
) -> None:
    client = build_in_memory(flush_interval_seconds=2.0, max_batch_messages=3)
    assert client.outbox.claim({}, urgent=False) == Claim(next_at=inf)
    put(client, "ann=1")
    clock[0] += 1.5
    put(client, "bob=1")
    assert client.outbox.claim({}, urgent=False) == Claim(next_at=1002.0)
    assert client.outbox.claim({HERE: 1005.0}, urgent=False) == Claim(next_at=1005.0)
    clock[0] += 0.5
    assert texts(client.outbox.claim({}, urgent=False).messages) == ["ann=1", "bob=1"]
    client.outbox.settle([], [])
    put(client, "cid=1")
    clock[0] -= 0.1
    assert len(client.outbox.claim({}, urgent=False).messages) == 3


def test_claim_lets_no_message_wait_longer_because_it_is_replaced_again_and_again(
    build_in_memory: Build, clock: list[float]
) -> None:
    client = build_in_memory(flush_interval_seconds=2.0)
    for value in range(4):
        put(client, f"ann={value}")
        assert client.outbox.claim({}, urgent=False) == Claim(next_at=1002.0)
        clock[0] += 0.5
    put(client, "ann=4")
    assert texts(client.outbox.claim({}, urgent=False).messages) == ["ann=4"]
    client.outbox.settle([], [])
    assert client.outbox.has_pending()


def test_abandoned_outbox_drops_what_waits_and_what_comes_and_what_fails(
    build_in_memory: Build, logged: Logged
) -> None:
    client = build_in_memory(max_pending=3)
    put(client, "ann=1", "bob=1")
    client.claim()
    put(client, "cid=1")
    client.outbox.abandon()
    assert client.stats().dropped == 1
    put(client, "dan=1")
    client.outbox.settle([], [])
    assert client.flushes()
    assert client.stats() == Stats(accepted=4, dropped=4)
    client.report.report_deferred()
    assert logged() == []  # who abandons it reports the loss


def test_equal_message_of_another_evaluation_is_known_by_that_from_then_on(build_in_memory: Build) -> None:
    client = build_in_memory()
    client.put_message(message("ann=A", 1, evaluation=1))
    client.put_message(message("ann=A", 2, evaluation=2))
    assert client.stats() == Stats(accepted=2, unchanged=1, pending=1)
    assert [known(client, "ann", evaluation=evaluation) for evaluation in (1, 2)] == [[], ["ann"]]
    assert client.deliver() == ["ann=A"]
    assert known(client, "ann", "bob", evaluation=2) == ["ann"]
    assert known(client, "ann", evaluation=2, destination=THERE) == []
    assert client.stats() == Stats(accepted=4, delivered=1, unchanged=3)


def test_unchanged_messages_do_not_put_off_when_one_is_sent_again(
    build_in_memory: Build, clock: list[float]
) -> None:
    client = build_in_memory()
    put(client, "ann=A")
    assert client.deliver() == ["ann=A"]
    clock[0] += 200
    client.put_message(message("ann=A", 2, evaluation=2))
    assert client.stats().unchanged == 1
    clock[0] += 101
    assert known(client, "ann", evaluation=2) == []
    client.put_message(message("ann=A", 3, evaluation=3))
    assert client.stats() == Stats(accepted=3, delivered=1, unchanged=1, pending=1)


def test_dropped_message_is_not_taken_for_known(build_in_memory: Build) -> None:
    client = build_in_memory(max_pending=1)
    put(client, "ann=1", "bob=1")
    assert known(client, "ann", "bob") == ["bob"]


def test_remembered_keys_are_bounded(build_in_memory: Build) -> None:
    client = build_in_memory(max_pending=1000, max_remembered=10)
    put(client, *(f"{number}=1" for number in range(100)))
    client.deliver()
    remembered = known(client, *map(str, range(100)))
    assert 10 <= len(remembered) <= 20
    assert remembered[-1] == "99"


def test_repeats_keep_their_key_remembered(build_in_memory: Build) -> None:
    client = build_in_memory(max_pending=1000, max_remembered=10)
    for number in range(100):
        put(client, "ann=1", f"{number}=1")
    assert client.stats().unchanged == 99
    client.deliver()
    assert client.stats().delivered == 101


def test_pending_and_remembered_messages_are_not_tracked_by_the_garbage_collector(
    build_in_memory: Build,
) -> None:
    client = build_in_memory()
    client.put_message(message("ann=1", evaluation=1, tail=b"+"))
    client.put_message(message("ann\0event=1", tail=b"+", replaces=False))
    client.put_message(message("bob=1", evaluation=2**63 - 1))
    client.claim()
    client.outbox.settle([], [])
    [queue] = client.memory._queues.values()
    kept = [*queue.waiting.values(), *queue.known._young.values()]
    gc.collect()
    assert len(kept) == 6
    assert not [one for one in kept if gc.is_tracked(one)]


def test_messages_with_the_same_tail_share_it(build_in_memory: Build) -> None:
    client = build_in_memory()
    tail = b"a tail that is not interned"
    client.put_message(message("ann=1", tail=tail))
    client.put_message(message("bob=1", tail=tail))
    batch = client.outbox.claim({}, urgent=True).messages
    client.outbox.settle([], [])
    assert all(one.tail is tail for one in [*batch, *waiting(client.memory)])


def test_memory_keeps_nothing_beyond_its_process_and_waits_for_no_store(build_in_memory: Build) -> None:
    client = build_in_memory()
    put(client, "ann=1")
    client.outbox.set_deadline(0.0)
    client.outbox.close()
    assert (client.kept(), client.outbox.is_shared) == (0, False)
    assert client.outbox.mark() == Mark(1)
    assert client.deliver() == ["ann=1"]


def test_hand_over_leaves_what_is_put_meanwhile(build_in_memory: Build) -> None:
    client = build_in_memory()
    put(client, "ann=1", "bob=1")
    with client.memory.hand_over() as messages:
        put(client, "bob=2", "cid=1")
    [queue] = client.memory._queues.values()
    assert not queue._handed_over
    assert texts(messages) == ["ann=1", "bob=1"]
    assert texts(waiting(client.memory)) == ["bob=2", "cid=1"]
    assert client.ledger.counts()["superseded"] == 0  # the store has both, and counts them
    with client.memory.hand_over():
        pass
    assert (client.claim(), client.outbox.has_full_batch()) == ([], False)


def test_hand_over_that_fails_lets_the_messages_wait_before_newer_ones(build_in_memory: Build) -> None:
    client = build_in_memory(max_pending=4)
    put(client, "ann=1", "bob=1", "cid=1")
    put(client, "ann=1", destination=THERE)
    with pytest.raises(OSError, match="full"), client.memory.hand_over():  # noqa: PT012
        put(client, "bob=2", "dan=1", "eve=1")
        raise OSError("full")
    assert texts(waiting(client.memory)) == ["cid=1", "bob=2", "dan=1", "eve=1", "ann=1"]
    assert client.stats() == Stats(accepted=7, superseded=1, dropped=1, pending=5)
    assert client.outbox.has_full_batch()


@pytest.mark.parametrize(
    ("before", "meanwhile", "is_full"), [("ann=12345", "bob=1", True), ("ann=1", "ann=12345", False)]
)
def test_hand_over_that_fails_knows_the_size_of_what_waits(
    before: str, meanwhile: str, is_full: bool, build_in_memory: Build
) -> None:
    client = build_in_memory(max_batch_bytes=8)
    put(client, before)
    with suppress(OSError), client.memory.hand_over():
        put(client, meanwhile)
        raise OSError
    assert client.outbox.has_full_batch() == is_full


@pytest.mark.parametrize("state", ["waits", "flies", "flies elsewhere"])
def test_equal_evaluation_counts_as_the_latest_one_of_a_pending_message(
    state: str, build_in_memory: Build
) -> None:
    client = build_in_memory()
    client.put_message(message("ann=1", 1, evaluation=1))
    if state != "waits":
        client.claim()
    if state == "flies elsewhere":
        client.put_message(message("ann=1", 1, THERE, evaluation=1))
    where = THERE if state == "flies elsewhere" else HERE
    client.put_message(message("ann=1", 3, where, evaluation=2))
    assert client.confirm(repeat("ann", 2, 4, where)) == []
    client.put_message(message("ann=1", 2, where, evaluation=3))  # of a slower thread
    client.outbox.settle([], [])
    found = {one.destination: one for one in waiting(client.memory)}
    assert (found[where].evaluated_at, found[where].evaluation) == (BEGAN + 4, 3)
    assert state != "flies elsewhere" or found[HERE].evaluated_at == BEGAN + 1


def test_destinations_are_those_that_messages_were_put_for(build_in_memory: Build) -> None:
    client = build_in_memory()
    assert client.memory.destinations() == []
    put(client, "ann=1")
    put(client, "ann=1", destination=THERE)
    client.deliver()
    assert {*client.memory.destinations()} == {HERE, THERE}


def test_hand_over_forgets_which_evaluations_are_known(build_in_memory: Build) -> None:
    client = build_in_memory()
    put(client, "ann=1")
    assert known(client, "ann") == ["ann"]
    with client.memory.hand_over():
        pass
    assert known(client, "ann") == []


def test_destination_keeps_its_url_out_of_its_text() -> None:
    assert repr(Destination("https://user:secret@proxy.invalid", "1")) == "Destination(project='1')"


def test_distinct_id_of_a_message_is_its_key_up_to_nul() -> None:
    assert [message(f"{key}=1").distinct_id for key in ("ann", "ann\0experiment")] == ["ann", "ann"]


def test_record_of_a_message_is_its_body_and_its_tail() -> None:
    assert message("ann=1", tail=b"+").record == b"1+"


# How long messages wait


def waits_since(client: Client) -> float:
    """Return the second since which the first message in line waits."""
    return round(client.outbox.waits_since() - BEGAN, 6)


def test_outbox_waits_since_the_first_message_in_line_was_evaluated(build: Build) -> None:
    client = build()
    assert client.outbox.waits_since() == inf
    client.save("ann=1", second=1)
    client.save("bob=1", second=2, destination=THERE)
    assert waits_since(client) == pytest.approx(1, abs=0.1)
    client.outbox.claim({THERE: inf}, urgent=True)
    assert waits_since(client) == pytest.approx(1, abs=0.1)


def test_outbox_in_which_nothing_waits_any_more_waits_since_no_time(build: Build) -> None:
    client = build()
    client.save("ann=1")
    client.deliver()
    client.save()
    assert client.outbox.waits_since() == inf


def test_unchanged_message_makes_the_first_one_wait_no_shorter(build: Build) -> None:
    client = build()
    client.save("ann=1", second=1)
    client.save("ann=1", second=900)
    assert waits_since(client) == pytest.approx(1, abs=0.1)


def test_message_that_comes_back_has_waited_since_it_was_first_evaluated(build_in_memory: Build) -> None:
    client = build_in_memory()
    client.save("ann=1", second=1)
    client.claim()
    client.save("ann=1", second=900)
    client.outbox.settle((), ())
    assert waits_since(client) == 1
    [again] = waiting(client.memory)
    assert again.evaluated_at == BEGAN + 900


def test_superseding_message_waits_since_it_was_evaluated_itself(build: Build) -> None:
    client = build()
    client.save("ann=1", second=1)
    client.save("ann=2", second=900)
    assert waits_since(client) == pytest.approx(900, abs=0.1)


def test_message_that_is_handed_over_waits_meanwhile(build_in_memory: Build) -> None:
    client = build_in_memory()
    client.put("ann=1", second=1)
    with client.memory.hand_over():
        client.put("bob=1", second=2)
        assert waits_since(client) == 1
    assert waits_since(client) == 2


def test_memory_has_no_outages(build_in_memory: Build) -> None:
    assert [*build_in_memory().outbox.outages()] == []
