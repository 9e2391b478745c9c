"""Bisection: which messages of a refused batch are bad, and how many requests that takes."""

from collections.abc import Callable, Collection

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flagsync._delivery.bisection import Bisection
from flagsync._outbox.contract import Message
from tests.support.sending import message

MESSAGES = [message(f"user_{number}") for number in range(2000)]
REQUESTS = 64  # of one batch


def bisect(
    batch: list[Message], is_refused: Callable[[Message], bool], max_requests: float = float("inf")
) -> tuple[Bisection, int]:
    """Send a batch part by part; return its bisection, and how many requests it took."""
    bisection, requests = Bisection(batch), 0
    while not bisection.is_decided and requests < max_requests:
        part = bisection.next_part()
        requests += 1
        if any(map(is_refused, part)):
            bisection.refuse(part)
        else:
            bisection.accept(part)
    return bisection, requests


def keys(messages: Collection[Message]) -> list[str]:
    return sorted(message.key for message in messages)


def test_bisection_of_a_good_batch_takes_one_request() -> None:
    bisection, requests = bisect(MESSAGES, lambda _: False)
    assert (bisection.accepted, bisection.rejected, requests) == (MESSAGES, [], 1)


@pytest.mark.parametrize("position", [0, 1, 777, 999, 1000, 1998, 1999])
def test_bisection_isolates_a_single_bad_message_within_23_requests(position: int) -> None:
    bad = MESSAGES[position]
    bisection, requests = bisect(MESSAGES, lambda message: message is bad)
    assert requests <= 23
    assert bisection.rejected == [bad]
    assert keys(bisection.accepted) == keys([message for message in MESSAGES if message is not bad])


@pytest.mark.parametrize(
    "bad",
    [
        range(40),
        range(1000),
        range(1900),
        range(100, 2000),
        range(990, 1030),
        [*range(900), *range(1100, 2000)],
        [*range(30), *range(1970, 2000)],
        range(0, 2000, 10),
        range(0, 2000, 2),
        [*range(100), *range(100, 2000, 10)],
    ],
    ids=[
        "40 at the front",
        "half of them at the front",
        "nearly all at the front",
        "nearly all at the end",
        "in the middle",
        "nearly all at both ends",
        "30 at both ends",
        "every tenth",
        "every second",
        "100 at the front and every tenth",
    ],
)
def test_bisection_finds_good_messages_among_many_bad_ones_in_time(bad: Collection[int]) -> None:
    refused = {MESSAGES[number].key for number in bad}
    bisection, _ = bisect(MESSAGES, lambda message: message.key in refused, REQUESTS)
    assert bisection.accepted
    assert not refused & {*keys(bisection.accepted)}
    assert refused >= {*keys(bisection.rejected)}


def test_bisection_of_a_batch_that_is_refused_whatever_is_sent_stays_undecided() -> None:
    bisection, requests = bisect(MESSAGES, lambda _: True, REQUESTS)
    assert (bisection.is_decided, bisection.accepted, requests) == (False, [], REQUESTS)


def test_bisection_decides_a_small_batch_of_bad_messages_in_order() -> None:
    bisection, requests = bisect(MESSAGES[:32], lambda _: True, REQUESTS)
    assert (bisection.is_decided, bisection.accepted, requests) == (True, [], 63)
    assert keys(bisection.rejected) == keys(MESSAGES[:32])


def test_bisection_sends_the_oldest_messages_first_once_some_are_accepted() -> None:
    bisection = Bisection(MESSAGES[:8])
    bisection.refuse(bisection.next_part())
    bisection.accept(bisection.next_part())
    bisection.refuse(bisection.next_part())
    assert [bisection.next_part(), bisection.next_part()] == [MESSAGES[4:6], MESSAGES[6:8]]


def test_bisection_looks_elsewhere_in_turn_while_everything_is_refused() -> None:
    bisection, parts = Bisection(MESSAGES[:16]), list[list[Message]]()
    for _ in range(3):
        parts.append([*bisection.next_part()])
        bisection.refuse(parts[-1])
    assert parts == [MESSAGES[:16], MESSAGES[:8], MESSAGES[8:16]]


@given(size=st.integers(1, 60), bad=st.sets(st.integers(0, 59)))
def test_bisection_rejects_exactly_the_bad_messages_whichever_they_are(size: int, bad: set[int]) -> None:
    batch = MESSAGES[:size]
    refused = {message.key for number, message in enumerate(batch) if number in bad}
    bisection, _ = bisect(batch, lambda message: message.key in refused)
    assert {*keys(bisection.rejected)} == refused
    assert len(bisection.rejected) == len(refused)
    assert keys(bisection.accepted) == keys([message for message in batch if message.key not in refused])


def test_bisection_takes_the_word_of_an_answer_that_names_the_bad_messages() -> None:
    batch = MESSAGES[:5]
    bisection = Bisection(batch)
    bisection.refuse(bisection.next_part(), {1, 4})
    assert bisection.is_decided
    assert (bisection.accepted, bisection.rejected) == (
        [batch[0], batch[2], batch[3]],
        [batch[1], batch[4]],
    )


def versioned(count: int) -> list[Message]:
    return [one._replace(version=number) for number, one in enumerate(MESSAGES[:count])]


def test_bisection_tries_messages_that_come_last_when_the_others_are_refused_alone() -> None:
    batch = versioned(4)
    bisection, parts = Bisection(batch, {0, 1}), list[list[Message]]()
    while not bisection.is_decided:
        parts.append([*bisection.next_part()])
        bisection.refuse(parts[-1])
    assert parts == [batch, batch[2:], batch[2:3], batch[3:], batch[:2], batch[:1], batch[1:2]]
    assert keys(bisection.rejected) == keys(batch)


def test_bisection_tries_messages_that_come_last_once_one_of_the_others_is_accepted() -> None:
    batch = versioned(6)
    bisection = Bisection(batch, {0, 1})
    for _ in range(2):
        bisection.refuse(bisection.next_part())
    bisection.accept(bisection.next_part())
    assert [bisection.next_part(), bisection.next_part()] == [batch[4:], batch[:2]]
    assert bisection.is_decided


def test_bisection_of_a_good_batch_takes_one_request_whatever_comes_last() -> None:
    bisection = Bisection(batch := versioned(4), {0, 1})
    bisection.accept(bisection.next_part())
    assert (bisection.accepted, bisection.is_decided) == (batch, True)


def test_bisection_that_is_told_the_bad_messages_of_the_batch_is_decided_whatever_comes_last() -> None:
    bisection = Bisection(batch := versioned(4), {0, 1})
    bisection.refuse(bisection.next_part(), {1})
    assert (bisection.rejected, bisection.is_decided) == (batch[1:2], True)
    assert bisection.accepted == [batch[0], *batch[2:]]
