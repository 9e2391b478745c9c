"""Reporter and Outage: what is logged, and what ``on_error`` gets."""

import logging
import pickle
import threading
from collections.abc import Callable

import pytest

from flagsync import _report
from flagsync._report import Outage, Reporter, described
from flagsync.exceptions import DeliveryError
from tests.support.signals import interrupted


def test_error_is_logged_and_then_passed_to_on_error(logged: Callable[[], list[str]]) -> None:
    told: list[DeliveryError] = []
    error = DeliveryError(
        "Mixpanel is down", 2, will_retry=True, identifiers=("user_1", "user_2"), answer="user_1!"
    )
    Reporter(told.append).report(error)
    assert told == [error]
    assert logged() == ["Mixpanel is down: 2 updates kept and sent again later"]


def test_error_that_affects_no_update_counts_none() -> None:
    assert str(DeliveryError("The disk is full", 0, will_retry=True)) == "The disk is full"


def test_error_message_has_no_identifier_and_no_answer() -> None:
    error = DeliveryError("Refused", 1, will_retry=False, identifiers=("user_1",), answer="user_1 is bad")
    assert str(error) == "Refused: 1 update lost"
    assert "user_1" not in repr(error)


@pytest.mark.parametrize(
    ("will_retry", "misconfigured", "level"),
    [(True, False, "WARNING"), (True, True, "ERROR"), (False, False, "ERROR")],
)
def test_level_is_error_for_losses_and_configuration_and_warning_for_delays(
    will_retry: bool, misconfigured: bool, level: str, caplog: pytest.LogCaptureFixture
) -> None:
    Reporter(None).report(DeliveryError("Something", 1, will_retry=will_retry, misconfigured=misconfigured))
    assert [record.levelname for record in caplog.records] == [level]


@pytest.mark.parametrize("raised", [LookupError, SystemExit])
def test_log_handler_that_raises_is_ignored(
    raised: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    def emit(_: logging.LogRecord) -> None:
        raise raised

    monkeypatch.setattr(logging.lastResort, "emit", emit)
    monkeypatch.setattr(_report.log, "handlers", [logging.lastResort])
    told: list[DeliveryError] = []
    error = DeliveryError("Something", 1)
    Reporter(told.append).report(error)
    assert told == [error]


def test_error_can_be_pickled() -> None:
    error = DeliveryError(reason="Something", count=2, misconfigured=True, identifiers=("a",), answer="b")
    copied = pickle.loads(pickle.dumps(error))
    assert (vars(copied), copied.args) == (vars(error), ("Something", 2))
    assert (error.will_retry, error == copied, len({error, copied})) == (False, False, 2)


def test_interrupt_in_the_main_thread_gets_through_on_error() -> None:
    def listener(_: DeliveryError) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Reporter(listener).report(DeliveryError("Something", 1))


@pytest.mark.parametrize("error", [LookupError("user_1"), SystemExit("user_1")])
def test_on_error_that_raises_is_logged_by_its_type(
    error: BaseException, logged: Callable[[], list[str]]
) -> None:
    def listener(_: DeliveryError) -> None:
        raise error

    Reporter(listener).report(DeliveryError("Something", 1, will_retry=False))
    assert logged() == [
        "Something: 1 update lost",
        f"on_error raised {type(error).__name__}, which is ignored",
    ]


def test_warn_once_logs_a_message_once(logged: Callable[[], list[str]]) -> None:
    report = Reporter(None)
    for message in ("one", "two 100%", "one", "two 100%"):
        report.warn_once(message)
    assert logged() == ["one", "two 100%"]


def test_losses_are_reported_at_once_then_once_a_minute_then_at_the_end(
    logged: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(_report, "monotonic", lambda: now[0])
    report = Reporter(None)
    report.report_deferred()
    for _ in range(120):
        report.count_loss("Full")
        report.report_deferred()
        now[0] += 1
    report.report_deferred(now=True)
    report.report_deferred(now=True)
    assert logged() == ["Full: 1 update lost", "Full: 60 updates lost", "Full: 59 updates lost"]


def test_interrupt_in_another_thread_is_logged_and_ignored(logged: Callable[[], list[str]]) -> None:
    def interrupt(_: DeliveryError) -> None:
        raise KeyboardInterrupt

    thread = threading.Thread(target=lambda: Reporter(interrupt).report(DeliveryError("Something", 1)))
    thread.start()
    thread.join()
    assert logged()[-1] == "on_error raised KeyboardInterrupt, which is ignored"


def test_interrupt_of_a_log_handler_gets_through_in_the_main_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    def emit(_: logging.LogRecord) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(logging.lastResort, "emit", emit)
    monkeypatch.setattr(_report.log, "handlers", [logging.lastResort])
    with pytest.raises(KeyboardInterrupt):
        Reporter(None).log("Something")


def test_deferred_problems_are_reported_in_their_order(logged: Callable[[], list[str]]) -> None:
    errors = list[DeliveryError]()
    report = Reporter(errors.append)
    report.defer("one")
    report.defer(DeliveryError("two", 2))
    assert logged() == []
    report.report_deferred()
    report.report_deferred()
    assert logged() == ["one", "two: 2 updates lost"]
    assert [error.reason for error in errors] == ["two"]


def test_losses_reported_by_two_threads_at_once_are_neither_lost_nor_repeated() -> None:
    counts, together = list[int](), threading.Barrier(2)
    report = Reporter(lambda error: counts.append(error.count), repeat_seconds=0.0)

    def work() -> None:
        together.wait()
        for _ in range(2000):
            report.count_loss("Full")
            report.report_deferred()

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    report.report_deferred(now=True)
    assert sum(counts) == 4000


def test_loss_may_be_counted_by_a_signal_handler_that_interrupts_counting() -> None:
    errors = list[DeliveryError]()
    report = Reporter(errors.append)
    report.count_loss("Full")
    assert interrupted(lambda: report.count_loss("Closed"), "get", lambda: report.count_loss("Full"))
    report.report_deferred()
    assert [(error.reason, error.count) for error in errors] == [("Full", 2), ("Closed", 1)]


def test_outage_is_reported_once_for_each_kind_and_once_when_it_ends(logged: Callable[[], list[str]]) -> None:
    report = Reporter(None)
    outage = Outage(report)
    outage.end("works")
    for kind in ("down", "down", "refused", "down"):
        outage.begin(f"is {kind}", kind)
    assert outage.is_active
    outage.end("works")
    outage.end("works")
    assert not outage.is_active
    report.report_deferred()
    assert logged() == ["is down", "is refused", "is down", "works"]


def test_warning_of_a_kind_is_logged_once_whatever_it_says(logged: Callable[[], list[str]]) -> None:
    report = Reporter(None)
    for message, kind in (("one", "first"), ("two", "first"), ("three", "second"), ("three", "second")):
        report.warn_once(message, kind)
    assert logged() == ["one", "three"]


@pytest.mark.parametrize(
    ("raised", "text"),
    [
        (KeyError("tier"), "KeyError: 'tier'"),
        (ValueError(), "ValueError"),
        (ValueError("one\n  two"), "ValueError: one two"),
        (ValueError("x" * 1000), f"ValueError: {'x' * 200}"),
        (ValueError("no user ann"), "ValueError: no user …"),
    ],
    ids=["text", "no text", "lines", "long", "secret"],
)
def test_described_exception_has_its_type_and_text_without_a_secret(raised: Exception, text: str) -> None:
    assert described(raised, "ann") == text


class MuteError(Exception):
    """Raises when its text is asked for."""

    def __str__(self) -> str:
        raise self.args[0]


def test_described_exception_whose_text_raises_has_its_type() -> None:
    assert described(MuteError(SystemExit())) == "MuteError"


def test_interrupt_of_the_main_thread_gets_through_a_description() -> None:
    with pytest.raises(KeyboardInterrupt):
        described(MuteError(KeyboardInterrupt()))


def test_outage_lasts_from_its_first_failure_until_it_works(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(_report, "monotonic", lambda: now[0])
    outage = Outage(Reporter(None))
    assert outage.seconds == 0.0
    outage.begin("down")
    now[0] += 5
    outage.begin("down again", "otherwise")
    assert (outage.seconds, outage.reason) == (5.0, "down again")
    outage.end("works")
    assert outage.seconds == 0.0


def test_outage_says_what_happened_without_the_count_and_whether_it_needs_action() -> None:
    outage = Outage(Reporter(None))
    outage.begin(DeliveryError("Wrong token", 3, will_retry=True, misconfigured=True, identifiers=("ann",)))
    assert (outage.reason, outage.needs_action) == ("Wrong token", True)
    outage.begin(DeliveryError("Down", 3, will_retry=True))
    assert (outage.reason, outage.needs_action) == ("Down", False)
