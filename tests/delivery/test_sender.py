"""Sender: what is bisected, rejected, kept, sent again and given up; flushes, and the end."""

import threading
from collections.abc import Callable, Mapping
from functools import partial
from math import inf
from pathlib import Path
from time import monotonic, time

import pytest

from flagsync._delivery.answers import Answer, Outcome
from flagsync._delivery.destinations import Backoff
from flagsync._outbox.contract import Claim, Destination, Limits, Outbox
from flagsync._outbox.durable import DurableOutbox
from flagsync._outbox.memory import MemoryOutbox
from flagsync._outbox.options import Staging
from flagsync._outbox.sqlite import SQLiteBackend
from flagsync._report import Reporter
from flagsync._stats import Ledger
from flagsync.exceptions import DeliveryError
from tests.support.forks import in_child
from tests.support.sending import (
    ACCEPTED,
    AT_ONCE,
    AT_ONCE_IF_DOWN,
    DOWN,
    FORBIDDEN,
    HERE,
    LONG_SECONDS,
    NEVER,
    REFUSED,
    THERE,
    WAIT_SECONDS,
    Rig,
    accept,
    answers,
    message,
    names,
    refuse,
)

MakeOutbox = Callable[[Ledger, Reporter], Outbox]
LIMITS = Limits(flush_interval_seconds=LONG_SECONDS)


def file_outbox(path: Path, ledger: Ledger, report: Reporter) -> DurableOutbox:
    return DurableOutbox(
        MemoryOutbox(LIMITS, ledger, report),
        SQLiteBackend(str(path)),
        limits=LIMITS,
        staging=Staging(),
        ledger=ledger,
        report=report,
    )


@pytest.fixture(params=["memory", "file"])
def outbox(request: pytest.FixtureRequest, tmp_path: Path) -> MakeOutbox:
    """Makes an outbox in memory or in a file."""
    return partial(MemoryOutbox, LIMITS) if request.param == "memory" else in_file(tmp_path / "outbox")


def in_file(path: Path) -> MakeOutbox:
    return partial(file_outbox, path)


# Batches


def test_sender_sends_pending_messages_in_one_request() -> None:
    rig = Rig()
    rig.put("ann", "bob")
    rig.deliver()
    assert rig.service.requests == [["ann", "bob"]]
    assert rig.service.urls == ["here"]
    assert rig.count("delivered") == 2
    assert rig.ended.is_set()


def test_sender_waits_until_messages_have_gathered() -> None:
    with Rig(limits=Limits(max_batch_messages=2, flush_interval_seconds=LONG_SECONDS)) as rig:
        rig.put("ann")
        rig.sender.worker.wake()
        rig.put("bob")
        rig.sender.worker.wake()
        assert rig.flush()
        assert rig.service.requests == [["ann", "bob"]]


def test_sender_sends_a_message_once_its_flush_interval_is_over() -> None:
    has_come = threading.Event()

    def answer(_: list[str]) -> Answer:
        has_come.set()
        return ACCEPTED

    with Rig(answer, limits=Limits(flush_interval_seconds=0.001)) as rig:
        rig.put("ann")
        rig.sender.worker.wake()
        assert has_come.wait(WAIT_SECONDS)


def test_sender_looks_for_messages_of_other_processes_in_a_shared_outbox(tmp_path: Path) -> None:
    path, has_come = tmp_path / "outbox", threading.Event()

    def answer(texts: list[str]) -> Answer:
        if texts == ["bob"]:
            has_come.set()
        return ACCEPTED

    def make(ledger: Ledger, report: Reporter) -> Outbox:
        limits = Limits(flush_interval_seconds=0.001)
        return DurableOutbox(
            MemoryOutbox(limits, ledger, report),
            SQLiteBackend(str(path)),
            limits=limits,
            staging=Staging(),
            ledger=ledger,
            report=report,
        )

    with Rig(answer, outbox=make, look_seconds=0.01) as rig:
        rig.put("ann")
        assert rig.flush()
        other = Rig(outbox=make)
        other.put("bob")  # which wakes nobody
        assert has_come.wait(WAIT_SECONDS)
        other.outbox.close()


# Refused messages


@pytest.mark.parametrize("position", [0, 777, 1999])
def test_sender_isolates_a_bad_message_and_delivers_all_others(position: int) -> None:
    users = names(2000)
    rig = Rig(refuse(users[position]))
    rig.put(*users)
    rig.deliver()
    assert sorted(rig.service.accepted) == sorted({*users} - {users[position]})
    assert len(rig.service.requests) <= 23
    [error] = rig.errors
    assert (error.count, error.will_retry, error.misconfigured) == (1, False, False)
    assert (error.identifiers, error.answer) == ((users[position],), "missing")
    assert rig.count("rejected") == 1


def test_message_that_is_refused_with_others_is_delivered_alone() -> None:
    rig = Rig(lambda texts: REFUSED if len(texts) > 1 else ACCEPTED)
    rig.put("ann", "bob", "cid")
    rig.deliver()
    assert sorted(rig.service.accepted) == ["ann", "bob", "cid"]
    assert rig.errors == []


def test_batch_that_has_bad_messages_only_is_rejected_one_by_one() -> None:
    rig = Rig(lambda _: REFUSED)
    rig.put("ann", "bob", "cid")
    rig.deliver()
    assert (rig.service.accepted, len(rig.service.requests), rig.count("rejected")) == ([], 5, 3)
    [error] = rig.errors
    assert str(error) == "Refused: 3 updates lost"
    assert sorted(error.identifiers) == ["ann", "bob", "cid"]


def test_service_that_refuses_everything_is_reported_as_misconfigured_and_everything_is_kept(
    outbox: MakeOutbox,
) -> None:
    rig, users = Rig(answers(*[REFUSED] * 64), outbox=outbox), names(100)
    rig.put(*users)
    rig.deliver()
    assert len(rig.service.requests) == 65
    assert rig.service.accepted == users
    assert rig.count("rejected") == 0
    [error] = rig.errors
    assert (error.reason, error.count) == ("Refused, whatever is sent", 100)
    assert (error.will_retry, error.misconfigured, error.answer) == (True, True, "missing")


@pytest.mark.parametrize("place", [0, 20, 40, 99, 1000, 1999])
def test_good_message_among_bad_ones_is_found_after_a_bounded_number_of_attempts(
    outbox: MakeOutbox, place: int
) -> None:
    is_found = threading.Event()

    def answer(texts: list[str]) -> Answer:
        if texts == ["good"]:
            is_found.set()
        return ACCEPTED if is_found.is_set() else REFUSED

    users = names(max(100, place + 1))
    users[place] = "good"
    rig = Rig(answer, outbox=outbox)
    rig.put(*users)
    rig.deliver()
    assert len(rig.service.requests) < 64 * (len(users) / 20 + 1)
    assert (rig.count("delivered") + rig.count("rejected"), rig.service.accepted[0]) == (len(users), "good")


def test_every_message_is_tried_alone_again_and_again_while_everything_is_refused(outbox: MakeOutbox) -> None:
    rig, users = Rig(outbox=outbox), names(100)

    def answer(_: list[str]) -> Answer:
        return ACCEPTED if all(rig.service.requests.count([user]) > 2 for user in users) else REFUSED

    rig.service.answer = answer
    rig.put(*users)
    rig.deliver()
    assert len(rig.service.requests) < 64 * 20
    assert rig.count("delivered") + rig.count("rejected") == len(users)


def test_service_that_refuses_everything_is_not_asked_again_at_once() -> None:
    rig = Rig(lambda _: REFUSED, backoff=AT_ONCE_IF_DOWN)
    rig.put(*names(100))
    rig.deliver()
    assert len(rig.service.requests) == 64
    assert (rig.count("rejected"), rig.count("requests"), rig.count("retries")) == (0, 64, 0)
    assert rig.sender.failure is not None
    assert rig.sender.failure.reason == "Refused, whatever is sent"


@pytest.mark.parametrize("every", [2, 5, 10])
def test_many_bad_messages_among_good_ones_cost_several_batches_and_all_good_ones_arrive(every: int) -> None:
    users = names(2000 // 10 * every // 2)
    rig = Rig(refuse(*users[::every]))
    rig.put(*users)
    rig.deliver()
    assert sorted(rig.service.accepted) == sorted({*users} - {*users[::every]})
    assert rig.count("rejected") == len(users[::every])
    assert not any(error.misconfigured for error in rig.errors)


def test_refused_messages_in_a_row_do_not_block_the_good_ones_behind_them(outbox: MakeOutbox) -> None:
    bad, good = names(40, "bad"), names(200, "good")
    rig = Rig(refuse(*bad), outbox=outbox)
    rig.put(*bad, *good)
    rig.deliver()
    assert sorted(rig.service.accepted) == sorted(good)
    assert (rig.count("rejected"), rig.count("delivered")) == (40, 200)
    assert not any(error.misconfigured for error in rig.errors)


def test_whole_batch_of_refused_messages_does_not_block_the_good_ones_behind_it(outbox: MakeOutbox) -> None:
    bad, good = names(2000, "bad"), names(2000, "good")
    rig = Rig(refuse(*bad), outbox=outbox, backoff=AT_ONCE_IF_DOWN)
    rig.put(*bad, *good)
    rig.deliver()
    assert rig.service.requests[64] == good
    assert rig.count("delivered") == 2000
    # The good ones prove that those which are refused alone are bad. Of the others it is not known afterwards.
    assert (rig.errors[0].will_retry, rig.errors[0].count) == (False, rig.count("rejected"))
    assert rig.sender.failure is not None
    assert rig.sender.failure.reason == "Refused, whatever is sent"


def test_second_whole_batch_of_refused_messages_is_reported_and_good_ones_behind_it_arrive_later(
    outbox: MakeOutbox,
) -> None:
    bad, good = names(4000, "bad"), names(100, "good")
    rig = Rig(outbox=outbox)

    def answer(texts: list[str]) -> Answer:
        is_over = len(rig.service.accepted) >= len(good)  # so that the test ends
        return ACCEPTED if is_over else refuse(*bad)(texts)

    rig.service.answer = answer
    rig.put(*bad, *good)
    rig.deliver()
    assert sorted(rig.service.accepted[:100]) == sorted(good)
    misconfigured = [error for error in rig.errors if error.misconfigured]
    assert [error.reason for error in misconfigured] == ["Refused, whatever is sent"]


def test_acceptance_proves_once_that_messages_which_are_refused_alone_afterwards_are_bad() -> None:
    rig, users = Rig(backoff=AT_ONCE_IF_DOWN), names(100)

    def answer(texts: list[str]) -> Answer:
        if texts != ["ann"]:
            return REFUSED
        rig.put(*users)
        return ACCEPTED

    rig.service.answer = answer
    rig.put("ann")
    rig.deliver()
    assert len(rig.service.requests) == 1 + 64 + 64
    [error] = rig.errors  # of the first 64 requests
    assert error.count == rig.count("rejected")
    assert 0 < error.count <= 32
    assert rig.sender.failure is not None
    assert rig.sender.failure.reason == "Refused, whatever is sent"


# Failures


@pytest.mark.parametrize(("failure", "reason"), [(DOWN, "Down"), (FORBIDDEN, "Configuration error: Forbidden")])
def test_failure_keeps_everything_and_is_reported_once_until_it_is_over(
    failure: Answer, reason: str, outbox: MakeOutbox, logged: Callable[[], list[str]]
) -> None:
    rig = Rig(answers(*[failure] * 3), outbox=outbox)
    rig.put("ann", "bob")
    rig.deliver()
    assert rig.service.requests == [["ann", "bob"]] * 4
    assert (rig.count("requests"), rig.count("retries")) == (4, 3)
    assert rig.sender.failure is None
    assert [(error.count, error.will_retry) for error in rig.errors] == [(2, True)]
    assert logged() == [
        f"{reason}: 2 updates kept and sent again later",
        "Mixpanel accepts updates again; failed attempts: 3",
    ]


def test_failure_of_another_kind_is_reported_again() -> None:
    rig = Rig(answers(DOWN, FORBIDDEN, FORBIDDEN, DOWN))
    rig.put("ann")
    rig.deliver()
    assert [error.reason for error in rig.errors] == ["Down", "Forbidden", "Down"]


def test_failure_while_a_batch_is_bisected_keeps_what_was_not_accepted() -> None:
    script = iter([REFUSED, ACCEPTED, DOWN])
    rig = Rig(lambda texts: next(script, None) or refuse("bad")(texts))
    rig.put("ann", "bob", "bad", "dan")
    rig.deliver()
    assert rig.service.requests[:3] == [["ann", "bob", "bad", "dan"], ["ann", "bob"], ["bad", "dan"]]
    assert rig.service.requests[3] == ["bad", "dan"]
    assert sorted(rig.service.accepted) == ["ann", "bob", "dan"]
    assert rig.count("rejected") == 1


def test_nothing_is_rejected_if_the_service_goes_down_before_it_accepts_anything() -> None:
    rig = Rig(answers(REFUSED, REFUSED, DOWN))
    rig.put("ann", "bob")
    rig.deliver()
    assert sorted(rig.service.accepted) == ["ann", "bob"]
    assert rig.count("rejected") == 0


def test_newer_message_that_comes_during_a_failure_is_sent_in_place_of_the_older_one(
    outbox: MakeOutbox,
) -> None:
    rig = Rig(outbox=outbox)

    def answer(texts: list[str]) -> Answer:
        if texts != ["old", "bob"]:
            return ACCEPTED
        rig.outbox.put(message("ann", "new"))
        rig.outbox.save()
        return DOWN

    rig.service.answer = answer
    rig.outbox.put(message("ann", "old"))
    rig.put("bob")
    rig.deliver()
    assert rig.service.requests == [["old", "bob"], ["bob", "new"]]
    assert rig.count("superseded") == 1


def test_destination_that_is_down_does_not_hold_up_another_one(outbox: MakeOutbox) -> None:
    rig = Rig(outbox=outbox, backoff=NEVER)
    rig.service.answer = lambda _: DOWN if rig.service.urls[-1] == "here" else ACCEPTED
    rig.put("ann", destination=HERE)
    rig.put("bob", destination=THERE)
    rig.deliver()
    assert rig.service.urls == ["here", "there"]
    assert rig.service.accepted == ["bob"]


def test_resting_destination_does_not_hold_up_another_one() -> None:
    is_down, has_come = threading.Event(), threading.Event()
    limits = Limits(flush_interval_seconds=0.0)
    with Rig(limits=limits, backoff=NEVER, on_error=lambda _: is_down.set()) as rig:

        def answer(_: list[str]) -> Answer:
            if rig.service.urls[-1] == "here":
                return DOWN
            has_come.set()
            return ACCEPTED

        rig.service.answer = answer
        rig.put("ann", destination=HERE)
        rig.sender.worker.wake()
        assert is_down.wait(WAIT_SECONDS)
        rig.put("bob", destination=THERE)
        rig.sender.worker.wake()
        assert has_come.wait(WAIT_SECONDS)
        assert rig.service.urls == ["here", "there"]


def test_request_after_failures_gets_more_time() -> None:
    rig = Rig(answers(*[DOWN] * 3))
    for name in ("ann", "bob"):
        rig.put(name)
        rig.deliver()
        rig.sender = rig.new_sender(AT_ONCE)
    assert [round(seconds, 2) for seconds in rig.service.seconds] == [10, 20, 30, 30, 10]


def test_request_gets_no_more_time_than_is_left_until_the_deadline() -> None:
    rig = Rig()
    rig.put("ann")
    rig.deliver(seconds=9)
    assert 0 < rig.service.seconds[0] <= 9


# Flushes


def test_flush_waits_for_the_request_in_flight() -> None:
    is_sent, may_answer = threading.Event(), threading.Event()

    def answer(_: list[str]) -> Answer:
        is_sent.set()
        assert may_answer.wait(WAIT_SECONDS)
        return ACCEPTED

    with Rig(answer, limits=Limits(flush_interval_seconds=0.0)) as rig:
        rig.put("ann")
        rig.sender.worker.wake()
        assert is_sent.wait(WAIT_SECONDS)
        assert not rig.flush(0.01)
        may_answer.set()
        assert rig.flush()
        assert rig.service.accepted == ["ann"]


def test_flush_does_not_wait_for_messages_that_are_put_in_the_middle_of_it() -> None:
    limits = Limits(max_batch_messages=1, max_pending=1000, flush_interval_seconds=LONG_SECONDS)
    rig = Rig(limits=limits)

    def answer(texts: list[str]) -> Answer:
        if len(rig.service.requests) <= 2:
            rig.put(f"{texts[0]} again")
        return ACCEPTED

    rig.service.answer = answer
    rig.put("ann", "bob")
    with rig:
        assert rig.flush()
        assert rig.service.accepted[:2] == ["ann", "bob"]


def test_flush_is_false_at_its_deadline_while_the_service_is_down() -> None:
    with Rig(lambda _: DOWN, backoff=NEVER) as rig:
        rig.put("ann")
        assert not rig.flush(0.01)


def test_flush_is_true_once_bad_messages_are_rejected(outbox: MakeOutbox) -> None:
    with Rig(refuse("bad"), outbox=outbox) as rig:
        rig.put("ann", "bad", "bob")
        assert rig.flush()
        assert (sorted(rig.service.accepted), rig.count("rejected")) == (["ann", "bob"], 1)


def test_flush_is_false_while_postponed_messages_wait(outbox: MakeOutbox) -> None:
    bad, good, results = names(2000, "bad"), names(10, "good"), list[bool]()
    is_reported = threading.Event()

    def note(error: DeliveryError) -> None:
        if error.misconfigured:
            is_reported.set()

    with Rig(refuse(*bad), outbox=outbox, backoff=NEVER, on_error=note) as rig:
        rig.put(*bad, *good)
        thread = threading.Thread(target=lambda: results.append(rig.flush()))
        thread.start()
        assert is_reported.wait(WAIT_SECONDS)
        assert not rig.flush(0.01)
    thread.join()
    assert (results, rig.count("delivered")) == ([False], 10)


def test_flush_in_a_shared_outbox_waits_for_the_process_that_sends(tmp_path: Path) -> None:
    make = in_file(tmp_path / "outbox")
    with Rig(outbox=make, look_seconds=0.05) as one:
        one.put("ann")
        assert one.flush()  # it holds the lease from now on
        with Rig(outbox=make, look_seconds=0.05) as other:
            other.put("bob")
            thread = threading.Thread(target=one.flush)
            thread.start()
            assert other.flush()
            thread.join()
            assert (one.service.accepted, other.service.accepted) == (["ann", "bob"], [])


def test_several_flushes_may_wait_at_the_same_time() -> None:
    with Rig() as rig:
        rig.put(*names(10))
        results = list[bool]()
        threads = [threading.Thread(target=lambda: results.append(rig.flush())) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results == [True] * 5


# The end


def test_sender_ends_at_its_deadline() -> None:
    rig = Rig(lambda _: DOWN)
    rig.put("ann", "bob")
    rig.deliver(seconds=0)
    assert rig.service.requests == []
    assert rig.ended.is_set()


def test_sender_whose_deadline_comes_while_it_bisects_rejects_nothing_and_keeps_the_reason() -> None:
    rig: Rig

    def answer(_: list[str]) -> Answer:
        rig.sender.stop(monotonic())  # as a client that is closed meanwhile
        return REFUSED

    rig = Rig(answer)
    rig.put("ann", "bob")
    rig.deliver()
    assert rig.service.requests == [["ann", "bob"]]
    assert (rig.count("rejected"), rig.count("delivered"), rig.errors) == (0, 0, [])
    assert rig.sender.failure == Answer(Outcome.UNAVAILABLE, "Refused", text="missing")


class Leased(MemoryOutbox):
    """An outbox whose first claim may be sent until a time of ``time.monotonic()``."""

    def __init__(self, until: float, ledger: Ledger, report: Reporter) -> None:
        super().__init__(LIMITS, ledger, report)
        self.until = until

    def claim(self, resting: Mapping[Destination, float], *, urgent: bool) -> Claim:
        until, self.until = self.until, inf
        return super().claim(resting, urgent=urgent)._replace(until=until)


def test_sender_begins_no_request_after_the_end_of_its_lease() -> None:
    rig = Rig(outbox=partial(Leased, monotonic()))
    rig.put("ann", "bob")
    rig.deliver()
    assert rig.service.requests == [["ann", "bob"]]  # of the second claim
    assert rig.count("delivered") == 2
    [error] = rig.errors
    assert "before its lease ended" in f"{error}"


def test_sender_ends_a_request_before_its_lease_ends() -> None:
    rig = Rig(outbox=partial(Leased, monotonic() + 3.0))
    rig.put("ann")
    rig.deliver()
    [seconds] = rig.service.seconds
    assert 0.0 < seconds <= 3.0


def test_sender_waits_for_messages_until_it_is_told_that_no_more_come() -> None:
    with Rig() as rig:
        rig.sender.stop(monotonic() + LONG_SECONDS)
        assert not rig.sender.worker.join(monotonic() + 0.01)
        rig.put("ann")
        rig.sender.finish()
        assert rig.sender.worker.join(monotonic() + WAIT_SECONDS)
        assert (rig.service.accepted, rig.ended.is_set()) == (["ann"], True)


def test_closing_sender_gives_up_if_the_next_attempt_would_come_too_late() -> None:
    rig = Rig(lambda _: DOWN, backoff=NEVER)
    rig.put("ann")
    rig.deliver(seconds=3600)
    assert len(rig.service.requests) == 1
    assert rig.ended.is_set()


def test_closing_sender_tries_again_soon_after_a_short_failure() -> None:
    rig = Rig(answers(DOWN, DOWN), backoff=Backoff(first_seconds=0.01))
    rig.put("ann")
    rig.deliver()
    assert rig.service.accepted == ["ann"]


def test_closing_sender_does_not_report_that_lost_messages_are_sent_again() -> None:
    rig = Rig(lambda _: DOWN, backoff=NEVER)
    rig.put("ann")
    rig.deliver(seconds=3600)
    assert rig.errors == []
    assert rig.sender.failure == DOWN


def test_closing_sender_reports_that_messages_in_a_file_are_sent_again(tmp_path: Path) -> None:
    rig = Rig(lambda _: DOWN, backoff=NEVER, outbox=in_file(tmp_path / "outbox"))
    rig.put("ann")
    rig.deliver(seconds=3600)
    assert [(error.count, error.will_retry) for error in rig.errors] == [(1, True)]


class CountingOutbox(MemoryOutbox):
    """Counts how often it is asked for a batch."""

    claims = 0

    def claim(self, resting: Mapping[Destination, float], *, urgent: bool) -> Claim:
        self.claims += 1
        return super().claim(resting, urgent=urgent)


def test_waiting_for_the_next_attempt_is_idle_and_ends_when_the_client_is_closed() -> None:
    is_reported, outboxes = threading.Event(), list[CountingOutbox]()

    def make(ledger: Ledger, report: Reporter) -> Outbox:
        outboxes.append(CountingOutbox(Limits(flush_interval_seconds=0.0), ledger, report))
        return outboxes[-1]

    with Rig(answers(DOWN), outbox=make, backoff=NEVER, on_error=lambda _: is_reported.set()) as rig:
        rig.put("ann")
        rig.sender.worker.wake()
        assert is_reported.wait(WAIT_SECONDS)
        assert not rig.flush(0.05)
        assert outboxes[0].claims <= 4
        rig.sender.stop(monotonic() + LONG_SECONDS)
        rig.sender.finish()
        assert rig.sender.worker.join(monotonic() + WAIT_SECONDS)
        assert rig.service.accepted == ["ann"]


def test_later_stop_does_not_put_off_the_deadline() -> None:
    rig = Rig()
    rig.put("ann")
    rig.sender.stop(monotonic())
    rig.deliver()
    assert rig.service.requests == []


def interrupt(_: DeliveryError) -> None:
    raise KeyboardInterrupt


def test_sending_goes_on_after_on_error_has_raised_a_keyboard_interrupt() -> None:
    with Rig(answers(DOWN), on_error=interrupt) as rig:
        rig.put("ann")
        assert rig.flush()
        assert len(rig.errors) == 1
        rig.put("bob")
        assert rig.flush()
        assert rig.service.accepted == ["ann", "bob"]


def test_sending_goes_on_after_the_transport_has_raised_an_unexpected_error(
    logged: Callable[[], list[str]],
) -> None:
    rig = Rig()

    def answer(_: list[str]) -> Answer:
        rig.service.answer = accept
        raise SystemExit  # which no transport does

    rig.service.answer = answer
    with rig:
        rig.put("ann")
        assert not rig.flush(0.01)
        rig.put("bob")
        assert rig.flush()
        assert sorted(rig.service.accepted) == ["ann", "bob"]
    assert logged() == ["The thread flagsync-sender continues after an unexpected SystemExit"]


def test_copy_of_the_sender_in_a_forked_process_sends_nothing() -> None:
    rig = Rig()
    rig.put("ann")

    def child_sends_nothing() -> bool:
        rig.deliver()
        return not rig.service.requests and not rig.ended.is_set()

    assert in_child(child_sends_nothing)
    rig.deliver()
    assert rig.service.accepted == ["ann"]


def test_sender_with_a_deadline_that_never_comes_waits_without_a_bound() -> None:
    with Rig() as rig:
        rig.put("ann")
        assert rig.sender.flush(inf)


# What is remembered for statistics


def test_last_error_is_that_of_the_last_batch_and_gone_once_all_of_one_is_accepted() -> None:
    rig = Rig(answers(DOWN))
    seen = list[str | None]()

    def look(texts: list[str]) -> Answer:
        seen.append(rig.ledger.last_error)
        return DOWN if len(seen) == 1 else ACCEPTED

    rig.service.answer = look
    rig.put("ann")
    rig.deliver()
    assert [*seen, rig.ledger.last_error] == [None, "Down", None]


def test_last_error_of_a_batch_is_why_a_part_of_it_was_rejected() -> None:
    rig = Rig(refuse("bad"))
    rig.put("good", "bad")
    rig.deliver()
    assert rig.count("rejected") == 1
    assert rig.ledger.last_error == "Refused"


def test_batch_that_was_bisected_and_accepted_leaves_no_last_error() -> None:
    rig = Rig(lambda texts: REFUSED if len(texts) > 1 else ACCEPTED)
    rig.put("ann", "bob")
    rig.deliver()
    assert (rig.count("delivered"), rig.ledger.last_error) == (2, None)


def test_failed_requests_are_counted_by_kind() -> None:
    kinds = (DOWN._replace(error_type="503"), DOWN._replace(error_type="no_answer"))
    rig = Rig(answers(*kinds, kinds[0]))
    rig.put("ann")
    rig.deliver()
    assert rig.ledger.failures.counts() == {"503": 2, "no_answer": 1}


def test_last_success_is_when_a_request_was_accepted() -> None:
    rig, began = Rig(answers(DOWN)), time()
    rig.put("ann")
    assert rig.ledger.last_success_at is None
    rig.deliver()
    assert rig.ledger.last_success_at is not None
    assert began <= rig.ledger.last_success_at <= time()


def test_outages_of_a_sender_are_those_of_each_destination() -> None:
    rig = Rig(answers(DOWN), backoff=NEVER)
    rig.put("ann")
    rig.put("bob", destination=THERE)
    with rig:
        assert rig.flush(0.2) is False
        assert [(outage.is_active, outage.reason) for outage in rig.sender.outages()] == [
            (True, "Down"),
            (False, ""),
        ]
