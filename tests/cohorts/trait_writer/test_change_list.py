"""The change log of a store, as the sender sees it."""

from collections.abc import Callable, Collection
from math import inf
from time import monotonic

import pytest

from flagsync import DeliveryError
from flagsync._delivery.answers import Answer, Outcome
from flagsync._outbox.contract import Claim, Destination, Mark
from flagsync._report import Reporter
from flagsync._stats import Ledger
from flagsync.cohorts import LogState, StoreUnavailableError, TraitChange
from flagsync.cohorts.trait_writer.change_list import ChangeList
from flagsync.cohorts.trait_writer.pace import Pace
from flagsync.cohorts.trait_writer.service import NO_TEXT, TOO_LONG, TOO_MANY_BYTES
from tests.support.reference_store import ReferenceLog, ReferenceStore
from tests.support.updates import add, remove

FLAGSMITH = Destination("https://flagsmith.example.com/api/v1/")
SERVER_ERROR = Answer(Outcome.REFUSED, "Flagsmith does not accept traits (HTTP 500)", text="oops")


class Requests:
    """The state of the requests, as a test sets it."""

    def __init__(self) -> None:
        self.is_unsure, self.max_batch, self.slowest_seconds = False, 4, 0.0
        self.failures: dict[bytes, Answer] = {}

    def take_failures(self) -> dict[bytes, Answer]:
        failures, self.failures = self.failures, {}
        return failures


class Log(ReferenceLog):
    """A log that may be out of use or another process's, and is swept in as many steps as a test says."""

    is_down, is_leased, steps = False, True, 0

    def try_acquire_lease(self) -> bool:
        return self.is_leased

    def start(self) -> None:
        if self.is_down:
            raise StoreUnavailableError("down")
        super().start()

    def sweep(self) -> bool:
        self.steps -= 1
        return self.steps > 0

    def state(self) -> LogState:
        if self.is_down:
            raise StoreUnavailableError("down")
        return super().state()

    def settle(self, changes: Collection[TraitChange]) -> None:
        if self.is_down:
            raise StoreUnavailableError("down")
        super().settle(changes)

    def wait(self) -> dict[str, float]:
        """Let the time of all postponed changes pass; return how long each had to wait."""
        waited = {who: entry.due for (_, who), entry in self._unsettled.items() if entry.due}
        for entry in self._unsettled.values():
            entry.due = 0.0
        return waited


class Setup:
    """A list over a log, and what it is given."""

    def __init__(self) -> None:
        self.store, self.requests, self.ledger = ReferenceStore(), Requests(), Ledger()
        self.log, self.errors = Log(self.store), list[DeliveryError]()
        self.report = Reporter(self.errors.append)
        self.changes = ChangeList(
            self.log,
            FLAGSMITH,
            self.requests,
            ledger=self.ledger,
            report=self.report,
            pace=Pace(interval_seconds=60.0, max_tries=4),
        )

    def claim(self, *, urgent: bool = True) -> Claim:
        return self.changes.claim({}, urgent=urgent)

    def claimed(self) -> list[str]:
        return [message.distinct_id for message in self.claim().messages]

    def write(self, *, is_unsure: bool = False) -> list[str]:
        """Claim, and have it accepted, or get no answer."""
        messages = self.claim().messages
        self.requests.is_unsure = is_unsure
        self.changes.settle(() if is_unsure else messages, ())
        return [message.distinct_id for message in messages]

    def fail(self, *identifiers: str) -> list[str]:
        """Claim, and have some fail alone."""
        messages = self.claim().messages
        self.requests.failures = {m.body: SERVER_ERROR for m in messages if m.distinct_id in identifiers}
        self.changes.settle(messages, ())
        self.report.report_deferred()
        return [message.distinct_id for message in messages]

    def counts(self) -> tuple[int, int]:
        counts = self.ledger.counts()
        return counts["delivered"], counts["rejected"]


@pytest.fixture
def setup() -> Setup:
    return Setup()


def test_claim_waits_for_a_destination_that_rests(setup: Setup) -> None:
    setup.store.apply(add("ann"))
    assert setup.changes.claim({FLAGSMITH: 7.0}, urgent=True) == Claim(next_at=7.0)


def test_claim_is_empty_while_another_process_has_the_lease(setup: Setup) -> None:
    setup.store.apply(add("ann"))
    setup.log.is_leased = False
    assert setup.claim() == Claim()
    setup.log.is_leased = True
    assert setup.claimed() == ["ann"]


def test_claim_that_is_not_urgent_waits_for_other_changes(setup: Setup) -> None:
    setup.log.start()
    assert setup.claim(urgent=False) == Claim()
    setup.store.apply(add("ann"))
    due_at = setup.claim(urgent=False).next_at
    assert monotonic() < due_at < monotonic() + 61
    assert setup.claim(urgent=False).next_at == due_at
    setup.store.apply(add("bob", "eve", "zoe", "old"))
    assert len(setup.claim(urgent=False).messages) == 4


def test_claim_has_changes_in_their_order_and_says_whether_there_are_more(setup: Setup) -> None:
    setup.store.apply(add(*"abcdef"))
    claim = setup.claim()
    assert [message.distinct_id for message in claim.messages] == [*"abcd"]
    assert [message.version for message in claim.messages] == [1, 2, 3, 4]
    assert claim.has_more
    setup.changes.settle(claim.messages[:3], claim.messages[3:])
    claim = setup.claim()
    assert ([message.distinct_id for message in claim.messages], claim.has_more) == ([*"ef"], False)
    assert {name: setup.ledger.counts()[name] for name in ("delivered", "rejected")} == {
        "delivered": 3,
        "rejected": 1,
    }


def test_claim_leaves_a_batch_that_was_refused_as_a_whole_until_later(setup: Setup) -> None:
    setup.store.apply(add(*"abcdef"))
    setup.claim()
    setup.changes.settle((), (), last=True)
    assert setup.claimed() == [*"ef"]
    assert setup.log.wait() == dict.fromkeys("abcd", 5.0)


def test_batches_that_are_refused_as_a_whole_wait_longer_each_time_until_a_change_is_written(
    setup: Setup,
) -> None:
    setup.store.apply(add(*"abcdef"))
    waited = list[dict[str, float]]()
    for _ in range(3):
        setup.claim()
        setup.changes.settle((), (), last=True)
        waited.append(setup.log.wait())
    assert waited == [dict.fromkeys("abcd", seconds) for seconds in (5.0, 10.0, 20.0)]
    assert setup.write() == [*"abcd"]
    setup.claim()
    setup.changes.settle((), (), last=True)
    assert setup.log.wait() == dict.fromkeys("ef", 5.0)


def test_change_is_set_aside_without_being_counted_while_flagsmith_fails_on_all(setup: Setup) -> None:
    setup.store.apply(add("ann"))
    for _ in range(6):
        [message] = setup.claim().messages
        setup.requests.failures = {message.body: SERVER_ERROR._replace(outcome=Outcome.UNAVAILABLE)}
        setup.changes.settle((), ())
        assert setup.log.wait() == {"ann": 5.0}
    setup.report.report_deferred()
    assert (setup.errors, setup.counts()) == ([], (0, 0))  # the outage of Flagsmith is reported elsewhere
    assert [change.tries for change in setup.log.claim(1)] == [1]


def test_change_that_was_tried_waits_behind_others_that_were_if_it_gets_no_answer(setup: Setup) -> None:
    setup.store.apply(add("ann", "bob"))
    setup.fail("ann", "bob")
    setup.log.wait()
    setup.requests.is_unsure = True
    tried = list[str]()
    for _ in range(2):
        tried += setup.claimed()
        setup.changes.settle((), ())
    assert sorted(tried) == ["ann", "bob"]
    setup.log.wait()
    assert [change.is_unsure for change in setup.log.claim(1)] == [True]


def test_claim_ends_before_the_lease_if_that_ends_by_time(setup: Setup) -> None:
    setup.store.apply(add("ann"))
    assert setup.claim().until == inf
    setup.log.lease_seconds = 60.0
    before = monotonic()
    assert before + 55 <= setup.claim().until <= monotonic() + 55


def test_claim_waits_for_what_was_postponed(setup: Setup) -> None:
    setup.store.apply(add("ann"))
    setup.fail("ann")
    next_at = setup.claim().next_at
    assert monotonic() + 4 < next_at < monotonic() + 6


def test_claim_has_long_identifiers_next_to_each_other(setup: Setup) -> None:
    setup.store.apply(add("a" * 2000, "bob", "c" * 1500, "d"))
    assert [len(who) for who in setup.claimed()] == [1, 3, 1500, 2000]


# What is unsure


def test_unsure_change_is_written_again_later(setup: Setup) -> None:
    setup.store.apply(add("ann"))
    assert setup.write(is_unsure=True) == ["ann"]
    assert setup.write() == ["ann"]
    assert (setup.log.wait(), setup.changes.is_drained()) == ({"ann": 30.0}, False)
    assert setup.write() == ["ann"]
    assert setup.changes.is_drained()


def test_unsure_change_is_written_again_the_later_the_slower_the_server_is(setup: Setup) -> None:
    setup.requests.slowest_seconds = 90.0
    setup.store.apply(add("ann"))
    setup.write(is_unsure=True)
    setup.write()
    assert setup.log.wait() == {"ann": 360.0}


def test_unsure_change_stays_unsure_after_a_failure_that_is_sure(setup: Setup) -> None:
    setup.store.apply(add("ann"))
    setup.write(is_unsure=True)
    setup.requests.is_unsure = False
    setup.claim()
    setup.changes.settle((), ())
    setup.write()
    assert setup.log.wait() == {"ann": 30.0}


def test_unsure_change_that_is_followed_by_another_one_makes_that_unsure(setup: Setup) -> None:
    setup.store.apply(add("ann"))
    setup.write(is_unsure=True)
    setup.write()
    setup.store.apply(remove("ann"))
    assert setup.write() == ["ann"]
    assert setup.log.wait() == {"ann": 30.0}


def test_unsure_change_of_a_process_that_died_is_written_again_later(setup: Setup) -> None:
    setup.store.apply(add("ann"))
    setup.log.start()
    setup.log.claim(1)  # by the other process
    assert setup.write() == ["ann"]
    assert setup.log.wait() == {"ann": 30.0}


def test_change_that_could_not_be_taken_off_the_log_is_written_again(setup: Setup) -> None:
    setup.store.apply(add("ann"))
    messages = setup.claim().messages
    setup.log.is_down = True
    setup.changes.settle(messages, ())
    setup.log.is_down = False
    assert setup.claimed() == ["ann"]


# What Flagsmith fails on


def test_change_that_fails_alone_is_set_aside_ever_longer_and_given_up_at_last(setup: Setup) -> None:
    setup.store.apply(add("ann", "bob"))
    assert setup.fail("ann") == ["ann", "bob"]
    waited = []
    for number in range(3):
        waited.append(setup.log.wait()["ann"])
        setup.store.apply(add(f"{number}"))
        assert [setup.fail("ann"), setup.write()] == [["ann"], [f"{number}"]]
    assert (waited, setup.claimed(), setup.counts()) == ([5.0, 10.0, 20.0], [], (4, 1))
    assert [(error.identifiers, error.will_retry, error.answer) for error in setup.errors] == [
        (("ann",), True, "oops"),
        (("ann",), False, "oops"),
    ]


def test_change_is_not_given_up_while_nothing_else_is_written_either(setup: Setup) -> None:
    setup.store.apply(add("ann"))
    waited = []
    for _ in range(15):
        assert setup.fail("ann") == ["ann"]
        waited.append(setup.log.wait()["ann"])
    assert waited[-1] == waited[-2] == 3600
    setup.store.apply(add("bob"))
    assert [setup.write(), setup.fail("ann")] == [["bob"], ["ann"]]
    assert [setup.claimed(), setup.counts()] == [[], (1, 1)]


def test_change_that_was_tried_waits_behind_others_that_were_while_flagsmith_accepts_nothing(
    setup: Setup,
) -> None:
    setup.store.apply(add("ann", "bob"))
    setup.fail("ann", "bob")
    setup.log.wait()
    tried = list[str]()
    for _ in range(2):
        tried += setup.claimed()
        setup.changes.settle((), ())
    assert sorted(tried) == ["ann", "bob"]


def test_changes_that_fail_are_reported_together(setup: Setup) -> None:
    setup.store.apply(add("ann", "bob", "eve"))
    setup.fail("ann", "eve")
    assert [{*error.identifiers} for error in setup.errors] == [{"ann", "eve"}]


def test_change_that_failed_is_sent_alone(setup: Setup) -> None:
    setup.store.apply(add("ann", "bob"))
    setup.fail("ann")
    setup.log.wait()
    setup.store.apply(add("eve"))
    assert [setup.write(), setup.write()] == [["ann"], ["eve"]]


@pytest.mark.parametrize("is_rejected", [True, False])
def test_identity_that_was_refused_is_remembered_and_sent_alone(setup: Setup, *, is_rejected: bool) -> None:
    setup.store.apply(add("ann", "bob"))
    if is_rejected:
        messages = setup.claim().messages
        setup.changes.settle(messages[1:], messages[:1])
    else:
        setup.fail("ann")
    setup.store.apply(add("ann", "zoe", cohort="8", name="others"))
    assert [setup.write(), setup.write()] == [["zoe"], ["ann"]]
    setup.store.apply(add("ann", "zoe", cohort="9", name="more"))
    assert setup.write() == ["ann", "zoe"]


def test_identity_that_cannot_be_stored_is_rejected_without_a_request(setup: Setup) -> None:
    bad = "\N{CJK UNIFIED IDEOGRAPH-4E00}" * 900, "x" * 2001, "a\0b"
    good = "\N{CJK UNIFIED IDEOGRAPH-4E00}" * 896, "x" * 2000
    setup.requests.max_batch = 10
    setup.store.apply(add(*bad, *good))
    assert {*setup.write()} == {*good}
    setup.report.report_deferred()
    assert setup.counts() == (2, 3)
    assert {error.identifiers: error.reason for error in setup.errors} == {
        bad[:1]: TOO_MANY_BYTES,
        bad[1:2]: TOO_LONG,
        bad[2:]: NO_TEXT,
    }
    assert not any(error.will_retry for error in setup.errors)
    setup.store.apply(remove(*bad))
    assert setup.claimed() == []


# The end of the log


def test_outage_is_over_when_the_store_can_be_written_to(setup: Setup, logged: Callable[[], list[str]]) -> None:
    setup.log.is_down = True
    for _ in range(2):
        next_at = setup.claim().next_at
        assert monotonic() < next_at < monotonic() + 61
        setup.report.report_deferred()
    setup.log.is_down, setup.log.is_leased = False, False
    setup.claim()
    setup.report.report_deferred()
    assert logged() == [
        "The store of cohorts cannot be used (StoreUnavailableError): traits are written later",
        "The store of cohorts is in use again",
    ]


def test_mark_completes_the_log(setup: Setup) -> None:
    setup.log.steps = 3
    setup.store.apply(add("ann", "bob"))
    mark = setup.changes.mark()
    assert (mark, setup.log.steps) == (Mark(0, 2), 0)
    assert setup.changes.is_settled(mark) is False
    setup.store.apply(add("eve"))
    messages = setup.claim().messages
    setup.changes.settle(messages[:2], ())
    assert (setup.changes.is_settled(mark), setup.changes.is_drained()) == (True, False)


def test_mark_stops_completing_the_log_at_the_deadline(setup: Setup) -> None:
    setup.log.steps = 3
    setup.changes.set_deadline(-inf)
    setup.changes.mark()
    assert setup.log.steps == 2


def test_mark_of_a_store_that_is_down_is_settled_when_all_is(setup: Setup) -> None:
    setup.log.is_down = True
    mark = setup.changes.mark()
    assert setup.changes.is_settled(mark) is False
    setup.log.is_down = False
    setup.store.apply(add("ann"))
    assert setup.changes.is_settled(mark) is False
    messages = setup.claim().messages
    assert setup.changes.is_settled(mark) is False
    setup.changes.settle(messages, ())
    assert setup.changes.is_settled(mark)
