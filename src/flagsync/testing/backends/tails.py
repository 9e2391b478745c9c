"""Records come back whole, however many messages share a tail, and whatever becomes of the others."""

# ruff: noqa: D102, S101 - it consists of tests, whose names say what they are for
from collections.abc import Sequence

from flagsync._outbox.backend import Backend, Totals
from flagsync._outbox.contract import Limits
from flagsync.testing.backends.support import (
    HERE,
    THERE,
    Connect,
    claim,
    confirm,
    deliver,
    message_of,
    settle,
    soon,
    store,
    tell_sent,
    waiting,
)

TAILS = (b"", b"+", b"++", b"+" * 20_000, b"-" * 20_000, b" \"\\'%s?;", "+\xe4\u30a2\U0001f600".encode())
"""No tail, one that others begin with, long ones, and one of many kinds of characters."""


def store_all(backend: Backend, names: Sequence[str], tails: Sequence[bytes] = TAILS) -> list[str]:
    """Store a message of each name with each tail, in one call; return their texts."""
    texts = {(name, number): f"{name}{number}=1" for number in range(len(tails)) for name in names}
    messages = [message_of(text, tail=tails[number]) for (_, number), text in texts.items()]
    backend.store(messages, [], [], soon())
    return [f"{text}{tails[number].decode()}" for (_, number), text in texts.items()]


class TailContract:
    """What ``Backend.store`` and ``Backend.claim`` say of the ends of records."""

    def test_record_comes_back_whole_with_any_tail(self, connect: Connect) -> None:
        one, other = connect(), connect()
        texts = store_all(one, ["ann", "bob", "cid"])
        assert waiting(one) == waiting(one) == texts
        one.close()
        assert deliver(other) == texts
        assert other.totals().every == Totals(accepted=len(texts), delivered=len(texts))

    def test_record_comes_back_whole_though_processes_and_destinations_have_the_same_tail(
        self, connect: Connect
    ) -> None:
        one, other = connect(), connect()
        store(one, "ann=1", tail=b"+")
        store(other, "bob=1", tail=b"+")
        store(other, "ann=2", tail=b"+", destination=THERE)
        assert sorted(deliver(one) for _ in range(2)) == [["ann=1+", "bob=1+"], ["ann=2+"]]
        store(other, "cid=1", tail=b"+")
        assert deliver(one) == ["cid=1+"]

    def test_record_comes_back_whole_when_others_with_its_tail_are_settled(self, connect: Connect) -> None:
        backend = connect()
        left = store_all(backend, ["ann", "bob", "cid"])
        while left:
            batch = claim(backend)
            settle(backend, accepted=batch[:1], rejected=batch[1:2])
            left = left[2:]
            assert waiting(backend) == left

    def test_record_comes_back_whole_when_others_with_its_tail_are_superseded(self, connect: Connect) -> None:
        backend = connect()
        store(backend, "ann=1", "bob=1", "cid=1", tail=b"+")
        store(backend, "ann=2", second=2, tail=b"-")
        tell_sent(backend, "bob=2", second=2)
        assert deliver(backend) == ["cid=1+", "ann=2-"]

    def test_record_comes_back_whole_after_its_message_had_to_wait_behind_others(
        self, connect: Connect
    ) -> None:
        backend = connect()
        store(backend, "ann=1", "bob=1", tail=b"+")
        store(backend, "cid=1", tail=b"-")
        for number in range(4):  # the first tails belong to messages that wait behind all others
            settle(backend, last=claim(backend)[:1])
            store(backend, f"new{number}=1", tail=b"%d" % number)
            batch = claim(backend)
            settle(backend, accepted=[message for message in batch if message.key.startswith("new")])
        assert sorted(deliver(backend)) == ["ann=1+", "bob=1+", "cid=1-"]

    def test_record_comes_back_whole_with_the_tail_of_the_newer_message(self, connect: Connect) -> None:
        backend = connect()
        store(backend, "ann=1", tail=b"+")
        batch = claim(backend)
        store(backend, "ann=2", second=2, tail=b"-")
        settle(backend, accepted=batch)
        assert waiting(backend) == ["ann=2-"]
        store(backend, "ann=3", second=3)
        assert waiting(backend) == ["ann=3"]

    def test_record_of_each_event_comes_back_whole(self, connect: Connect) -> None:
        backend = connect()
        for number, tail in enumerate(TAILS):
            store(backend, f"ann={number}", second=number, tail=tail, replaces=False)
        assert deliver(backend) == [f"ann={number}{tail.decode()}" for number, tail in enumerate(TAILS)]

    def test_record_comes_back_whole_though_its_tail_was_out_of_use(self, connect: Connect) -> None:
        one, other = connect(), connect()
        for number, tail in enumerate(TAILS * 2):
            store(other, f"ann={number}", second=number, tail=tail)
            assert deliver(one) == [f"ann={number}{tail.decode()}"]

    def test_record_comes_back_whole_after_an_unchanged_message_and_a_repeat(self, connect: Connect) -> None:
        backend = connect()
        store(backend, "ann=1", "bob=1", tail=b"+", evaluation=1)
        store(backend, "ann=1", second=2, tail=b"+", evaluation=2)
        assert confirm(backend, "bob") == []
        assert deliver(backend) == ["ann=1+", "bob=1+"]

    def test_claim_has_at_most_so_many_bytes_with_their_tails(self, connect: Connect) -> None:
        backend = connect()
        store(backend, "ann=1", "bob=1", "cid=1", tail=b"23")
        store(backend, "dan=1", tail=b"23456789")
        limits = Limits(max_batch_bytes=9)  # as with bodies of three bytes
        assert [deliver(backend, limits) for _ in range(3)] == [
            ["ann=123", "bob=123"],
            ["cid=123"],
            ["dan=123456789"],
        ]
        assert backend.status([HERE]).pending == 0
