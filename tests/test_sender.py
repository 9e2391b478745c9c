"""Delivery of batches: what is halved, rejected, kept, retried and given up."""

import threading
from collections.abc import Callable, Container, Sequence
from pathlib import Path
from time import monotonic

import pytest

from flagsync import _sender
from flagsync._http import Answer, Outcome
from flagsync._outbox import Destination, MemoryOutbox, Update
from flagsync._report import Reporter
from flagsync._sender import Sender, seconds_to_wait
from flagsync._sqlite import FileOutbox
from flagsync.exceptions import DeliveryError

ACCEPTED = Answer(Outcome.ACCEPTED)
REFUSED = Answer(Outcome.REFUSED, "Refused", text="missing")
DOWN = Answer(Outcome.UNAVAILABLE, "Down")
FORBIDDEN = Answer(Outcome.MISCONFIGURED, "Forbidden")
FOREVER = 1e6


class Rig:
    """A sender over an outbox in memory, and a scripted Mixpanel that keeps what it accepts."""

    def __init__(self, answer: Callable[[list[str]], Answer] = lambda _: ACCEPTED) -> None:
        self.answer = answer
        self.requests: list[list[str]] = []
        self.seconds: list[float] = []
        self.profiles: list[str] = []
        self.errors: list[DeliveryError] = []
        self.outbox = MemoryOutbox(Destination("url"), 10_000, 300, Reporter(None))
        self.ended = threading.Event()
        self.sender = Sender(self.outbox, self._post, self.ended.set, Reporter(self.errors.append), 1.0)

    def _post(self, url: str, updates: Sequence[bytes], seconds: float) -> Answer:
        texts = [update.decode() for update in updates]
        self.requests.append(texts)
        self.seconds.append(seconds)
        answer = self.answer(texts)
        if answer is ACCEPTED:
            self.profiles += texts
        return answer

    def put(self, *names: str) -> None:
        for name in names:
            self.outbox.put(name, None, name.encode(), name.encode(), 0.0)

    def deliver(self, seconds: float = FOREVER) -> None:
        """Do the thread's work here, as ``close`` does when no thread can start."""
        self.sender.stop(monotonic() + seconds)
        self.sender.finish()
        self.sender.run()


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_sender, "BACKOFF_SECONDS", 0.0)


def refuse(*bad: str) -> Callable[[list[str]], Answer]:
    return lambda texts: REFUSED if {*bad} & {*texts} else ACCEPTED


def test_what_waits_is_sent_in_one_request() -> None:
    rig = Rig()
    rig.put("ann", "bob")
    rig.deliver()
    assert rig.requests == [["ann", "bob"]]
    assert rig.outbox.counts()["delivered"] == 2
    assert rig.ended.is_set()


@pytest.mark.parametrize("position", [0, 777, 1999])
def test_a_bad_update_is_halved_out_of_its_batch_and_the_rest_gets_through(position: int) -> None:
    names = [f"user_{number}" for number in range(2000)]
    rig = Rig(refuse(names[position]))
    rig.put(*names)
    rig.deliver()
    assert sorted(rig.profiles) == sorted(name for name in names if name != names[position])
    assert len(rig.requests) <= 23
    [error] = rig.errors
    assert (error.count, error.will_retry, error.identifiers, error.answer) == (
        1,
        False,
        (names[position],),
        "missing",
    )
    assert rig.outbox.counts()["rejected"] == 1


def test_an_update_that_is_too_large_in_company_gets_through_alone() -> None:
    rig = Rig(lambda texts: REFUSED if len(texts) > 1 else ACCEPTED)
    rig.put("ann", "bob", "cid")
    rig.deliver()
    assert sorted(rig.profiles) == ["ann", "bob", "cid"]
    assert rig.errors == []


def test_a_batch_of_bad_updates_only_is_rejected_one_by_one() -> None:
    rig = Rig(lambda _: REFUSED)
    rig.put("ann", "bob", "cid")
    rig.deliver()
    assert (rig.profiles, len(rig.requests), rig.outbox.counts()["rejected"]) == ([], 5, 3)
    [error] = rig.errors
    assert (str(error), error.identifiers) == ("Refused: 3 updates lost", ("ann", "bob", "cid"))


def test_refusing_everything_is_a_matter_of_configuration_so_that_all_is_kept() -> None:
    answers = iter([REFUSED] * 64)
    rig = Rig(lambda _: next(answers, ACCEPTED))
    names = [f"user_{number}" for number in range(100)]
    rig.put(*names)
    rig.deliver()
    assert len(rig.requests) == 65
    assert rig.profiles == names
    [error] = rig.errors
    assert (error.reason, error.count, error.will_retry) == ("Refused, whatever is sent", 100, True)
    assert error.misconfigured


def test_many_bad_updates_take_several_batches_but_all_good_ones_get_through() -> None:
    names = [f"user_{number}" for number in range(200)]
    rig = Rig(refuse(*names[::5]))
    rig.put(*names)
    rig.deliver()
    assert sorted(rig.profiles) == sorted(set(names) - set(names[::5]))
    assert rig.outbox.counts()["rejected"] == 40


@pytest.mark.parametrize(("failure", "reason"), [(DOWN, "Down"), (FORBIDDEN, "Configuration error: Forbidden")])
def test_a_failure_keeps_everything_and_is_told_once_until_it_is_over(
    failure: Answer, reason: str, logged: Callable[[], list[str]]
) -> None:
    answers = iter([failure] * 3)
    rig = Rig(lambda _: next(answers, ACCEPTED))
    rig.put("ann", "bob")
    rig.deliver()
    assert rig.requests == [["ann", "bob"]] * 4
    assert rig.sender.counts == {"requests": 4, "retries": 3}
    assert rig.sender.failure is None
    assert [(error.count, error.will_retry) for error in rig.errors] == [(2, True)]
    assert logged() == [
        f"{reason}: 2 updates kept and sent again later",
        "Mixpanel takes updates again; failed attempts: 3",
    ]


def test_a_failure_of_another_kind_is_told_again() -> None:
    answers = iter([DOWN, FORBIDDEN, FORBIDDEN, DOWN])
    rig = Rig(lambda _: next(answers, ACCEPTED))
    rig.put("ann")
    rig.deliver()
    assert [error.reason for error in rig.errors] == ["Down", "Forbidden", "Down"]


def test_a_failure_while_halving_keeps_what_was_not_accepted() -> None:
    script = iter([REFUSED, ACCEPTED, DOWN])
    rig = Rig(lambda texts: next(script, None) or refuse("bad")(texts))
    rig.put("ann", "bob", "bad", "dan")
    rig.deliver()
    assert rig.requests[:4] == [["ann", "bob", "bad", "dan"], ["ann", "bob"], ["bad", "dan"], ["bad", "dan"]]
    assert rig.profiles == ["ann", "bob", "dan"]
    assert rig.outbox.counts()["rejected"] == 1


def test_nothing_is_rejected_before_anything_was_accepted_if_mixpanel_goes_down() -> None:
    script = iter([REFUSED, REFUSED, DOWN])
    rig = Rig(lambda _: next(script, ACCEPTED))
    rig.put("ann", "bob")
    rig.deliver()
    assert rig.profiles == ["ann", "bob"]
    assert rig.outbox.counts()["rejected"] == 0


def test_a_newer_state_that_came_during_a_failure_goes_out_in_place_of_the_old() -> None:
    rig = Rig()

    def answer(texts: list[str]) -> Answer:
        if texts == ["old", "other"]:
            rig.outbox.put("ann", None, b"new", b"new", 0.0)
            return DOWN
        return ACCEPTED

    rig.answer = answer
    rig.outbox.put("ann", None, b"old", b"old", 0.0)
    rig.outbox.put("bob", None, b"other", b"other", 0.0)
    rig.deliver()
    assert rig.requests == [["old", "other"], ["other", "new"]]


def test_at_the_deadline_it_ends() -> None:
    rig = Rig(lambda _: DOWN)
    rig.put("ann", "bob")
    rig.deliver(seconds=0)
    assert rig.requests == []
    assert rig.ended.is_set()


def test_when_closed_it_tries_at_once_and_gives_up_if_the_next_try_comes_too_late(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_sender, "BACKOFF_SECONDS", 1e5)
    rig = Rig(lambda _: DOWN)
    rig.put("ann")
    rig.deliver(seconds=3600)
    assert len(rig.requests) == 1
    assert rig.ended.is_set()


def test_a_hiccup_while_the_client_closes_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_sender, "BACKOFF_SECONDS", 0.01)
    answers = iter([DOWN, DOWN])
    rig = Rig(lambda _: next(answers, ACCEPTED))
    rig.put("ann")
    rig.deliver()
    assert rig.profiles == ["ann"]


def test_what_a_closing_client_gives_up_is_not_said_to_be_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_sender, "BACKOFF_SECONDS", 1e5)
    rig = Rig(lambda _: DOWN)
    rig.put("ann")
    rig.deliver(seconds=3600)
    assert rig.errors == []


def test_what_a_closing_client_leaves_in_a_file_is_said_to_be_sent_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_sender, "BACKOFF_SECONDS", 1e5)
    rig = Rig(lambda _: DOWN)
    outbox = FileOutbox(str(tmp_path / "outbox"), Destination("url"), 100, 300.0, Reporter(None))
    rig.sender = Sender(outbox, rig._post, outbox.close, Reporter(rig.errors.append), 1e300)
    outbox.put("ann", None, b"1", b"1", 1.0)
    rig.deliver(seconds=3600)
    assert [(error.count, error.will_retry) for error in rig.errors] == [(1, True)]


@pytest.mark.parametrize(("failures", "least", "most"), [(1, 0.375, 0.875), (3, 1.125, 1.625)])
def test_a_client_that_closes_comes_back_sooner(
    failures: int, least: float, most: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    waits = [seconds_to_wait(DOWN, failures, closing=True) for _ in range(50)]
    assert least <= min(waits) < max(waits) <= most


def test_who_does_not_answer_in_time_gets_more_of_it() -> None:
    answers = iter([DOWN] * 3)
    rig = Rig(lambda _: next(answers, ACCEPTED))
    for name in ("ann", "bob"):
        rig.put(name)
        rig.sender = Sender(rig.outbox, rig._post, rig.ended.set, Reporter(None), 1e10)
        rig.deliver()
    assert [round(seconds, 2) for seconds in rig.seconds] == [10, 20, 30, 30, 10]


def test_a_request_gets_no_more_time_than_there_is() -> None:
    rig = Rig()
    rig.put("ann")
    rig.deliver(seconds=9)
    assert 0 < rig.seconds[0] <= 9


@pytest.mark.parametrize(("failures", "seconds"), [(1, 2), (2, 4), (3, 8), (5, 32), (6, 60), (5000, 60)])
def test_backing_off_doubles_from_2_to_60_seconds_plus_1_to_5(
    failures: int, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    waits = [seconds_to_wait(DOWN, failures) for _ in range(50)]
    assert seconds + 1 <= min(waits) < max(waits) <= seconds + 5


def test_a_wrong_configuration_is_not_hammered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert 61 <= seconds_to_wait(FORBIDDEN, 1) <= 65
    assert seconds_to_wait(FORBIDDEN, 1, closing=True) >= 60


def test_mixpanels_own_word_on_when_to_come_back_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert 101 <= seconds_to_wait(DOWN._replace(retry_after_seconds=100), 1) <= 105


class Counting(MemoryOutbox):
    """Counts how often it is asked for a batch."""

    asked = 0

    def take(self, resting: Container[Destination] = ()) -> list[Update]:
        self.asked += 1
        return super().take(resting)


def test_waiting_for_the_next_try_is_idle_and_ends_when_the_client_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_sender, "BACKOFF_SECONDS", 1e5)
    told = threading.Event()
    answers = iter([DOWN])
    rig = Rig(lambda _: next(answers, ACCEPTED))
    rig.outbox = Counting(Destination("url"), 10_000, 300, Reporter(None))
    rig.sender = Sender(rig.outbox, rig._post, rig.ended.set, Reporter(lambda _: told.set()), 0.001)
    rig.put("ann")
    thread = threading.Thread(target=rig.sender.run)
    thread.start()
    assert told.wait(10)
    assert not rig.sender.flush(monotonic() + 0.05)
    assert rig.outbox.asked <= 3
    rig.sender.stop(monotonic() + FOREVER)
    rig.sender.finish()
    assert rig.sender.join(monotonic() + 10)
    thread.join()
    assert rig.profiles == ["ann"]


def test_no_destination_waits_because_another_is_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_sender, "BACKOFF_SECONDS", 1e5)
    came = threading.Event()

    def post(url: str, _: Sequence[bytes], __: float) -> Answer:
        if url == "down":
            return DOWN
        came.set()
        return ACCEPTED

    path, report = str(tmp_path / "outbox"), Reporter(None)
    down, up = (FileOutbox(path, Destination(url), 100, 300.0, report) for url in ("down", "up"))
    for outbox in (down, up):
        outbox.put("ann", None, b"1", b"1", 1.0)
        outbox.save()
    sender = Sender(down, post, down.close, report, 3600)
    thread = threading.Thread(target=sender.run)
    thread.start()
    assert not sender.flush(monotonic())  # which asks for haste
    assert came.wait(10)
    sender.stop(monotonic())
    sender.finish()
    thread.join()
    up.close()


def test_a_copy_of_the_thread_in_a_forked_process_sends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig()
    rig.put("ann")
    monkeypatch.setattr(_sender, "getpid", lambda: -1)
    rig.deliver()
    assert (rig.requests, rig.ended.is_set()) == ([], False)
