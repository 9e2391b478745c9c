"""Messages that do not replace each other, and what was sent without the store."""

# ruff: noqa: D102, S101 - it consists of tests, whose names say what they are for

from flagsync._outbox.backend import Totals
from flagsync.testing.backends.support import (
    HERE,
    THERE,
    Connect,
    claim,
    deliver,
    message_of,
    own_totals,
    sent_message,
    settle,
    soon,
    store,
    tell_sent,
    waiting,
)


class EventContract:
    """What ``Backend.store`` says of events and of sent messages."""

    # Events, which do not replace each other

    def test_event_waits_beside_the_one_before(self, connect: Connect) -> None:
        backend = connect()
        store(backend, "ann=1", "bob=1", "ann=2", replaces=False)
        store(backend, "ann=3", second=2, replaces=False)
        assert deliver(backend) == ["ann=1", "bob=1", "ann=2", "ann=3"]
        assert backend.totals().every == Totals(accepted=4, delivered=4)

    def test_event_that_was_evaluated_earlier_waits_too(self, connect: Connect) -> None:
        backend = connect()
        store(backend, "ann=2", second=20, replaces=False)
        store(backend, "ann=1", second=10, replaces=False)
        assert deliver(backend) == ["ann=2", "ann=1"]

    def test_event_that_equals_the_last_one_is_unchanged(self, connect: Connect) -> None:
        backend = connect()
        store(backend, "ann=1", "ann=1", "ann=2", replaces=False)
        assert deliver(backend) == ["ann=1", "ann=2"]
        store(backend, "ann=2", second=2, replaces=False)
        assert deliver(backend) == []
        store(backend, "ann=1", second=3, replaces=False)
        assert deliver(backend) == ["ann=1"]
        assert backend.totals().every == Totals(accepted=5, delivered=3, unchanged=2)

    def test_event_that_was_evaluated_earlier_is_not_the_last_one(self, connect: Connect) -> None:
        backend = connect()
        store(backend, "ann=2", second=20, replaces=False)
        store(backend, "ann=1", second=10, replaces=False)
        assert deliver(backend) == ["ann=2", "ann=1"]
        store(backend, "ann=2", second=30, replaces=False)
        assert deliver(backend) == []

    def test_event_is_counted_apart_whatever_becomes_of_it(self, connect: Connect) -> None:
        one, other = connect(), connect()
        store(one, "ann=1")
        store(one, "ann=1", "ann=1", "bob=1", "cid=1", destination=THERE, replaces=False)
        store(other, "dan=1", destination=THERE, replaces=False)
        assert one.status([]).own_events == Totals(accepted=4, unchanged=1)
        assert own_totals(one) == Totals(accepted=5, unchanged=1)
        batch = claim(one, resting=[HERE])
        assert [message.replaces for message in batch] == [False] * 4
        settle(one, accepted=batch[:1], rejected=batch[1:2], last=batch[2:3])
        assert one.status([]).own_events == Totals(accepted=4, unchanged=1, delivered=1, rejected=1)
        assert deliver(one, resting=[HERE]) == ["dan=1", "cid=1"]
        assert one.status([]).own_events == Totals(accepted=4, unchanged=1, delivered=2, rejected=1)
        assert other.status([]).own_events == own_totals(other) == Totals(accepted=1, delivered=1)
        assert own_totals(one) == Totals(accepted=5, unchanged=1, delivered=2, rejected=1)
        assert [message.replaces for message in claim(one)] == [True]

    # What was sent without the store

    def test_sent_message_supersedes_an_older_waiting_one(self, connect: Connect) -> None:
        one, other = connect(), connect()
        store(one, "ann=old", "bob=1")
        tell_sent(other, "ann=new", second=2)
        assert waiting(one) == ["bob=1"]
        assert (own_totals(one), own_totals(other)) == (Totals(accepted=2, superseded=1), Totals())

    def test_sent_message_leaves_a_newer_waiting_one_alone(self, connect: Connect) -> None:
        backend = connect()
        store(backend, "ann=new", second=20)
        tell_sent(backend, "ann=old", second=10)
        assert deliver(backend) == ["ann=new"]

    def test_sent_message_is_older_than_what_is_stored_with_it(self, connect: Connect) -> None:
        backend = connect()
        backend.store(
            [message_of("ann=B", 2), message_of("bob=A", 2)],
            [sent_message("ann=A"), sent_message("bob=A")],
            [],
            soon(),
        )
        assert deliver(backend) == ["ann=B"]
        assert backend.totals().every == Totals(accepted=2, delivered=1, unchanged=1)

    def test_sent_message_is_remembered_as_accepted(self, connect: Connect) -> None:
        backend = connect()
        tell_sent(backend, "ann=1")
        store(backend, "ann=1", second=2)
        assert deliver(backend) == []
        assert backend.totals().every == Totals(accepted=1, unchanged=1)

    def test_sent_message_is_the_latest_evaluation(self, connect: Connect) -> None:
        one, other = connect(), connect()
        tell_sent(one, "ann=new", second=20)
        store(other, "ann=old", second=10)
        assert deliver(one) == []
        assert own_totals(other) == Totals(accepted=1, superseded=1)

    def test_sent_event_leaves_waiting_ones_alone(self, connect: Connect) -> None:
        backend = connect()
        store(backend, "ann=1", replaces=False)
        tell_sent(backend, "ann=2", second=2, replaces=False)
        assert deliver(backend) == ["ann=1"]
        store(backend, "ann=2", second=3, replaces=False)
        assert deliver(backend) == []

    def test_empty_fingerprint_of_a_sent_message_equals_nothing(self, connect: Connect) -> None:
        backend = connect()
        store(backend, "ann=A")
        assert deliver(backend) == ["ann=A"]
        tell_sent(backend, "ann=", second=2)
        store(backend, "ann=A", second=3)
        assert deliver(backend) == ["ann=A"]
