"""The contract of outbox backends, over a real server."""

from pathlib import Path

import pytest

from flagsync._outbox.options import StoreBounds
from flagsync._outbox.redis import RedisBackend
from flagsync._outbox.redis.url import parse
from flagsync.testing.backends import OutboxBackendContract
from tests.support.valkey import ValkeyServer


class TestRedisBackend(OutboxBackendContract):
    bounds = StoreBounds()

    @pytest.fixture(autouse=True)
    def _server(self, valkey: ValkeyServer) -> None:
        self.url = valkey.url

    def make_backend(self, path: Path) -> RedisBackend:
        server, _ = parse(self.url)
        return RedisBackend(server, f"{path}", self.bounds)


class TestRedisBackendThatPrunesAllTheTimeInScriptsOfTwo(TestRedisBackend):
    bounds = StoreBounds(prune_seconds=-1.0, prune_rows=1, call_messages=2)
