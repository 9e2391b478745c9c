"""One trait writer of all hosts, and who takes over when it ends, is killed or has been suspended."""

import multiprocessing
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from time import monotonic
from typing import Any

import pytest
from flagsmith import Flagsmith

from flagsync import DeliveryError
from flagsync._delivery.destinations import Backoff
from flagsync.cohorts import PostgresStore, TraitWriter
from flagsync.cohorts.postgres.store import StoreLimits
from flagsync.cohorts.trait_writer.pace import Pace
from flagsync.cohorts.trait_writer.writer import Writing
from tests.support.flagsmith_server import KEY, OTHER_KEY, FlagsmithServer
from tests.support.postgres import PostgresServer, schema_of
from tests.support.updates import add, remove

VIPS = "mixpanel_cohort_vips"


class Hosts:
    """Hosts that share a schema and a Flagsmith."""

    def __init__(self, postgres: PostgresServer, schema: str) -> None:
        self.postgres, self.schema, self.flagsmith = postgres, schema, FlagsmithServer()
        self.stores, self.writers = list[PostgresStore](), list[TraitWriter]()
        self.errors = list[DeliveryError]()
        self.has_failed = Event()

    def store(self, **limits: Any) -> PostgresStore:
        """Open the store on another host."""
        url, options = self.postgres.url(), StoreLimits(**limits)
        self.stores.append(PostgresStore(url, schema=self.schema, limits=options))
        return self.stores[-1]

    def write(self, store: PostgresStore, key: str = KEY, **pace: Any) -> TraitWriter:
        """Build a writer that waits for nothing but answers and its lease."""
        writing = Writing(
            pace=Pace(interval_seconds=0.005, **pace),
            backoff=Backoff(first_seconds=0.001, max_seconds=0.01),
            clock=self.flagsmith.clock,
        )
        client = Flagsmith(key, self.flagsmith.api_url)
        self.writers.append(TraitWriter(store, client, on_error=self.note, writing=writing))
        return self.writers[-1]

    def note(self, error: DeliveryError) -> None:
        self.errors.append(error)
        self.has_failed.set()

    def pass_time(self, seconds: float) -> None:
        """Let time pass for the lease and for what was postponed, by the server's clock."""
        earlier = f"make_interval(secs => {seconds})"
        self.postgres.run(
            f"UPDATE {self.schema}.cohort_leases SET ends_at = ends_at - {earlier}",
            f"UPDATE {self.schema}.cohort_unsettled SET due = greatest(0, due - {seconds})",
        )

    def traits(self, key: str = KEY) -> dict[str, Any]:
        return {who: value for (who, _), value in self.flagsmith.environments[key].traits.items()}

    def close(self) -> None:
        for writer in self.writers:
            writer.close(1.0)
        for store in self.stores:
            store.close()
        self.flagsmith.close()


@pytest.fixture
def hosts(postgres: PostgresServer, tmp_path: Path) -> Iterator[Hosts]:
    hosts = Hosts(postgres, schema_of(tmp_path))
    yield hosts
    hosts.close()


def test_writer_of_one_host_writes_and_that_of_another_takes_over_when_it_closes(hosts: Hosts) -> None:
    one, other = hosts.store(), hosts.store()
    one.apply(add(*"abc"))
    first = hosts.write(one)
    assert first.flush()
    second = hosts.write(other)
    other.apply(remove("a"))
    assert [writer.flush() for writer in (first, second)] == [True, True]
    assert [writer.stats().written for writer in (first, second)] == [4, 0]
    assert first.close()
    one.apply(add("d"))
    assert second.flush()
    assert second.stats().written == 1
    assert hosts.traits() == {"a": False, "b": True, "c": True, "d": True}


def test_writers_of_environments_are_apart(hosts: Hosts) -> None:
    one, other = hosts.store(), hosts.store()
    one.apply(add("ann", "bob"))
    writers = [hosts.write(store, key) for store, key in ((one, KEY), (other, OTHER_KEY))]
    assert [writer.flush() for writer in writers] == [True, True]
    other.apply(remove("bob"))
    assert [writer.flush() for writer in writers] == [True, True]
    assert [writer.stats().written for writer in writers] == [3, 3]
    assert hosts.traits() == hosts.traits(OTHER_KEY) == {"ann": True, "bob": False}


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # Python >= 3.12, of forks with threads
def test_writer_of_another_host_takes_over_when_the_lease_of_a_killed_one_has_ended(hosts: Hosts) -> None:
    store = hosts.store()
    store.apply(add(*"abc"))

    def work() -> None:
        hosts.write(hosts.store()).flush(60)
        os._exit(0)

    hosts.flagsmith.hold(is_silent=True)
    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
    assert hosts.flagsmith.wait_for_requests(1)
    assert child.pid
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    store.apply(remove("a"))
    writer = hosts.write(store)
    assert writer.flush(0.3) is False
    assert writer.stats().requests == 0
    hosts.pass_time(61.0)
    assert writer.flush(0.5) is False  # the killed writer's request may still be under way
    assert hosts.traits() == {"a": False, "b": True, "c": True}
    assert hosts.flagsmith.finish() == 1
    assert hosts.traits()["a"] is True
    hosts.pass_time(31.0)
    assert writer.flush()
    assert hosts.traits() == {"a": False, "b": True, "c": True}


def test_writer_gives_up_a_request_before_its_lease_ends(hosts: Hosts) -> None:
    store = hosts.store(lease_seconds=1.0)
    store.apply(add("ann"))
    hosts.flagsmith.hold(is_silent=True)
    began = monotonic()
    hosts.write(store, grace_seconds=0.5)
    assert hosts.has_failed.wait(10)
    assert monotonic() - began < 1.5  # instead of the 30 seconds of a request
    assert hosts.errors[0].reason == "Flagsmith cannot be reached (ReadTimeout)"


def test_writer_that_lost_its_lease_leaves_the_log_to_the_one_that_has_it(hosts: Hosts) -> None:
    one, other = hosts.store(), hosts.store()
    first, second = hosts.write(one), hosts.write(other)
    assert first.flush()
    assert second.flush()
    for round_ in range(5):
        hosts.pass_time(61.0)
        (one, other)[round_ % 2].apply(add(f"{round_}"))
        assert [writer.flush() for writer in (first, second)] == [True, True]
    assert hosts.traits() == dict.fromkeys("01234", True)
    assert sum(writer.stats().written for writer in (first, second)) == 5
