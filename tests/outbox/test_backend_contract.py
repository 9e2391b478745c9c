"""The contract of outbox backends: what keeps it passes, and what breaks one rule fails."""

import inspect
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from itertools import product
from math import inf
from pathlib import Path
from time import time
from typing import Any, ClassVar

import pytest

from flagsync._outbox.backend import Status
from flagsync._outbox.contract import Destination, Limits, Message, Repeat
from flagsync._outbox.options import StoreBounds
from flagsync._outbox.postgres import PostgresBackend
from flagsync._outbox.sqlite import SQLiteBackend
from flagsync.testing import contracts
from flagsync.testing.backends import OutboxBackendContract
from flagsync.testing.backends.support import HERE, connections
from tests.support.postgres import PostgresServer, schema_of
from tests.support.reference_backend import Last, ReferenceBackend, ReferenceStore


class TestSQLiteBackend(OutboxBackendContract):
    def make_backend(self, path: Path) -> SQLiteBackend:
        return SQLiteBackend(str(path / "outbox.db"))


class TestSQLiteBackendThatPrunesAllTheTime(OutboxBackendContract):
    def make_backend(self, path: Path) -> SQLiteBackend:
        return SQLiteBackend(str(path / "outbox.db"), StoreBounds(prune_seconds=-1.0, prune_rows=1))


class TestPostgresBackend(OutboxBackendContract):
    @pytest.fixture(autouse=True)
    def server(self, postgres: PostgresServer) -> None:
        self.url = postgres.url()

    def make_backend(self, path: Path) -> PostgresBackend:
        return PostgresBackend(self.url, schema_of(path))


class TestPostgresBackendThatPrunesAllTheTime(TestPostgresBackend):
    def make_backend(self, path: Path) -> PostgresBackend:
        bounds = StoreBounds(prune_seconds=-1.0, prune_rows=1)
        return PostgresBackend(self.url, schema_of(path), bounds=bounds)


class TestPostgresBackendThatMakesShortCalls(TestPostgresBackend):
    def make_backend(self, path: Path) -> PostgresBackend:
        return PostgresBackend(self.url, schema_of(path), bounds=StoreBounds(call_messages=1))


class TestReferenceBackend(OutboxBackendContract):
    stores: ClassVar = defaultdict[Path, ReferenceStore](ReferenceStore)

    def make_backend(self, path: Path) -> ReferenceBackend:
        return ReferenceBackend(self.stores[path])


class LetsTheLastCallWin(ReferenceBackend):
    def is_late(self, message: Message | Repeat, last: Last) -> bool:
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
    def claim(self, resting: Collection[Destination], limits: Limits) -> Sequence[Message]:
        self.turn = -1
        return super().claim(resting, limits)


class DisturbsTheResting(ReferenceBackend):
    def claim(self, resting: Collection[Destination], limits: Limits) -> Sequence[Message]:
        return super().claim((), limits)


class IgnoresBytes(ReferenceBackend):
    def claim(self, resting: Collection[Destination], limits: Limits) -> Sequence[Message]:
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
        self.store([], [message._replace(body=b"") for message in rejected], [], deadline)


class KeepsLastMessagesInFront(ReferenceBackend):
    def move_behind(self, message: Message) -> None:
        pass


class StatusSignsIn(ReferenceBackend):
    def status(self, destinations: Collection[Destination]) -> Status:
        self.shared.next_version()
        return super().status(destinations)


class CountsNoSupersededMessages(ReferenceBackend):
    def store(
        self, messages: Sequence[Message], sent: Sequence[Message], repeats: Sequence[Repeat], deadline: float
    ) -> Sequence[Repeat]:
        new = super().store(messages, sent, repeats, deadline)
        self.counts["accepted"] -= self.counts.pop("superseded", 0)
        return new


class StoresPartOfWhatFails(ReferenceBackend):
    def store(
        self, messages: Sequence[Message], sent: Sequence[Message], repeats: Sequence[Repeat], deadline: float
    ) -> Sequence[Repeat]:
        for message in messages:
            message.key.encode()
            super().store([message], [], [], deadline)
        return super().store([], sent, repeats, deadline)


class EndsKeysAtNul(ReferenceBackend):
    def store(
        self, messages: Sequence[Message], sent: Sequence[Message], repeats: Sequence[Repeat], deadline: float
    ) -> Sequence[Repeat]:
        cut = [message._replace(key=message.distinct_id) for message in messages]
        return super().store(cut, sent, repeats, deadline)


class EverybodySends(ReferenceBackend):
    def try_acquire_lease(self) -> bool:
        return True


class KeepsTheLeaseWhenClosed(ReferenceBackend):
    def close(self) -> None:
        pass


class TakesAnyEvaluationForTheLast(ReferenceBackend):
    def is_repeat(self, repeat: Repeat, last: Last) -> bool:
        return self.is_current(last, last.resend_after_seconds)


class TakesUnknownEvaluationsForTheLast(ReferenceBackend):
    def is_repeat(self, repeat: Repeat, last: Last) -> bool:
        return super().is_repeat(repeat, replace(last, evaluation=last.evaluation or 0))


class KnowsAllEvaluationsOfAKey(ReferenceBackend):
    def __init__(self, store: ReferenceStore) -> None:
        super().__init__(store)
        self.known = set[tuple[str, int | None]]()

    def remember(self, message: Message, version: int, accepted_at: float = -inf) -> None:
        super().remember(message, version, accepted_at)
        self.known.add((message.key, message.evaluation))

    def is_repeat(self, repeat: Repeat, last: Last) -> bool:
        known = (repeat.key, repeat.evaluation) in self.known
        return super().is_repeat(repeat, replace(last, evaluation=repeat.evaluation) if known else last)


class KnowsItsOwnEvaluationsOnly(KnowsAllEvaluationsOfAKey):
    def is_repeat(self, repeat: Repeat, last: Last) -> bool:
        return (repeat.key, repeat.evaluation) in self.known and ReferenceBackend.is_repeat(self, repeat, last)


class ForgetsWhenRepeatsWereEvaluated(ReferenceBackend):
    def touch(self, last: Last, message: Message | Repeat) -> None:
        if isinstance(message, Message):
            super().touch(last, message)


class LetsEarlyRepeatsMoveTheTimeBack(ReferenceBackend):
    def touch(self, last: Last, message: Message | Repeat) -> None:
        if isinstance(message, Repeat):
            last.evaluated_at = -inf  # evaluations of tests may lie before the start of the machine
        super().touch(last, message)


class ForgetsTheEvaluationOfUnchangedMessages(ReferenceBackend):
    def touch(self, last: Last, message: Message | Repeat) -> None:
        super().touch(last, message._replace(evaluation=last.evaluation or 0))


class NeverLetsRepeatsBeSentAgain(ReferenceBackend):
    def is_repeat(self, repeat: Repeat, last: Last) -> bool:
        return super().is_repeat(repeat, replace(last, resend_after_seconds=3600.0))


class LetsRepeatsOfWaitingMessagesBeSentAgain(ReferenceBackend):
    def is_repeat(self, repeat: Repeat, last: Last) -> bool:
        was_accepted = time() - last.accepted_at < last.resend_after_seconds
        return was_accepted and super().is_repeat(repeat, last)


class ConfirmsRejectedMessages(ReferenceBackend):
    def is_current(self, last: Last, resend_after_seconds: float) -> bool:
        return last.accepted_at == -inf or super().is_current(last, resend_after_seconds)


class ConfirmsEverything(ReferenceBackend):
    def store(
        self, messages: Sequence[Message], sent: Sequence[Message], repeats: Sequence[Repeat], deadline: float
    ) -> Sequence[Repeat]:
        super().store(messages, sent, repeats, deadline)
        return []


class ConfirmsNothing(ReferenceBackend):
    def confirm(self, repeat: Repeat) -> bool:
        return False


class ReturnsRepeatsThatItCounts(ReferenceBackend):
    def store(
        self, messages: Sequence[Message], sent: Sequence[Message], repeats: Sequence[Repeat], deadline: float
    ) -> Sequence[Repeat]:
        super().store(messages, sent, repeats, deadline)
        return repeats


class CountsNoRepeats(ReferenceBackend):
    def confirm(self, repeat: Repeat) -> bool:
        before = self.counts.copy()
        is_known = super().confirm(repeat)
        self.counts.clear()
        self.counts.update(before)
        return is_known


class CountsRepeatsThatAreNew(ReferenceBackend):
    def confirm(self, repeat: Repeat) -> bool:
        if not (is_known := super().confirm(repeat)):
            self.counts.update(["accepted", "superseded"])
        return is_known


class ConfirmsBeforeItStores(ReferenceBackend):
    def store(
        self, messages: Sequence[Message], sent: Sequence[Message], repeats: Sequence[Repeat], deadline: float
    ) -> Sequence[Repeat]:
        new = super().store([], [], repeats, deadline)
        super().store(messages, sent, [], deadline)
        return new


class ConfirmsWhatFails(ReferenceBackend):
    def store(
        self, messages: Sequence[Message], sent: Sequence[Message], repeats: Sequence[Repeat], deadline: float
    ) -> Sequence[Repeat]:
        new = super().store([], [], repeats, deadline)
        "".join(message.key for message in messages).encode()
        super().store(messages, sent, [], deadline)
        return super().store([], [], new, deadline)


class MixesDestinations(ReferenceBackend):
    def last(self, message: Message | Repeat) -> Last | None:
        found = super().last(message)
        if found is None and isinstance(message, Repeat):
            found = super().last(message._replace(destination=HERE))
        return found


class EndsKeysOfRepeatsAtNul(ReferenceBackend):
    def confirm(self, repeat: Repeat) -> bool:
        return super().confirm(repeat._replace(key=repeat.key.partition("\0")[0]))


class LosesTails(ReferenceBackend):
    def add(self, message: Message) -> None:
        super().add(message._replace(tail=b""))


class GivesAllOfACallTheSameTail(ReferenceBackend):
    def store(
        self, messages: Sequence[Message], sent: Sequence[Message], repeats: Sequence[Repeat], deadline: float
    ) -> Sequence[Repeat]:
        alike = [message._replace(tail=messages[0].tail) for message in messages]
        return super().store(alike, sent, repeats, deadline)


class GivesTailsByPlace(ReferenceBackend):
    def __init__(self, store: ReferenceStore) -> None:
        super().__init__(store)
        self.tails = list[bytes]()

    def add(self, message: Message) -> None:
        super().add(message)
        self.tails.append(message.tail)

    def claim(self, resting: Collection[Destination], limits: Limits) -> Sequence[Message]:
        batch = super().claim(resting, limits)
        return [message._replace(tail=tail) for message, tail in zip(batch, self.tails, strict=False)]


class ForgetsTailsWithTheFirstMessage(ReferenceBackend):
    def settle(
        self,
        accepted: Collection[Message],
        rejected: Collection[Message],
        last: Collection[Message],
        deadline: float,
    ) -> None:
        super().settle(accepted, rejected, last, deadline)
        ended = {message.tail for message in (*accepted, *rejected)}
        for version, (message, owner) in self.shared.waiting.items():
            if message.tail in ended:
                self.shared.waiting[version] = message._replace(tail=b""), owner


class ForgetsTailsOfPostponedMessages(ReferenceBackend):
    def move_behind(self, message: Message) -> None:
        super().move_behind(message)
        version = self.shared.last_version
        kept, owner = self.shared.waiting[version]
        self.shared.waiting[version] = kept._replace(tail=b""), owner


class TakesTailsThatBeginAlikeForOne(ReferenceBackend):
    def __init__(self, store: ReferenceStore) -> None:
        super().__init__(store)
        self.tails = dict[bytes, bytes]()

    def add(self, message: Message) -> None:
        super().add(message._replace(tail=self.tails.setdefault(message.tail[:1], message.tail)))


class IgnoresBytesOfTails(ReferenceBackend):
    def claim(self, resting: Collection[Destination], limits: Limits) -> Sequence[Message]:
        tails = {version: message.tail for version, (message, _) in self.shared.waiting.items()}
        for version, (message, owner) in self.shared.waiting.items():
            self.shared.waiting[version] = message._replace(tail=b""), owner
        batch = super().claim(resting, limits)
        for version, (message, owner) in self.shared.waiting.items():
            self.shared.waiting[version] = message._replace(tail=tails[version]), owner
        return [message._replace(tail=tails[message.version]) for message in batch]


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
    TakesAnyEvaluationForTheLast: "repeat_of_another_evaluation_is_new",
    TakesUnknownEvaluationsForTheLast: "repeat_of_a_message_of_unknown_evaluation_is_new",
    KnowsAllEvaluationsOfAKey: "repeat_of_an_earlier_evaluation_than_the_last_is_new",
    KnowsItsOwnEvaluationsOnly: "repeat_of_a_message_of_a_former_process_is_unchanged",
    ForgetsWhenRepeatsWereEvaluated: "repeat_counts_as_the_latest_evaluation",
    LetsEarlyRepeatsMoveTheTimeBack: "repeat_makes_the_latest_evaluation_no_older",
    ForgetsTheEvaluationOfUnchangedMessages: "repeat_of_an_unchanged_message_is_unchanged",
    NeverLetsRepeatsBeSentAgain: "repeat_is_new_after_resend_after_seconds",
    LetsRepeatsOfWaitingMessagesBeSentAgain: "repeat_of_a_waiting_message_is_unchanged",
    ConfirmsRejectedMessages: "repeat_of_a_rejected_message_is_new",
    ConfirmsEverything: "repeat_of_an_unknown_key_is_new",
    ConfirmsNothing: "repeat_of_an_accepted_message_is_unchanged",
    ReturnsRepeatsThatItCounts: "repeat_of_a_message_in_flight_is_unchanged",
    CountsNoRepeats: "repeats_are_unchanged_again_and_again",
    CountsRepeatsThatAreNew: "new_repeat_changes_nothing",
    ConfirmsBeforeItStores: "repeats_are_looked_at_after_the_messages_of_the_same_call",
    ConfirmsWhatFails: "store_that_fails_confirms_no_repeat_or_has_stored_everything",
    MixesDestinations: "repeats_of_two_destinations_are_different_ones",
    EndsKeysOfRepeatsAtNul: "repeats_may_have_any_key",
    LosesTails: "record_comes_back_whole_with_any_tail",
    GivesAllOfACallTheSameTail: "record_comes_back_whole_with_any_tail",
    GivesTailsByPlace: "record_comes_back_whole_when_others_with_its_tail_are_superseded",
    ForgetsTailsWithTheFirstMessage: "record_comes_back_whole_when_others_with_its_tail_are_settled",
    ForgetsTailsOfPostponedMessages: "record_comes_back_whole_after_its_message_had_to_wait_behind_others",
    TakesTailsThatBeginAlikeForOne: "record_comes_back_whole_though_its_tail_was_out_of_use",
    IgnoresBytesOfTails: "claim_has_at_most_so_many_bytes_with_their_tails",
    EverybodySends: "lease_is_held_by_one_process_at_a_time",
    KeepsTheLeaseWhenClosed: "lease_is_released_when_a_backend_is_closed",
}


def failures(make: Callable[[ReferenceStore], ReferenceBackend], path: Path) -> set[str]:
    """Run the contract by hand; return the tests that fail."""
    failed = set()
    for name, test in inspect.getmembers(OutboxBackendContract(), inspect.ismethod):
        if not name.startswith("test_"):
            continue
        for others in parameters(test):
            stores: defaultdict[Path, ReferenceStore] = defaultdict(ReferenceStore)
            with connections(lambda where, stores=stores: make(stores[where]), path) as connect:  # type: ignore[misc]
                try:
                    test(connect, **others)
                except (AssertionError, ValueError, LookupError):
                    failed.add(name.removeprefix("test_"))
    return failed


def parameters(test: Callable[..., None]) -> Iterator[dict[str, Any]]:
    """Return the values that a test is parametrized with, each once."""
    marks = [mark.args for mark in getattr(test, "pytestmark", ())]
    for values in product(*(values for _, values in marks)):
        yield {name: value for [name, _], value in zip(marks, values, strict=True)}


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
