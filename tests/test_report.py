"""What a person gets to read."""

import logging
import pickle
from collections.abc import Callable

import pytest

from flagsync import _report
from flagsync._report import Reporter
from flagsync.exceptions import DeliveryError


def test_an_error_is_logged_and_then_told(logged: Callable[[], list[str]]) -> None:
    told: list[DeliveryError] = []
    error = DeliveryError(
        "Mixpanel is down", 2, will_retry=True, identifiers=("user_1", "user_2"), answer="user_1!"
    )
    Reporter(told.append).error(error)
    assert told == [error]
    assert logged() == ["Mixpanel is down: 2 updates kept and sent again later"]


def test_an_error_says_neither_who_nor_what_mixpanel_quoted() -> None:
    error = DeliveryError("Refused", 1, will_retry=False, identifiers=("user_1",), answer="user_1 is bad")
    assert str(error) == "Refused: 1 update lost"
    assert "user_1" not in repr(error)


@pytest.mark.parametrize(
    ("will_retry", "misconfigured", "level"),
    [(True, False, "WARNING"), (True, True, "ERROR"), (False, False, "ERROR")],
)
def test_what_is_lost_or_takes_a_person_is_an_error_and_what_is_late_a_warning(
    will_retry: bool, misconfigured: bool, level: str, caplog: pytest.LogCaptureFixture
) -> None:
    Reporter(None).error(DeliveryError("Something", 1, will_retry=will_retry, misconfigured=misconfigured))
    assert [record.levelname for record in caplog.records] == [level]


@pytest.mark.parametrize("raised", [LookupError, SystemExit])
def test_a_handler_of_the_log_that_raises_breaks_nothing(
    raised: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    def emit(_: logging.LogRecord) -> None:
        raise raised

    monkeypatch.setattr(logging.lastResort, "emit", emit)
    monkeypatch.setattr(_report.log, "handlers", [logging.lastResort])
    told: list[DeliveryError] = []
    error = DeliveryError("Something", 1)
    Reporter(told.append).error(error)
    assert told == [error]


def test_an_error_can_be_passed_to_another_process() -> None:
    error = DeliveryError(reason="Something", count=2, misconfigured=True, identifiers=("a",), answer="b")
    copied = pickle.loads(pickle.dumps(error))
    assert (vars(copied), copied.args) == (vars(error), ("Something", 2))
    assert (error.will_retry, error == copied, len({error, copied})) == (False, False, 2)


def test_an_interrupt_of_a_person_gets_through() -> None:
    def listener(_: DeliveryError) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Reporter(listener).error(DeliveryError("Something", 1))


@pytest.mark.parametrize("error", [LookupError("user_1"), SystemExit("user_1")])
def test_a_listener_that_raises_is_logged_by_the_kind_of_its_error(
    error: BaseException, logged: Callable[[], list[str]]
) -> None:
    def listener(_: DeliveryError) -> None:
        raise error

    Reporter(listener).error(DeliveryError("Something", 1, will_retry=False))
    assert logged() == [
        "Something: 1 update lost",
        f"on_error raised {type(error).__name__}; it is ignored",
    ]


def test_a_warning_is_said_once(logged: Callable[[], list[str]]) -> None:
    report = Reporter(None)
    for message in ("one", "two 100%", "one", "two 100%"):
        report.once(message)
    assert logged() == ["one", "two 100%"]


def test_losses_that_go_on_are_reported_at_once_then_once_a_minute_then_at_the_end(
    logged: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(_report, "monotonic", lambda: now[0])
    report = Reporter(None)
    report.losses()
    for _ in range(120):
        report.lose("Full")
        report.losses()
        now[0] += 1
    report.losses(now=True)
    report.losses(now=True)
    assert logged() == ["Full: 1 update lost", "Full: 60 updates lost", "Full: 59 updates lost"]
