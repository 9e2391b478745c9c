"""Ledger and Stats: the counts add up, whatever is counted when."""

import threading
from math import inf
from time import monotonic

import pytest

from flagsync import Stats
from flagsync._stats import OUTCOMES, Counts, ExposureStats, Ledger, age, exposure_stats_of, stats_of
from tests.support.signals import interrupted


def test_ledger_counts_outcomes_of_this_process_and_of_a_shared_store() -> None:
    ledger = Ledger()
    ledger.count("delivered", 2)
    ledger.count("skipped")
    ledger.count("requests", 3)
    ledger.set_stored({"delivered": 5, "unchanged": 1, "pending": 4})
    assert stats_of(ledger.counts(), submitted=20) == Stats(
        accepted=19, delivered=7, unchanged=1, pending=11, skipped=1, requests=3
    )


def test_given_up_calls_count_as_dropped_but_for_those_that_a_store_keeps() -> None:
    ledger = Ledger()
    ledger.count("dropped")
    stats = stats_of(ledger.counts(), submitted=10, kept=4)
    assert (stats.pending, stats.dropped) == (4, 6)


def test_stored_counts_are_replaced_as_a_whole() -> None:
    ledger = Ledger()
    ledger.set_stored({"delivered": 5})
    ledger.set_stored({"rejected": 1})
    assert stats_of(ledger.counts(), submitted=1) == Stats(accepted=1, rejected=1)


def test_ledger_loses_no_count_of_threads_that_count_at_once() -> None:
    ledger, together = Ledger(), threading.Barrier(4)

    def work() -> None:
        together.wait()
        for _ in range(5000):
            ledger.count("delivered")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ledger.counts()["delivered"] == 20_000


def test_ledger_may_be_used_by_a_signal_handler_that_interrupts_it() -> None:
    ledger = Ledger()
    assert interrupted(ledger.counts, "copy", lambda: ledger.count("delivered", 2))
    assert ledger.counts()["delivered"] == 2


def test_accepted_is_the_sum_of_all_outcomes_and_pending() -> None:
    ledger = Ledger()
    for number, outcome in enumerate(OUTCOMES):
        ledger.count(outcome, number)
    stats = stats_of(ledger.counts(), submitted=50)
    assert stats.accepted == sum(getattr(stats, outcome) for outcome in OUTCOMES) + stats.pending == 50


def test_exposures_are_counted_apart_from_calls() -> None:
    ledger = Ledger()
    ledger.count("delivered", 2, is_event=True)
    ledger.count("skipped", is_event=True)
    ledger.count("delivered", 5)
    ledger.set_stored({"delivered": 1}, {"delivered": 3, "rejected": 1, "pending": 9})
    exposures = exposure_stats_of(ledger.events(), submitted=20)
    assert exposures == ExposureStats(accepted=19, delivered=5, rejected=1, pending=13, skipped=1)
    stats = stats_of(ledger.counts(), submitted=6, exposures=exposures)
    assert stats == Stats(accepted=6, delivered=6, exposures=exposures)


def test_given_up_exposures_count_as_dropped_but_for_those_that_a_store_keeps() -> None:
    exposures = exposure_stats_of(Ledger().events(), submitted=10, kept=4)
    assert exposures == ExposureStats(accepted=10, dropped=6, pending=4)


def test_stats_are_equal_if_their_counts_are() -> None:
    moments = {"oldest_seconds": 1.0, "last_success_at": 2.0, "last_error": "down"}
    assert stats_of(Ledger().counts(), 3, **moments) == Stats(accepted=3, pending=3)  # type: ignore[arg-type]


def test_age_is_that_of_a_moment_and_never_below_zero() -> None:
    assert age(monotonic() - 5) == pytest.approx(5, abs=1)
    assert (age(monotonic() + 5), age(inf)) == (0.0, 0.0)


def test_tally_loses_no_count_of_threads_that_count_at_once() -> None:
    tally, together = Counts(), threading.Barrier(4)

    def work() -> None:
        together.wait()
        for _ in range(5000):
            tally.count("503")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tally.count("401")
    assert tally.counts() == {"503": 20_000, "401": 1}


def test_tally_may_be_used_by_a_signal_handler_that_interrupts_it() -> None:
    tally = Counts()
    assert interrupted(tally.counts, "copy", lambda: tally.count("503"))
    assert tally.counts() == {"503": 1}
