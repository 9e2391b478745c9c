"""The messages of one request."""

import gc
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import pytest

from flagsync._outbox.batch import fitting
from flagsync._outbox.contract import Limits, Message
from flagsync._outbox.memory import MemoryOutbox
from flagsync._outbox.sqlite import SQLiteBackend
from flagsync._report import Reporter
from flagsync._stats import Ledger
from tests.support.outboxes import BEGAN, LONG, message

Claimed: TypeAlias = tuple[MemoryOutbox | SQLiteBackend, Sequence[Message]]
MESSAGES = [message(f"user{number}={number}", number, tail=b"}") for number in range(5)]


def test_batch_is_a_sequence_of_the_messages_it_was_made_from() -> None:
    batch = fitting(MESSAGES, Limits())
    assert batch == MESSAGES
    assert batch != MESSAGES[1:]
    assert batch != [*MESSAGES, *MESSAGES]
    assert [*batch] == MESSAGES
    assert (batch[0], batch[-1], len(batch)) == (MESSAGES[0], MESSAGES[-1], 5)
    assert batch[1:3] == MESSAGES[1:3]
    assert MESSAGES[2] in batch


def test_batch_of_no_messages_is_empty() -> None:
    assert not fitting([], Limits())


def claimed_from_memory(_: Path) -> Claimed:
    outbox = MemoryOutbox(Limits(), Ledger(), Reporter(None))
    for one in MESSAGES:
        outbox.put(one)
    batch = outbox.claim({}, urgent=True).messages
    return outbox, batch


def claimed_from_a_file(path: Path) -> Claimed:
    backend = SQLiteBackend(path / "outbox.db")
    backend.store(MESSAGES, [], [], BEGAN + LONG)
    return backend, backend.claim([], Limits())


@pytest.mark.parametrize("claimed", [claimed_from_memory, claimed_from_a_file])
def test_messages_in_flight_are_nothing_that_the_garbage_collector_looks_at(
    claimed: Callable[[Path], Claimed], tmp_path: Path
) -> None:
    before = {id(one) for one in tracked_messages()}
    owner, batch = claimed(tmp_path)
    assert len(batch) == len(MESSAGES)
    assert not [one for one in tracked_messages() if id(one) not in before]
    owner.close()


def tracked_messages() -> list[Message]:
    """Return the messages that the garbage collector looks at."""
    gc.collect()
    return [one for one in gc.get_objects() if type(one) is Message]


def dead_references() -> int:
    """How many weak references are left of what is gone."""
    gc.collect()
    return sum(type(one) is weakref.ReferenceType and one() is None for one in gc.get_objects())


def test_file_leaves_no_references_to_cursors_for_the_garbage_collector(tmp_path: Path) -> None:
    backend = SQLiteBackend(tmp_path / "outbox.db")
    backend.store(MESSAGES, [], [], BEGAN + LONG)
    before = dead_references()
    for second in range(1, 21):
        backend.store([message("ann=1", second)], [], [], BEGAN + LONG)
        backend.status([])
    assert dead_references() - before < 20
    backend.close()
