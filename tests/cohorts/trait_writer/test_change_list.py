"""The change log of a store, as the sender sees it."""

from collections.abc import Callable
from math import inf
from time import monotonic

import pytest

from flagsync._outbox.contract import Claim, Destination, Mark
from flagsync._report import Reporter
from flagsync._stats import Ledger
from flagsync.cohorts import StoreUnavailableError
from flagsync.cohorts.trait_writer.change_list import ChangeList
from flagsync.cohorts.trait_writer.pace import Pace
from tests.support.reference_store import ReferenceStore
from tests.support.updates import add, remove

FLAGSMITH = Destination("https://flagsmith.example.com/api/v1/")


class Requests:
    """The state of the requests, as a test sets it."""

    def __init__(self) -> None:
        self.is_unsure, self.max_batch = False, 4
        self.suspects = frozenset[bytes]()


class Store(ReferenceStore):
    """A store that may be out of use or another process's, and is swept in as many steps as a test says."""

    is_down, is_leased, steps = False, True, 0

    def try_acquire_lease(self) -> bool:
        return self.is_leased

    def start_log(self) -> None:
        if self.is_down:
            raise StoreUnavailableError("down")
        super().start_log()

    def sweep(self) -> bool:
        self.steps -= 1
        return self.steps > 0

    def settle(self, *arguments: object, **options: object) -> None:
        if self.is_down:
            raise StoreUnavailableError("down")
        super().settle(*arguments, **options)  # type: ignore[arg-type]


class Setup:
    """A list over a store, and what it is given."""

    def __init__(self) -> None:
        self.store, self.requests, self.ledger = Store(), Requests(), Ledger()
        self.report = Reporter(None)
        self.changes = ChangeList(
            self.store,
            FLAGSMITH,
            self.requests,
            ledger=self.ledger,
            report=self.report,
            pace=Pace(interval_seconds=60.0, min_batch=1),
        )

    def claim(self, *, urgent: bool = True) -> Claim:
        return self.changes.claim({}, urgent=urgent)

    def claimed(self) -> list[str]:
        return [message.distinct_id for message in self.claim().messages]


@pytest.fixture
def setup() -> Setup:
    return Setup()


def test_claim_waits_for_a_destination_that_rests(setup: Setup) -> None:
    setup.store.apply(add("ann"))
    assert setup.changes.claim({FLAGSMITH: 7.0}, urgent=True) == Claim(next_at=7.0)


def test_claim_is_empty_while_another_process_has_the_lease(setup: Setup) -> None:
    setup.store.apply(add("ann"))
    setup.store.is_leased = False
    assert setup.claim() == Claim()
    setup.store.is_leased = True
    assert setup.claimed() == ["ann"]


def test_claim_that_is_not_urgent_waits_for_other_changes(setup: Setup) -> None:
    setup.store.start_log()
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


def test_claim_leaves_suspects_until_the_end(setup: Setup) -> None:
    setup.store.apply(add("ann", "bob", "eve"))
    claim = setup.claim()
    setup.changes.settle((), ())
    setup.requests.suspects = frozenset([claim.messages[0].body])
    claim = setup.claim()
    assert ([message.distinct_id for message in claim.messages], claim.has_more) == (["bob"], True)
    setup.changes.settle(claim.messages, ())
    setup.changes.settle(setup.claim().messages, ())
    assert setup.claimed() == ["ann"]


def test_claim_leaves_a_batch_that_was_refused_as_a_whole_until_the_end(setup: Setup) -> None:
    setup.store.apply(add(*"abcdef"))
    setup.claim()
    setup.changes.settle((), (), last=True)
    assert setup.claimed() == [*"ef"]


def test_claim_of_a_change_that_is_undone_has_what_holds_now(setup: Setup) -> None:
    setup.store.start_log()
    setup.store.apply(add("ann"))
    [message] = setup.claim().messages
    setup.requests.suspects = frozenset([message.body])
    setup.changes.settle((), ())
    setup.store.apply(remove("ann"))
    [message] = setup.claim().messages
    assert b'"trait_value": false' in message.body


def test_claim_waits_while_a_request_of_its_own_may_be_under_way(setup: Setup) -> None:
    setup.store.apply(add("ann"))
    setup.claim()
    setup.requests.is_unsure = True
    setup.changes.settle((), ())
    next_at = setup.claim().next_at
    assert monotonic() + 20 < next_at < monotonic() + 31


def test_claim_waits_while_a_request_of_another_process_may_be_under_way(setup: Setup) -> None:
    setup.store.apply(add("ann"))
    assert setup.claimed() == ["ann"]
    setup.changes.settle((), ())
    setup.store.is_leased = False
    assert setup.claim() == Claim()
    setup.store.claim(1)  # by the other process, which dies
    setup.store.is_leased = True
    assert monotonic() + 20 < setup.claim().next_at < monotonic() + 31


def test_claim_goes_on_at_once_if_what_it_settled_could_not_be_taken_off_the_log(setup: Setup) -> None:
    setup.store.apply(add("ann"))
    messages = setup.claim().messages
    setup.store.is_down = True
    setup.changes.settle(messages, ())
    setup.store.is_down = False
    assert setup.claimed() == ["ann"]


def test_outage_is_over_when_the_store_can_be_written_to(setup: Setup, logged: Callable[[], list[str]]) -> None:
    setup.store.is_down = True
    for _ in range(2):
        next_at = setup.claim().next_at
        assert monotonic() < next_at < monotonic() + 61
        setup.report.report_deferred()
    setup.store.is_down, setup.store.is_leased = False, False
    setup.claim()
    setup.report.report_deferred()
    assert logged() == [
        "The store of cohorts cannot be used (StoreUnavailableError): traits wait",
        "The store of cohorts is in use again",
    ]


def test_mark_completes_the_log(setup: Setup) -> None:
    setup.store.steps = 3
    setup.store.apply(add("ann", "bob"))
    mark = setup.changes.mark()
    assert (mark, setup.store.steps) == (Mark(0, 2), 0)
    assert setup.changes.is_settled(mark) is False
    setup.store.apply(add("eve"))
    messages = setup.claim().messages
    setup.changes.settle(messages[:2], ())
    assert (setup.changes.is_settled(mark), setup.changes.is_drained()) == (True, False)


def test_mark_stops_completing_the_log_at_the_deadline(setup: Setup) -> None:
    setup.store.steps = 3
    setup.changes.set_deadline(-inf)
    setup.changes.mark()
    assert setup.store.steps == 2


def test_mark_of_a_store_that_is_down_is_settled_when_all_is(setup: Setup) -> None:
    setup.store.is_down = True
    mark = setup.changes.mark()
    assert setup.changes.is_settled(mark) is False
    setup.store.is_down = False
    setup.store.apply(add("ann"))
    assert setup.changes.is_settled(mark) is False
    messages = setup.claim().messages
    assert setup.changes.is_settled(mark) is False
    setup.changes.settle(messages, ())
    assert setup.changes.is_settled(mark)
