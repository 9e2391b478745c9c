"""When the encoder's thread works, and when it rests."""

import pytest

from flagsync._encoding import pacer
from flagsync._encoding.pacer import AS_A_RULE, WHILE_SOMEBODY_WAITS, Pacer, Rhythm


class Clock:
    """A clock that stands still except while somebody rests."""

    def __init__(self) -> None:
        self.now = 100.0
        self.rests = list[float]()

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.rests.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(pacer, "perf_counter", made)
    monkeypatch.setattr(pacer, "sleep", made.sleep)
    return made


def test_pacer_rests_only_when_the_time_to_work_is_over(clock: Clock) -> None:
    paced = Pacer()
    paced.rhythm = Rhythm(work_seconds=2.0, rest_seconds=0.5)
    paced.pause()
    clock.now += 2.0
    paced.pause()
    assert clock.rests == [0.5]
    clock.now += 0.25
    paced.pause()
    assert clock.rests == [0.5, 0.5]


def test_pacer_counts_the_time_to_work_from_the_end_of_the_rest(clock: Clock) -> None:
    paced = Pacer()
    paced.rhythm = Rhythm(work_seconds=1.0, rest_seconds=5.0)
    paced.pause()
    clock.now += 0.75
    paced.pause()
    assert clock.rests == [5.0]


def test_pacer_rests_before_a_piece_of_work_that_would_take_too_long(clock: Clock) -> None:
    paced = Pacer()
    paced.rhythm = Rhythm(work_seconds=1.0, rest_seconds=0.5)
    paced.pause()
    paced.pause(0.75)
    assert clock.rests == [0.5]
    paced.pause(1.25)
    assert clock.rests == [0.5, 0.5]


def test_pacer_follows_a_rhythm_that_changes(clock: Clock) -> None:
    paced = Pacer()
    paced.pause()
    paced.rhythm = WHILE_SOMEBODY_WAITS
    clock.now += 1.0
    paced.pause()
    assert clock.rests == [AS_A_RULE.rest_seconds, WHILE_SOMEBODY_WAITS.rest_seconds]


def test_pacer_works_longer_and_rests_less_while_somebody_waits() -> None:
    assert WHILE_SOMEBODY_WAITS.work_seconds > AS_A_RULE.work_seconds
    assert WHILE_SOMEBODY_WAITS.rest_seconds < AS_A_RULE.rest_seconds
