"""A server that a Sentinel names: it is found, also after another one has taken its place."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
import redis
import redis.sentinel
from redis.backoff import NoBackoff
from redis.retry import Retry

from flagsync._outbox.backend import Totals
from flagsync._outbox.redis import RedisBackend
from flagsync.testing.backends.support import deliver, own_totals, store
from tests.support.sockets import free_port
from tests.support.valkey import Sentinel, ValkeyServer, valkey_sentinel, valkey_server
from tests.support.waiting import wait_until

AT_ONCE: dict[str, Any] = {"socket_timeout": 2.0, "retry": Retry(NoBackoff(), 0)}


@contextmanager
def replicated() -> Iterator[tuple[int, ValkeyServer, int, ValkeyServer]]:
    """Start a server and a replica of it; return the port of each, and the server."""
    port, other = free_port(), free_port()
    own = {"bind": "127.0.0.1", "repl_diskless_sync_delay": "0", "appendonly": "yes"}
    with (
        valkey_server(port=f"{port}", **own) as primary,
        valkey_server(port=f"{other}", replicaof=f"127.0.0.1 {port}", **own) as replica,
    ):
        wait_until(lambda: role(replica)[3] == b"connected")
        yield port, primary, other, replica


def role(server: ValkeyServer) -> list[Any]:
    """Return ``[b"master", …]`` or ``[b"slave", host, port, state, …]``."""
    reply: Any = server.execute("ROLE")
    return [*reply]


@contextmanager
def client_of(name: str, sentinel: Sentinel) -> Iterator[redis.Redis]:
    """Make a client of the server that a sentinel calls by a name."""
    make: Any = redis.sentinel.Sentinel
    sentinels = make([("127.0.0.1", sentinel.port)], sentinel_kwargs=AT_ONCE)
    client: redis.Redis = sentinels.master_for(name, **AT_ONCE)
    yield client
    client.close()
    sentinels.sentinels[0].close()


def test_sentinel_names_the_server_before_and_after_a_failover() -> None:
    with (
        replicated() as (port, primary, other, replica),
        valkey_sentinel(port) as sentinel,
        client_of("main", sentinel) as client,
    ):
        backend = RedisBackend(client)
        store(backend, "ann=1")
        primary.execute("WAIT", "1", "0")
        replica.execute("REPLICAOF", "NO", "ONE")
        primary.execute("REPLICAOF", "127.0.0.1", f"{other}")
        sentinel.execute("SENTINEL", "REMOVE", "main")
        sentinel.execute("SENTINEL", "MONITOR", "main", "127.0.0.1", f"{other}", "1")
        with suppress(OSError):  # the connection has ended, or the server has become read-only
            backend.try_acquire_lease()
        assert deliver(backend) == ["ann=1"]
        assert own_totals(backend) == Totals(accepted=1, delivered=1)


def test_sentinel_that_knows_no_such_server_is_a_server_that_cannot_be_reached() -> None:
    with (
        valkey_sentinel(free_port()) as sentinel,
        client_of("other", sentinel) as client,
        pytest.raises(OSError, match=r"^the server cannot be reached "),
    ):
        RedisBackend(client).status([])
