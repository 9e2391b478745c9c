"""How many changes go into one request."""

import pytest

from flagsync.cohorts.trait_writer.batch_size import Batches, BatchSize


@pytest.fixture
def batches() -> BatchSize:
    return BatchSize(Batches(first=50, least=10, aim_seconds=3.0, growth=1.5, caution=1.05), 500)


def answered(batches: BatchSize, seconds: float, times: int = 1) -> list[int]:
    """Have full batches answered, each after some seconds for each change; return the sizes."""
    sizes = []
    for _ in range(times):
        batches.note_answer(batches.size, batches.size * seconds)
        sizes.append(batches.size)
    return sizes


def test_size_grows_slowly_up_to_the_most(batches: BatchSize) -> None:
    assert answered(batches, 0.002, 8) == [75, 112, 168, 252, 378, 500, 500, 500]


def test_size_grows_up_to_what_takes_as_long_as_it_should(batches: BatchSize) -> None:
    assert answered(batches, 0.03, 4) == [75, 100, 100, 100]


def test_size_shrinks_at_once_to_what_takes_as_long_as_it_should(batches: BatchSize) -> None:
    assert answered(batches, 0.1) == [30]
    assert answered(batches, 10.0, 2) == [10, 10]


def test_size_after_silence_is_half_and_what_failed_is_not_reached_again_soon(batches: BatchSize) -> None:
    answered(batches, 0.002, 10)
    batches.note_silence(500)
    assert batches.size == 250
    assert max(answered(batches, 0.002, 10)) < 420
    assert answered(batches, 0.002, 10)[-1] == 500


def test_size_after_silence_is_least_at_last(batches: BatchSize) -> None:
    for _ in range(10):
        batches.note_silence(batches.size)
    assert batches.size == 10


def test_size_learns_nothing_from_a_part_of_a_batch_that_is_quick(batches: BatchSize) -> None:
    batches.note_answer(1, 1.0)
    batches.note_answer(49, 2.9)
    assert batches.size == 50
    batches.note_answer(25, 6.0)
    assert batches.size == 12


def test_size_is_never_above_a_low_most() -> None:
    batches = BatchSize(Batches(), 2)
    assert batches.size == 2
    assert answered(batches, 0.0) == [2]
    batches.note_silence(2)
    assert batches.size == 2
