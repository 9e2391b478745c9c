"""A memory outbox before a backend: what is saved when, who sends, and what an outage costs."""

import os
import threading
from collections.abc import Callable
from dataclasses import replace
from math import inf
from pathlib import Path
from time import monotonic

import pytest

from flagsync._outbox import outage, schedule
from flagsync._outbox.backend import Totals
from flagsync._outbox.contract import Claim, Limits, Mark, Message
from flagsync._outbox.options import Staging
from flagsync._outbox.sent import SentMessages
from flagsync._outbox.sqlite import SQLiteBackend
from flagsync._stats import Stats
from tests.support.outboxes import (
    BEGAN,
    BY_HAND,
    BY_HAND_ONCE,
    HERE,
    LONG,
    THERE,
    Client,
    message,
    repeat,
    texts,
)
from tests.support.reference_backend import ReferenceBackend, ReferenceStore, UnreliableBackend

Logged = Callable[[], list[str]]
CANNOT = "The outbox cannot be used, and memory takes its place"
IN_USE = "The outbox is in use again"
METHODS = ["store", "claim", "settle", "status", "try_acquire_lease"]


@pytest.fixture
def store() -> ReferenceStore:
    return ReferenceStore()


@pytest.fixture
def backend(store: ReferenceStore) -> UnreliableBackend:
    return UnreliableBackend(store)


@pytest.fixture
def client(backend: UnreliableBackend) -> Client:
    return Client(backend)


def in_thread(call: Callable[[], object]) -> Callable[[], None]:
    """Call something in a thread; return what joins it."""
    thread = threading.Thread(target=call, daemon=True)
    thread.start()

    def join() -> None:
        thread.join(LONG)
        assert not thread.is_alive()

    return join


class Pause:
    """Holds up one method of a backend until it is told to go on."""

    def __init__(self, backend: UnreliableBackend, name: str) -> None:
        self.is_reached, self._go_on, self._name = threading.Event(), threading.Event(), name
        backend.before = self._before

    def go_on(self) -> None:
        self._go_on.set()

    def _before(self, name: str) -> None:
        if name == self._name and not self.is_reached.is_set():
            self.is_reached.set()
            assert self._go_on.wait(LONG)


# Staging


def test_put_leaves_messages_in_memory_until_they_are_saved(client: Client, backend: UnreliableBackend) -> None:
    client.put("ann=1", "bob=1")
    assert (backend.totals().every.accepted, len(client.memory)) == (0, 2)
    client.outbox.save()
    assert (backend.totals().every.accepted, len(client.memory)) == (2, 0)
    assert client.stats() == Stats(accepted=2, pending=2)


def test_save_of_nothing_asks_nothing_of_the_backend(client: Client, backend: UnreliableBackend) -> None:
    backend.break_all()
    client.outbox.save()
    assert backend.deadlines == []
    assert not client.outbox.has_full_batch()


def test_put_saves_once_many_messages_wait(backend: UnreliableBackend) -> None:
    client = Client(backend, staging=replace(BY_HAND, save_messages=3))
    client.put("ann=1", "bob=1")
    assert backend.totals().every.accepted == 0
    client.put("cid=1")
    assert backend.totals().every.accepted == 3


def test_put_saves_once_a_message_has_waited_long(
    backend: UnreliableBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(schedule, "monotonic", lambda: now[0])
    client = Client(backend, staging=replace(BY_HAND, save_seconds=0.125))
    client.put("ann=1")
    now[0] += 0.125
    client.put("bob=1")
    assert backend.totals().every.accepted == 0
    now[0] += 0.125
    client.put("cid=1")
    assert backend.totals().every.accepted == 3


def test_put_of_a_burst_beyond_max_pending_saves_and_drops_nothing(backend: UnreliableBackend) -> None:
    client = Client(backend, limits=Limits(max_pending=10))
    client.put(*(f"{number}=1" for number in range(95)))
    client.outbox.save()
    assert client.stats() == Stats(accepted=95, pending=95)


def test_put_does_not_wait_for_the_sender_until_very_many_messages_wait(backend: UnreliableBackend) -> None:
    client = Client(backend, staging=replace(BY_HAND, save_messages=3))
    client.save("ann=1")
    pause = Pause(backend, "claim")
    join_sender = in_thread(client.claim)
    assert pause.is_reached.wait(LONG)
    client.put(*(f"{number}=1" for number in range(11)))
    assert len(client.memory) == 11
    join_encoder = in_thread(lambda: client.put("bob=1"))  # the twelfth is four times as many
    pause.go_on()
    join_sender()
    join_encoder()
    assert (backend.totals().every.accepted, len(client.memory)) == (13, 0)


def test_claim_saves_for_an_encoder_that_is_held_up(
    backend: UnreliableBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(schedule, "monotonic", lambda: now[0])
    client = Client(backend, staging=replace(BY_HAND, save_seconds=0.125))
    client.put("ann=1")
    now[0] += 0.5
    assert client.claim() == []
    now[0] += 0.125
    assert client.claim() == ["ann=1"]


def test_unchanged_message_tells_the_backend_when_it_was_evaluated(
    client: Client, store: ReferenceStore
) -> None:
    other = Client(ReferenceBackend(store))
    client.put("ann=A", second=1)
    other.save("ann=B", second=2)
    client.put("ann=A", second=3)
    client.outbox.save()
    assert client.deliver() == ["ann=A"]
    assert client.stats() == Stats(accepted=2, delivered=1, superseded=1)
    assert other.claim() == []
    assert other.stats() == Stats(accepted=1, superseded=1)


def test_unchanged_is_not_known_before_the_backend_is_asked(client: Client, backend: UnreliableBackend) -> None:
    client.put("ann=A", second=1)
    client.put("ann=A", second=2)
    assert client.stats() == Stats(accepted=2, superseded=1, pending=1)  # of memory, and not unchanged
    client.outbox.save()
    client.save("ann=A", second=3)
    assert client.stats() == Stats(accepted=3, superseded=1, unchanged=1, pending=1)
    assert backend.totals().every == Totals(accepted=2, unchanged=1)


# Repeats


def test_confirm_asks_the_backend_what_other_processes_have_put(client: Client, store: ReferenceStore) -> None:
    other = Client(ReferenceBackend(store))
    other.put_message(message("ann=A", 1, evaluation=1))
    assert client.confirm(repeat("ann", 1)) == ["ann"]
    other.outbox.save()
    assert client.confirm(repeat("ann", 1), repeat("bob", 1)) == ["bob"]
    assert client.stats() == Stats(accepted=1, unchanged=1)
    assert client.kept() == 0


def test_confirm_stores_what_waits_in_memory_before_the_repeats_are_looked_at(
    client: Client, backend: UnreliableBackend
) -> None:
    client.put_message(message("ann=A", 1, evaluation=1))
    client.put_message(message("bob=B", 1, evaluation=2))
    assert client.confirm(repeat("ann", 1), repeat("bob", 1)) == ["bob"]
    assert len(backend.deadlines) == 1  # one transaction
    assert (backend.totals().every, len(client.memory)) == (Totals(accepted=3, unchanged=1), 0)
    assert client.stats() == Stats(accepted=3, unchanged=1, pending=2)


def test_confirm_of_nothing_is_a_save(client: Client, backend: UnreliableBackend) -> None:
    assert client.confirm() == []
    assert backend.deadlines == []
    client.put("ann=1")
    assert client.confirm() == []
    assert backend.totals().every == Totals(accepted=1)


def test_confirm_waits_for_other_processes_to_the_deadline_of_the_client(
    client: Client, backend: UnreliableBackend
) -> None:
    client.outbox.set_deadline(5.0)
    client.confirm(repeat("ann"))
    assert backend.deadlines == [5.0]


def test_confirm_puts_off_the_next_save(backend: UnreliableBackend) -> None:
    client = Client(backend, staging=replace(BY_HAND, save_messages=2))
    client.put("ann=1")
    client.confirm(repeat("ann"))
    client.put("bob=1")
    assert (backend.totals().every.accepted, len(client.memory)) == (1, 1)


def test_confirm_waits_for_the_sender_that_uses_the_backend(client: Client, backend: UnreliableBackend) -> None:
    client.put_message(message("ann=A", 1, evaluation=1))
    client.outbox.save()
    pause = Pause(backend, "claim")
    join_sender = in_thread(client.claim)
    assert pause.is_reached.wait(LONG)
    join_encoder = in_thread(lambda: client.confirm(repeat("ann", 1)))
    pause.go_on()
    join_sender()
    join_encoder()
    assert client.stats() == Stats(accepted=2, unchanged=1, pending=1)


def test_repeat_is_the_latest_evaluation_for_another_process_too(client: Client, store: ReferenceStore) -> None:
    other = Client(ReferenceBackend(store))
    client.put_message(message("ann=A", 1, evaluation=1))
    client.outbox.save()
    assert client.deliver() == ["ann=A"]
    other.put_message(message("ann=B", 20, evaluation=2))  # which its process has not saved yet
    assert client.confirm(repeat("ann", 1, second=30)) == []
    other.outbox.save()
    assert client.deliver() == []
    other.put_message(message("ann=B", 40, evaluation=2))
    assert other.confirm(repeat("ann", 2, second=50)) == []
    assert client.confirm(repeat("ann", 1, second=45)) == ["ann"]
    client.save("ann=A", second=45)
    assert client.deliver() == ["ann=B"]
    other.flushes()
    assert client.stats() == Stats(accepted=3, delivered=1, unchanged=1, superseded=1)
    assert other.stats() == Stats(accepted=3, delivered=1, unchanged=1, superseded=1)


def test_repeats_of_a_process_that_puts_nothing_are_its_own(client: Client, store: ReferenceStore) -> None:
    other = Client(ReferenceBackend(store))
    client.put_message(message("ann=A", 1, evaluation=1))
    client.outbox.save()
    for second in (2, 3):
        assert other.confirm(repeat("ann", 1, second)) == []
    assert client.deliver() == ["ann=A"]
    assert (client.stats(), other.stats()) == (Stats(accepted=1, delivered=1), Stats(accepted=2, unchanged=2))
    assert other.kept() == 0
    assert other.flushes()


@pytest.mark.parametrize("replaced", ["store", "account"])
def test_repeats_that_a_store_has_forgotten_stay_unchanged(
    replaced: str, client: Client, backend: UnreliableBackend, logged: Logged
) -> None:
    client.put_message(message("ann=A", 1, evaluation=1))
    assert client.confirm(repeat("ann", 1)) == []
    assert client.deliver() == ["ann=A"]
    if replaced == "store":
        backend.shared = ReferenceStore()
    else:
        del backend.shared.counts[backend]
    new = client.confirm(repeat("ann", 1, 3))
    assert new == (["ann"] if replaced == "store" else [])
    for _ in new:
        client.put_message(message("ann=A", 3, evaluation=1))
    assert client.confirm(repeat("ann", 1, 4)) == []
    client.deliver()
    client.flushes()
    assert client.stats() == Stats(accepted=4, delivered=1 + len(new), unchanged=3 - len(new))
    client.report.report_deferred()
    assert logged() == []


def test_save_waits_for_other_processes_for_busy_seconds_and_to_the_deadline_of_the_client(
    backend: UnreliableBackend,
) -> None:
    client = Client(backend, staging=replace(BY_HAND, busy_seconds=100.0))
    before = monotonic()
    client.save("ann=1")
    assert before + 100.0 <= backend.deadlines[-1] <= monotonic() + 100.0
    client.outbox.set_deadline(before + 5.0)
    client.save("bob=1")
    assert backend.deadlines[-1] == before + 5.0
    client.deliver()
    assert backend.deadlines[-1] == before + 5.0


# Sending


def test_claim_waits_for_other_messages_to_share_the_request(store: ReferenceStore) -> None:
    limits = Limits(flush_interval_seconds=5000.0, max_batch_messages=2)
    client = Client(ReferenceBackend(store), limits=limits)
    assert client.outbox.claim({}, urgent=False) == Claim()
    client.save("ann=1", second=1)
    claim = client.outbox.claim({}, urgent=False)
    assert claim.messages == ()
    assert claim.next_at == pytest.approx(BEGAN + 5001, abs=1.0)
    assert texts(client.outbox.claim({}, urgent=True).messages) == ["ann=1"]
    client.outbox.settle([], [])
    client.save("bob=1")
    assert len(client.outbox.claim({}, urgent=False).messages) == 2


def test_claim_lets_no_message_wait_longer_because_it_is_replaced_again_and_again(
    store: ReferenceStore,
) -> None:
    client = Client(ReferenceBackend(store), limits=Limits(flush_interval_seconds=5000.0))
    for second in (1, 600, 900):
        client.save(f"ann={second}", second=second)
        claim = client.outbox.claim({}, urgent=False)
        assert not claim.messages
        assert claim.next_at == pytest.approx(BEGAN + 5001, abs=1.0)
    client.deliver()
    assert client.outbox.claim({}, urgent=False) == Claim()
    client.save("ann=last", second=990)
    assert client.outbox.claim({}, urgent=False).next_at == pytest.approx(BEGAN + 5990, abs=1.0)


def test_claim_has_messages_that_have_waited_long_enough(store: ReferenceStore) -> None:
    client = Client(ReferenceBackend(store), limits=Limits(flush_interval_seconds=500.0))
    client.save("ann=1")  # evaluated a thousand seconds ago
    assert texts(client.outbox.claim({}, urgent=False).messages) == ["ann=1"]


def test_claim_says_whether_more_waits(store: ReferenceStore) -> None:
    client = Client(ReferenceBackend(store), limits=Limits(max_batch_messages=2))
    client.save("ann=1", "bob=1", "cid=1")
    claims = list[bool]()
    for _ in range(2):
        claim = client.outbox.claim({}, urgent=True)
        client.outbox.settle(claim.messages, [])
        claims.append(claim.has_more)
    assert claims == [True, False]


def test_claim_says_when_a_resting_destination_may_be_tried(client: Client) -> None:
    client.save("ann=1")
    client.save("bob=1", destination=THERE)
    assert client.outbox.claim({HERE: 7e9, THERE: 6e9}, urgent=True) == Claim(next_at=6e9)


def test_full_batch_waits_when_there_are_as_many_messages_as_fit(store: ReferenceStore) -> None:
    client = Client(ReferenceBackend(store), limits=Limits(max_batch_messages=2))
    client.save("ann=1")
    assert not client.outbox.has_full_batch()
    client.save("bob=1")
    assert client.outbox.has_full_batch()
    assert client.deliver() == ["ann=1", "bob=1"]
    client.save("cid=1")
    assert not client.outbox.has_full_batch()


def test_full_batch_waits_when_there_are_as_many_messages_as_filled_the_last_one(
    store: ReferenceStore,
) -> None:
    client = Client(ReferenceBackend(store), limits=Limits(max_batch_bytes=8))
    client.save("ann=12", "bob=12", "cid=12")
    assert not client.outbox.has_full_batch()
    assert client.deliver() == ["ann=12", "bob=12"]
    client.save("dan=12")
    assert client.outbox.has_full_batch()


def test_lease_holder_sends_what_all_processes_have_saved(client: Client, store: ReferenceStore) -> None:
    other = Client(ReferenceBackend(store))
    client.save("ann=1")
    other.save("bob=1")
    assert client.claim() == ["ann=1", "bob=1"]
    assert other.outbox.claim({}, urgent=True) == Claim()
    client.outbox.settle([], [])
    assert client.deliver() == ["ann=1", "bob=1"]
    assert other.flushes()
    assert other.stats() == Stats(accepted=1, delivered=1)


def test_lease_is_released_when_the_outbox_is_closed(client: Client, store: ReferenceStore) -> None:
    other = Client(ReferenceBackend(store))
    client.save("ann=1")
    assert client.claim() == ["ann=1"]
    client.outbox.close()
    assert client.kept() == 1
    assert other.deliver() == ["ann=1"]
    assert other.kept() == 0


def test_closed_outbox_uses_the_backend_no_more(client: Client, backend: UnreliableBackend) -> None:
    client.save("ann=1")
    mark = client.outbox.mark()
    client.outbox.close()
    used = list[str]()
    backend.before = used.append
    assert client.outbox.confirm([repeat("ann", 5)])
    assert not client.outbox.has_pending()
    assert not client.outbox.is_settled(mark)
    client.put("bob=1")
    client.outbox.save()
    assert used == []
    client.outbox.close()
    assert used == ["store", "close"]  # a thread that ends late has put something: closing again stores it


def test_lease_is_kept_while_a_batch_is_in_flight_though_the_backend_fails(
    client: Client, backend: UnreliableBackend, store: ReferenceStore
) -> None:
    other = Client(ReferenceBackend(store))
    client.save("ann=old", second=1)
    batch = client.outbox.claim({}, urgent=True).messages
    backend.break_all()
    client.save("bob=1")  # the encoder finds out while the request hangs
    client.outbox.mark()
    other.save("ann=new", second=2)
    assert other.claim() == []
    client.outbox.settle(batch, [])  # which the backend does not learn
    assert other.claim() == []
    assert client.deliver() == ["bob=1"]
    assert other.claim() == []
    backend.mend()
    assert client.deliver() == ["ann=new"]
    assert client.stats() == Stats(accepted=2, delivered=1, superseded=1)


def test_settle_that_the_backend_does_not_learn_sends_the_batch_once_more(
    client: Client, backend: UnreliableBackend, logged: Logged
) -> None:
    client.save("ann=1")
    batch = client.outbox.claim({}, urgent=True).messages
    backend.break_all()
    client.outbox.settle(batch, [])
    backend.mend()
    assert client.deliver() == ["ann=1"]
    assert client.stats() == Stats(accepted=1, delivered=1)
    client.report.report_deferred()
    assert [line.split(" (")[0] for line in logged()] == [CANNOT, IN_USE]


def test_settle_lets_a_refused_batch_wait_behind_all_others(client: Client) -> None:
    client.save("ann=1", "bob=1", "cid=1")
    batch = client.outbox.claim({}, urgent=True).messages
    client.save("dan=1")
    client.outbox.settle(batch[1:2], batch[2:], last=True)
    assert client.deliver() == ["dan=1", "ann=1"]
    assert client.stats() == Stats(accepted=4, delivered=3, rejected=1)


# Outages


@pytest.mark.parametrize("method", METHODS)
def test_outage_of_any_method_is_reported_once_and_over_once(
    method: str, client: Client, backend: UnreliableBackend, logged: Logged
) -> None:
    client.save("ann=1")
    backend.broken = {method, "store"}
    for number in range(3):
        batch = client.outbox.claim({}, urgent=True).messages
        client.outbox.settle(batch, [])
        client.save(f"bob={number}", second=number)
        client.flushes()
    client.report.report_deferred()
    assert [line.split(" (")[0] for line in logged()] == [CANNOT]
    assert client.stats().dropped == client.stats().rejected == 0
    backend.mend()
    client.outbox.save()
    while client.deliver():
        pass
    assert (client.stats().pending, client.flushes()) == (0, True)
    client.report.report_deferred()
    assert [line.split(" (")[0] for line in logged()] == [CANNOT, IN_USE]


def test_outage_says_why_and_how_many_messages_wait_in_memory(
    client: Client, backend: UnreliableBackend, logged: Logged
) -> None:
    backend.break_all()
    client.save("ann=1", "bob=1")
    client.report.report_deferred()
    assert logged() == [f"{CANNOT} (it is broken): 2 updates kept and sent again later"]


def test_outage_lets_messages_be_sent_from_memory(client: Client, backend: UnreliableBackend) -> None:
    backend.break_all()
    client.save("ann=1", "bob=1")
    assert client.deliver() == ["ann=1", "bob=1"]
    assert client.stats() == Stats(accepted=2, delivered=2)
    assert client.kept() == 0


def test_outage_keeps_failed_messages_in_memory(client: Client, backend: UnreliableBackend) -> None:
    backend.break_all()
    client.save("ann=1", "bob=1")
    assert client.claim() == ["ann=1", "bob=1"]
    client.outbox.settle([], [])
    assert client.deliver() == ["ann=1", "bob=1"]


def test_outage_is_over_once_the_backend_has_what_waits_in_memory(
    client: Client, backend: UnreliableBackend
) -> None:
    backend.break_all()
    client.save("ann=1")
    assert client.claim() == ["ann=1"]
    client.outbox.settle([], [])  # the service is down, too
    backend.mend()
    client.save("bob=1")
    assert backend.totals().every.pending == 2
    assert client.deliver() == ["ann=1", "bob=1"]
    assert client.stats() == Stats(accepted=2, delivered=2)


def test_outage_ends_for_a_process_that_has_nothing_to_save(
    client: Client, backend: UnreliableBackend, store: ReferenceStore, logged: Logged
) -> None:
    backend.break_all()
    assert client.claim() == []
    backend.mend()
    Client(ReferenceBackend(store)).save("ann=1")
    assert client.deliver() == ["ann=1"]
    client.report.report_deferred()
    assert [line.split(" (")[0] for line in logged()] == [CANNOT, IN_USE]


def test_outage_puts_off_the_next_try_for_a_while_and_longer_each_time(
    backend: UnreliableBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(outage, "monotonic", lambda: now[0])
    client = Client(backend, staging=replace(BY_HAND, retry_seconds=1.0, max_retry_seconds=4.0))
    backend.break_all()
    tries = list[float]()
    backend.before = lambda name: tries.append(now[0]) if name == "store" else None
    for _ in range(40):
        client.save("ann=1")
        client.claim()
        client.outbox.settle([], [])
        now[0] += 0.5
    assert tries == [1000.0, 1001.0, 1003.0, 1007.0, 1011.0, 1015.0, 1019.0]


def test_outage_leaves_waiting_messages_of_the_backend_alone_until_they_are_evaluated_again(
    backend: UnreliableBackend,
) -> None:
    client = Client(backend, staging=BY_HAND_ONCE)
    client.save("ann=1")
    backend.break_all()
    client.save("bob=1")
    client.save("ann=1", second=2)
    assert client.deliver() == ["bob=1", "ann=1"]
    assert client.stats() == Stats(accepted=3, delivered=2, pending=1)
    assert client.kept() == 1


def test_outage_lets_memory_know_what_is_unchanged(backend: UnreliableBackend) -> None:
    client = Client(backend, staging=BY_HAND_ONCE)
    client.put_message(message("ann=A", 1, evaluation=1))
    backend.break_all()
    client.outbox.save()
    assert client.confirm(repeat("ann", 1), repeat("bob", 1)) == ["bob"]
    client.put_message(message("ann=A", 2, evaluation=2))
    assert client.confirm(repeat("ann", 1)) == ["ann"]
    assert client.confirm(repeat("ann", 2)) == []
    assert client.deliver() == ["ann=A"]
    assert client.confirm(repeat("ann", 2)) == []
    assert client.stats() == Stats(accepted=5, delivered=1, unchanged=4)


def test_outage_that_repeats_find_out_lets_memory_answer(
    client: Client, backend: UnreliableBackend, logged: Logged
) -> None:
    client.put_message(message("ann=A", 1, evaluation=1))
    client.outbox.save()
    client.put_message(message("bob=A", 1, evaluation=1))
    backend.break_all()
    assert client.confirm(repeat("ann", 1), repeat("bob", 1)) == ["ann"]  # which only the backend knows
    client.put_message(message("ann=A", 2, evaluation=1))
    assert client.stats() == Stats(accepted=4, unchanged=1, pending=3)
    assert client.deliver() == ["bob=A", "ann=A"]
    backend.mend()
    assert client.confirm(repeat("cid", 1)) == ["cid"]
    assert client.deliver() == []
    assert client.stats() == Stats(accepted=4, delivered=2, unchanged=1, superseded=1)
    client.report.report_deferred()
    assert [line.split(" (")[0] for line in logged()] == [CANNOT, IN_USE]


def test_outage_that_is_over_lets_the_backend_answer(client: Client, backend: UnreliableBackend) -> None:
    backend.break_all()
    client.put_message(message("ann=A", 1, evaluation=1))
    assert client.confirm(repeat("ann", 1)) == []
    backend.mend()
    assert client.confirm(repeat("ann", 1, 3)) == []
    assert backend.totals().every == Totals(accepted=2, unchanged=1)
    assert client.stats() == Stats(accepted=3, unchanged=2, pending=1)


def test_outage_asks_the_backend_for_repeats_no_more_often_than_for_messages(
    backend: UnreliableBackend,
) -> None:
    client = Client(backend, staging=BY_HAND_ONCE)
    backend.break_all()
    for _ in range(3):
        assert client.confirm(repeat("ann", 1)) == ["ann"]
    assert len(backend.deadlines) == 1


def test_outage_after_messages_were_sent_from_memory_has_repeats_evaluated_once_more(
    client: Client, backend: UnreliableBackend
) -> None:
    backend.break_all()
    client.put_message(message("ann=A", 1, evaluation=1))
    client.outbox.save()
    assert client.deliver() == ["ann=A"]
    backend.mend()
    assert client.confirm(repeat("ann", 1, 2)) == ["ann"]
    client.put_message(message("ann=A", 2, evaluation=1))
    assert client.confirm(repeat("ann", 1, 3)) == []
    assert client.deliver() == []
    assert client.stats() == Stats(accepted=3, delivered=1, unchanged=2)


def test_outage_lets_memory_forget_what_only_the_backend_knows(backend: UnreliableBackend) -> None:
    client = Client(backend, staging=BY_HAND_ONCE)
    client.save("ann=A", second=1)
    backend.break_all()
    client.save("bob=1")
    client.save("ann=A", second=2)
    assert client.deliver() == ["bob=1", "ann=A"]


@pytest.mark.parametrize("state", ["waits", "flies", "was sent"])
@pytest.mark.parametrize("by", ["message", "repeat"])
def test_outage_lets_an_equal_evaluation_count_as_the_latest_one(
    state: str, by: str, client: Client, backend: UnreliableBackend, store: ReferenceStore
) -> None:
    other, batch = Client(ReferenceBackend(store)), list[Message]()
    backend.break_all()
    client.put_message(message("ann=A", 10, evaluation=1))
    client.outbox.save()
    if state != "waits":
        batch += client.outbox.claim({}, urgent=True).messages
    if state == "was sent":
        client.outbox.settle(batch, [])
    if by == "repeat":
        assert client.confirm(repeat("ann", 1, 30)) == []
    else:
        client.put_message(message("ann=A", 30, evaluation=1))
    other.put("ann=B", second=20)
    backend.mend()
    client.outbox.save()
    other.outbox.save()
    if state == "flies":
        client.outbox.settle([], [])
        client.outbox.save()
    assert client.deliver() == ([] if state == "was sent" else ["ann=A"])
    assert other.stats() == Stats(accepted=1, superseded=1)
    assert client.stats() == Stats(accepted=2, delivered=1, unchanged=1)


def test_outage_that_ends_while_a_message_flies_keeps_its_latest_evaluation(
    client: Client, backend: UnreliableBackend, store: ReferenceStore
) -> None:
    other = Client(ReferenceBackend(store))
    backend.break_all()
    client.save("ann=A", second=10)
    batch = client.outbox.claim({}, urgent=True).messages
    client.put("ann=A", second=30)
    client.outbox.settle(batch, [])
    backend.mend()
    client.outbox.save()
    other.save("ann=B", second=20)
    assert client.deliver() == []
    assert other.stats() == Stats(accepted=1, superseded=1)


def test_hand_over_counts_a_message_once_that_a_newer_one_follows_meanwhile(
    client: Client, backend: UnreliableBackend
) -> None:
    client.put("ann=1")
    pause = Pause(backend, "store")
    join_sender = in_thread(client.outbox.save)
    assert pause.is_reached.wait(LONG)
    client.put("ann=2", second=2)
    pause.go_on()
    join_sender()
    client.outbox.save()
    assert client.stats() == Stats(accepted=2, superseded=1, pending=1)
    assert client.deliver() == ["ann=2"]
    assert client.flushes()


def test_outage_has_full_batches_of_memory(backend: UnreliableBackend) -> None:
    client = Client(backend, limits=Limits(max_batch_messages=2), staging=BY_HAND_ONCE)
    backend.break_all()
    client.save("ann=1")
    assert not client.outbox.has_full_batch()
    client.save("bob=1")
    assert client.outbox.has_full_batch()


def test_outage_drops_the_oldest_messages_at_the_bound_of_memory(
    backend: UnreliableBackend, logged: Logged
) -> None:
    client = Client(backend, limits=Limits(max_pending=2), staging=BY_HAND_ONCE)
    backend.break_all()
    client.save("ann=1", "bob=1", "cid=1")
    assert client.stats() == Stats(accepted=3, dropped=1, pending=2)
    assert client.deliver() == ["bob=1", "cid=1"]
    client.report.report_deferred()
    assert "max_pending is reached, and the oldest pending updates are dropped: 1 update lost" in logged()


def test_outage_lets_only_the_lease_holder_send_from_memory(
    client: Client, backend: UnreliableBackend, store: ReferenceStore
) -> None:
    other = Client(ReferenceBackend(store))
    other.save("cid=1")
    assert other.claim() == ["cid=1"]
    backend.break_all()
    client.save("ann=1")
    assert client.outbox.claim({}, urgent=True) == Claim()
    other.outbox.close()
    assert client.deliver() == ["ann=1"]


def test_outage_of_one_process_that_is_long_lets_it_send_without_the_lease(
    client: Client, backend: UnreliableBackend, store: ReferenceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(outage, "monotonic", lambda: now[0])
    other = Client(ReferenceBackend(store))
    other.save("cid=1")
    assert other.claim() == ["cid=1"]
    backend.break_all()
    client.save("ann=1")
    now[0] += BY_HAND.max_retry_seconds
    assert client.claim() == []
    now[0] += 1
    assert client.deliver() == ["ann=1"]
    assert client.stats() == Stats(accepted=1, delivered=1)


def test_outage_of_the_lease_alone_is_reported_once_and_lets_memory_send(
    client: Client, backend: UnreliableBackend, logged: Logged
) -> None:
    backend.broken = {"try_acquire_lease"}
    client.claim()
    for number in range(3):
        client.save(f"ann={number}", second=number)
        assert client.deliver() == [f"ann={number}"]
    client.report.report_deferred()
    assert [line.split(" (")[0] for line in logged()] == [CANNOT]
    backend.mend()
    client.save("bob=1")
    assert client.deliver() == ["bob=1"]
    client.report.report_deferred()
    assert [line.split(" (")[0] for line in logged()] == [CANNOT, IN_USE]


def test_outage_of_a_server_lets_memory_send_once_no_lease_can_be_valid_any_more(
    client: Client, backend: UnreliableBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(outage, "monotonic", lambda: now[0])
    backend.lease_seconds, backend.broken = 45.0, {*METHODS}
    client.save("ann=1")
    now[0] += 44
    assert client.claim() == []
    now[0] += 1
    assert client.deliver() == ["ann=1"]


def test_outage_of_a_server_lets_a_client_that_closes_send_at_once(
    client: Client, backend: UnreliableBackend
) -> None:
    backend.lease_seconds, backend.broken = 45.0, {*METHODS}
    client.save("ann=1")
    assert client.claim() == []
    client.outbox.set_deadline(monotonic() + LONG)
    assert client.deliver() == ["ann=1"]


def test_claim_may_be_sent_until_shortly_before_the_lease_ends(
    client: Client, backend: UnreliableBackend
) -> None:
    client.save("ann=1")
    assert client.outbox.claim({}, urgent=True).until == inf
    backend.lease_seconds = 45.0
    before = monotonic()
    until = client.outbox.claim({}, urgent=True).until
    assert before + 40 <= until <= monotonic() + 40


def test_outage_lets_a_process_send_from_memory_where_no_lease_can_be_had(
    client: Client, backend: UnreliableBackend
) -> None:
    backend.broken = {*METHODS}
    client.save("ann=1")
    assert client.deliver() == ["ann=1"]
    assert client.stats() == Stats(accepted=1, delivered=1)


# What memory has sent


def test_messages_sent_from_memory_are_told_to_the_backend_before_anything_leaves_it(
    client: Client, backend: UnreliableBackend, store: ReferenceStore
) -> None:
    other = Client(ReferenceBackend(store))
    other.save("ann=old", "bob=old", second=1)
    client.save("cid=old", second=1)
    backend.break_all()
    client.save("ann=new", "cid=new", second=2)
    assert client.deliver() == ["ann=new", "cid=new"]
    assert client.claim() == []
    backend.mend()
    assert other.claim() == []  # the lease is not to be had before
    assert client.deliver() == ["bob=old"]
    assert client.stats() == Stats(accepted=3, delivered=2, superseded=1)
    other.flushes()
    assert other.stats() == Stats(accepted=2, delivered=1, superseded=1)


def test_messages_sent_from_memory_are_unchanged_for_all_processes_afterwards(
    client: Client, backend: UnreliableBackend, store: ReferenceStore
) -> None:
    backend.break_all()
    client.save("ann=1", second=1)
    assert client.deliver() == ["ann=1"]
    backend.mend()
    client.outbox.save()
    other = Client(ReferenceBackend(store))
    other.save("ann=1", second=2)
    assert client.deliver() == []
    other.flushes()
    assert other.stats() == Stats(accepted=1, unchanged=1)


def test_messages_sent_from_memory_are_newer_than_the_backend_knows(
    client: Client, backend: UnreliableBackend
) -> None:
    client.save("ann=old", "bob=A", second=1)
    backend.break_all()
    client.save("ann=new", "bob=B", second=2)
    assert not client.flushes()  # what the backend has is not settled
    assert client.deliver() == ["ann=new", "bob=B"]
    backend.mend()
    client.save("bob=A", second=3)
    assert client.deliver() == ["bob=A"]
    assert client.stats() == Stats(accepted=5, delivered=3, superseded=2)
    assert backend.totals().every == Totals(accepted=3, delivered=1, superseded=2)


def test_messages_that_memory_tried_to_send_are_not_taken_for_what_the_backend_says(
    client: Client, backend: UnreliableBackend
) -> None:
    client.save("ann=A", second=1)
    assert client.deliver() == ["ann=A"]
    backend.break_all()
    client.save("ann=B", second=2)
    assert client.claim() == ["ann=B"]
    client.outbox.settle([], [])  # it arrives, the answer does not
    client.put("ann=A", second=3)
    backend.mend()
    client.outbox.save()
    assert client.deliver() == ["ann=A"]


def test_rejected_messages_of_memory_are_not_taken_for_accepted(
    client: Client, backend: UnreliableBackend
) -> None:
    backend.break_all()
    client.save("ann=1", second=1)
    client.outbox.settle([], client.outbox.claim({}, urgent=True).messages)
    backend.mend()
    client.save("ann=1", second=2)
    assert client.deliver() == ["ann=1"]
    assert client.stats() == Stats(accepted=2, delivered=1, rejected=1)


def test_lease_is_released_by_a_process_that_has_nothing_to_send_and_nothing_to_tell(
    client: Client, backend: UnreliableBackend, store: ReferenceStore
) -> None:
    other = Client(ReferenceBackend(store))
    client.save("ann=1")
    assert client.claim() == ["ann=1"]
    client.outbox.settle([], [])
    backend.break_all()
    assert client.claim() == []
    assert other.claim() == []
    assert client.claim() == []  # now it uses memory, where nothing waits
    assert other.deliver() == ["ann=1"]


def test_lease_is_released_after_a_long_outage_by_a_process_that_has_nothing_to_send(
    backend: UnreliableBackend, store: ReferenceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(outage, "monotonic", lambda: now[0])
    client = Client(backend, staging=replace(BY_HAND, max_retry_seconds=60.0))
    other = Client(ReferenceBackend(store))
    other.save("bob=1")
    backend.break_all()
    client.save("ann=1")
    assert client.deliver() == ["ann=1"]
    now[0] += 60.0
    assert (client.claim(), other.claim()) == ([], [])
    now[0] += 1.0
    assert (client.claim(), other.claim()) == ([], ["bob=1"])


def test_sent_messages_are_bounded_by_key_for_each_destination() -> None:
    sent = SentMessages(2)
    sent.add([message(f"{name}=1") for name in ("ann", "bob", "cid")], is_certain=True)
    sent.add([message("bob=2"), message("dan=1", destination=THERE)], is_certain=False)
    kept = [(message.key, bool(message.fingerprint), message.body) for message in sent.messages()]
    assert kept == [("bob", False, b""), ("cid", True, b""), ("dan", False, b"")]
    assert len(sent) == 3
    sent.clear()
    assert sent.messages() == []


def test_sent_messages_keep_all_that_a_backend_needs() -> None:
    sent, event = SentMessages(2), message("ann=1", 3, THERE, resend_after_seconds=7.0, replaces=False)
    sent.add([event], is_certain=True)
    assert sent.messages() == [event._replace(body=b"")]


# Marks


def test_mark_covers_memory_and_the_backend(client: Client, store: ReferenceStore) -> None:
    other = Client(ReferenceBackend(store))
    other.save("bob=1")
    client.save("ann=1")
    client.put("cid=1")
    assert client.outbox.mark() == Mark(2, 3)
    assert not client.flushes()
    client.deliver()
    assert client.flushes()


def test_mark_covers_messages_that_were_sent_in_an_outage_and_failed_after_it(
    client: Client, backend: UnreliableBackend
) -> None:
    backend.break_all()
    client.save("ann=1")
    assert client.claim() == ["ann=1"]
    backend.mend()
    client.outbox.save()  # the outage is over while the message flies
    client.outbox.settle((), ())
    mark = client.outbox.mark()
    assert not client.outbox.is_settled(mark)
    client.outbox.save()
    assert not client.outbox.is_settled(mark)
    assert client.deliver() == ["ann=1"]
    assert client.outbox.is_settled(mark)


def test_mark_is_settled_though_newer_messages_wait(client: Client) -> None:
    client.save("ann=1")
    mark, batch = client.outbox.mark(), client.outbox.claim({}, urgent=True).messages
    client.save("bob=1")
    assert not client.outbox.is_settled(mark)
    client.outbox.settle(batch, [])
    assert client.outbox.is_settled(mark)


def test_mark_waits_for_the_destinations_of_this_client_only(client: Client, store: ReferenceStore) -> None:
    Client(ReferenceBackend(store)).save("bob=1", destination=THERE)
    client.save("ann=1")
    mark = client.outbox.mark()
    while "ann=1" not in client.deliver():
        pass
    assert client.outbox.is_settled(mark)


def test_mark_that_the_backend_cannot_give_begins_an_outage(backend: UnreliableBackend, logged: Logged) -> None:
    client = Client(backend, staging=BY_HAND_ONCE)
    client.save("ann=1")
    backend.broken = {"status"}
    mark = client.outbox.mark()
    assert mark == Mark(1, None)
    assert not client.outbox.is_settled(mark)
    client.report.report_deferred()
    assert [line.split(" (")[0] for line in logged()] == [CANNOT]


def test_mark_of_an_outage_waits_for_memory_and_for_what_the_backend_keeps(backend: UnreliableBackend) -> None:
    client = Client(backend, staging=BY_HAND_ONCE)
    client.save("ann=1")
    backend.break_all()
    client.save("bob=1")
    mark = client.outbox.mark()
    assert mark == Mark(2, None)
    assert client.deliver() == ["bob=1"]
    assert not client.outbox.is_settled(mark)  # ann's message is not


def test_mark_of_an_outage_is_settled_once_memory_is_empty_and_the_backend_keeps_nothing(
    backend: UnreliableBackend,
) -> None:
    client = Client(backend, staging=BY_HAND_ONCE)
    backend.break_all()
    client.save("ann=1")
    mark = client.outbox.mark()
    assert not client.outbox.is_settled(mark)
    assert client.deliver() == ["ann=1"]
    assert client.outbox.is_settled(mark)


def test_mark_of_an_outage_is_settled_after_it_once_the_backend_has_nothing_left(
    client: Client, backend: UnreliableBackend
) -> None:
    backend.break_all()
    client.save("ann=1")
    mark = client.outbox.mark()
    backend.mend()
    client.outbox.save()
    assert not client.outbox.is_settled(mark)
    client.deliver()
    assert client.outbox.is_settled(mark)


# Ends


def test_abandon_drops_what_waits_in_memory_and_keeps_what_is_stored(client: Client) -> None:
    client.save("ann=1")
    client.put("bob=1")
    client.outbox.abandon()
    assert client.stats() == Stats(accepted=2, dropped=1, pending=1)
    assert client.kept() == 1
    client.save("cid=1")
    assert client.stats() == Stats(accepted=3, dropped=2, pending=1)


@pytest.mark.parametrize("works", [True, False])
def test_abandon_while_messages_are_saved_keeps_them_if_they_get_into_the_backend(
    works: bool, client: Client, backend: UnreliableBackend
) -> None:
    pause = Pause(backend, "store")
    client.put("ann=1")
    join = in_thread(client.outbox.save)
    assert pause.is_reached.wait(LONG)
    client.outbox.abandon()  # waits for nothing
    if not works:
        backend.break_all()
    pause.go_on()
    join()
    kept = int(works)
    assert client.stats() == Stats(accepted=1, pending=kept, dropped=1 - kept)
    assert client.kept() == kept


def test_stats_do_no_io(client: Client, backend: UnreliableBackend) -> None:
    client.save("ann=1")
    calls = list[str]()
    backend.before = calls.append
    assert client.stats() == Stats(accepted=1, pending=1)
    assert client.kept() == 1
    client.outbox.set_deadline(inf)
    assert calls == []


# Losses and silence


def test_store_that_was_emptied_loses_what_waited_in_it(
    client: Client, backend: UnreliableBackend, logged: Logged
) -> None:
    client.save("ann=1")
    assert client.deliver() == ["ann=1"]
    client.save("bob=1")
    backend.shared = ReferenceStore()
    client.save("cid=1")
    assert client.deliver() == ["cid=1"]
    assert client.stats() == Stats(accepted=3, delivered=2, dropped=1)
    assert client.kept() == 0
    client.report.report_deferred()
    assert logged() == ["The outbox was removed or emptied: 1 update lost"]


def test_mark_is_not_settled_by_a_store_whose_state_is_unknown(
    client: Client, backend: UnreliableBackend, logged: Logged
) -> None:
    client.put("ann=1")
    mark = client.outbox.mark()
    backend.broken = {"status"}
    client.outbox.save()
    assert (sum(client.outbox.kept()), len(client.memory)) == (1, 0)
    assert not client.outbox.is_settled(mark)
    client.report.report_deferred()
    assert logged() == [f"{CANNOT} (it is broken)"]


def test_outage_is_not_over_while_only_a_part_of_the_backend_works(
    client: Client, backend: UnreliableBackend, logged: Logged
) -> None:
    backend.broken = {"status"}
    for value in range(3):
        client.save(f"ann={value}")
        client.report.report_deferred()
    assert len(logged()) == 1
    backend.broken = set()
    client.save("ann=9")
    client.report.report_deferred()
    assert logged()[1:] == [IN_USE]


def test_account_that_the_store_has_forgotten_is_no_loss(
    client: Client, backend: UnreliableBackend, logged: Logged
) -> None:
    client.save("ann=1")
    assert client.deliver() == ["ann=1"]
    del backend.shared.counts[backend]
    assert client.claim() == []
    client.save("bob=1")
    assert client.deliver() == ["bob=1"]
    assert client.stats() == Stats(accepted=2, delivered=2)
    client.report.report_deferred()
    assert logged() == []


def test_store_that_drops_messages_at_its_own_bound_is_reported_by_number(
    backend: UnreliableBackend, logged: Logged
) -> None:
    backend.shared.max_pending = 2
    client = Client(backend)
    client.save(*(f"{number}=1" for number in range(5)))
    assert client.stats() == Stats(accepted=5, dropped=3, pending=2)
    client.report.report_deferred()
    assert logged() == [
        "The outbox has reached its own bound, and the oldest updates in it are dropped: 3 updates lost"
    ]


def test_store_that_succeeds_and_raises_all_the_same_counts_each_message_once(
    client: Client, backend: UnreliableBackend
) -> None:
    backend.after = {"store"}
    client.save("ann=1")
    backend.after = set()
    client.outbox.save()
    assert client.deliver() == ["ann=1"]
    assert client.stats().pending == 0


def test_store_that_succeeds_and_raises_counts_each_message_once_though_other_repeats_were_new(
    client: Client, backend: UnreliableBackend
) -> None:
    assert client.confirm(repeat("bob"), repeat("cid")) == ["bob", "cid"]
    backend.after = {"store"}
    client.save("ann=1")
    backend.after = set()
    client.outbox.save()
    assert client.stats() == Stats(accepted=1, pending=1)
    assert client.deliver() == ["ann=1"]
    assert client.stats() == Stats(accepted=1, delivered=1)


def test_store_that_succeeds_and_raises_all_the_same_counts_each_repeat_once(
    client: Client, backend: UnreliableBackend
) -> None:
    for name in ("ann", "bob"):
        client.put_message(message(f"{name}=A", 1, evaluation=1))
    client.outbox.save()
    client.put_message(message("cid=A", 1, evaluation=1))
    backend.after = {"store"}
    repeats = [repeat(name, 1) for name in ("ann", "bob", "cid")]
    assert client.confirm(*repeats) == ["ann", "bob"]  # memory knows one of those that the backend has counted
    backend.after = set()
    for name in ("ann", "bob"):
        client.put_message(message(f"{name}=A", 2, evaluation=1))
    client.outbox.save()
    assert client.stats() == Stats(accepted=6, unchanged=3, pending=3)
    assert client.deliver() == ["ann=A", "bob=A", "cid=A"]
    assert client.confirm(*repeats) == []
    client.flushes()
    assert client.stats() == Stats(accepted=9, delivered=3, unchanged=6)


@pytest.mark.parametrize("knows", [True, False])
def test_status_that_fails_after_a_store_counts_each_repeat_once(
    knows: bool, client: Client, backend: UnreliableBackend
) -> None:
    client.put_message(message("ann=A", 1, evaluation=1))
    client.outbox.save()
    backend.broken = {"status"}
    name = "ann" if knows else "bob"
    for key in client.confirm(repeat(name, 1)):
        client.put_message(message(f"{key}=A", 2, evaluation=1))
    backend.mend()
    client.outbox.save()
    client.deliver()
    assert client.stats() == Stats(accepted=2, delivered=2 - knows, unchanged=int(knows))


def test_account_that_the_store_has_forgotten_is_noticed_though_it_has_as_many_messages_again(
    client: Client, backend: UnreliableBackend
) -> None:
    client.save("ann=1")
    assert client.deliver() == ["ann=1"]
    del backend.shared.counts[backend]
    client.save("bob=1")
    assert client.deliver() == ["bob=1"]
    assert client.stats() == Stats(accepted=2, delivered=2)


def test_close_tells_the_backend_what_memory_has_sent_before_the_lease_is_released(
    backend: UnreliableBackend, store: ReferenceStore
) -> None:
    client, other = Client(backend, staging=BY_HAND_ONCE), Client(ReferenceBackend(store))
    other.save("ann=old", second=1)
    backend.break_all()
    client.save("ann=new", second=2)
    assert client.deliver() == ["ann=new"]
    backend.mend()
    client.outbox.close()
    assert other.claim() == []


def test_outage_may_also_be_one_of_the_lease(client: Client, backend: UnreliableBackend) -> None:
    backend.break_all()
    client.outbox.claim({}, urgent=True)
    backend.broken.add("close")
    assert client.outbox.claim({}, urgent=True) == Claim()


# With a file


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outbox.db"


def test_durable_outbox_of_a_file_survives_its_process(path: Path) -> None:
    first = Client(SQLiteBackend(str(path)))
    first.save("ann=1")
    first.outbox.close()
    second = Client(SQLiteBackend(str(path)))
    second.save("bob=1")
    assert second.deliver() == ["ann=1", "bob=1"]
    assert second.stats() == Stats(accepted=1, delivered=1)
    second.outbox.close()


def test_durable_outbox_of_a_file_knows_repeats_of_a_former_process(path: Path) -> None:
    first = Client(SQLiteBackend(str(path)))
    first.put_message(message("ann=1", evaluation=-(2**63), tail=b"+"))
    first.outbox.save()
    first.outbox.close()
    second = Client(SQLiteBackend(str(path)))
    assert second.confirm(repeat("ann", -(2**63)), repeat("bob", 1)) == ["bob"]
    assert second.deliver() == ["ann=1+"]
    second.outbox.close()
    assert second.stats() == Stats(accepted=1, unchanged=1)


def test_durable_outbox_uses_memory_while_there_is_no_file_and_the_file_afterwards(
    path: Path, logged: Logged
) -> None:
    path.mkdir()
    client = Client(SQLiteBackend(str(path)))
    client.save("ann=1")
    assert client.deliver() == ["ann=1"]
    client.save("bob=1")
    path.rmdir()
    client.save("ann=1", second=2)
    assert client.deliver() == ["bob=1"]
    client.outbox.close()
    assert client.stats() == Stats(accepted=3, delivered=2, unchanged=1)
    client.report.report_deferred()
    assert [line.split(" (")[0] for line in logged()] == [CANNOT, IN_USE]


def test_process_that_cannot_use_the_file_keeps_the_lease_until_the_file_knows_what_it_sent(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = Client(SQLiteBackend(str(path))), Client(SQLiteBackend(str(path)))
    other.save("ann=old", "cid=1", second=1)
    with monkeypatch.context() as broken:
        broken.setattr("flagsync._files.shared.connect", _raise)
        one.save("ann=new", second=2)
        assert one.deliver() == ["ann=new"]
    assert other.claim() == []
    assert one.deliver() == ["cid=1"]
    one.outbox.close()
    assert other.deliver() == []
    other.outbox.close()


def test_lease_that_nobody_holds_is_not_taken_for_a_silent_process(path: Path, logged: Logged) -> None:
    first = Client(SQLiteBackend(str(path)))
    first.save("ann=1")
    assert first.claim() == ["ann=1"]
    first.outbox.close()
    for file in path.parent.iterdir():
        os.utime(file, (0.0, 0.0))  # long ago
    second = Client(SQLiteBackend(str(path)))
    second.save("bob=1")
    assert second.deliver() == ["ann=1", "bob=1"]
    second.outbox.close()
    second.report.report_deferred()
    assert logged() == []


def _raise(*_: object) -> None:
    raise OSError("no file can be opened")


def test_default_staging_saves_in_a_tenth_of_a_second() -> None:
    assert Staging().save_seconds <= 0.1


# What is said of it


def test_outbox_that_cannot_be_used_waits_since_the_oldest_message_that_it_knew(
    client: Client, backend: UnreliableBackend
) -> None:
    client.save("ann=1", second=5)
    assert client.claim() == ["ann=1"]
    backend.break_all()
    client.save("bob=1", second=6)
    assert client.outbox.waits_since() - BEGAN == pytest.approx(5, abs=1)
    assert [outage.is_active for outage in client.outbox.outages()] == [True, False]
    assert client.outbox.outages()[0].reason.startswith(CANNOT)


def test_state_of_an_outbox_is_read_while_its_backend_hangs(client: Client, backend: UnreliableBackend) -> None:
    client.save("ann=1", second=5)
    pause = Pause(backend, "store")
    client.put("bob=1", second=6)
    join = in_thread(client.outbox.save)
    assert pause.is_reached.wait(LONG)
    assert client.outbox.waits_since() - BEGAN == pytest.approx(5, abs=1)
    assert [outage.is_active for outage in client.outbox.outages()] == [False, False]
    pause.go_on()
    join()
