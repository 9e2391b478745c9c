"""When a backend is tried again after it has failed."""

from collections.abc import Callable

import pytest

from flagsync._outbox import outage
from flagsync._outbox.options import Staging
from flagsync._outbox.outage import BackendOutage
from flagsync._report import Reporter

STAGING = Staging(retry_seconds=1.0, max_retry_seconds=5.0)


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock."""
    now = [1000.0]
    monkeypatch.setattr(outage, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def report() -> Reporter:
    return Reporter(None)


def fail(failing: BackendOutage) -> None:
    failing.begin(OSError("the disk is full"))


def test_outage_has_not_begun_at_first(report: Reporter) -> None:
    working = BackendOutage(STAGING, report, lambda: 3)
    assert (working.is_active, working.may_use_backend()) == (False, True)


def test_outage_doubles_its_pauses_up_to_the_longest(report: Reporter, now: list[float]) -> None:
    failing = BackendOutage(STAGING, report, lambda: 3)
    pauses = list[float]()
    for _ in range(5):
        fail(failing)
        began = now[0]
        while not failing.may_use_backend():
            now[0] += 0.25
        pauses.append(now[0] - began)
    assert pauses == [1.0, 2.0, 4.0, 5.0, 5.0]


def test_outage_begins_with_the_first_pause_each_time(report: Reporter, now: list[float]) -> None:
    failing = BackendOutage(STAGING, report, lambda: 3)
    for _ in range(2):
        fail(failing)
        fail(failing)
        now[0] += 1.5
        assert not failing.may_use_backend()
        failing.end()
        assert failing.may_use_backend()
        now[0] += 4.0
    fail(failing)
    now[0] += 1.0
    assert failing.may_use_backend()
    assert failing.is_active


def test_outage_that_begins_again_at_once_goes_on_with_its_pauses(
    report: Reporter, now: list[float], logged: Callable[[], list[str]]
) -> None:
    failing = BackendOutage(STAGING, report, lambda: 3)
    began = now[0]
    while now[0] < began + 60.0:
        if failing.may_use_backend():
            failing.end()  # it stores messages, but cannot settle them
            fail(failing)
        now[0] += 0.25
    report.report_deferred()
    # After 1, 2, 4, 5, 5, … seconds
    assert logged().count("The outbox is in use again") == 13


def test_outage_is_long_after_the_longest_pause(report: Reporter, now: list[float]) -> None:
    failing = BackendOutage(STAGING, report, lambda: 3)
    fail(failing)
    now[0] += 5.0
    assert not failing.is_long()
    fail(failing)
    now[0] += 0.5
    assert failing.is_long()
    failing.end()
    fail(failing)
    assert not failing.is_long()


def test_outage_is_reported_once_with_its_cause_and_once_when_it_is_over(
    report: Reporter, now: list[float], logged: Callable[[], list[str]]
) -> None:
    failing = BackendOutage(STAGING, report, lambda: 3)
    failing.end()
    fail(failing)
    fail(failing)
    failing.end()
    failing.end()
    report.report_deferred()
    cannot = "The outbox cannot be used, and memory takes its place (the disk is full)"
    assert logged() == [f"{cannot}: 3 updates kept and sent again later", "The outbox is in use again"]


def test_attempt_begins_an_outage_and_is_made_no_more_while_it_lasts(
    report: Reporter, now: list[float]
) -> None:
    tried = BackendOutage(STAGING, report, lambda: 3)
    assert tried.attempt(lambda: 7) == 7

    def fail_once() -> int:
        raise OSError("the disk is full")

    assert tried.attempt(fail_once) is None
    assert tried.is_active
    now[0] += 100.0
    assert tried.attempt(lambda: 7) is None  # that it works again is found out by storing something
    tried.end()
    assert tried.attempt(lambda: 7) == 7
