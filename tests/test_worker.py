"""Worker: a thread that starts late, runs once, can be run by hand, stops and is joined."""

import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from math import inf
from time import monotonic
from types import FrameType

import pytest

from flagsync._report import Reporter
from flagsync._worker import Flushes, Worker, time_left
from flagsync.exceptions import DeliveryError
from tests.support.signals import interrupted

LONG = 60.0


def build(step: Callable[[], float | None]) -> Worker:
    return Worker("flagsync-test", step, Reporter(None))


def test_worker_repeats_its_step_until_it_returns_none() -> None:
    left = [3, 2, 1]
    worker = build(lambda: 0.0 if left.pop() and left else None)
    worker.run()
    assert (left, worker.is_ended) == ([], True)


def test_worker_runs_once() -> None:
    steps = list[int]()
    worker = build(lambda: steps.append(threading.get_ident()))
    assert worker.start()
    assert worker.start()
    assert worker.join(monotonic() + LONG)
    worker.run()
    assert len(steps) == 1
    assert steps[0] != threading.get_ident()


def test_worker_run_by_hand_leaves_nothing_for_its_thread() -> None:
    steps = list[int]()
    worker = build(lambda: steps.append(threading.get_ident()))
    worker.run()
    assert worker.start()
    assert steps == [threading.get_ident()]


def test_wake_up_ends_the_pause_and_is_forgotten_afterwards() -> None:
    entered, steps = threading.Semaphore(0), list[int]()

    def step() -> float | None:
        steps.append(1)
        entered.release()
        return None if worker.is_stopping else inf

    worker = build(step)
    for _ in range(3):
        worker.wake()  # before the first step, which forgets them
    worker.start()
    assert entered.acquire(timeout=LONG)
    assert entered.acquire(timeout=LONG)  # for the wake-ups before
    worker.wake()
    assert entered.acquire(timeout=LONG)
    worker.stop()
    assert worker.join(monotonic() + LONG)
    assert len(steps) == 4


def test_wait_for_ends_at_the_deadline() -> None:
    assert not build(lambda: None).wait_for(lambda: False, monotonic() + 0.01)
    assert not build(lambda: None).join(monotonic())


def test_step_that_raises_is_logged_once_and_repeated(logged: Callable[[], list[str]]) -> None:
    errors: list[BaseException] = [LookupError(), SystemExit(), LookupError()]

    def step() -> float | None:
        if errors:
            worker.wake()  # so that nobody waits for the pause
            raise errors.pop()
        return None

    worker = build(step)
    worker.start()
    assert worker.join(monotonic() + LONG)
    assert logged() == [
        "The thread flagsync-test continues after an unexpected LookupError",
        "The thread flagsync-test continues after an unexpected SystemExit",
    ]


def test_step_that_raises_ends_a_worker_that_stops() -> None:
    def step() -> float | None:
        raise LookupError

    worker = build(step)
    worker.stop()
    worker.run()
    assert worker.is_ended


def test_interrupt_in_the_main_thread_gets_through_and_ends_the_worker() -> None:
    def step() -> float | None:
        raise KeyboardInterrupt

    worker = build(step)
    with pytest.raises(KeyboardInterrupt):
        worker.run()
    assert worker.is_ended


def test_worker_copied_into_a_forked_child_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = list[int]()
    worker = build(lambda: steps.append(1))
    monkeypatch.setattr(os, "getpid", lambda: -1)
    worker.run()
    assert steps == []


def test_is_current_tells_the_own_thread_by_identity() -> None:
    told = list[bool]()
    worker = build(lambda: told.append(worker.is_current()))
    worker.run()
    assert told == [True]
    assert not worker.is_current()


def test_worker_is_not_started_where_no_thread_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    worker = build(lambda: None)
    with monkeypatch.context() as exiting:
        exiting.setattr(threading.Thread, "start", start)
        assert not worker.start()
    assert worker.start()
    assert worker.join(monotonic() + LONG)


def test_worker_runs_in_the_callers_thread_and_only_logs_where_no_thread_starts(
    monkeypatch: pytest.MonkeyPatch, logged: Callable[[], list[str]]
) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    def step() -> None:
        steps.append(threading.get_ident())
        report.report(DeliveryError("Full", 1))

    steps, errors = list[int](), list[DeliveryError]()
    report = Reporter(errors.append)
    worker = Worker("flagsync-test", step, report)
    with monkeypatch.context() as exiting:
        exiting.setattr(threading.Thread, "start", start)
        worker.start_or_run()
    assert (steps, errors, logged()) == ([threading.get_ident()], [], ["Full: 1 update lost"])


def test_worker_runs_in_its_own_thread_where_one_starts() -> None:
    steps = list[int]()
    worker = build(lambda: steps.append(threading.get_ident()))
    worker.start_or_run()
    assert worker.join(monotonic() + LONG)
    assert threading.get_ident() not in steps


def test_worker_may_be_used_by_a_signal_handler_that_interrupts_it() -> None:
    worker = build(lambda: None)

    def handler() -> None:
        worker.wake()
        worker.announce()
        worker.wait_for(lambda: False, monotonic())
        worker.stop()

    # It interrupts ``announce`` while that holds the lock.
    assert interrupted(worker.announce, "len", handler)
    assert worker.is_stopping


def test_worker_keeps_no_lock_if_a_signal_handler_raises_as_soon_as_a_caller_has_it() -> None:
    worker = build(lambda: None)

    def profile(frame: FrameType, event: str, _: object) -> None:
        if event == "c_return" and frame.f_code.co_name == "__enter__":
            raise TimeoutError

    def use() -> None:
        sys.setprofile(profile)
        with suppress(TimeoutError):
            worker.announce()
        sys.setprofile(None)

    user = threading.Thread(target=use)
    user.start()
    user.join()
    other = threading.Thread(target=worker.announce, daemon=True)
    other.start()
    other.join(LONG)
    assert not other.is_alive()


def test_flushes_let_those_go_on_who_waited_when_the_work_began() -> None:
    def step() -> float | None:
        flushes.finish(flushes.waiting())
        return None if worker.is_stopping else inf

    worker = build(step)
    flushes = Flushes(worker)
    worker.start()
    assert flushes.wait(monotonic() + LONG)
    assert not flushes.are_waiting
    worker.stop()
    assert worker.join(monotonic() + LONG)
    assert not flushes.wait(monotonic() + LONG)  # nobody works any more


def test_flush_ends_at_its_deadline() -> None:
    flushes = Flushes(build(lambda: None))
    assert not flushes.wait(monotonic() + 0.01)
    assert not flushes.are_waiting


def test_time_left_is_what_waiting_functions_accept() -> None:
    assert time_left(-inf) == 0.0
    assert time_left(inf) == threading.TIMEOUT_MAX
