"""What a durable outbox makes of the numbers of its backend."""

from collections.abc import Callable

import pytest

from flagsync._outbox.accounting import Accounting
from flagsync._outbox.backend import Status, Totals
from flagsync._report import Reporter
from flagsync._stats import Ledger

Logged = Callable[[], list[str]]


class Account:
    """An accounting with a ledger, to which statuses come."""

    def __init__(self) -> None:
        self.ledger, self.report = Ledger(), Reporter(None)
        self.known = 0  # messages that the account knows
        self.accounting = Accounting(self.ledger, self.report)

    def update(self, status: Status) -> None:
        status = status if status.account else status._replace(account=1)
        self.accounting.note_stored(max(0, status.own.accepted - self.known))
        self.known = status.own.accepted
        self.accounting.update(status)
        self.report.report_deferred(now=True)

    def counts(self) -> dict[str, int]:
        return {name: count for name, count in self.ledger.counts().items() if count}


@pytest.fixture
def account() -> Account:
    return Account()


def test_accounting_knows_nothing_at_first(account: Account) -> None:
    assert (sum(account.accounting.pending), account.counts()) == (0, {})


def test_accounting_has_the_latest_counts_in_the_ledger(account: Account) -> None:
    account.update(Status(store=1, own=Totals(accepted=9, delivered=1)))
    account.update(Status(store=1, own=Totals(accepted=9, delivered=1, unchanged=2, superseded=1, rejected=1)))
    assert account.counts() == {"delivered": 1, "unchanged": 2, "superseded": 1, "rejected": 1}
    assert sum(account.accounting.pending) == 4


def test_accounting_of_another_store_counts_what_waited_as_dropped(account: Account, logged: Logged) -> None:
    account.update(Status(store=1, own=Totals(accepted=5, delivered=2)))
    account.update(Status(store=2, own=Totals(accepted=1)))
    assert account.counts() == {"delivered": 2, "dropped": 3}
    assert sum(account.accounting.pending) == 1
    account.update(Status(store=3, own=Totals(accepted=2, delivered=2)))
    assert account.counts() == {"delivered": 4, "dropped": 4}
    assert logged() == [f"The outbox was removed or emptied: {lost} lost" for lost in ("3 updates", "1 update")]


def test_accounting_of_another_store_keeps_what_became_of_events_apart(
    account: Account, logged: Logged
) -> None:
    account.accounting.note_stored(3, 2)
    first = Totals(accepted=5, delivered=3)
    account.accounting.update(Status(store=1, account=1, own=first, own_events=Totals(accepted=2, delivered=1)))
    assert account.accounting.pending == (1, 1)
    account.accounting.update(Status(store=2, account=1))
    account.report.report_deferred(now=True)
    events = {name: count for name, count in account.ledger.events().items() if count}
    assert (account.counts(), events) == ({"delivered": 2, "dropped": 1}, {"delivered": 1, "dropped": 1})
    assert logged() == ["The outbox was removed or emptied: 2 updates lost"]


def test_accounting_of_another_store_reports_nothing_if_nothing_waited(
    account: Account, logged: Logged
) -> None:
    account.update(Status(store=1, own=Totals(accepted=5, delivered=5)))
    account.update(Status(store=2))
    assert (account.counts(), logged()) == ({"delivered": 5}, [])


def test_accounting_of_a_forgotten_account_keeps_its_counts(account: Account, logged: Logged) -> None:
    account.update(Status(store=1, own=Totals(accepted=5, delivered=3, unchanged=2)))
    account.update(Status(store=1, account=2))
    assert account.counts() == {"delivered": 3, "unchanged": 2}
    account.update(Status(store=1, account=2, own=Totals(accepted=1, delivered=1)))
    assert (account.counts(), logged()) == ({"delivered": 4, "unchanged": 2}, [])


def test_accounting_of_a_forgotten_account_counts_what_waited_as_delivered(
    account: Account, logged: Logged
) -> None:
    account.update(Status(store=1, own=Totals(accepted=5, delivered=3)))  # others have sent the rest since
    account.update(Status(store=1, account=2))
    assert (account.counts(), sum(account.accounting.pending), logged()) == ({"delivered": 5}, 0, [])


def test_accounting_reports_drops_by_the_name_of_the_store_s_bound(account: Account, logged: Logged) -> None:
    account.update(Status(store=1, own=Totals(accepted=5, dropped=2)))
    account.update(Status(store=1, own=Totals(accepted=5, dropped=2)))
    account.update(Status(store=1, own=Totals(accepted=9, dropped=3)))
    reason = "The outbox has reached its own bound, and the oldest updates in it are dropped"
    assert logged() == [f"{reason}: 2 updates lost", f"{reason}: 1 update lost"]
    assert account.counts() == {"dropped": 3}


def test_silent_lease_holder_is_reported_once_and_when_it_works_again(account: Account, logged: Logged) -> None:
    for _ in range(2):
        account.update(Status(pending=1, oldest_seconds=61.0, silent_seconds=61.0))
    [line] = logged()
    assert "no sign of life for a minute" in line
    account.update(Status(pending=1, oldest_seconds=61.0, silent_seconds=1.0))
    account.update(Status())
    assert logged()[1:] == ["The process that sends updates from the outbox works again"]


@pytest.mark.parametrize(
    "status",
    [
        Status(pending=0, oldest_seconds=0.0, silent_seconds=3600.0),
        Status(pending=1, oldest_seconds=1.0, silent_seconds=3600.0),
        Status(pending=1, oldest_seconds=3600.0, silent_seconds=1.0),
        Status(pending=1, oldest_seconds=60.0, silent_seconds=60.0),
    ],
)
def test_silence_without_old_messages_is_not_reported(status: Status, account: Account, logged: Logged) -> None:
    account.update(status)
    assert logged() == []


def test_accounting_counts_what_was_handed_over_again_once(account: Account) -> None:
    account.accounting.update(Status(store=1, account=1, own=Totals(accepted=2, delivered=2)))
    account.accounting.note_stored(2)  # the first attempt had failed, though it had stored everything
    account.accounting.update(
        Status(store=1, account=1, own=Totals(accepted=4, delivered=2, unchanged=1, superseded=1))
    )
    assert account.counts() == {"delivered": 2}


def test_accounting_counts_unchanged_messages_of_a_store_that_took_the_place_of_another(
    account: Account,
) -> None:
    account.accounting.note_stored(1)
    account.accounting.update(Status(store=1, account=1, own=Totals(accepted=1, delivered=1)))
    account.accounting.note_stored(2)  # into another store, which the next status tells
    account.accounting.update(Status(store=2, account=1, own=Totals(accepted=2, delivered=1)))
    account.accounting.note_stored(1)
    account.accounting.update(Status(store=2, account=1, own=Totals(accepted=3, delivered=1, unchanged=2)))
    assert account.counts() == {"delivered": 2, "unchanged": 2}


@pytest.mark.parametrize("twice", [0, 1])
def test_accounting_of_a_store_that_was_moved_away_and_back_continues_with_its_account(
    twice: int, account: Account
) -> None:
    home = Status(store=1, account=7, own=Totals(accepted=3 + twice, delivered=2, unchanged=twice))
    account.accounting.note_stored(3)
    account.accounting.update(home)
    account.accounting.update(Status(store=2))
    assert account.counts() == {"delivered": 2, "dropped": 1}
    account.accounting.note_stored(2)
    account.accounting.update(Status(store=2, account=1, own=Totals(accepted=2, delivered=2)))
    own = Totals(accepted=5 + twice, delivered=4, unchanged=1 + twice)
    account.accounting.note_stored(2)
    account.accounting.update(home._replace(own=own))
    assert account.counts() == {"delivered": 6, "unchanged": 1}


def test_accounting_of_a_store_that_is_back_without_the_account_keeps_its_counts(account: Account) -> None:
    account.update(Status(store=1, account=7, own=Totals(accepted=2, delivered=2)))
    account.update(Status(store=2))
    account.update(Status(store=1))
    account.update(Status(store=1, account=8, own=Totals(accepted=1, delivered=1)))
    account.update(Status(store=2, account=1, own=Totals(accepted=1, delivered=1)))
    assert account.counts() == {"delivered": 4}


def test_accounting_of_a_store_that_was_moved_away_and_back_counts_its_events_once(account: Account) -> None:
    own, events = Totals(accepted=5, delivered=3), Totals(accepted=2, delivered=1)
    home = Status(store=1, account=7, own=own, own_events=events)
    account.accounting.note_stored(3, 2)
    account.accounting.update(home)
    account.accounting.update(Status(store=2))
    assert account.ledger.events()["dropped"] == 1
    account.accounting.update(
        home._replace(own=own._replace(delivered=5), own_events=events._replace(delivered=2))
    )
    found = {name: count for name, count in account.ledger.events().items() if count}
    assert (found, account.counts()) == ({"delivered": 2}, {"delivered": 3})
