"""Clients on several hosts that share a Redis server: what reaches Mixpanel, also without the server."""

import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from flagsmith import Flagsmith
from flagsmith.models import Flag, Flags

import flagsync._outbox.redis
from flagsync import FlagSync, outbox_stats
from flagsync._delivery.destinations import Backoff
from flagsync._delivery.sender import Sending
from flagsync._options import Tuning
from flagsync._outbox.options import Staging, StoreBounds
from flagsync.outboxes import RedisBackend
from flagsync.testing import MixpanelServer
from tests.conftest import PYTHON
from tests.support.redis import new_namespace
from tests.support.valkey import PASSWORD, QUOTED_PASSWORD, ValkeyServer, valkey_server

Logged = Callable[[], list[str]]
Build = Callable[..., FlagSync]
MISSING = (
    "an outbox on a Redis or Valkey server needs the package redis (import of redis halted; None in sys.modules); "
    "install it with: pip install 'flagsync[redis]'"
)
CANNOT = "The outbox cannot be used, and memory takes its place"
# Tries again at once after a failure.
PERSISTENT = Tuning(
    staging=Staging(retry_seconds=0.0, max_retry_seconds=60.0, grace_seconds=0.5),
    sending=Sending(backoff=Backoff(first_seconds=0.0, jitter=(0.0, 0.0)), look_seconds=0.01),
    store=StoreBounds(call_seconds=0.3, lease_seconds=2.0),
)


@pytest.fixture
def url(valkey: ValkeyServer) -> str:
    return f"{valkey.url}?namespace={new_namespace()}"


@pytest.fixture
def build(offline: Flagsmith, mixpanel: MixpanelServer) -> Iterator[Build]:
    """Builds clients; closes them."""
    with ExitStack() as clients:

        def build_client(outbox: Any, tuning: Tuning = PERSISTENT, **options: Any) -> FlagSync:
            class Client(FlagSync):
                _tuning = tuning

            options = {"mixpanel_url": mixpanel.url, "flush_interval_seconds": 0.05, **options}
            client = Client(offline, "project-token", outbox=outbox, **options)
            clients.callback(client.close, 0.1)
            return client

        yield build_client


@pytest.fixture
def server() -> Iterator[ValkeyServer]:
    """A server of this test alone, which loses nothing that it has acknowledged."""
    with valkey_server(appendonly="yes", appendfsync="always") as server:
        yield server


@pytest.fixture
def hosts(valkey: ValkeyServer, build: Build) -> Iterator[list[FlagSync]]:
    """Two clients, as if on hosts with clocks of their own."""
    namespace = new_namespace()
    with valkey.client() as client:
        backends = [RedisBackend(client, namespace, PERSISTENT.store) for _ in range(2)]
        for number, backend in enumerate(backends):
            backend._process.get().boot = b"boot %d" % number
        clients = [build(backend) for backend in backends]
        yield clients
        for each in clients:
            each.close(1.0)


def colour(value: str) -> Flags:
    return Flags({"colour": Flag(enabled=True, value=value, feature_id=1, feature_name="colour")})


def landed(mixpanel: MixpanelServer, user: str) -> list[str]:
    """Return the colours of a profile, in the order in which they were sent."""
    updates = [update for request in mixpanel.requests for update in request.updates]
    return [update["$set"]["colour"] for update in updates if update["$distinct_id"] == user]


# Several hosts


def test_hosts_that_evaluate_the_same_identities_send_one_update_each(
    hosts: list[FlagSync], mixpanel: MixpanelServer
) -> None:
    for _ in range(2):
        for host in hosts:
            for number in range(100):
                host.mirror(f"user_{number}", colour("blue"))
        assert all(host.flush() for host in hosts)
    assert [len(landed(mixpanel, f"user_{number}")) for number in range(100)] == [1] * 100
    stats = [host.stats() for host in hosts]
    assert sum(one.delivered for one in stats) == 100
    assert sum(one.unchanged for one in stats) == 300
    assert [one.requests > 0 for one in stats].count(True) == 1  # one of them sends


def test_hosts_let_nothing_older_follow_something_newer(
    hosts: list[FlagSync], mixpanel: MixpanelServer
) -> None:
    for number in range(20):
        for host in hosts:
            host.mirror("ann", colour(f"{number}"))
            assert host.flush()
    assert landed(mixpanel, "ann") == [f"{number}" for number in range(20)]
    mixpanel.fail(status=503)
    for value, host in zip("abcdef", hosts * 3, strict=True):
        host.mirror("ann", colour(value))
        host.flush(0.2)
    mixpanel.recover()
    assert all(host.flush() for host in hosts)
    assert landed(mixpanel, "ann")[-1] == "f"
    assert mixpanel.profiles["ann"] == {"colour": "f"}


def test_host_that_closes_hands_the_lease_over_at_once(
    url: str, build: Build, mixpanel: MixpanelServer
) -> None:
    long = replace(PERSISTENT, store=StoreBounds(lease_seconds=3600.0))
    one, other = build(url, long), build(url, long)
    one.mirror("ann", colour("blue"))
    assert one.flush()
    other.mirror("ann", colour("green"))
    assert other.flush()
    assert (one.stats().requests, other.stats().requests) == (2, 0)
    assert one.close()
    other.mirror("ann", colour("red"))
    assert other.flush()
    assert other.stats().requests == 1
    assert landed(mixpanel, "ann") == ["blue", "green", "red"]


def test_host_that_is_killed_is_replaced_when_its_lease_has_ended(
    url: str, build: Build, mixpanel: MixpanelServer, start: Callable[..., subprocess.Popen[str]]
) -> None:
    mixpanel.fail(status=503)
    process = start("hosts_killed.py", url, "50")
    assert process.stdout is not None
    assert process.stdout.readline() == "sending\n"
    process.kill()
    process.communicate()
    other = build(url)
    assert other.stats().pending == 0
    mixpanel.recover()
    other.mirror("ann", colour("blue"))
    assert other.flush(30.0)
    assert len(mixpanel.profiles) == 51
    assert outbox_stats(url).delivered == 51


# Without the server


def test_server_that_is_killed_is_replaced_by_memory_and_gets_everything_later(
    server: ValkeyServer, build: Build, mixpanel: MixpanelServer, logged: Logged
) -> None:
    client = build(server.url)
    client.mirror("ann", colour("blue"))
    assert client.flush()
    server.kill()
    client.mirror("ann", colour("green"))
    client.mirror("bob", colour("green"))
    assert client.flush(30.0)  # from memory, once the lease has ended
    server.start(appendonly="yes")
    client.mirror("ann", colour("red"))
    client.mirror("bob", colour("green"))
    assert client.flush()
    assert landed(mixpanel, "ann") == ["blue", "green", "red"]
    assert landed(mixpanel, "bob") == ["green"]
    assert client.close()
    failed, works = logged()
    assert failed.startswith(f"{CANNOT} (the server cannot be reached (")
    assert works == "The outbox is in use again"


def test_server_that_is_restarted_empty_is_noticed_and_everything_goes_on(
    build: Build, mixpanel: MixpanelServer, logged: Logged
) -> None:
    mixpanel.fail(status=503)
    with valkey_server() as server:
        client = build(server.url)
        client.mirror("ann", colour("blue"))
        while not outbox_stats(server.url).pending:
            pass
        client.flush(0.1)
        server.kill()
        server.start()
        mixpanel.recover()
        client.mirror("bob", colour("blue"))
        assert client.flush(30.0)
        assert client.close()
    stats = client.stats()
    assert (stats.accepted, stats.delivered, stats.dropped, stats.pending) == (2, 1, 1, 0)
    assert any("The outbox was removed or emptied" in message for message in logged())


def test_server_that_hangs_keeps_neither_calls_nor_close(server: ValkeyServer, build: Build) -> None:
    client = build(server.url)
    client.get_identity_flags("ann")
    assert client.flush()
    with server.paused():
        began = monotonic()
        for number in range(100):
            client.get_identity_flags(f"user_{number}")
        assert monotonic() - began < 0.5
        client.close(1.0)
        assert monotonic() - began < 2.0


def test_server_that_hangs_does_not_keep_a_flush_of_a_client_that_has_done_nothing(
    server: ValkeyServer, build: Build
) -> None:
    slow = replace(PERSISTENT, store=StoreBounds(call_seconds=60.0))
    client = build(server.url, slow)
    with server.paused():
        began = monotonic()
        assert not client.flush(0.1)
        client.close(0.1)
        assert monotonic() - began < 30.0
    assert client.stats().pending == 0


def test_flush_of_a_client_that_has_done_nothing_waits_for_what_others_have_stored(
    url: str, build: Build, mixpanel: MixpanelServer
) -> None:
    idle = build(url)
    mixpanel.fail(status=503)
    with build(url) as other:
        other.mirror("ann", colour("blue"))
        other.flush(0.2)
    mixpanel.recover()
    assert idle.flush()
    assert mixpanel.profiles["ann"] == {"colour": "blue"}


def test_server_that_is_not_there_lets_the_application_start(
    tmp_path: Path, build: Build, mixpanel: MixpanelServer, logged: Logged
) -> None:
    url = f"unix://{tmp_path}/socket?password={QUOTED_PASSWORD}"
    client = build(url)
    client.mirror("ann", colour("blue"))
    assert client.flush(30.0)
    assert mixpanel.profiles["ann"] == {"colour": "blue"}
    with pytest.raises(OSError, match="the server cannot be reached") as raised:
        outbox_stats(url)
    [said] = logged()
    assert said.startswith(f"{CANNOT} (the server cannot be reached (No such file or directory))")
    assert PASSWORD not in f"{said} {client!r} {client._options!r} {raised.value!r}"


def test_url_that_is_malformed_is_refused_by_the_constructor(offline: Flagsmith) -> None:
    with pytest.raises(ValueError, match="the URL of a Redis or Valkey server is malformed") as raised:
        FlagSync(offline, "project-token", outbox=f"redis://:{PASSWORD}@cache")
    assert PASSWORD not in str(raised.value)


def test_outbox_stats_count_what_all_hosts_have_stored(
    valkey: ValkeyServer, build: Build, mixpanel: MixpanelServer
) -> None:
    namespace = new_namespace()
    url = f"{valkey.url}?namespace={namespace}"
    for name in ("ann", "bob"):
        with build(url) as client:
            client.mirror(name, colour("blue"))
            assert client.flush()
    with valkey.client() as own:
        for outbox in (url, RedisBackend(own, namespace)):
            stats = outbox_stats(outbox)
            assert (stats.accepted, stats.delivered, stats.pending) == (2, 2, 0)


# Without the extra


def test_missing_redis_is_said_with_what_to_do() -> None:
    program = """
import sys
sys.modules["redis"] = None
import flagsync, flagsync.outboxes
for _ in range(2):
    for use in (
        lambda: flagsync.FlagSync('key', 'token', outbox='redis://:secret@cache'),
        lambda: flagsync.outbox_stats('valkeys://:secret@cache'),
        lambda: flagsync.outboxes.RedisBackend,
    ):
        try:
            use()
        except ValueError as error:
            assert isinstance(error, ImportError) and error.name == "redis"
            print(error)
"""
    ended = subprocess.run([*PYTHON, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines() == [MISSING] * 6


def test_missing_redis_is_an_import_error_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(ImportError, match="needs the package redis") as raised:
        runpy.run_path(f"{flagsync._outbox.redis.__file__}")
    assert raised.value.name == "redis"
