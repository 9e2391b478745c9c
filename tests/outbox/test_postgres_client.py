"""Clients of several hosts that share an outbox on a PostgreSQL server."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from itertools import count
from math import inf
from time import monotonic
from typing import Any

import pytest
from flagsmith import Flagsmith
from flagsmith.models import Flag, Flags

from flagsync import DeliveryError, FlagSync, Stats, outbox_stats
from flagsync._delivery.destinations import Backoff
from flagsync._delivery.sender import Sending
from flagsync._options import Tuning
from flagsync._outbox.options import Staging, StoreBounds
from flagsync.outboxes import PostgresBackend
from flagsync.testing import MixpanelServer
from tests.conftest import PYTHON
from tests.support.postgres import PostgresServer
from tests.support.processes import end, sent
from tests.support.sockets import free_port

Build = Callable[..., FlagSync]
Logged = Callable[[], list[str]]
CANNOT = "The outbox cannot be used, and memory takes its place"
LONG = 10.0
numbers = count(1)
PERSISTENT = Tuning(
    staging=Staging(retry_seconds=0.0, max_retry_seconds=0.05),
    sending=Sending(backoff=Backoff(first_seconds=0.0, jitter=(0.0, 0.0)), look_seconds=0.01),
)


@pytest.fixture
def url(postgres: PostgresServer) -> str:
    """The URL of a database of this test."""
    database = f"test_{next(numbers)}"
    postgres.run(f"CREATE DATABASE {database}")
    return postgres.url(database=database)


@pytest.fixture
def build(
    offline: Flagsmith, mixpanel: MixpanelServer, url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Build]:
    """Builds clients of different hosts; closes them."""
    boots = count(1)
    monkeypatch.setattr("flagsync._outbox.postgres.backend.boot_number", lambda: next(boots))
    clients: list[FlagSync] = []

    def build_client(tuning: Tuning = PERSISTENT, **options: Any) -> FlagSync:
        class Client(FlagSync):
            _tuning = tuning

        options = {"outbox": url, "flush_interval_seconds": 0.05, "mixpanel_url": mixpanel.url, **options}
        clients.append(Client(offline, "project-token", **options))
        return clients[-1]

    yield build_client
    for client in clients:
        client.close(0.1)


def mirror(client: FlagSync, user: str, value: int) -> None:
    flag = Flag(enabled=True, value=value, feature_id=1, feature_name="colour")
    client.mirror(user, Flags({"colour": flag}))


def values(mixpanel: MixpanelServer, user: str) -> list[int]:
    """Return what was sent of a user, in its order."""
    updates = [update for request in mixpanel.requests for update in request.updates]
    return [update["$set"]["colour"] for update in updates if update["$distinct_id"] == user]


# Hosts


def test_identities_that_all_hosts_evaluate_are_one_update_each(
    build: Build, mixpanel: MixpanelServer, url: str
) -> None:
    hosts = [build() for _ in range(3)]
    users = [f"user_{number}" for number in range(200)]
    for host in hosts:
        for user in users:
            host.get_identity_flags(user)
    assert all(host.flush() for host in hosts)
    assert sent(mixpanel) == dict.fromkeys(users, 1)
    stats = outbox_stats(url)
    assert stats == Stats(accepted=600, delivered=200, unchanged=400)


def test_older_state_never_follows_a_newer_one_of_another_host(build: Build, mixpanel: MixpanelServer) -> None:
    hosts = [build(flush_interval_seconds=0.01) for _ in range(2)]
    for number in range(60):
        mirror(hosts[number // 5 % 2], "ann", number)
        if number % 5 == 4:  # one host is a call of the store ahead of the other
            hosts[number // 5 % 2].flush()
    assert all(host.flush() for host in hosts)
    landed = values(mixpanel, "ann")
    assert landed == sorted(landed)
    assert landed[-1] == mixpanel.profiles["ann"]["colour"] == 59


def test_close_hands_the_lease_over_to_another_host_at_once(build: Build, mixpanel: MixpanelServer) -> None:
    one, other = build(), build()
    mirror(one, "ann", 1)
    assert one.flush()
    assert one.close()
    began = monotonic()
    mirror(other, "bob", 1)
    assert other.flush()
    assert monotonic() - began < 5
    assert {*mixpanel.profiles} == {"ann", "bob"}


def test_host_that_is_killed_leaves_all_to_another_once_its_lease_has_ended(
    build: Build,
    mixpanel: MixpanelServer,
    postgres: PostgresServer,
    url: str,
    start: Callable[..., subprocess.Popen[str]],
) -> None:
    mixpanel.fail(status=503)
    killed = start("killed.py", url, "5")
    assert end(killed).code == -9
    mixpanel.recover()
    other = build()
    mirror(other, "ann", 1)
    assert not other.flush(0.5)
    assert mixpanel.profiles == {}
    database = url.rpartition("/")[2]
    postgres.run("UPDATE flagsync.outbox_lease SET ends_at = clock_timestamp()", database=database)
    assert other.flush()
    assert {*mixpanel.profiles} == {"ann", *(f"user_{number}" for number in range(5))}
    assert outbox_stats(url) == Stats(accepted=6, delivered=6)


def test_backend_of_the_application_is_an_outbox(
    build: Build, mixpanel: MixpanelServer, postgres: PostgresServer, url: str
) -> None:
    one = build(outbox=PostgresBackend(url, schema="it"))
    other = build(outbox=PostgresBackend(url, schema="it"))
    mirror(one, "ann", 1)
    mirror(other, "ann", 1)
    assert one.flush()
    assert other.flush()
    assert sent(mixpanel) == {"ann": 1}
    with closing(PostgresBackend(url, schema="it")) as backend:
        assert outbox_stats(backend).accepted == 2


# Outages


def test_server_that_is_not_there_is_reported_once_and_memory_sends_at_the_end(
    build: Build, mixpanel: MixpanelServer, logged: Logged
) -> None:
    client = build(outbox=f"postgresql://user:s3cret@127.0.0.1:{free_port()}/db")
    mirror(client, "ann", 1)
    assert client.close()
    assert mixpanel.profiles["ann"] == {"colour": 1}
    said = [message for message in logged() if CANNOT in message]
    assert len(said) == 1
    assert "PostgreSQL: Connection refused" in said[0]
    assert "s3cret" not in "".join(logged())
    assert "s3cret" not in repr(client)


def test_server_that_is_killed_gets_everything_when_it_is_back(
    build: Build, mixpanel: MixpanelServer, own_postgres: PostgresServer
) -> None:
    one, other = build(outbox=own_postgres.url()), build(outbox=own_postgres.url())
    mirror(one, "ann", 1)
    assert one.flush()
    own_postgres.kill()
    for number in range(2, 5):
        mirror(one, "ann", number)
        mirror(other, f"user_{number}", number)
    assert not other.flush(0.3)
    own_postgres.start()
    assert one.flush()
    assert other.flush()
    assert values(mixpanel, "ann")[-1] == 4
    assert {*mixpanel.profiles} == {"ann", "user_2", "user_3", "user_4"}
    assert one.stats().pending == other.stats().pending == 0


def test_server_that_stops_keeps_no_call_and_no_close_waiting(
    build: Build, own_postgres: PostgresServer
) -> None:
    client = build(outbox=own_postgres.url())
    mirror(client, "ann", 0)
    assert client.flush()
    with own_postgres.paused():
        began = monotonic()
        for number in range(1000):
            mirror(client, "ann", number)
        assert monotonic() - began < 1
        client.close(1.0)
        assert monotonic() - began < 2.5


def test_lease_that_ends_lets_memory_send_while_the_server_is_away(
    build: Build, mixpanel: MixpanelServer, own_postgres: PostgresServer
) -> None:
    tuning = Tuning(
        staging=Staging(retry_seconds=0.0, max_retry_seconds=inf, grace_seconds=0.1),
        sending=PERSISTENT.sending,
        store=StoreBounds(lease_seconds=1.0, call_seconds=0.5),
    )
    client = build(tuning, outbox=own_postgres.url())
    mirror(client, "ann", 1)
    assert client.flush()
    with ExitStack() as stack:
        own_postgres.stop()
        stack.callback(own_postgres.start)
        mirror(client, "ann", 2)
        assert client.flush()
        assert mixpanel.profiles["ann"] == {"colour": 2}


# Options


@pytest.mark.parametrize(
    "outbox", ["postgresql://user:s3cret@host:port/db", "postgres://u:s3cret%zz@host/db", "POSTGRESQL://%"]
)
def test_malformed_url_is_refused_without_its_password(offline: Flagsmith, outbox: str) -> None:
    for use in (lambda: FlagSync(offline, "project-token", outbox=outbox), lambda: outbox_stats(outbox)):
        with pytest.raises(ValueError, match="outbox: this is not a connection string of PostgreSQL") as raised:
            use()
        assert "s3cret" not in str(raised.value)


def test_stats_of_a_server_that_is_not_there_are_an_error() -> None:
    with pytest.raises(OSError, match="PostgreSQL: Connection refused"):
        outbox_stats(f"postgresql://user:s3cret@127.0.0.1:{free_port()}/db")


def test_missing_extra_is_refused_with_the_line_to_install_it() -> None:
    program = """
import sys
sys.modules["psycopg"] = None
import flagsync
from flagsync import outboxes
for use in (
    lambda: flagsync.FlagSync("key", "token", outbox="postgresql://host/db"),
    lambda: flagsync.outbox_stats("postgres://host/db"),
    lambda: outboxes.PostgresBackend,
):
    try:
        use()
    except ImportError as error:
        print(isinstance(error, ValueError), str(error).rpartition(": ")[2])
"""
    ended = subprocess.run([*PYTHON, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines() == ["True pip install 'flagsync[postgres]'"] * 3


def test_error_of_an_outbox_says_how_many_updates_wait(build: Build) -> None:
    errors: list[DeliveryError] = []
    client = build(outbox=f"postgresql://user@127.0.0.1:{free_port()}/db", on_error=errors.append)
    mirror(client, "ann", 1)
    assert not client.flush(0.3)
    client.close(LONG)
    assert CANNOT in str(errors[0])
