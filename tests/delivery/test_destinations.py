"""Destinations: when each is tried again, and what is reported of its outages."""

from collections.abc import Callable

import pytest

from flagsync._delivery import destinations as module
from flagsync._delivery.answers import Answer
from flagsync._delivery.destinations import Backoff, Destinations, Health, delivery_error
from flagsync._report import Reporter
from flagsync.exceptions import DeliveryError
from tests.support.clock import Clock
from tests.support.sending import DOWN, FORBIDDEN, HERE, REFUSED, THERE, message

# Without chance.
BACKOFF = Backoff(first_seconds=2.0, max_seconds=60.0, jitter=(0.0, 0.0))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock(1000.0)
    monkeypatch.setattr(module, "monotonic", clock)
    return clock


def build(errors: list[DeliveryError] | None = None) -> tuple[Destinations, Reporter]:
    report = Reporter(errors.append if errors is not None else None)
    return Destinations("Mixpanel", BACKOFF, report), report


def waits(backoff: Backoff, answer: Answer, failures: int, *, is_closing: bool = False) -> tuple[float, float]:
    """Return the least and the most of 50 waits."""
    seconds = [backoff.seconds(answer, failures, is_closing=is_closing) for _ in range(50)]
    assert len({*seconds}) > 1
    return min(seconds), max(seconds)


# Back-off


@pytest.mark.parametrize(("failures", "seconds"), [(1, 2), (2, 4), (3, 8), (5, 32), (6, 60), (5000, 60)])
def test_backoff_doubles_from_2_to_60_seconds_plus_1_to_5_at_random(failures: int, seconds: float) -> None:
    least, most = waits(Backoff(), DOWN, failures)
    assert seconds + 1 <= least < most <= seconds + 5


@pytest.mark.parametrize(("failures", "least", "most"), [(1, 0.375, 0.875), (3, 1.125, 1.625)])
def test_backoff_of_a_client_that_closes_is_short(failures: int, least: float, most: float) -> None:
    shortest, longest = waits(Backoff(), DOWN, failures, is_closing=True)
    assert least <= shortest < longest <= most


@pytest.mark.parametrize("is_closing", [False, True])
def test_backoff_is_the_longest_at_once_where_a_person_must_act(*, is_closing: bool) -> None:
    least, most = waits(Backoff(), FORBIDDEN, 1, is_closing=is_closing)
    assert 60 <= least < most <= 65


def test_backoff_honours_the_time_that_the_service_asks_for() -> None:
    least, most = waits(Backoff(), DOWN._replace(retry_after_seconds=100), 1)
    assert 101 <= least < most <= 105


# Rests


def test_destination_rests_after_a_failure_until_its_time_has_come(clock: Clock) -> None:
    destinations, _ = build()
    assert destinations.fail(HERE, DOWN) == 1002.0
    assert destinations.resting() == {HERE: 1002.0}
    clock.now = 1001.9
    assert destinations.resting() == {HERE: 1002.0}
    clock.now = 1002.0
    assert destinations.resting() == {}


def test_each_destination_has_failures_of_its_own(clock: Clock) -> None:
    destinations, _ = build()
    for _ in range(3):
        destinations.fail(HERE, DOWN)
    destinations.fail(THERE, DOWN)
    assert destinations.resting() == {HERE: clock.now + 8, THERE: clock.now + 2}
    destinations.succeed(THERE)
    assert (destinations.health(HERE).failures, destinations.health(THERE).failures) == (3, 0)


def test_success_begins_the_backoff_anew(clock: Clock) -> None:
    destinations, _ = build()
    destinations.fail(HERE, DOWN)
    destinations.fail(HERE, DOWN)
    destinations.succeed(HERE)
    assert destinations.fail(HERE, DOWN) == clock.now + 2


def test_end_of_rests_lets_all_destinations_be_tried_at_once(clock: Clock) -> None:
    destinations, _ = build()
    for destination in (HERE, THERE):
        destinations.fail(destination, DOWN)
    destinations.close()
    assert destinations.resting() == {}
    assert destinations.health(HERE).failures == 1


def test_last_failure_is_known_until_something_is_accepted() -> None:
    destinations, _ = build()
    assert destinations.failure is None
    destinations.fail(HERE, DOWN)
    destinations.fail(THERE, FORBIDDEN)
    assert destinations.failure == FORBIDDEN
    destinations.succeed(HERE)
    assert destinations.failure is None


# Reports


def test_outage_is_reported_once_for_each_kind_of_failure_in_a_row(logged: Callable[[], list[str]]) -> None:
    errors = list[DeliveryError]()
    destinations, report = build(errors)
    for answer in (DOWN, DOWN, FORBIDDEN, FORBIDDEN, DOWN):
        destinations.fail(HERE, answer)
        destinations.report_outage(HERE, answer, [message("ann"), message("bob")])
    destinations.succeed(HERE)
    destinations.succeed(HERE)
    report.report_deferred()
    assert [(error.reason, error.count) for error in errors] == [("Down", 2), ("Forbidden", 2), ("Down", 2)]
    assert logged()[3:] == ["Mixpanel accepts updates again; failed attempts: 5"]


def test_outage_of_each_destination_is_reported() -> None:
    errors = list[DeliveryError]()
    destinations, report = build(errors)
    for destination in (HERE, THERE, HERE):
        destinations.report_outage(destination, DOWN, [message("ann")])
    report.report_deferred()
    assert len(errors) == 2


def test_new_outage_is_reported_again() -> None:
    errors = list[DeliveryError]()
    destinations, report = build(errors)
    for _ in range(2):
        destinations.report_outage(HERE, DOWN, [message("ann")])
        destinations.succeed(HERE)
    report.report_deferred()
    assert len(errors) == 2


def test_success_without_an_outage_is_not_reported(logged: Callable[[], list[str]]) -> None:
    destinations, report = build()
    destinations.fail(HERE, DOWN)
    destinations.succeed(HERE)
    report.report_deferred()
    assert logged() == []


@pytest.mark.parametrize(
    ("answer", "will_retry", "text"),
    [
        (DOWN, True, "Down: 2 updates kept and sent again later"),
        (FORBIDDEN, True, "Configuration error: Forbidden: 2 updates kept and sent again later"),
        (REFUSED, False, "Refused: 2 updates lost"),
    ],
)
def test_delivery_error_names_the_profiles_and_keeps_them_out_of_its_text(
    answer: Answer, text: str, *, will_retry: bool
) -> None:
    error = delivery_error(answer, [message("ann"), message("bob\0experiment")], will_retry=will_retry)
    assert (f"{error}", error.identifiers, error.answer) == (text, ("ann", "bob"), answer.text)
    assert (error.will_retry, error.misconfigured) == (will_retry, answer is FORBIDDEN)


def test_bisection_tries_what_was_refused_alone_last_until_that_is_true_of_all_messages() -> None:
    health = Health(Reporter(None))
    ann, bob = message("ann")._replace(version=1), message("bob")._replace(version=2)
    health.note_refused([ann])
    assert health.bisection([ann, bob])._last == [ann]
    health.note_refused([bob])
    assert health.bisection([ann, bob])._last == []
    health.note_refused([ann])
    assert health.bisection([ann, bob])._last == [ann]
