"""Calls that wait to be encoded: which of them count, how many wait, and who must wake the thread."""

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from math import inf
from typing import Any

import pytest
from flagsmith.models import Flags

from flagsync._encoding.calls import Call, Exposure
from flagsync._encoding.inbox import Inbox
from flagsync._report import Reporter
from flagsync._stats import Ledger
from flagsync.exceptions import DeliveryError
from tests.support.encoding import call
from tests.support.identifiers import Masked


class Calls:
    """An inbox, and what it counts and reports."""

    def __init__(self, max_pending: float = 1000, enough: int = 500) -> None:
        self.ledger, self.errors = Ledger(), list[DeliveryError]()
        self.report = Reporter(self.errors.append)
        self.inbox = Inbox(max_pending, enough, self.ledger, self.report)

    def add(self, *identifiers: object) -> None:
        """Add a call for each identifier; they are numbered by the time of their evaluation."""
        for identifier in identifiers:
            self.inbox.calls.append(call(identifier, at=float(self.inbox.submitted)))

    def collected(self) -> list[tuple[object, float]]:
        """Collect the calls and take them out; return identifier and number of each."""
        self.inbox.collect()
        calls = [self.inbox.pop() for _ in range(len(self.inbox))]
        return [(identifier, evaluated_at) for identifier, *_, evaluated_at in calls]

    def reported(self) -> list[str]:
        self.report.report_deferred(now=True)
        return [str(error) for error in self.errors]


class Odd:
    """An identifier whose hash raises, or whose comparison does."""

    def __init__(self, *, hashed: BaseException | None = None, compared: BaseException | None = None) -> None:
        self._hashed, self._compared = hashed, compared

    def __hash__(self) -> int:
        if self._hashed is not None:
            raise self._hashed
        return 7

    def __eq__(self, other: object) -> bool:
        if self._compared is not None:
            raise self._compared
        return self is other


def test_latest_call_of_an_identity_wins_and_goes_to_the_end() -> None:
    calls = Calls()
    calls.add("a", "b", "a", "c")
    assert calls.collected() == [("b", 1.0), ("a", 2.0), ("c", 3.0)]
    assert calls.ledger.counts()["superseded"] == 1


def test_latest_call_wins_over_one_that_was_collected_before() -> None:
    calls = Calls()
    calls.add("a")
    calls.inbox.collect()
    calls.add("a")
    assert calls.collected() == [("a", 1.0)]
    assert calls.ledger.counts()["superseded"] == 1


def test_identifiers_that_are_equal_but_of_different_types_are_different() -> None:
    calls = Calls()
    calls.add(1, True, 1.0, "1", 1)
    assert [type(identifier) for identifier, _ in calls.collected()] == [bool, float, str, int]
    assert calls.ledger.counts()["superseded"] == 1


def test_identifiers_that_do_not_show_themselves_are_different() -> None:
    calls = Calls()
    calls.add(Masked("a"), Masked("b"), Masked("a"))
    assert [str.__str__(identifier) for identifier, _ in calls.collected()] == ["b", "a"]
    assert calls.ledger.counts()["superseded"] == 1


def test_inbox_counts_calls_wherever_they_are() -> None:
    calls = Calls()
    calls.add("a", "b", "a")
    assert (calls.inbox.submitted, calls.inbox.has_calls()) == (3, True)
    calls.inbox.collect()
    calls.add("c")
    calls.inbox.count_removed()
    assert (calls.inbox.submitted, len(calls.inbox)) == (5, 2)
    calls.collected()
    assert (calls.inbox.submitted, calls.inbox.has_calls()) == (5, False)


def test_call_that_is_being_taken_is_counted_once() -> None:
    class Slow(deque[Call | Exposure]):
        def popleft(self) -> Call | Exposure:
            call = super().popleft()
            popped.set()
            counting.wait(10)
            return call

    calls, popped, counting = Calls(), threading.Event(), threading.Event()
    calls.inbox.calls = Slow()
    calls.add("u", "v")
    with ThreadPoolExecutor() as threads:
        collected = threads.submit(calls.inbox.collect)
        popped.wait(10)
        counted = threads.submit(calls.inbox.submitted_apart)
        wait([counted], timeout=0.05)  # a count that does not wait for the lock is there by now
        counting.set()
        collected.result()
        assert counted.result() == (2, 0)


def test_count_of_calls_without_the_lock_leaves_none_out() -> None:
    class Counting(deque[Call | Exposure]):
        def popleft(self) -> Call | Exposure:
            call = super().popleft()
            counts.append(calls.inbox.submitted)
            return call

    calls, counts = Calls(), list[int]()
    calls.inbox.calls = Counting()
    calls.add("u", "v")
    calls.inbox.collect()
    assert counts == [2, 2]


def test_collecting_drops_the_oldest_identities_beyond_the_bound() -> None:
    calls = Calls(max_pending=2)
    calls.add("a", "b")
    calls.inbox.collect()
    calls.add("c", "d")
    assert [identifier for identifier, _ in calls.collected()] == ["c", "d"]
    assert (calls.ledger.counts()["dropped"], calls.inbox.submitted) == (2, 4)
    assert calls.reported() == [
        "max_pending is reached, and the oldest pending updates are dropped: 2 updates lost"
    ]


def test_calls_of_one_identity_do_not_reach_the_bound_of_identities() -> None:
    calls = Calls(max_pending=2)
    calls.add(*"abababab")
    assert calls.collected() == [("a", 6.0), ("b", 7.0)]
    assert calls.ledger.counts()["dropped"] == 0


def test_keeping_the_bound_drops_the_oldest_calls() -> None:
    calls = Calls(max_pending=3)
    calls.add(*"abc")
    calls.inbox.keep_bound()
    assert calls.ledger.counts()["dropped"] == 0
    calls.add(*"de")
    calls.inbox.keep_bound()
    assert (calls.ledger.counts()["dropped"], calls.inbox.submitted) == (2, 5)
    assert [identifier for identifier, _ in calls.collected()] == ["c", "d", "e"]


class RacingCalls(deque[Call | Exposure]):
    """Calls that the encoder's thread collects just before a caller takes the oldest."""

    def popleft(self) -> Call | Exposure:
        self.clear()
        return super().popleft()


def test_keeping_the_bound_drops_nothing_that_the_thread_has_collected_meanwhile() -> None:
    calls = Calls(max_pending=1)
    calls.inbox.calls = RacingCalls()
    calls.add("a", "b")
    calls.inbox.keep_bound()
    assert calls.ledger.counts()["dropped"] == 0


def test_inbox_without_a_bound_drops_nothing() -> None:
    calls = Calls(max_pending=float("inf"))
    calls.add(*range(10_000))
    calls.inbox.keep_bound()
    assert len(calls.collected()) == 10_000


def test_removing_the_newest_call_leaves_the_others() -> None:
    calls = Calls()
    calls.add("a", "b")
    assert calls.inbox.remove_newest()
    assert calls.inbox.submitted == 2
    assert calls.collected() == [("a", 0.0)]


def test_removing_a_call_that_was_collected_meanwhile_counts_nothing() -> None:
    calls = Calls()
    calls.add("a")
    calls.inbox.collect()
    assert not calls.inbox.remove_newest()
    assert calls.inbox.submitted == 1


def test_collecting_survives_a_caller_who_keeps_the_bound_meanwhile() -> None:
    calls = Calls(max_pending=1)

    class Identifier:
        def __hash__(self) -> int:
            calls.inbox.keep_bound()  # as another thread does
            return 1

    calls.add(Identifier(), "dropped", "kept")
    assert [identifier for identifier, _ in calls.collected()] == ["kept"]
    assert (calls.ledger.counts()["dropped"], calls.inbox.submitted) == (2, 3)


def test_waiting_for_the_first_call_lets_each_attend() -> None:
    inbox = Calls(max_pending=10, enough=5).inbox
    inbox.wait_for_first()
    assert inbox.threshold.calls == 1


def test_waiting_for_enough_calls_lets_one_attend_when_there_are_enough() -> None:
    inbox = Calls(max_pending=10, enough=5).inbox
    inbox.wait_for_enough()
    assert inbox.threshold.calls == 5


def test_waiting_for_no_call_lets_one_attend_beyond_the_bound_only() -> None:
    inbox = Calls(max_pending=10, enough=5).inbox
    inbox.wait_for_none()
    assert inbox.threshold.calls == 11


@pytest.mark.parametrize(("waiting", "attend_at"), [(4, 5), (5, 11), (10, 11)])
def test_caller_who_wakes_the_thread_spares_the_next_callers_the_same(waiting: int, attend_at: int) -> None:
    calls = Calls(max_pending=10, enough=5)
    calls.add(*range(waiting))
    calls.inbox.spare_callers(calls.inbox.threshold)
    assert calls.inbox.threshold.calls == attend_at


def test_caller_who_spares_the_next_ones_late_does_not_change_what_the_thread_has_decided_since() -> None:
    calls = Calls(max_pending=10, enough=5)
    before = calls.inbox.threshold
    calls.inbox.wait_for_first()
    calls.inbox.spare_callers(before)
    assert calls.inbox.threshold.calls == 1


@pytest.mark.parametrize("wait", ["wait_for_first", "wait_for_enough", "wait_for_none"])
def test_closed_inbox_lets_each_call_attend_whatever_the_thread_does(wait: str) -> None:
    inbox = Calls().inbox
    inbox.close()
    assert (inbox.is_closed, inbox.threshold.calls) == (True, 0)
    getattr(inbox, wait)()
    assert inbox.threshold.calls == 0


def test_flags_of_a_default_handler_are_skipped_and_leave_an_earlier_call_alone(
    logged: Callable[[], list[str]],
) -> None:
    calls = Calls()
    calls.add("a")
    calls.inbox.calls.append(("a", 0, Flags(), 1.0))
    assert calls.collected() == [("a", 0.0)]
    assert (calls.ledger.counts()["skipped"], calls.ledger.counts()["superseded"]) == (1, 0)
    assert logged() == ["An identity is not mirrored: Flagsmith evaluated no flags"]


@pytest.mark.parametrize("error", [RuntimeError, IndexError, SystemExit, KeyboardInterrupt, GeneratorExit])
def test_identifier_whose_hash_raises_costs_itself_only(
    error: type[BaseException], logged: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("threading.main_thread", lambda: None)  # as in the encoder's thread
    calls = Calls()
    calls.add("a", Odd(hashed=error()), Odd(hashed=error()), "b")
    assert [identifier for identifier, _ in calls.collected()] == ["a", "b"]
    assert (calls.ledger.counts()["skipped"], calls.inbox.submitted) == (2, 4)
    assert logged() == [f"An identity is not mirrored: {error.__name__}"]


def test_identifier_whose_comparison_raises_costs_no_other_call() -> None:
    calls = Calls()
    calls.add("a", Odd(compared=SystemExit()), Odd(compared=SystemExit()), "b")
    assert [identifier for identifier, _ in calls.collected() if isinstance(identifier, str)] == ["a", "b"]
    assert calls.inbox.submitted == 4


def test_identifier_whose_comparison_raises_later_is_taken_out_like_others() -> None:
    comparing = list[BaseException]()

    class Changing:
        def __init__(self, number: int) -> None:
            self._number = number

        def __hash__(self) -> int:
            return 7

        def __eq__(self, other: object) -> bool:
            if comparing:
                raise comparing[0]
            return isinstance(other, Changing) and self._number == other._number

    calls = Calls()
    calls.add(Changing(1), Changing(2), Changing(1), "a")
    calls.inbox.collect()
    comparing.append(SystemExit())
    assert calls.collected()[-1] == ("a", 3.0)
    assert not calls.inbox.has_calls()


def test_identifier_without_a_hash_is_skipped(logged: Callable[[], list[str]]) -> None:
    calls = Calls()
    calls.add(["a"], "b")
    assert calls.collected() == [("b", 1.0)]
    assert logged() == ["An identity is not mirrored: TypeError"]


def test_flags_whose_attributes_raise_are_skipped(logged: Callable[[], list[str]]) -> None:
    class OddFlags:
        def __getattribute__(self, name: str) -> Any:
            raise SystemExit

    calls = Calls()
    odd: Any = OddFlags()
    calls.inbox.calls.append(("odd", 0, odd, 0.0))
    calls.add("a")
    assert [identifier for identifier, _ in calls.collected()] == ["a"]
    assert (calls.ledger.counts()["skipped"], logged()) == (1, ["An identity is not mirrored: SystemExit"])


def test_interrupt_of_the_main_thread_comes_through_and_costs_no_other_call(
    logged: Callable[[], list[str]],
) -> None:
    calls = Calls()
    calls.add(Odd(hashed=KeyboardInterrupt()), "a")
    with pytest.raises(KeyboardInterrupt):
        calls.inbox.collect()
    assert (calls.inbox.submitted, calls.inbox.has_calls(), logged()) == (2, True, [])
    assert calls.collected() == [("a", 1.0)]


def test_exposures_of_one_identity_all_count() -> None:
    calls = Calls()
    first, second = Exposure("a", 0, "flag", 1.0), Exposure("a", 0, "flag", 2.0)
    calls.inbox.calls += [first, second]
    calls.add("a")
    assert calls.inbox.submitted_apart() == (1, 2)
    calls.inbox.collect()
    assert calls.inbox.submitted_apart() == (1, 2)
    assert [calls.inbox.pop() for _ in range(2)] == [first, second]
    assert len(calls.inbox) == 1


def test_exposures_beyond_the_bound_are_dropped_and_counted_apart() -> None:
    calls = Calls(max_pending=1)
    calls.inbox.calls += [Exposure("a", 0, "flag", 1.0), Exposure("b", 0, "flag", 2.0)]
    calls.inbox.keep_bound()
    assert (calls.ledger.events()["dropped"], calls.inbox.submitted_apart()) == (1, (0, 2))
    calls.add("c")
    calls.inbox.collect()
    assert (calls.ledger.events()["dropped"], calls.ledger.counts()["dropped"]) == (2, 0)
    assert calls.inbox.submitted_apart() == (1, 2)


def test_inbox_waits_since_its_first_call_at_either_stage() -> None:
    calls = Calls()
    assert calls.inbox.waits_since() == inf
    calls.inbox.calls.append(Exposure("ann", 0, None, 3.0))
    calls.inbox.calls.append(call("bob", at=4.0))
    assert calls.inbox.waits_since() == 3.0
    calls.inbox.collect()
    calls.inbox.calls.append(call("cid", at=5.0))
    assert calls.inbox.waits_since() == 3.0
    calls.inbox.pop()
    assert calls.inbox.waits_since() == 4.0
    calls.inbox.pop()
    assert calls.inbox.waits_since() == 5.0
