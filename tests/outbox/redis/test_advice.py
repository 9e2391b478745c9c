"""Settings of a server that lose messages are warned of, once, by the process that sends."""

from collections.abc import Callable, Iterator

import pytest

from flagsync.testing.backends.support import store
from tests.support.redis import backend_at, new_namespace
from tests.support.valkey import ValkeyServer, valkey_server

Logged = Callable[[], list[str]]
EVICTS = (
    "The Redis server of the outbox deletes keys of any kind when its memory is full (maxmemory-policy {}), and then "
    "all pending updates at once; set maxmemory-policy to noeviction"
)
FORGETS = (
    "The Redis server of the outbox writes nothing to its disk (appendonly no, no save), and loses all pending updates "
    "when it restarts; set appendonly to yes"
)


@pytest.fixture(scope="module")
def server() -> Iterator[ValkeyServer]:
    """A server whose settings the tests change."""
    with valkey_server() as server:
        yield server


@pytest.fixture
def configured(server: ValkeyServer) -> Callable[..., ValkeyServer]:
    """Returns the server with some settings."""

    def configure(policy: str = "noeviction", appendonly: str = "no", save: str = "") -> ValkeyServer:
        for name, value in (("maxmemory-policy", policy), ("appendonly", appendonly), ("save", save)):
            server.execute("CONFIG", "SET", name, value)
        return server

    return configure


@pytest.mark.parametrize(
    ("settings", "warnings"),
    [
        ({"policy": "allkeys-lru", "appendonly": "yes"}, [EVICTS.format("allkeys-lru")]),
        ({"policy": "allkeys-random", "save": "60 1"}, [EVICTS.format("allkeys-random")]),
        ({"policy": "volatile-lru", "appendonly": "yes"}, []),  # no key of ours expires
        ({"policy": "volatile-ttl", "save": "60 1"}, []),
        ({}, [FORGETS]),
        ({"policy": "allkeys-lfu"}, [EVICTS.format("allkeys-lfu"), FORGETS]),
    ],
)
def test_advice_names_the_settings_that_lose_messages(
    configured: Callable[..., ValkeyServer], settings: dict[str, str], warnings: list[str], logged: Logged
) -> None:
    backend = backend_at(configured(**settings).url, new_namespace())
    for _ in range(3):
        assert backend.try_acquire_lease()
    assert logged() == warnings
    backend.close()


def test_advice_is_given_by_the_process_that_sends(
    configured: Callable[..., ValkeyServer], logged: Logged
) -> None:
    server, namespace = configured(), new_namespace()
    one, other = (backend_at(server.url, namespace) for _ in range(2))
    store(other, "ann=1")
    assert logged() == []
    assert one.try_acquire_lease()
    assert not other.try_acquire_lease()
    assert logged() == [FORGETS]
    one.close()
    other.close()


def test_advice_is_not_given_about_a_server_that_does_not_tell(
    configured: Callable[..., ValkeyServer], logged: Logged
) -> None:
    server = configured("allkeys-lru")
    server.execute(*"ACL SETUSER ann on >secret ~* +@all -config".split())
    backend = backend_at(f"{server.url}?username=ann&password=secret", new_namespace())
    assert backend.try_acquire_lease()
    assert logged() == []
    backend.close()


def test_advice_is_not_given_about_settings_that_a_server_does_not_have(
    configured: Callable[..., ValkeyServer], logged: Logged
) -> None:
    from flagsync._outbox.redis.advice import _setting  # noqa: PLC0415

    backend = backend_at(configured().url, new_namespace())
    assert _setting(backend._server, "no-such-setting", 2.0) == ""
    backend.close()
