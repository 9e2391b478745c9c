"""The contract of an outbox backend, as a class of tests that every backend can run; needs pytest.

Guarantee: a backend that passes keeps what ``Backend`` promises to processes that share a store. Boundary: its own
bounds, damage, the end of a process, and waiting for others are for its own tests.
"""

# ruff: noqa: D102, S101, PLR2004 - it consists of tests, whose names say what they are for
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from hashlib import blake2b
from pathlib import Path
from time import monotonic
from typing import Protocol

import pytest

from flagsync._outbox.backend import Backend, Status, Totals
from flagsync._outbox.contract import Destination, Limits, Message

BEGAN = monotonic() - 1000.0
HERE, THERE = Destination("https://here.invalid/engage", "1"), Destination("https://there.invalid/engage", "1")
PATIENCE_SECONDS = 10.0
NO_LIMITS = Limits()
UNUSUAL_KEYS = (
    *(
        "ann",
        "Ann",
        "ann ",
        " ann",
        "ann\\",
        "ann\\\\",
        "ann\\0",
        "ann\0",
        "ann\0\0",
        "ann\0variant",
        "ann\\0variant",
    ),
    *("'ann'", '"ann"', "`ann`", "ann;--", "%ann_", "[1]", "{}", "ann\n", "ann\t", "\x1b", "\x7f"),
    *("änn", "a\u0308nn", "アン", "\U0001f600", "\ufeffann", "\uffff", "ann" * 85),
)


class Connect(Protocol):
    """Makes the backend of another process."""

    def __call__(self, store: str = "store") -> Backend:
        """Return a backend of a process of its own, on one of several stores."""


class OutboxBackendContract:
    """Tests that an outbox backend of your own must pass.

    Subclass them in a test module, and override ``make_backend``.
    """

    def make_backend(self, path: Path) -> Backend:
        """Return the backend of one process on the store at a path. To be overridden.

        It is called once for each process of a test. The same path, an existing directory, stands for the same store.
        The backends are closed after the test.

            from flagsync.testing.contracts import OutboxBackendContract

            class TestMyBackend(OutboxBackendContract):
                def make_backend(self, path):
                    return MyBackend(path / "outbox")
        """
        raise NotImplementedError(f"{type(self).__name__}.make_backend, which gets {path}, returns no backend")

    @pytest.fixture
    def connect(self, tmp_path: Path) -> Iterator[Connect]:
        """Makes backends of processes that share a store."""
        with connections(self.make_backend, tmp_path) as connect:
            yield connect

    # Which message wins

    def test_store_lets_messages_wait_in_their_order(self, connect: Connect) -> None:
        backend = connect()
        _store(backend, "ann=1", "bob=1")
        _store(backend, "cid=1")
        assert _waiting(backend) == ["ann=1", "bob=1", "cid=1"]

    def test_store_of_nothing_changes_nothing(self, connect: Connect) -> None:
        backend = connect()
        _store(backend)
        assert (_waiting(backend), backend.totals()) == ([], Totals())

    def test_store_needs_no_time_while_no_other_process_writes(self, connect: Connect) -> None:
        backend = connect()
        backend.store([_message("ann=1")], [], monotonic() - 1.0)
        assert _waiting(backend) == ["ann=1"]

    def test_store_that_fails_changes_nothing_at_all(self, connect: Connect) -> None:
        backend = connect()
        _store(backend, "ann=1")
        with suppress(Exception):  # no store needs to hold text that has no encoding
            backend.store([_message("bob=1"), _message("\ud800=1")], [], _soon())
        assert backend.totals().accepted in (1, 3)
        assert len(_waiting(backend)) == backend.totals().accepted

    def test_newer_message_replaces_a_waiting_one_and_waits_behind_all(self, connect: Connect) -> None:
        backend = connect()
        _store(backend, "ann=1", "bob=1")
        _store(backend, "ann=2", second=2)
        assert _waiting(backend) == ["bob=1", "ann=2"]
        assert backend.totals() == Totals(accepted=3, superseded=1)

    def test_newer_message_of_the_same_call_replaces_the_older_one(self, connect: Connect) -> None:
        backend = connect()
        _store(backend, "ann=1", "bob=1", "ann=2", "ann=3")
        assert _waiting(backend) == ["bob=1", "ann=3"]
        assert backend.totals() == Totals(accepted=4, superseded=2)

    def test_latest_evaluation_wins_though_it_came_first(self, connect: Connect) -> None:
        one, other = connect(), connect()
        _store(one, "ann=new", second=20)
        _store(other, "ann=old", second=10)
        assert _deliver(one) == ["ann=new"]
        _store(other, "ann=old", second=15)
        assert _deliver(one) == []
        assert _own(other) == Totals(accepted=2, superseded=2)

    def test_latest_evaluation_wins_within_one_call(self, connect: Connect) -> None:
        backend = connect()
        messages = [_message("ann=new", 20), _message("ann=old", 10)]
        backend.store(messages, [], _soon())
        assert _waiting(backend) == ["ann=new"]
        assert backend.totals() == Totals(accepted=2, superseded=1)

    def test_message_of_the_same_moment_takes_the_place_of_the_one_before(self, connect: Connect) -> None:
        backend = connect()
        _store(backend, "ann=1")
        _store(backend, "ann=2")
        assert _waiting(backend) == ["ann=2"]

    def test_superseded_message_counts_to_the_process_that_stored_it(self, connect: Connect) -> None:
        one, other = connect(), connect()
        _store(one, "ann=1", second=10)
        _store(other, "ann=2", second=20)
        assert _deliver(one) == ["ann=2"]
        assert (_own(one), _own(other)) == (
            Totals(accepted=1, superseded=1),
            Totals(accepted=1, delivered=1),
        )

    def test_keys_of_two_destinations_are_different_ones(self, connect: Connect) -> None:
        backend = connect()
        elsewhere = HERE._replace(project="2")
        messages = [_message("ann=1", destination=where) for where in (HERE, THERE, elsewhere)]
        backend.store(messages, [], _soon())
        assert {tuple(_deliver(backend)) for _ in range(3)} == {("ann=1",)}
        assert backend.totals() == Totals(accepted=3, delivered=3)

    # Unchanged messages

    def test_unchanged_message_is_not_stored_while_its_equal_waits(self, connect: Connect) -> None:
        backend = connect()
        _store(backend, "ann=1", "bob=1")
        _store(backend, "ann=1", second=2)
        assert _waiting(backend) == ["ann=1", "bob=1"]
        assert backend.totals() == Totals(accepted=3, unchanged=1)

    def test_unchanged_message_is_not_stored_after_its_equal_was_accepted(self, connect: Connect) -> None:
        one, other = connect(), connect()
        _store(one, "ann=1")
        assert _deliver(one) == ["ann=1"]
        _store(other, "ann=1", second=2)
        assert _deliver(one) == []
        assert _own(other) == Totals(accepted=1, unchanged=1)

    def test_unchanged_message_is_stored_again_after_resend_after_seconds(self, connect: Connect) -> None:
        backend = connect()
        _store(backend, "ann=1")
        assert _deliver(backend) == ["ann=1"]
        _store(backend, "ann=1", second=2, resend_after_seconds=0.0)
        assert _deliver(backend) == ["ann=1"]
        _store(backend, "ann=1", second=3, resend_after_seconds=3600.0)
        assert _deliver(backend) == []

    def test_unchanged_message_counts_as_the_latest_evaluation(self, connect: Connect) -> None:
        one, other = connect(), connect()
        _store(one, "ann=A", second=10)
        assert _deliver(one) == ["ann=A"]
        _store(one, "ann=A", second=30)
        _store(other, "ann=B", second=20)
        assert _deliver(one) == []
        assert _own(other) == Totals(accepted=1, superseded=1)

    def test_unchanged_message_counts_as_the_latest_evaluation_while_its_equal_waits(
        self, connect: Connect
    ) -> None:
        one, other = connect(), connect()
        _store(one, "ann=A", second=10)
        _store(one, "ann=A", second=30)
        _store(other, "ann=B", second=20)
        assert _deliver(one) == ["ann=A"]

    def test_unchanged_message_makes_the_latest_evaluation_no_older(self, connect: Connect) -> None:
        one, other = connect(), connect()
        _store(one, "ann=A", second=30)
        _store(one, "ann=A", second=10)
        _store(other, "ann=B", second=20)
        assert _waiting(one) == ["ann=A"]

    def test_unchanged_is_what_equals_the_last_message_not_any_earlier_one(self, connect: Connect) -> None:
        backend = connect()
        for second, text in enumerate(("ann=A", "ann=B", "ann=A")):
            _store(backend, text, second=second)
            assert _deliver(backend) == [text]
        assert backend.totals() == Totals(accepted=3, delivered=3)

    def test_unchanged_is_what_equals_the_last_message_also_while_that_is_in_flight(
        self, connect: Connect
    ) -> None:
        backend = connect()
        _store(backend, "ann=A")
        assert _deliver(backend) == ["ann=A"]
        _store(backend, "ann=B", second=2)
        batch = _claim(backend)
        _store(backend, "ann=A", second=3)
        _settle(backend, accepted=batch)
        assert _deliver(backend) == ["ann=A"]

    # Events, which do not replace each other

    def test_event_waits_beside_the_one_before(self, connect: Connect) -> None:
        backend = connect()
        _store(backend, "ann=1", "bob=1", "ann=2", replaces=False)
        _store(backend, "ann=3", second=2, replaces=False)
        assert _deliver(backend) == ["ann=1", "bob=1", "ann=2", "ann=3"]
        assert backend.totals() == Totals(accepted=4, delivered=4)

    def test_event_that_was_evaluated_earlier_waits_too(self, connect: Connect) -> None:
        backend = connect()
        _store(backend, "ann=2", second=20, replaces=False)
        _store(backend, "ann=1", second=10, replaces=False)
        assert _deliver(backend) == ["ann=2", "ann=1"]

    def test_event_that_equals_the_last_one_is_unchanged(self, connect: Connect) -> None:
        backend = connect()
        _store(backend, "ann=1", "ann=1", "ann=2", replaces=False)
        assert _deliver(backend) == ["ann=1", "ann=2"]
        _store(backend, "ann=2", second=2, replaces=False)
        assert _deliver(backend) == []
        _store(backend, "ann=1", second=3, replaces=False)
        assert _deliver(backend) == ["ann=1"]
        assert backend.totals() == Totals(accepted=5, delivered=3, unchanged=2)

    def test_event_that_was_evaluated_earlier_is_not_the_last_one(self, connect: Connect) -> None:
        backend = connect()
        _store(backend, "ann=2", second=20, replaces=False)
        _store(backend, "ann=1", second=10, replaces=False)
        assert _deliver(backend) == ["ann=2", "ann=1"]
        _store(backend, "ann=2", second=30, replaces=False)
        assert _deliver(backend) == []

    # What was sent without the store

    def test_sent_message_supersedes_an_older_waiting_one(self, connect: Connect) -> None:
        one, other = connect(), connect()
        _store(one, "ann=old", "bob=1")
        _tell_sent(other, "ann=new", second=2)
        assert _waiting(one) == ["bob=1"]
        assert (_own(one), _own(other)) == (Totals(accepted=2, superseded=1), Totals())

    def test_sent_message_leaves_a_newer_waiting_one_alone(self, connect: Connect) -> None:
        backend = connect()
        _store(backend, "ann=new", second=20)
        _tell_sent(backend, "ann=old", second=10)
        assert _deliver(backend) == ["ann=new"]

    def test_sent_message_is_older_than_what_is_stored_with_it(self, connect: Connect) -> None:
        backend = connect()
        backend.store([_message("ann=B", 2), _message("bob=A", 2)], [_sent("ann=A"), _sent("bob=A")], _soon())
        assert _deliver(backend) == ["ann=B"]
        assert backend.totals() == Totals(accepted=2, delivered=1, unchanged=1)

    def test_sent_message_is_remembered_as_accepted(self, connect: Connect) -> None:
        backend = connect()
        _tell_sent(backend, "ann=1")
        _store(backend, "ann=1", second=2)
        assert _deliver(backend) == []
        assert backend.totals() == Totals(accepted=1, unchanged=1)

    def test_sent_message_is_the_latest_evaluation(self, connect: Connect) -> None:
        one, other = connect(), connect()
        _tell_sent(one, "ann=new", second=20)
        _store(other, "ann=old", second=10)
        assert _deliver(one) == []
        assert _own(other) == Totals(accepted=1, superseded=1)

    def test_sent_event_leaves_waiting_ones_alone(self, connect: Connect) -> None:
        backend = connect()
        _store(backend, "ann=1", replaces=False)
        _tell_sent(backend, "ann=2", second=2, replaces=False)
        assert _deliver(backend) == ["ann=1"]
        _store(backend, "ann=2", second=3, replaces=False)
        assert _deliver(backend) == []

    def test_empty_fingerprint_of_a_sent_message_equals_nothing(self, connect: Connect) -> None:
        backend = connect()
        _store(backend, "ann=A")
        assert _deliver(backend) == ["ann=A"]
        _tell_sent(backend, "ann=", second=2)
        _store(backend, "ann=A", second=3)
        assert _deliver(backend) == ["ann=A"]

    # Claims

    def test_claim_leaves_messages_waiting_until_they_are_settled(self, connect: Connect) -> None:
        backend = connect()
        _store(backend, "ann=1", "bob=1")
        assert _claim(backend) == _claim(backend)
        assert backend.status([HERE]).pending == 2
        assert _deliver(backend) == ["ann=1", "bob=1"]
        assert _claim(backend) == []

    def test_claim_returns_whole_messages(self, connect: Connect) -> None:
        backend = connect()
        message = _message("ann=\xe4", second=7.125, resend_after_seconds=12.5)
        backend.store([message], [], _soon())
        [claimed] = _claim(backend)
        assert claimed._replace(version=0) == message._replace(evaluation=None)
        assert claimed.version > 0

    def test_claim_has_a_higher_version_for_each_message(self, connect: Connect) -> None:
        backend = connect()
        _store(backend, "ann=1", "bob=1", "cid=1")
        _store(backend, "bob=2", second=2)
        versions = [message.version for message in _claim(backend)]
        assert versions == sorted({*versions})

    def test_claim_has_at_most_so_many_messages(self, connect: Connect) -> None:
        backend = connect()
        _store(backend, "ann=1", "bob=1", "cid=1")
        limits = Limits(max_batch_messages=2)
        assert [_deliver(backend, limits) for _ in range(3)] == [["ann=1", "bob=1"], ["cid=1"], []]

    def test_claim_has_at_most_so_many_bytes(self, connect: Connect) -> None:
        backend = connect()
        _store(backend, "ann=123", "bob=123", "cid=123")
        limits = Limits(max_batch_bytes=9)  # brackets and commas have their place in a request
        assert [_deliver(backend, limits) for _ in range(2)] == [["ann=123", "bob=123"], ["cid=123"]]

    def test_claim_has_a_message_that_is_too_large_alone(self, connect: Connect) -> None:
        backend = connect()
        _store(backend, "ann=1", "bob=123456789", "cid=1")
        limits = Limits(max_batch_bytes=8)
        assert [_deliver(backend, limits) for _ in range(3)] == [["ann=1"], ["bob=123456789"], ["cid=1"]]

    def test_claim_has_one_destination_and_they_take_turns(self, connect: Connect) -> None:
        backend = connect()
        _store(backend, "ann=1", "bob=1", "cid=1")
        _store(backend, "dan=1", "eve=1", destination=THERE)
        batches = [_deliver(backend, Limits(max_batch_messages=1)) for _ in range(5)]
        assert sorted(map(str, batches[:2])) == ["['ann=1']", "['dan=1']"]
        assert sorted(map(str, batches[2:4])) == ["['bob=1']", "['eve=1']"]
        assert batches[4] == ["cid=1"]

    def test_claim_takes_turns_also_while_a_destination_accepts_nothing(self, connect: Connect) -> None:
        backend = connect()
        _store(backend, "ann=1")
        _store(backend, "dan=1", destination=THERE)
        claims = [_claim(backend)[0].key for _ in range(4)]
        assert claims[:2] == claims[2:]
        assert {*claims} == {"ann", "dan"}

    def test_claim_leaves_a_resting_destination_alone(self, connect: Connect) -> None:
        backend = connect()
        _store(backend, "ann=1", "bob=1")
        _store(backend, "dan=1", destination=THERE)
        assert [_deliver(backend, resting=[HERE]) for _ in range(2)] == [["dan=1"], []]
        assert _deliver(backend) == ["ann=1", "bob=1"]

    def test_claim_of_one_process_has_what_others_have_stored(self, connect: Connect) -> None:
        one, other = connect(), connect()
        _store(one, "ann=1")
        _store(other, "bob=1")
        former = connect()
        _store(former, "cid=1", destination=THERE)
        former.close()
        batches = [_deliver(one) for _ in range(2)]
        assert sorted(batches) == [["ann=1", "bob=1"], ["cid=1"]]
        assert (_own(one), _own(other)) == (Totals(accepted=1, delivered=1),) * 2

    @pytest.mark.parametrize("replaces", [True, False])
    def test_keys_may_be_any_text(self, connect: Connect, replaces: bool) -> None:  # noqa: FBT001 - of pytest
        backend = connect()
        for second in (1, 2):
            messages = [_message(f"{key}=1", second, replaces=replaces) for key in UNUSUAL_KEYS]
            backend.store(messages, [], _soon())
        batch = _claim(backend)
        assert [message.key for message in batch] == [*UNUSUAL_KEYS]
        _settle(backend, accepted=batch)
        count = len(UNUSUAL_KEYS)
        assert backend.totals() == Totals(accepted=2 * count, delivered=count, unchanged=count)

    # Settling

    def test_settle_ends_nothing_but_what_it_is_given(self, connect: Connect) -> None:
        backend = connect()
        _store(backend, "ann=1", "bob=1", "cid=1")
        ann, bob, _ = _claim(backend)
        _settle(backend, accepted=[bob], rejected=[ann])
        assert _waiting(backend) == ["cid=1"]
        assert backend.totals() == Totals(accepted=3, delivered=1, rejected=1)

    def test_settle_of_nothing_leaves_all_waiting(self, connect: Connect) -> None:
        backend = connect()
        _store(backend, "ann=1", "bob=1")
        _claim(backend)
        _settle(backend)
        assert _waiting(backend) == ["ann=1", "bob=1"]

    def test_settle_ends_only_the_version_that_was_claimed(self, connect: Connect) -> None:
        one, other = connect(), connect()
        _store(one, "ann=old", "bob=old", "cid=old")
        ann, bob, cid = _claim(one)
        _store(other, "ann=new", "bob=new", "cid=new", second=2)
        _settle(one, accepted=[ann], rejected=[bob], last=[cid])
        assert _deliver(one) == ["ann=new", "bob=new", "cid=new"]
        assert one.totals() == Totals(accepted=6, delivered=3, superseded=3)

    def test_settle_ends_a_message_once(self, connect: Connect) -> None:
        backend = connect()
        _store(backend, "ann=1", "bob=1")
        ann, _ = _claim(backend)
        _settle(backend, accepted=[ann])
        _settle(backend, rejected=[ann])
        _settle(backend, accepted=[ann], last=[ann])
        assert _waiting(backend) == ["bob=1"]
        assert backend.totals() == Totals(accepted=2, delivered=1)

    def test_settle_of_an_event_ends_no_other_of_its_key(self, connect: Connect) -> None:
        backend = connect()
        _store(backend, "ann=1", "ann=2", "ann=3", replaces=False)
        one, _, three = _claim(backend)
        _settle(backend, accepted=[three], rejected=[one])
        assert _deliver(backend) == ["ann=2"]
        _store(backend, "ann=3", second=2, replaces=False)
        assert _deliver(backend) == []

    def test_rejected_message_is_not_remembered_as_accepted(self, connect: Connect) -> None:
        backend = connect()
        _store(backend, "ann=1")
        _settle(backend, rejected=_claim(backend))
        _store(backend, "ann=1", second=2)
        assert _deliver(backend) == ["ann=1"]
        assert backend.totals() == Totals(accepted=2, delivered=1, rejected=1)

    def test_last_messages_wait_behind_all_others(self, connect: Connect) -> None:
        backend = connect()
        _store(backend, "ann=1", "bob=1", "cid=1", "dan=1")
        ann, bob, _, _ = _claim(backend)
        _settle(backend, last=[ann, bob])
        assert sorted(_waiting(backend)[2:]) == ["ann=1", "bob=1"]
        _store(backend, "eve=1")
        assert _waiting(backend)[-1] == "eve=1"
        assert len(_deliver(backend)) == 5

    def test_last_message_has_another_version(self, connect: Connect) -> None:
        backend = connect()
        _store(backend, "ann=1", "bob=1")
        ann, bob = _claim(backend)
        _settle(backend, last=[ann])
        assert _claim(backend)[1].version > bob.version
        _settle(backend, accepted=[ann])
        assert _waiting(backend) == ["bob=1", "ann=1"]

    def test_last_message_gives_way_to_a_newer_one(self, connect: Connect) -> None:
        backend = connect()
        _store(backend, "ann=1", "bob=1")
        _settle(backend, last=_claim(backend)[:1])
        _store(backend, "ann=2", second=2)
        assert _deliver(backend) == ["bob=1", "ann=2"]

    # Status and totals

    def test_status_changes_nothing(self, connect: Connect) -> None:
        one, other = connect(), connect()
        assert one.status([HERE])[:4] == other.status([THERE])[:4]
        _store(one, "ann=1", "bob=1")
        before = _claim(one), one.totals()
        seen = [backend.status([HERE]) for backend in (one, other) * 2]
        assert [_reading(status) for status in seen[:2]] == [_reading(status) for status in seen[2:]]
        assert (_claim(one), one.totals()) == before
        assert other.try_acquire_lease() is False

    def test_status_has_what_became_of_own_messages(self, connect: Connect) -> None:
        one, other = connect(), connect()
        _store(one, "ann=1", "bob=1")
        _store(other, "cid=1")
        ann, bob, _ = _claim(one)
        _settle(one, accepted=[ann], rejected=[bob])
        assert (_own(one), _own(other)) == (Totals(accepted=2, delivered=1, rejected=1), Totals(accepted=1))
        assert _own(connect()) == Totals()

    def test_status_counts_what_waits_for_all_destinations(self, connect: Connect) -> None:
        one, other = connect(), connect()
        _store(one, "ann=1")
        _store(other, "bob=1", "cid=1", destination=THERE)
        assert [backend.status([]).pending for backend in (one, other)] == [3, 3]
        assert (_own(one).pending, _own(other).pending) == (1, 2)

    def test_status_says_how_long_the_first_message_has_waited(self, connect: Connect) -> None:
        backend = connect()
        assert backend.status([HERE]).oldest_seconds == 0.0
        _store(backend, "ann=1", second=400)
        _store(backend, "bob=1", second=700, destination=THERE)
        assert 600 <= backend.status([HERE]).oldest_seconds <= monotonic() - BEGAN - 400
        _deliver(backend, resting=[THERE])
        assert 300 <= backend.status([HERE]).oldest_seconds <= monotonic() - BEGAN - 700
        _deliver(backend)
        assert backend.status([HERE]).oldest_seconds == 0.0

    def test_unchanged_message_makes_the_first_message_wait_no_shorter(self, connect: Connect) -> None:
        backend = connect()
        _store(backend, "ann=1", second=100)
        _store(backend, "ann=1", second=900)
        assert backend.status([HERE]).oldest_seconds >= 900

    def test_status_has_the_first_version_of_the_destinations_asked_for(self, connect: Connect) -> None:
        backend = connect()
        _store(backend, "ann=1")
        _store(backend, "bob=1", destination=THERE)
        [ann], [bob] = _claim(backend, resting=[THERE]), _claim(backend, resting=[HERE])
        asked: tuple[list[Destination], ...] = (
            [],
            [HERE],
            [THERE],
            [THERE, HERE],
            [Destination("https://unknown.invalid")],
        )
        firsts = [backend.status(destinations).first_version for destinations in asked]
        assert firsts == [None, ann.version, bob.version, ann.version, None]
        _settle(backend, accepted=[bob])
        assert [backend.status(where).first_version for where in ([HERE], [THERE])] == [ann.version, None]

    def test_status_has_a_last_version_that_no_later_message_is_below(self, connect: Connect) -> None:
        backend = connect()
        _store(backend, "ann=1", "bob=1")
        status = backend.status([HERE])
        assert status.first_version is not None
        assert status.first_version < status.last_version
        _store(backend, "ann=2", "cid=1", second=2)
        assert all(message.version > status.last_version for message in _claim(backend)[1:])
        _store(backend, "ann=2", second=3)
        assert backend.status([HERE]).last_version == _claim(backend)[-1].version

    def test_status_has_the_number_of_the_store(self, connect: Connect) -> None:
        one, other, elsewhere = connect(), connect(), connect("elsewhere")
        _store(one, "ann=1")
        numbers = [backend.status([]).store for backend in (one, other, elsewhere)]
        assert numbers[0] == numbers[1] != numbers[2]
        assert 0 not in numbers
        one.close()
        assert one.status([]).store == numbers[0]

    def test_status_of_the_sending_process_is_not_silent(self, connect: Connect) -> None:
        one, other = connect(), connect()
        assert [backend.status([]).silent_seconds for backend in (one, other)] == [0.0, 0.0]
        assert one.try_acquire_lease()
        assert one.status([]).silent_seconds == 0.0
        assert 0.0 <= other.status([]).silent_seconds < PATIENCE_SECONDS

    def test_totals_count_the_messages_of_all_processes(self, connect: Connect) -> None:
        one, other = connect(), connect()
        _store(one, "ann=1", "bob=1")
        _store(other, "ann=1", "bob=2", "cid=1", second=2)
        ann, bob, _ = _claim(one)
        _settle(one, accepted=[ann], rejected=[bob])
        expected = Totals(accepted=5, delivered=1, unchanged=1, superseded=1, rejected=1)
        other.close()
        assert [backend.totals() for backend in (one, other, connect())] == [expected] * 3

    # The lease

    def test_lease_is_held_by_one_process_at_a_time(self, connect: Connect) -> None:
        one, other = connect(), connect()
        assert one.try_acquire_lease()
        assert one.try_acquire_lease()
        assert not other.try_acquire_lease()
        _store(other, "ann=1")
        assert _deliver(one) == ["ann=1"]
        assert not other.try_acquire_lease()

    def test_lease_can_be_released(self, connect: Connect) -> None:
        one, other = connect(), connect()
        assert one.try_acquire_lease()
        one.release_lease()
        one.release_lease()
        assert other.try_acquire_lease()
        one.release_lease()
        assert not one.try_acquire_lease()

    def test_lease_is_released_when_a_backend_is_closed(self, connect: Connect) -> None:
        one, other = connect(), connect()
        assert one.try_acquire_lease()
        one.close()
        assert other.try_acquire_lease()
        assert not one.try_acquire_lease()

    def test_leases_of_two_stores_are_two(self, connect: Connect) -> None:
        assert connect().try_acquire_lease()
        assert connect("elsewhere").try_acquire_lease()

    def test_close_loses_nothing_and_can_be_followed_by_more(self, connect: Connect) -> None:
        backend = connect()
        _store(backend, "ann=1")
        backend.close()
        backend.close()
        _store(backend, "bob=1")
        assert _deliver(backend) == ["ann=1", "bob=1"]
        assert _own(backend) == Totals(accepted=2, delivered=2)


@contextmanager
def connections(make_backend: Callable[[Path], Backend], path: Path) -> Iterator[Connect]:
    """Make backends on stores below a directory, and close them at the end."""
    backends = list[Backend]()

    def connect(store: str = "store") -> Backend:
        (path / store).mkdir(exist_ok=True)
        backends.append(make_backend(path / store))
        return backends[-1]

    yield connect
    for backend in backends:
        backend.close()


def _message(
    text: str,
    second: float = 1.0,
    *,
    destination: Destination = HERE,
    resend_after_seconds: float = 3600.0,
    replaces: bool = True,
) -> Message:
    """Return a message of a text such as ``"ann=1"``: of key and body, evaluated at a second since ``BEGAN``."""
    key, _, body = text.rpartition("=")
    evaluated_at = BEGAN + second
    owner = _fingerprint(body), body.encode(), evaluated_at, destination, resend_after_seconds
    return Message(key, *owner, replaces=replaces)


@cache
def _fingerprint(body: str) -> bytes:
    return blake2b(body.encode(), digest_size=16).digest()


def _sent(text: str, second: float = 1.0, *, replaces: bool = True) -> Message:
    """Return a message without its body; without a text of the body, also without fingerprint."""
    message = _message(text, second, replaces=replaces)
    return message._replace(body=b"", fingerprint=message.fingerprint if message.body else b"")


def _store(
    backend: Backend,
    *texts: str,
    second: float = 1.0,
    destination: Destination = HERE,
    resend_after_seconds: float = 3600.0,
    replaces: bool = True,
) -> None:
    messages = [
        _message(
            text, second, destination=destination, resend_after_seconds=resend_after_seconds, replaces=replaces
        )
        for text in texts
    ]
    backend.store(messages, [], _soon())
    _assert_adds_up(backend)


def _tell_sent(backend: Backend, text: str, *, second: float = 1.0, replaces: bool = True) -> None:
    backend.store([], [_sent(text, second, replaces=replaces)], _soon())
    _assert_adds_up(backend)


def _claim(
    backend: Backend,
    limits: Limits = NO_LIMITS,
    *,
    resting: Sequence[Destination] = (),
) -> list[Message]:
    assert backend.try_acquire_lease()
    batch = backend.claim(resting, limits)
    assert len({message.destination for message in batch}) <= 1
    _assert_adds_up(backend)
    return batch


def _settle(
    backend: Backend,
    *,
    accepted: Sequence[Message] = (),
    rejected: Sequence[Message] = (),
    last: Sequence[Message] = (),
) -> None:
    backend.settle(accepted, rejected, last, _soon())
    _assert_adds_up(backend)


def _waiting(backend: Backend) -> list[str]:
    """Return the texts of the batch that a sender would get."""
    return [f"{message.key}={message.body.decode()}" for message in _claim(backend)]


def _deliver(
    backend: Backend,
    limits: Limits = NO_LIMITS,
    *,
    resting: Sequence[Destination] = (),
) -> list[str]:
    """Claim a batch, have it accepted, and return its texts."""
    batch = _claim(backend, limits, resting=resting)
    _settle(backend, accepted=batch)
    return [f"{message.key}={message.body.decode()}" for message in batch]


def _own(backend: Backend) -> Totals:
    return backend.status([]).own


def _reading(status: Status) -> tuple[object, ...]:
    """Return a status without what time alone changes."""
    return tuple(status._replace(oldest_seconds=0.0, silent_seconds=0.0))


def _assert_adds_up(backend: Backend) -> None:
    """Assert that each message is counted once."""
    totals, status = backend.totals(), backend.status([])
    assert totals.pending == status.pending
    assert min(*totals, *status.own, totals.pending, status.own.pending) >= 0
    assert all(own <= every for own, every in zip(status.own, totals, strict=True))


def _soon() -> float:
    return monotonic() + PATIENCE_SECONDS
