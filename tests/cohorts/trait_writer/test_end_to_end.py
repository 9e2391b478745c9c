"""Every trait is right at the end: stores, writers, and a server that behaves and misbehaves as a real one."""

import multiprocessing
import os
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flagsmith import Flagsmith

from flagsync import DeliveryError
from flagsync._delivery.destinations import Backoff
from flagsync.cohorts import CohortUpdate, SQLiteStore, TraitWriter
from flagsync.cohorts.sqlite.store import StoreLimits
from flagsync.cohorts.trait_writer.batch_size import Batches
from flagsync.cohorts.trait_writer.pace import Pace
from flagsync.cohorts.trait_writer.writer import Writing
from tests.support.flagsmith_server import KEY, OTHER_KEY, Clock, FlagsmithServer, Traits

VIPS = "mixpanel_cohort_vips"
chance = random.Random(42)


class Setup:
    """A server, a store, and what is done to them."""

    def __init__(self, path: Path) -> None:
        self.server, self.time = FlagsmithServer(), Clock()
        self.path = path
        self.store = self.open()
        self.errors: list[DeliveryError] = []
        self._stores, self._writers = [self.store], list[TraitWriter]()

    def open(self) -> SQLiteStore:
        return SQLiteStore(self.path, limits=StoreLimits(clock=self.time))

    def write(
        self,
        key: str = KEY,
        store: SQLiteStore | None = None,
        request_seconds: float = 30.0,
        **batches: Any,
    ) -> TraitWriter:
        """Build a writer that waits for nothing but an answer, and for what is unsure or set aside."""
        writing = Writing(
            pace=Pace(interval_seconds=0.005),
            batches=Batches(**batches),
            request_seconds=request_seconds,
            backoff=Backoff(first_seconds=0.001, max_seconds=0.01),
            clock=self.server.clock,
        )
        client = Flagsmith(key, self.server.api_url)
        writer = TraitWriter(store or self.store, client, on_error=self.errors.append, writing=writing)
        self._writers.append(writer)
        return writer

    def change(self, action: Any, *members: str, cohort: str = "vips") -> None:
        self.store.apply(CohortUpdate(action, cohort, cohort, members=members))

    def pass_time(self, writer: TraitWriter, seconds: float = 3600.0) -> bool:
        """Let the time pass that changes are postponed for; return whether everything is settled then."""
        for _ in range(500):
            if writer.flush(0.05):
                return True
            self.time.sleep(seconds)
        return writer.flush(30)

    def expected(self, cohort: str = "vips") -> dict[tuple[str, str], bool]:
        """Return the traits of the members."""
        return {(who, f"mixpanel_cohort_{cohort}"): True for who in self.store.members(cohort)}

    def close(self) -> None:
        for writer in self._writers:
            writer.close(0.1)
        self.store.close()
        self.server.close()


@pytest.fixture
def setup(tmp_path: Path) -> Iterator[Setup]:
    setup = Setup(tmp_path / "cohorts.db")
    yield setup
    setup.close()


def members(traits: Traits) -> dict[tuple[str, str], bool]:
    """Return the traits that say that somebody is in a cohort."""
    return {key: value for key, value in traits.items() if value}


# Environments


def test_each_of_two_environments_on_one_store_gets_everything(setup: Setup) -> None:
    setup.change("add_members", *"abcdef")
    writers = setup.write(), setup.write(OTHER_KEY)
    assert [writer.flush() for writer in writers] == [True, True]
    setup.change("remove_members", *"abc")
    assert [writer.flush() for writer in writers] == [True, True]
    for key in (KEY, OTHER_KEY):
        traits = setup.server.environments[key].traits
        assert {who: value for (who, _), value in traits.items()} == {
            **dict.fromkeys("abc", False),
            **dict.fromkeys("def", True),
        }


def test_second_environment_gets_the_members_and_nobody_else(setup: Setup) -> None:
    setup.change("add_members", *"abc")
    first = setup.write()
    assert first.flush()
    setup.change("remove_members", "a")
    assert first.flush()
    assert setup.write(OTHER_KEY).flush()
    assert setup.server.environments[OTHER_KEY].traits == {("b", VIPS): True, ("c", VIPS): True}


@pytest.mark.parametrize("wrong_key", ["ser.wrong", OTHER_KEY])
def test_wrong_key_that_is_corrected_writes_everything(setup: Setup, wrong_key: str) -> None:
    setup.change("add_members", *(f"{number}" for number in range(200)))
    wrong = setup.write(wrong_key)
    assert wrong.flush(1) is (wrong_key == OTHER_KEY)
    wrong.close(0.1)
    assert setup.server.traits == {}
    assert setup.write().flush()
    assert setup.server.traits == setup.expected()


def test_wrong_key_is_said_once_with_the_status_and_what_to_check(
    setup: Setup, logged: Callable[[], list[str]]
) -> None:
    setup.change("add_members", "ann")
    writer = setup.write("ser.wrong")
    assert writer.flush(0.3) is False
    assert "\n".join(logged()) == (
        "Configuration error: Flagsmith does not accept traits (HTTP 403; check the environment key and api_url): "
        "Invalid or missing Environment Key: 1 update kept and sent again later"
    )
    assert writer.stats().retries > 0


# Flagsmith has forgotten


def test_resync_writes_everything_to_a_server_that_was_restored(setup: Setup) -> None:
    setup.change("add_members", *"abcdef")
    writer = setup.write()
    assert writer.flush()
    backup = setup.server.backup()
    setup.change("remove_members", *"ab")
    setup.change("members", *"cdxyz")
    assert writer.flush()
    right = setup.server.backup()
    setup.server.restore(backup)
    writer.resync()
    assert writer.flush()
    assert setup.server.traits == right == {**dict.fromkeys(backup, False), **setup.expected()}


def test_resync_writes_over_what_browsers_have_written_back(setup: Setup) -> None:
    setup.change("add_members", *"ab")
    writer = setup.write()
    assert writer.flush()
    setup.change("remove_members", "a")
    assert writer.flush()
    setup.server.traits["a", VIPS] = True  # as the page had it when it was opened
    setup.change("add_members", "c")
    assert writer.flush()
    assert setup.server.traits["a", VIPS] is True
    writer.resync()
    assert writer.flush()
    assert setup.server.traits == {("a", VIPS): False, **setup.expected()}


def test_resync_concerns_one_environment_and_any_process_may_ask_for_it(setup: Setup) -> None:
    setup.change("add_members", *"abc")
    writers = setup.write(), setup.write(OTHER_KEY)
    assert [writer.flush() for writer in writers] == [True, True]
    with setup.open() as store:
        setup.write(store=store).resync()
        assert writers[0].flush()
        assert [writer.stats().written for writer in writers] == [6, 3]


def test_resync_while_everything_is_being_written_ends_right(setup: Setup) -> None:
    setup.change("add_members", *(f"{number}" for number in range(300)))
    writer = setup.write(first=10, max_bulk=10)
    for _ in range(5):
        writer.resync()
        setup.change("remove_members", f"{chance.randrange(300)}")
    assert writer.flush(30)
    assert members(setup.server.traits) == setup.expected()


# Requests without an answer


@pytest.mark.parametrize("is_silent", [True, False])
def test_request_that_ends_after_a_later_one_is_made_good(setup: Setup, *, is_silent: bool) -> None:
    writer = setup.write(request_seconds=0.1)
    assert writer.flush()
    setup.server.hold(is_silent=is_silent)
    setup.change("add_members", *"abc")
    assert setup.server.wait_for_requests(1)
    setup.change("remove_members", *"abc")
    for _ in range(100):  # until the later request has ended, too
        assert writer.flush(0.1) is False  # it is not sure
        if set(setup.server.traits.values()) == {False}:
            break
    assert set(setup.server.traits.values()) == {False}
    assert setup.server.finish() == 1
    assert set(setup.server.traits.values()) == {True}
    assert setup.pass_time(writer)
    assert set(setup.server.traits.values()) == {False}


def test_many_requests_without_an_answer_are_made_good_in_any_order(setup: Setup) -> None:
    everybody = [f"{number}" for number in range(60)]
    writer = setup.write(first=20)
    for _ in range(6):
        setup.server.hold(chance.randint(1, 3))
        setup.change("add_members", *chance.sample(everybody, 30))
        setup.change("remove_members", *chance.sample(everybody, 30))
        writer.flush(0.05)
    chance.shuffle(setup.server._held)
    assert setup.server.finish() >= 6
    assert setup.pass_time(writer)
    assert members(setup.server.traits) == setup.expected()


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # Python >= 3.12, of forks with threads
def test_writer_that_is_killed_in_the_middle_leaves_nothing_wrong(setup: Setup) -> None:
    everybody = [f"{number:03}" for number in range(400)]
    setup.change("add_members", *everybody)

    def work() -> None:
        setup.write().flush(60)
        os._exit(0)

    for _ in range(5):
        setup.server.requests.clear()
        setup.server.hold(1)
        child = multiprocessing.get_context("fork").Process(target=work)
        child.start()
        assert setup.server.wait_for_requests(1)
        assert child.pid
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        setup.change("remove_members", *chance.sample(everybody, 40))
        setup.change("add_members", *chance.sample(everybody, 20))
    writer = setup.write()
    writer.flush(1)
    setup.server.finish()
    assert setup.pass_time(writer)
    assert members(setup.server.traits) == setup.expected()


# A slow server, and one that fails


def test_server_under_load_times_out_at_most_once(setup: Setup) -> None:
    setup.server.trait_seconds = 0.066  # beside 30 evaluations a second
    setup.change("add_members", *(f"{number}" for number in range(2000)))
    writer = setup.write()
    assert writer.flush(60)
    assert setup.server.finish() == 0
    sizes = [len(request.updates) for request in setup.server.requests]
    assert all(40 < size <= 50 for size in sizes[:-1])


def test_server_that_gets_slow_makes_batches_small(setup: Setup) -> None:
    setup.change("add_members", *(f"{number}" for number in range(3000)))
    writer = setup.write()
    assert writer.flush(60)
    setup.server.trait_seconds = 0.3
    setup.server.requests.clear()
    setup.change("remove_members", *(f"{number}" for number in range(600)))
    assert setup.pass_time(writer)
    setup.server.finish()
    sizes = [len(request.updates) for request in setup.server.requests]
    assert sizes[:4] == [500, 250, 125, 62]
    assert max(sizes[5:]) <= 15
    assert members(setup.server.traits) == setup.expected()


@pytest.mark.parametrize("bad", [1, 5])
def test_identifiers_that_the_server_refuses_cost_few_requests_once(setup: Setup, bad: int) -> None:
    too_long = [f"{number}" + "\N{CJK UNIFIED IDEOGRAPH-4E00}" * 900 for number in range(bad)]
    setup.change("add_members", *(f"{number}" for number in range(2000)), *too_long)
    writer = setup.write()
    assert writer.flush(30)
    assert (len(setup.server.traits), writer.stats().rejected) == (2000, bad)
    assert writer.stats().requests <= 10
    assert {who for error in setup.errors for who in error.identifiers} == {*too_long}


def test_identifiers_that_the_server_refuses_for_a_reason_of_its_own_are_found_in_few_requests(
    setup: Setup,
) -> None:
    refused = [f"{number}" + "?" * 50 for number in range(5)]
    setup.server.refused = dict.fromkeys(refused, 500)
    setup.change("add_members", *(f"{number}" for number in range(2000)), *refused)
    writer = setup.write()
    assert not any(writer.flush(0.25) for _ in range(40) if len(setup.server.traits) < 2000)
    assert writer.flush(0.25) is False
    assert (len(setup.server.traits), writer.stats().pending) == (2000, 5)
    assert writer.stats().requests < 40
    assert {who for error in setup.errors for who in error.identifiers} == {*refused}
    setup.server.requests.clear()
    setup.change("add_members", *refused, "good", cohort="others")
    setup.server.refused = {}
    assert setup.pass_time(writer)
    assert members(setup.server.traits) == {**setup.expected(), **setup.expected("others")}


@pytest.mark.parametrize("bulk", [True, False])
def test_server_that_fails_at_random_loses_no_change(setup: Setup, *, bulk: bool) -> None:
    """As one does whose database drops connections, or one of two behind a load balancer that is broken."""
    chance = random.Random(7)
    setup.server.bulk, setup.server.fails = bulk, lambda: chance.random() < 0.5
    setup.change("add_members", *(f"{number}" for number in range(150)))
    writer = setup.write()
    writer.flush(2)
    setup.change("remove_members", *(f"{number}" for number in range(100)))
    assert setup.pass_time(writer)
    assert members(setup.server.traits) == setup.expected()
    assert writer.stats().rejected == 0


def test_server_that_fails_for_long_loses_no_change(setup: Setup) -> None:
    setup.server.fails = lambda: True
    setup.change("add_members", *(f"{number}" for number in range(100)))
    writer = setup.write()
    for _ in range(30):
        assert writer.flush(0.01) is False
        setup.time.sleep(3600)
    setup.server.fails = lambda: False
    assert setup.pass_time(writer)
    assert setup.server.traits == setup.expected()
