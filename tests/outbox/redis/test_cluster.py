"""A cluster, which refuses scripts whose keys have several hash slots."""

from collections.abc import Iterator
from contextlib import closing

import pytest
import redis
from redis.crc import key_slot

from flagsync._outbox.backend import Totals
from flagsync._outbox.redis import RedisBackend
from flagsync.testing.backends.support import claim, confirm, deliver, settle, store, tell_sent, waiting
from tests.support.redis import backend_at
from tests.support.valkey import valkey_cluster

FIRST, SECOND = "shop", "flagsync"
"""Namespaces that the first and the second node have."""


@pytest.fixture(scope="module")
def ports() -> Iterator[list[int]]:
    """The ports of two nodes."""
    with valkey_cluster() as ports:
        yield ports


@pytest.mark.parametrize("namespace", [FIRST, SECOND])
@pytest.mark.parametrize("decode_responses", [False, True])
def test_cluster_is_used_through_the_client_of_the_application(
    ports: list[int], namespace: str, decode_responses: bool
) -> None:
    with closing(redis.RedisCluster("127.0.0.1", ports[0], decode_responses=decode_responses)) as client:
        client.flushall(target_nodes=redis.RedisCluster.ALL_NODES)
        one, other = RedisBackend(client, namespace), RedisBackend(client, namespace)
        assert one.try_acquire_lease()
        assert not other.try_acquire_lease()
        store(one, "ann=1", "bob=1", tail=b"+", evaluation=1)
        tell_sent(other, "cid=1")
        assert confirm(other, "ann") == []
        batch = claim(one)
        settle(one, accepted=batch[:1], last=batch[1:])
        client.script_flush()
        assert deliver(one) == ["bob=1+"]
        assert other.totals().every == Totals(accepted=3, delivered=2, unchanged=1)
        one.close()
        assert other.try_acquire_lease()
        other.close()


def test_cluster_has_all_of_a_namespace_on_one_node(ports: list[int]) -> None:
    assert key_slot(b"{shop}:meta") < 8192 <= key_slot(b"{flagsync}:meta")
    for port, namespace in zip(ports, (FIRST, SECOND), strict=True):
        with closing(backend_at(f"redis://127.0.0.1:{port}", namespace)) as backend:
            store(backend, "zoe=1")
            assert waiting(backend) == ["zoe=1"]


def test_cluster_needs_a_client_that_finds_the_node(ports: list[int]) -> None:
    backend = backend_at(f"redis://127.0.0.1:{ports[0]}", SECOND)
    with pytest.raises(
        OSError, match=r"^the server is a node of a cluster; pass RedisBackend\(redis\.RedisCluster\("
    ):
        backend.totals()
    backend.close()
