"""What a sender claims and settles."""

# ruff: noqa: D102, S101, PLR2004 - it consists of tests, whose names say what they are for

import pytest

from flagsync._outbox.backend import Totals
from flagsync._outbox.contract import Limits
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

UNUSUAL_KEYS = (
    *(
        "",
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


class SendingContract:
    """What ``Backend.claim`` and ``Backend.settle`` say."""

    # Claims

    def test_claim_leaves_messages_waiting_until_they_are_settled(self, connect: Connect) -> None:
        backend = connect()
        store(backend, "ann=1", "bob=1")
        assert claim(backend) == claim(backend)
        assert backend.status([HERE]).pending == 2
        assert deliver(backend) == ["ann=1", "bob=1"]
        assert claim(backend) == []

    def test_claim_returns_whole_messages(self, connect: Connect) -> None:
        backend = connect()
        message = message_of("ann=\xe4", second=7.125, resend_after_seconds=12.5, tail=b" and more")
        backend.store([message], [], [], soon())
        [claimed] = claim(backend)
        whole = claimed._replace(body=claimed.record, tail=b"", version=0, evaluation=None)
        assert whole == message._replace(body=message.record, tail=b"", evaluation=None)
        assert claimed.version > 0

    def test_claim_has_a_higher_version_for_each_message(self, connect: Connect) -> None:
        backend = connect()
        store(backend, "ann=1", "bob=1", "cid=1")
        store(backend, "bob=2", second=2)
        versions = [message.version for message in claim(backend)]
        assert versions == sorted({*versions})

    def test_claim_has_at_most_so_many_messages(self, connect: Connect) -> None:
        backend = connect()
        store(backend, "ann=1", "bob=1", "cid=1")
        limits = Limits(max_batch_messages=2)
        assert [deliver(backend, limits) for _ in range(3)] == [["ann=1", "bob=1"], ["cid=1"], []]

    def test_claim_has_at_most_so_many_bytes(self, connect: Connect) -> None:
        backend = connect()
        store(backend, "ann=123", "bob=123", "cid=123")
        limits = Limits(max_batch_bytes=9)  # brackets and commas have their place in a request
        assert [deliver(backend, limits) for _ in range(2)] == [["ann=123", "bob=123"], ["cid=123"]]

    def test_claim_has_a_message_that_is_too_large_alone(self, connect: Connect) -> None:
        backend = connect()
        store(backend, "ann=1", "bob=123456789", "cid=1")
        limits = Limits(max_batch_bytes=8)
        assert [deliver(backend, limits) for _ in range(3)] == [["ann=1"], ["bob=123456789"], ["cid=1"]]

    def test_claim_has_one_destination_and_they_take_turns(self, connect: Connect) -> None:
        backend = connect()
        store(backend, "ann=1", "bob=1", "cid=1")
        store(backend, "dan=1", "eve=1", destination=THERE)
        batches = [deliver(backend, Limits(max_batch_messages=1)) for _ in range(5)]
        assert sorted(map(str, batches[:2])) == ["['ann=1']", "['dan=1']"]
        assert sorted(map(str, batches[2:4])) == ["['bob=1']", "['eve=1']"]
        assert batches[4] == ["cid=1"]

    def test_claim_takes_turns_also_while_a_destination_accepts_nothing(self, connect: Connect) -> None:
        backend = connect()
        store(backend, "ann=1")
        store(backend, "dan=1", destination=THERE)
        claims = [claim(backend)[0].key for _ in range(4)]
        assert claims[:2] == claims[2:]
        assert {*claims} == {"ann", "dan"}

    def test_claim_leaves_a_resting_destination_alone(self, connect: Connect) -> None:
        backend = connect()
        store(backend, "ann=1", "bob=1")
        store(backend, "dan=1", destination=THERE)
        assert [deliver(backend, resting=[HERE]) for _ in range(2)] == [["dan=1"], []]
        assert deliver(backend) == ["ann=1", "bob=1"]

    def test_claim_of_one_process_has_what_others_have_stored(self, connect: Connect) -> None:
        one, other = connect(), connect()
        store(one, "ann=1")
        store(other, "bob=1")
        former = connect()
        store(former, "cid=1", destination=THERE)
        former.close()
        batches = [deliver(one) for _ in range(2)]
        assert sorted(batches) == [["ann=1", "bob=1"], ["cid=1"]]
        assert (own_totals(one), own_totals(other)) == (Totals(accepted=1, delivered=1),) * 2

    @pytest.mark.parametrize("replaces", [True, False])
    def test_keys_may_be_any_text(self, connect: Connect, replaces: bool) -> None:  # noqa: FBT001 - of pytest
        backend = connect()
        for second in (1, 2):
            messages = [message_of(f"{key}=1", second, replaces=replaces) for key in UNUSUAL_KEYS]
            backend.store(messages, [], [], soon())
        batch = claim(backend)
        assert [message.key for message in batch] == [*UNUSUAL_KEYS]
        settle(backend, accepted=batch)
        count = len(UNUSUAL_KEYS)
        assert backend.totals().every == Totals(accepted=2 * count, delivered=count, unchanged=count)

    # Settling

    def test_settle_ends_nothing_but_what_it_is_given(self, connect: Connect) -> None:
        backend = connect()
        store(backend, "ann=1", "bob=1", "cid=1")
        ann, bob, _ = claim(backend)
        settle(backend, accepted=[bob], rejected=[ann])
        assert waiting(backend) == ["cid=1"]
        assert backend.totals().every == Totals(accepted=3, delivered=1, rejected=1)

    def test_settle_of_nothing_leaves_all_waiting(self, connect: Connect) -> None:
        backend = connect()
        store(backend, "ann=1", "bob=1")
        claim(backend)
        settle(backend)
        assert waiting(backend) == ["ann=1", "bob=1"]

    def test_settle_ends_only_the_version_that_was_claimed(self, connect: Connect) -> None:
        one, other = connect(), connect()
        store(one, "ann=old", "bob=old", "cid=old")
        ann, bob, cid = claim(one)
        store(other, "ann=new", "bob=new", "cid=new", second=2)
        settle(one, accepted=[ann], rejected=[bob], last=[cid])
        assert deliver(one) == ["ann=new", "bob=new", "cid=new"]
        assert one.totals().every == Totals(accepted=6, delivered=3, superseded=3)

    def test_settle_ends_a_message_once(self, connect: Connect) -> None:
        backend = connect()
        store(backend, "ann=1", "bob=1")
        ann, _ = claim(backend)
        settle(backend, accepted=[ann])
        settle(backend, rejected=[ann])
        settle(backend, accepted=[ann], last=[ann])
        assert waiting(backend) == ["bob=1"]
        assert backend.totals().every == Totals(accepted=2, delivered=1)

    def test_settle_of_an_event_ends_no_other_of_its_key(self, connect: Connect) -> None:
        backend = connect()
        store(backend, "ann=1", "ann=2", "ann=3", replaces=False)
        one, _, three = claim(backend)
        settle(backend, accepted=[three], rejected=[one])
        assert deliver(backend) == ["ann=2"]
        store(backend, "ann=3", second=2, replaces=False)
        assert deliver(backend) == []

    def test_rejected_message_is_not_remembered_as_accepted(self, connect: Connect) -> None:
        backend = connect()
        store(backend, "ann=1")
        settle(backend, rejected=claim(backend))
        store(backend, "ann=1", second=2)
        assert deliver(backend) == ["ann=1"]
        assert backend.totals().every == Totals(accepted=2, delivered=1, rejected=1)

    def test_last_messages_wait_behind_all_others(self, connect: Connect) -> None:
        backend = connect()
        store(backend, "ann=1", "bob=1", "cid=1", "dan=1")
        ann, bob, _, _ = claim(backend)
        settle(backend, last=[ann, bob])
        assert sorted(waiting(backend)[2:]) == ["ann=1", "bob=1"]
        store(backend, "eve=1")
        assert waiting(backend)[-1] == "eve=1"
        assert len(deliver(backend)) == 5

    def test_last_message_has_another_version(self, connect: Connect) -> None:
        backend = connect()
        store(backend, "ann=1", "bob=1")
        ann, bob = claim(backend)
        settle(backend, last=[ann])
        assert claim(backend)[1].version > bob.version
        settle(backend, accepted=[ann])
        assert waiting(backend) == ["bob=1", "ann=1"]

    def test_last_message_gives_way_to_a_newer_one(self, connect: Connect) -> None:
        backend = connect()
        store(backend, "ann=1", "bob=1")
        settle(backend, last=claim(backend)[:1])
        store(backend, "ann=2", second=2)
        assert deliver(backend) == ["bob=1", "ann=2"]
