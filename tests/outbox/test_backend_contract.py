"""The contract of outbox backends: what keeps it passes, and what breaks one rule fails."""

import inspect
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from flagsync._outbox.backend import Status
from flagsync._outbox.contract import Destination, Limits, Message
from flagsync._outbox.sqlite import SQLiteBackend
from flagsync.testing import contracts
from flagsync.testing.backends import OutboxBackendContract
from flagsync.testing.backends.support import connections
from tests.support.reference_backend import Last, ReferenceBackend, ReferenceStore


class TestSQLiteBackend(OutboxBackendContract):
    def make_backend(self, path: Path) -> SQLiteBackend:
        return SQLiteBackend(str(path / "outbox.db"))


class TestReferenceBackend(OutboxBackendContract):
    stores: ClassVar = defaultdict[Path, ReferenceStore](ReferenceStore)

    def make_backend(self, path: Path) -> ReferenceBackend:
        return ReferenceBackend(self.stores[path])


class LetsTheLastCallWin(ReferenceBackend):
    def is_late(self, message: Message, last: Last) -> bool:
        return False


class ForgetsUnchangedEvaluations(ReferenceBackend):
    def add(self, message: Message) -> None:
        last = self.last(message)
        before = last.evaluated_at if last is not None else 0.0
        super().add(message)
        if last is not None:
            last.evaluated_at = before


class SendsEverythingAgain(ReferenceBackend):
    def is_unchanged(self, message: Message, last: Last) -> bool:
        return False


class NeverSendsAgain(ReferenceBackend):
    def is_unchanged(self, message: Message, last: Last) -> bool:
        return super().is_unchanged(message._replace(resend_after_seconds=3600.0), last)


class ReplacesEvents(ReferenceBackend):
    def add(self, message: Message) -> None:
        super().add(message._replace(replaces=True))


class IgnoresWhatWasSent(ReferenceBackend):
    def add_sent(self, message: Message) -> None:
        pass


class TakesUncertainMessagesForAccepted(ReferenceBackend):
    def add_sent(self, message: Message) -> None:
        if message.fingerprint:
            super().add_sent(message)


class AsksTheSameDestinationAgain(ReferenceBackend):
    def claim(self, resting: Collection[Destination], limits: Limits) -> list[Message]:
        self.turn = -1
        return super().claim(resting, limits)


class DisturbsTheResting(ReferenceBackend):
    def claim(self, resting: Collection[Destination], limits: Limits) -> list[Message]:
        return super().claim((), limits)


class IgnoresBytes(ReferenceBackend):
    def claim(self, resting: Collection[Destination], limits: Limits) -> list[Message]:
        return super().claim(resting, Limits(max_batch_messages=limits.max_batch_messages))


class SettlesWhateverVersionWaits(ReferenceBackend):
    def settle(
        self,
        accepted: Collection[Message],
        rejected: Collection[Message],
        last: Collection[Message],
        deadline: float,
    ) -> None:
        super().settle(self.newest(accepted), self.newest(rejected), self.newest(last), deadline)

    def newest(self, messages: Collection[Message]) -> list[Message]:
        known = [(message, self.last(message)) for message in messages]
        return [message._replace(version=last.version) for message, last in known if last is not None]


class RemembersRejectedAsAccepted(ReferenceBackend):
    def settle(
        self,
        accepted: Collection[Message],
        rejected: Collection[Message],
        last: Collection[Message],
        deadline: float,
    ) -> None:
        super().settle(accepted, rejected, last, deadline)
        self.store([], [message._replace(body=b"") for message in rejected], deadline)


class KeepsLastMessagesInFront(ReferenceBackend):
    def move_behind(self, message: Message) -> None:
        pass


class StatusSignsIn(ReferenceBackend):
    def status(self, destinations: Collection[Destination]) -> Status:
        self.shared.next_version()
        return super().status(destinations)


class CountsNoSupersededMessages(ReferenceBackend):
    def store(self, messages: Sequence[Message], sent: Sequence[Message], deadline: float) -> None:
        super().store(messages, sent, deadline)
        self.counts["accepted"] -= self.counts.pop("superseded", 0)


class StoresPartOfWhatFails(ReferenceBackend):
    def store(self, messages: Sequence[Message], sent: Sequence[Message], deadline: float) -> None:
        for message in messages:
            message.key.encode()
            super().store([message], [], deadline)
        super().store([], sent, deadline)


class EndsKeysAtNul(ReferenceBackend):
    def store(self, messages: Sequence[Message], sent: Sequence[Message], deadline: float) -> None:
        cut = [message._replace(key=message.distinct_id) for message in messages]
        super().store(cut, sent, deadline)


class EverybodySends(ReferenceBackend):
    def try_acquire_lease(self) -> bool:
        return True


class KeepsTheLeaseWhenClosed(ReferenceBackend):
    def close(self) -> None:
        pass


BROKEN: dict[type[ReferenceBackend], str] = {
    LetsTheLastCallWin: "latest_evaluation_wins_though_it_came_first",
    ForgetsUnchangedEvaluations: "unchanged_message_counts_as_the_latest_evaluation",
    SendsEverythingAgain: "unchanged_message_is_not_stored_after_its_equal_was_accepted",
    NeverSendsAgain: "unchanged_message_is_stored_again_after_resend_after_seconds",
    ReplacesEvents: "event_waits_beside_the_one_before",
    IgnoresWhatWasSent: "sent_message_supersedes_an_older_waiting_one",
    TakesUncertainMessagesForAccepted: "empty_fingerprint_of_a_sent_message_equals_nothing",
    AsksTheSameDestinationAgain: "claim_has_one_destination_and_they_take_turns",
    DisturbsTheResting: "claim_leaves_a_resting_destination_alone",
    IgnoresBytes: "claim_has_at_most_so_many_bytes",
    SettlesWhateverVersionWaits: "settle_ends_only_the_version_that_was_claimed",
    RemembersRejectedAsAccepted: "rejected_message_is_not_remembered_as_accepted",
    KeepsLastMessagesInFront: "last_messages_wait_behind_all_others",
    StatusSignsIn: "status_changes_nothing",
    CountsNoSupersededMessages: "newer_message_replaces_a_waiting_one_and_waits_behind_all",
    StoresPartOfWhatFails: "store_that_fails_changes_nothing_at_all",
    EndsKeysAtNul: "keys_may_be_any_text",
    EverybodySends: "lease_is_held_by_one_process_at_a_time",
    KeepsTheLeaseWhenClosed: "lease_is_released_when_a_backend_is_closed",
}


def failures(make: Callable[[ReferenceStore], ReferenceBackend], path: Path) -> set[str]:
    """Run the contract by hand; return the tests that fail."""
    failed = set()
    for name, test in inspect.getmembers(OutboxBackendContract(), inspect.ismethod):
        if not name.startswith("test_"):
            continue
        stores: defaultdict[Path, ReferenceStore] = defaultdict(ReferenceStore)
        others: dict[str, Any] = dict.fromkeys([*inspect.signature(test).parameters][1:], True)
        with connections(lambda where, stores=stores: make(stores[where]), path) as connect:  # type: ignore[misc]
            try:
                test(connect, **others)
            except (AssertionError, ValueError, LookupError):
                failed.add(name.removeprefix("test_"))
    return failed


def test_contract_passes_for_the_reference_when_it_is_run_by_hand(tmp_path: Path) -> None:
    assert failures(ReferenceBackend, tmp_path) == set()


@pytest.mark.parametrize(("broken", "test"), BROKEN.items())
def test_contract_fails_for_a_backend_that_breaks_a_rule(
    broken: type[ReferenceBackend], test: str, tmp_path: Path
) -> None:
    assert test in failures(broken, tmp_path)


def test_contract_names_the_method_that_must_be_overridden(tmp_path: Path) -> None:
    with pytest.raises(NotImplementedError, match=r"OutboxBackendContract\.make_backend"):
        OutboxBackendContract().make_backend(tmp_path)


def test_contracts_of_backends_and_stores_are_in_one_module() -> None:
    assert contracts.OutboxBackendContract is OutboxBackendContract
    assert contracts.__all__ == ["MembershipStoreContract", "OutboxBackendContract"]
