"""Which message wins, and which is unchanged."""

# ruff: noqa: D102, S101 - it consists of tests, whose names say what they are for
from contextlib import suppress

from flagsync._clock import monotonic
from flagsync._outbox.backend import Totals
from flagsync.testing.backends.support import (
    HERE,
    THERE,
    Connect,
    claim,
    deliver,
    message_of,
    own_totals,
    settle,
    soon,
    store,
    waiting,
)


class StoringContract:
    """What ``Backend.store`` says of messages that replace each other."""

    # Which message wins

    def test_store_lets_messages_wait_in_their_order(self, connect: Connect) -> None:
        backend = connect()
        store(backend, "ann=1", "bob=1")
        store(backend, "cid=1")
        assert waiting(backend) == ["ann=1", "bob=1", "cid=1"]

    def test_store_of_nothing_changes_nothing(self, connect: Connect) -> None:
        backend = connect()
        store(backend)
        assert (waiting(backend), backend.totals().every) == ([], Totals())

    def test_store_needs_no_time_while_no_other_process_writes(self, connect: Connect) -> None:
        backend = connect()
        backend.status([])  # to connect may take a while
        backend.store([message_of("ann=1")], [], [], monotonic() - 1.0)
        assert waiting(backend) == ["ann=1"]

    def test_store_that_fails_changes_nothing_at_all(self, connect: Connect) -> None:
        backend = connect()
        store(backend, "ann=1")
        with suppress(Exception):  # no store needs to hold text that has no encoding
            backend.store([message_of("bob=1"), message_of("\ud800=1")], [], [], soon())
        assert backend.totals().every.accepted in (1, 3)
        assert len(waiting(backend)) == backend.totals().every.accepted

    def test_newer_message_replaces_a_waiting_one_and_waits_behind_all(self, connect: Connect) -> None:
        backend = connect()
        store(backend, "ann=1", "bob=1")
        store(backend, "ann=2", second=2)
        assert waiting(backend) == ["bob=1", "ann=2"]
        assert backend.totals().every == Totals(accepted=3, superseded=1)

    def test_newer_message_of_the_same_call_replaces_the_older_one(self, connect: Connect) -> None:
        backend = connect()
        store(backend, "ann=1", "bob=1", "ann=2", "ann=3")
        assert waiting(backend) == ["bob=1", "ann=3"]
        assert backend.totals().every == Totals(accepted=4, superseded=2)

    def test_latest_evaluation_wins_though_it_came_first(self, connect: Connect) -> None:
        one, other = connect(), connect()
        store(one, "ann=new", second=20)
        store(other, "ann=old", second=10)
        assert deliver(one) == ["ann=new"]
        store(other, "ann=old", second=15)
        assert deliver(one) == []
        assert own_totals(other) == Totals(accepted=2, superseded=2)

    def test_latest_evaluation_wins_within_one_call(self, connect: Connect) -> None:
        backend = connect()
        messages = [message_of("ann=new", 20), message_of("ann=old", 10)]
        backend.store(messages, [], [], soon())
        assert waiting(backend) == ["ann=new"]
        assert backend.totals().every == Totals(accepted=2, superseded=1)

    def test_message_of_the_same_moment_takes_the_place_of_the_one_before(self, connect: Connect) -> None:
        backend = connect()
        store(backend, "ann=1")
        store(backend, "ann=2")
        assert waiting(backend) == ["ann=2"]

    def test_superseded_message_counts_to_the_process_that_stored_it(self, connect: Connect) -> None:
        one, other = connect(), connect()
        store(one, "ann=1", second=10)
        store(other, "ann=2", second=20)
        assert deliver(one) == ["ann=2"]
        assert (own_totals(one), own_totals(other)) == (
            Totals(accepted=1, superseded=1),
            Totals(accepted=1, delivered=1),
        )

    def test_keys_of_two_destinations_are_different_ones(self, connect: Connect) -> None:
        backend = connect()
        elsewhere = HERE._replace(project="2")
        messages = [message_of("ann=1", destination=where) for where in (HERE, THERE, elsewhere)]
        backend.store(messages, [], [], soon())
        assert {tuple(deliver(backend)) for _ in range(3)} == {("ann=1",)}
        assert backend.totals().every == Totals(accepted=3, delivered=3)

    # Unchanged messages

    def test_unchanged_message_is_not_stored_while_its_equal_waits(self, connect: Connect) -> None:
        backend = connect()
        store(backend, "ann=1", "bob=1")
        store(backend, "ann=1", second=2)
        assert waiting(backend) == ["ann=1", "bob=1"]
        assert backend.totals().every == Totals(accepted=3, unchanged=1)

    def test_unchanged_message_is_not_stored_after_its_equal_was_accepted(self, connect: Connect) -> None:
        one, other = connect(), connect()
        store(one, "ann=1")
        assert deliver(one) == ["ann=1"]
        store(other, "ann=1", second=2)
        assert deliver(one) == []
        assert own_totals(other) == Totals(accepted=1, unchanged=1)

    def test_unchanged_message_is_stored_again_after_resend_after_seconds(self, connect: Connect) -> None:
        backend = connect()
        store(backend, "ann=1")
        assert deliver(backend) == ["ann=1"]
        store(backend, "ann=1", second=2, resend_after_seconds=0.0)
        assert deliver(backend) == ["ann=1"]
        store(backend, "ann=1", second=3, resend_after_seconds=3600.0)
        assert deliver(backend) == []

    def test_unchanged_message_counts_as_the_latest_evaluation(self, connect: Connect) -> None:
        one, other = connect(), connect()
        store(one, "ann=A", second=10)
        assert deliver(one) == ["ann=A"]
        store(one, "ann=A", second=30)
        store(other, "ann=B", second=20)
        assert deliver(one) == []
        assert own_totals(other) == Totals(accepted=1, superseded=1)

    def test_unchanged_message_counts_as_the_latest_evaluation_while_its_equal_waits(
        self, connect: Connect
    ) -> None:
        one, other = connect(), connect()
        store(one, "ann=A", second=10)
        store(one, "ann=A", second=30)
        store(other, "ann=B", second=20)
        assert deliver(one) == ["ann=A"]

    def test_unchanged_message_makes_the_latest_evaluation_no_older(self, connect: Connect) -> None:
        one, other = connect(), connect()
        store(one, "ann=A", second=30)
        store(one, "ann=A", second=10)
        store(other, "ann=B", second=20)
        assert waiting(one) == ["ann=A"]

    def test_unchanged_is_what_equals_the_last_message_not_any_earlier_one(self, connect: Connect) -> None:
        backend = connect()
        for second, text in enumerate(("ann=A", "ann=B", "ann=A")):
            store(backend, text, second=second)
            assert deliver(backend) == [text]
        assert backend.totals().every == Totals(accepted=3, delivered=3)

    def test_unchanged_is_what_equals_the_last_message_also_while_that_is_in_flight(
        self, connect: Connect
    ) -> None:
        backend = connect()
        store(backend, "ann=A")
        assert deliver(backend) == ["ann=A"]
        store(backend, "ann=B", second=2)
        batch = claim(backend)
        store(backend, "ann=A", second=3)
        settle(backend, accepted=batch)
        assert deliver(backend) == ["ann=A"]
