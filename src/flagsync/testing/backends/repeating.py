"""Which evaluations are repeats of the last one, and need not be made again."""

# ruff: noqa: D102, S101, PLR2004 - it consists of tests, whose names say what they are for
from contextlib import suppress

import pytest

from flagsync._outbox.backend import Totals
from flagsync.testing.backends.sending import UNUSUAL_KEYS
from flagsync.testing.backends.support import (
    HERE,
    THERE,
    Connect,
    assert_adds_up,
    claim,
    confirm,
    deliver,
    message_of,
    own_totals,
    reading,
    repeat_of,
    sent_message,
    settle,
    soon,
    store,
    tell_sent,
    waiting,
)


class RepeatContract:
    """What ``Backend.store`` says of repeats."""

    # What is a repeat

    def test_repeat_of_a_waiting_message_is_unchanged(self, connect: Connect) -> None:
        one, other = connect(), connect()
        store(one, "ann=1", evaluation=1)
        assert confirm(one, "ann") == []
        assert confirm(other, "ann") == []
        assert (own_totals(one), own_totals(other)) == (
            Totals(accepted=2, unchanged=1),
            Totals(accepted=1, unchanged=1),
        )
        assert deliver(one) == ["ann=1"]

    def test_repeat_of_a_message_in_flight_is_unchanged(self, connect: Connect) -> None:
        backend = connect()
        store(backend, "ann=1", evaluation=1)
        batch = claim(backend)
        assert confirm(backend, "ann") == []
        settle(backend, accepted=batch)
        assert waiting(backend) == []

    def test_repeat_of_an_accepted_message_is_unchanged(self, connect: Connect) -> None:
        one, other = connect(), connect()
        store(one, "ann=1", "bob=1", evaluation=1)
        assert deliver(one) == ["ann=1", "bob=1"]
        assert confirm(other, "ann", "bob") == []
        assert deliver(one) == []
        assert (own_totals(one), own_totals(other)) == (
            Totals(accepted=2, delivered=2),
            Totals(accepted=2, unchanged=2),
        )

    def test_repeat_of_a_message_of_a_former_process_is_unchanged(self, connect: Connect) -> None:
        former = connect()
        store(former, "ann=1", evaluation=1)
        former.close()
        assert confirm(connect(), "ann") == []

    def test_repeat_of_an_unchanged_message_is_unchanged(self, connect: Connect) -> None:
        backend = connect()
        store(backend, "ann=1", evaluation=1)
        assert deliver(backend) == ["ann=1"]
        store(backend, "ann=1", second=2, evaluation=2)
        assert confirm(backend, "ann", evaluation=2, second=3) == []

    def test_repeats_are_unchanged_again_and_again(self, connect: Connect) -> None:
        backend = connect()
        store(backend, "ann=1", evaluation=1)
        assert [confirm(backend, "ann", second=second) for second in (2, 3, 4)] == [[], [], []]
        assert backend.totals().every == Totals(accepted=4, unchanged=3)

    def test_repeat_of_an_event_is_one_of_the_last_event(self, connect: Connect) -> None:
        backend = connect()
        store(backend, "ann=2", second=20, evaluation=2, replaces=False)
        store(backend, "ann=1", second=10, evaluation=1, replaces=False)
        assert confirm(backend, "ann", evaluation=1, second=30) == ["ann"]
        assert confirm(backend, "ann", evaluation=2, second=30) == []
        assert deliver(backend) == ["ann=2", "ann=1"]
        assert confirm(backend, "ann", evaluation=1, second=40) == ["ann"]
        assert confirm(backend, "ann", evaluation=2, second=40) == []

    @pytest.mark.parametrize("evaluation", [0, -1, 2**63 - 1, -(2**63)])
    def test_repeat_may_have_any_number_of_64_bits(self, connect: Connect, evaluation: int) -> None:
        backend = connect()
        store(backend, "ann=1", evaluation=evaluation)
        assert confirm(backend, "ann", evaluation=evaluation ^ 1) == ["ann"]
        assert confirm(backend, "ann", evaluation=evaluation) == []

    def test_repeats_may_have_any_key(self, connect: Connect) -> None:
        one, other = connect(), connect()
        messages = [message_of(f"{key}=1", evaluation=number) for number, key in enumerate(UNUSUAL_KEYS)]
        one.store(messages, [], [], soon())
        repeats = [repeat_of(key, number) for number, key in enumerate(UNUSUAL_KEYS)]
        assert not other.store([], [], repeats, soon())
        others = [repeat._replace(evaluation=repeat.evaluation + 1) for repeat in repeats]
        assert {*other.store([], [], others, soon())} == {*others}
        assert own_totals(other) == Totals(accepted=len(repeats), unchanged=len(repeats))

    def test_repeats_of_two_destinations_are_different_ones(self, connect: Connect) -> None:
        backend = connect()
        elsewhere = HERE._replace(project="2")
        store(backend, "ann=1", evaluation=1)
        store(backend, "ann=2", evaluation=2, destination=THERE)
        repeats = [repeat_of("ann", destination=where) for where in (HERE, THERE, elsewhere)]
        assert {*backend.store([], [], repeats, soon())} == {*repeats[1:]}
        assert confirm(backend, "ann", evaluation=2, destination=THERE) == []

    # What is not a repeat

    def test_repeat_of_an_unknown_key_is_new(self, connect: Connect) -> None:
        backend = connect()
        store(backend, "ann=1", evaluation=1)
        assert confirm(backend, "Ann", "bob") == ["Ann", "bob"]
        assert confirm(backend, "ann", "cid") == ["cid"]

    def test_repeat_of_another_evaluation_is_new(self, connect: Connect) -> None:
        backend = connect()
        store(backend, "ann=1", evaluation=1)
        assert confirm(backend, "ann", evaluation=2) == ["ann"]
        assert deliver(backend) == ["ann=1"]
        assert confirm(backend, "ann", evaluation=2) == ["ann"]

    def test_repeat_of_an_earlier_evaluation_than_the_last_is_new(self, connect: Connect) -> None:
        backend = connect()
        store(backend, "ann=A", evaluation=1)
        store(backend, "ann=B", second=2, evaluation=2)
        assert confirm(backend, "ann", evaluation=1, second=3) == ["ann"]
        assert deliver(backend) == ["ann=B"]
        assert confirm(backend, "ann", evaluation=1, second=3) == ["ann"]
        store(backend, "ann=A", second=3, evaluation=1)
        assert confirm(backend, "ann", evaluation=1, second=4) == []
        assert deliver(backend) == ["ann=A"]

    def test_repeat_of_a_message_of_unknown_evaluation_is_new(self, connect: Connect) -> None:
        backend = connect()
        store(backend, "ann=1")
        assert confirm(backend, "ann", evaluation=0) == ["ann"]
        assert deliver(backend) == ["ann=1"]
        assert confirm(backend, "ann", evaluation=0) == ["ann"]

    def test_repeat_is_new_after_resend_after_seconds(self, connect: Connect) -> None:
        backend = connect()
        store(backend, "ann=1", evaluation=1, resend_after_seconds=0.0)
        assert confirm(backend, "ann") == []  # while it waits, it needs no other one
        assert deliver(backend) == ["ann=1"]
        assert confirm(backend, "ann") == ["ann"]

    def test_repeat_of_a_rejected_message_is_new(self, connect: Connect) -> None:
        backend = connect()
        store(backend, "ann=1", evaluation=1)
        settle(backend, rejected=claim(backend))
        assert confirm(backend, "ann") == ["ann"]

    @pytest.mark.parametrize("text", ["ann=B", "ann="])
    def test_repeat_is_new_after_another_message_was_sent_without_the_store(
        self, connect: Connect, text: str
    ) -> None:
        backend = connect()
        store(backend, "ann=A", evaluation=1)
        assert deliver(backend) == ["ann=A"]
        tell_sent(backend, text, second=2)
        assert confirm(backend, "ann", second=3) == ["ann"]

    def test_new_repeat_changes_nothing(self, connect: Connect) -> None:
        one, other = connect(), connect()
        store(one, "ann=1", "bob=1", evaluation=1)
        store(other, "cid=1")
        before = claim(one), one.totals().every, reading(other.status([HERE]))
        assert confirm(other, "ann", "cid", "dan", evaluation=2, second=9) == ["ann", "cid", "dan"]
        assert (claim(one), one.totals().every, reading(other.status([HERE]))) == before
        store(other, "ann=2", second=5)  # it is late only if the repeat counts
        assert sorted(deliver(one)) == ["ann=2", "bob=1", "cid=1"]

    # The latest evaluation

    def test_repeat_counts_as_the_latest_evaluation(self, connect: Connect) -> None:
        one, other = connect(), connect()
        store(one, "ann=A", second=10, evaluation=1)
        assert deliver(one) == ["ann=A"]
        assert confirm(one, "ann", second=30) == []
        store(other, "ann=B", second=20, evaluation=2)
        assert deliver(one) == []
        assert own_totals(other) == Totals(accepted=1, superseded=1)

    def test_repeat_counts_as_the_latest_evaluation_while_its_equal_waits(self, connect: Connect) -> None:
        one, other = connect(), connect()
        store(one, "ann=A", second=10, evaluation=1)
        assert confirm(one, "ann", second=30) == []
        store(other, "ann=B", second=20, evaluation=2)
        assert deliver(one) == ["ann=A"]
        assert own_totals(other) == Totals(accepted=1, superseded=1)

    def test_repeat_makes_the_latest_evaluation_no_older(self, connect: Connect) -> None:
        one, other = connect(), connect()
        store(one, "ann=A", second=30, evaluation=1)
        assert confirm(one, "ann", second=10) == []
        store(other, "ann=B", second=20, evaluation=2)
        assert waiting(one) == ["ann=A"]

    def test_repeat_makes_the_first_message_wait_no_shorter(self, connect: Connect) -> None:
        backend = connect()
        store(backend, "ann=1", second=100, evaluation=1)
        store(backend, "bob=1", second=200, evaluation=1)
        assert confirm(backend, "ann", second=900) == []
        assert backend.status([HERE]).oldest_seconds >= 900
        assert waiting(backend) == ["ann=1", "bob=1"]

    # The same call

    def test_repeats_are_looked_at_after_the_messages_of_the_same_call(self, connect: Connect) -> None:
        backend = connect()
        store(backend, "ann=A", evaluation=1)
        messages = [message_of("ann=B", 2, evaluation=2), message_of("bob=B", 2, evaluation=2)]
        repeats = [repeat_of("ann", 1, 3), repeat_of("bob", 2, 3)]
        assert [*backend.store(messages, [], repeats, soon())] == repeats[:1]
        assert_adds_up(backend)
        assert backend.totals().every == Totals(accepted=4, unchanged=1, superseded=1)

    def test_repeats_are_looked_at_after_what_was_sent_without_the_store(self, connect: Connect) -> None:
        backend = connect()
        store(backend, "ann=A", evaluation=1)
        repeats = [repeat_of("ann", 1, 3)]
        assert [*backend.store([], [sent_message("ann=B", 2)], repeats, soon())] == repeats
        assert waiting(backend) == []

    def test_store_that_fails_confirms_no_repeat_or_has_stored_everything(self, connect: Connect) -> None:
        backend = connect()
        store(backend, "ann=1", evaluation=1)
        with suppress(Exception):  # no store needs to hold text that has no encoding
            backend.store([message_of("\ud800=1")], [], [repeat_of("ann", second=30)], soon())
        assert backend.totals().every in (Totals(accepted=1), Totals(accepted=3, unchanged=1))
