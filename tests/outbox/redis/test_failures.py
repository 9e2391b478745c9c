"""Servers that are away, hang, are full, read-only or closed to us: what is raised, when, and that nothing is lost."""

import asyncio
import ssl
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.asyncio import Redis as AsyncRedis
from redis.backoff import NoBackoff
from redis.cluster import ClusterPipeline, RedisCluster
from redis.retry import Retry

from flagsync._clock import monotonic
from flagsync._outbox.backend import Backend, Totals
from flagsync._outbox.options import StoreBounds
from flagsync._outbox.place import totals
from flagsync._outbox.redis import RedisBackend, check, open_backend
from flagsync._outbox.redis.failures import plain
from flagsync.testing.backends.support import claim, deliver, message_of, soon, store, waiting
from tests.support.pages import PAGES
from tests.support.redis import backend_at
from tests.support.sockets import TlsRelay, free_port
from tests.support.valkey import PASSWORD, QUOTED_PASSWORD, ValkeyServer, valkey_server

SHORT = StoreBounds(call_seconds=0.3)
LACKS = "the user lacks a permission: scripts (EVALSHA, EVAL), the keys of the namespace, or SELECT for its database"
CERTIFICATE = Path(__file__).parents[2] / "data" / "localhost.pem"  # and its key, valid until 2126


@pytest.fixture
def server() -> Iterator[ValkeyServer]:
    """A server of this test alone, which loses nothing that it has acknowledged."""
    with valkey_server(appendonly="yes", appendfsync="always") as server:
        yield server


@pytest.fixture
def backend(server: ValkeyServer) -> Iterator[RedisBackend]:
    backend = backend_at(server.url, "flagsync")
    yield backend
    with suppress(OSError):
        backend.close()


def calls(backend: Backend) -> list[Callable[[], object]]:
    """Return each call that needs the server."""
    return [
        lambda: backend.store([message_of("ann=2", 2)], [], [], soon()),
        lambda: claim(backend),
        lambda: backend.status([]),
        backend.totals,
        backend.try_acquire_lease,
    ]


def assert_refused(backend: Backend, words: str) -> None:
    """Assert that each call raises an error with these words, and nothing that is secret."""
    for call in calls(backend):
        with pytest.raises(OSError, match=r"^the (server|user) ") as raised:
            call()
        assert str(raised.value) == words
        assert raised.value.__suppress_context__


# Away


def test_server_that_is_killed_loses_nothing(server: ValkeyServer, backend: RedisBackend) -> None:
    store(backend, "ann=1", "bob=1")
    assert len(deliver(backend)) == 2
    store(backend, "cid=1", "dan=1")
    before = backend.status([]).store
    server.kill()
    assert_refused(backend, "the server cannot be reached (Connection refused)")
    server.start(appendonly="yes", appendfsync="always")
    assert deliver(backend) == ["cid=1", "dan=1"]
    store(backend, "ann=1", second=2)
    assert backend.totals().every == Totals(accepted=5, delivered=4, unchanged=1)
    assert backend.status([]).store == before


def test_server_that_was_restarted_between_two_calls_is_used_at_once(
    server: ValkeyServer, backend: RedisBackend
) -> None:
    store(backend, "ann=1")
    server.kill()
    server.start(appendonly="yes")
    assert waiting(backend) == ["ann=1"]


def test_server_that_closes_the_connection_is_used_at_once(server: ValkeyServer, backend: RedisBackend) -> None:
    store(backend, "ann=1")
    server.execute("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    assert waiting(backend) == ["ann=1"]


def test_server_that_was_never_there_is_no_error_until_it_is_used(tmp_path: Any) -> None:
    url = f"unix://{tmp_path}/no-socket"
    check(url)
    backend = open_backend(url, StoreBounds())
    assert_refused(backend, "the server cannot be reached (No such file or directory)")
    with pytest.raises(OSError, match=r"^the server cannot be reached \(No such file or directory\)$"):
        totals(url)


def test_server_that_refuses_connections_is_said_to(tmp_path: Any) -> None:
    backend = backend_at(f"redis://:{QUOTED_PASSWORD}@127.0.0.1:{free_port()}/0", "flagsync")
    assert_refused(backend, "the server cannot be reached (Connection refused)")


def test_server_that_has_no_address_is_said_to_have_none() -> None:
    backend = backend_at("redis://nowhere.invalid", "flagsync")
    with pytest.raises(OSError, match=r"^the server cannot be reached \(.*(name|Name|known|resolution).*\)$"):
        backend.totals()


def test_server_without_tls_is_said_to_be_unreachable() -> None:
    port = free_port()
    with valkey_server(port=f"{port}", bind="127.0.0.1"):
        backend = backend_at(f"rediss://:{QUOTED_PASSWORD}@127.0.0.1:{port}", "flagsync", SHORT)
        with pytest.raises(
            OSError, match=r"^the server cannot be reached \(|did not answer in time$"
        ) as raised:
            backend.totals()
    assert PASSWORD not in str(raised.value)


# Hanging


@pytest.fixture
def relay(server: ValkeyServer) -> Iterator[TlsRelay]:
    """What speaks TLS before the server."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    with TlsRelay(context, f"{server.directory}/socket") as relay:
        yield relay


@pytest.mark.parametrize("scheme", ["rediss", "valkeys"])
def test_server_with_tls_is_used_if_its_certificate_is_trusted(relay: TlsRelay, scheme: str) -> None:
    url = f"{scheme}://localhost:{relay.port}/0?ssl_ca_certs={CERTIFICATE}"
    with closing(backend_at(url, "flagsync")) as backend:
        store(backend, "ann=1")
        assert deliver(backend) == ["ann=1"]


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_server_with_tls_is_refused_if_its_certificate_is_not_trusted(relay: TlsRelay, host: str) -> None:
    trusted = "" if host == "localhost" else f"?ssl_ca_certs={CERTIFICATE}"  # which is for localhost alone
    backend = backend_at(f"rediss://:{QUOTED_PASSWORD}@{host}:{relay.port}/0{trusted}", "flagsync")
    with pytest.raises(OSError, match=r"^the server cannot be reached \(.*certificate verify failed") as raised:
        backend.status([])
    assert "s3cret" not in f"{raised.value}"


def test_server_whose_certificates_are_not_there_is_said_to_lack_them(relay: TlsRelay) -> None:
    backend = backend_at(f"rediss://localhost:{relay.port}/0?ssl_ca_certs=/nowhere/ca.pem", "flagsync")
    with pytest.raises(OSError, match=r"^the server cannot be reached \(No such file or directory\)$"):
        backend.status([])


def test_server_that_hangs_is_given_up_after_call_seconds(server: ValkeyServer) -> None:
    with closing(backend_at(server.url, "flagsync", SHORT)) as connected:
        store(connected, "ann=1")
        new = backend_at(server.url, "flagsync", SHORT)
        with server.paused():
            for backend in (connected, new):
                for call in calls(backend):
                    began = monotonic()
                    with pytest.raises(OSError, match=r"^the server did not answer in time$"):
                        call()
                    assert monotonic() - began < SHORT.call_seconds + 0.2
        new.close()
        assert [message.key for message in claim(connected)] == ["ann"]


def test_server_that_hangs_is_given_up_at_a_sooner_deadline(
    server: ValkeyServer, backend: RedisBackend
) -> None:
    store(backend, "ann=1")
    batch = claim(backend)
    with server.paused():
        for call in (
            lambda: backend.store([], [], [], monotonic()),
            lambda: backend.settle(batch, (), (), monotonic()),
        ):
            began = monotonic()
            with pytest.raises(OSError, match=r"^the server did not answer in time$"):
                call()
            assert monotonic() - began < StoreBounds().call_seconds / 2


def test_server_that_executes_a_call_late_stores_its_messages_once(server: ValkeyServer) -> None:
    with closing(backend_at(server.url, "flagsync", SHORT)) as backend:
        store(backend, "ann=1")
        with server.paused(), pytest.raises(OSError, match="in time"):
            backend.store([message_of("bob=1")], [], [], soon())
        store(backend, "bob=1")
        assert deliver(backend) == ["ann=1", "bob=1"]


# Full, read-only, loading


def test_server_without_memory_refuses_to_store_and_lets_messages_be_sent(
    server: ValkeyServer, backend: RedisBackend
) -> None:
    store(backend, "ann=1", "bob=1", "cid=1")
    server.execute("CONFIG", "SET", "maxmemory", "1")
    for messages in ([message_of("dan=1")], []):
        with pytest.raises(OSError, match=r"^the server's memory is full \(maxmemory\)$"):
            backend.store(messages, [], [], soon())
    batch = claim(backend)
    backend.settle(batch[:1], batch[1:2], (), soon())
    backend.settle((), (), batch[2:], soon())
    assert deliver(backend) == ["cid=1"]
    backend.close()
    server.execute("CONFIG", "SET", "maxmemory", "0")
    store(backend, "dan=1", "ann=1", second=2)
    assert deliver(backend) == ["dan=1"]


def test_server_without_memory_prunes_before_it_refuses(server: ValkeyServer) -> None:
    bounds = StoreBounds(remember_seconds=0.0, prune_seconds=-1.0)
    with closing(backend_at(server.url, "flagsync", bounds)) as backend:
        store(backend, "ann=1")
        assert deliver(backend) == ["ann=1"]
        server.execute("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(OSError, match="memory is full"):
            backend.store([], [], [], soon())
        assert server.execute("EXISTS", "{flagsync}:latest") == 0


def test_server_that_became_a_replica_is_said_to_be_read_only(
    server: ValkeyServer, backend: RedisBackend
) -> None:
    store(backend, "ann=1")
    server.execute("REPLICAOF", "127.0.0.1", "1")
    for call in (lambda: backend.store([], [], [], soon()), backend.try_acquire_lease):
        with pytest.raises(OSError, match=r"^the server is a read-only replica$"):
            call()
    server.execute("REPLICAOF", "NO", "ONE")
    assert waiting(backend) == ["ann=1"]


def test_server_that_cannot_write_its_disk_is_quoted(server: ValkeyServer, backend: RedisBackend) -> None:
    store(backend, "ann=1")
    server.execute("CONFIG", "SET", "min-replicas-to-write", "1")
    with pytest.raises(OSError, match=r"^the server refused a command \(NOREPLICAS .*\)$"):
        backend.store([], [], [], soon())


def test_server_that_loads_its_data_is_said_to() -> None:
    assert str(plain(redis.BusyLoadingError("Redis is loading the dataset in memory"))) == (
        "the server is still loading its data"
    )


def test_server_that_quotes_arguments_is_not_quoted_in_full() -> None:
    error = redis.ResponseError("unknown command 'EVALSHA', with args beginning with: 'ann' ")
    assert str(plain(error)) == "the server refused a command (unknown command 'EVALSHA')"


def test_server_that_is_a_node_of_a_cluster_is_said_to_be() -> None:
    assert f"{plain(redis.ResponseError('MOVED 9058 127.0.0.1:1'))}".startswith(
        "the server is a node of a cluster; "
    )


def test_server_that_wants_a_password_before_it_reads_much_is_understood() -> None:
    error = redis.ResponseError("Protocol error: unauthenticated multibulk length")  # Redis 7
    assert f"{plain(error)}" == "the server refuses the user or the password"


@pytest.mark.parametrize("name", ["meta", "tails", "queue"])
def test_key_of_another_kind_is_kept_and_said_to_be_somebody_elses(
    server: ValkeyServer, backend: RedisBackend, name: str
) -> None:
    server.execute("SET", f"{{flagsync}}:{name}", "precious")
    with pytest.raises(OSError, match="a key of the namespace is somebody else's; choose another namespace"):
        store(backend, "ann=1")
    assert server.execute("GET", f"{{flagsync}}:{name}") == b"precious"


@pytest.mark.parametrize("kind", [redis.ConnectionPool, redis.BlockingConnectionPool])
def test_client_whose_connections_are_all_in_use_is_said_to_be(server: ValkeyServer, kind: Any) -> None:
    path = f"{server.directory}/socket"
    blocking = {"timeout": 0.01} if kind is redis.BlockingConnectionPool else {}
    connection = redis.UnixDomainSocketConnection
    pool = kind(max_connections=1, connection_class=connection, path=path, **blocking)
    client = redis.Redis(connection_pool=pool, retry=Retry(NoBackoff(), 0))
    backend, subscriber = RedisBackend(client), client.pubsub()  # type: ignore[no-untyped-call]
    subscriber.subscribe("news")
    with pytest.raises(OSError, match=r"^all connections of the client's pool are in use \(max_connections\)$"):
        backend.status([])
    subscriber.close()
    assert backend.status([]).pending == 0
    pool.disconnect()


def test_client_that_fails_in_its_own_way_is_named_only() -> None:
    assert str(plain(redis.RedisError("secret"))) == "the server refused a command (RedisError)"


# Passwords and rights


@pytest.fixture
def locked() -> Iterator[ValkeyServer]:
    """A server with a password."""
    with valkey_server(requirepass=PASSWORD) as server:
        yield server


def url_of(server: ValkeyServer, password: str) -> str:
    return f"{server.url}?password={password}"


@pytest.mark.parametrize("password", ["", "wr0ng"])
def test_password_that_is_wrong_is_refused_without_its_text(locked: ValkeyServer, password: str) -> None:
    backend = backend_at(url_of(locked, password), "flagsync")
    assert_refused(backend, "the server refuses the user or the password")


def test_password_of_a_url_may_have_any_character(locked: ValkeyServer) -> None:
    port = free_port()
    with valkey_server(requirepass=PASSWORD, port=f"{port}", bind="127.0.0.1") as server:
        urls = url_of(server, QUOTED_PASSWORD), f"redis://:{QUOTED_PASSWORD}@127.0.0.1:{port}/0"
        for url in urls:
            with closing(backend_at(url, "flagsync")) as backend:
                store(backend, "ann=1")
        assert totals(urls[0]).every == Totals(accepted=2, unchanged=1)


def test_password_that_was_changed_is_refused_until_it_is_changed_back(locked: ValkeyServer) -> None:
    with closing(backend_at(url_of(locked, QUOTED_PASSWORD), "flagsync")) as backend:
        store(backend, "ann=1")
        locked.execute("CONFIG", "SET", "requirepass", "an0ther", password=PASSWORD)
        assert waiting(backend) == ["ann=1"]  # the connection may be used as long as it lasts
        locked.execute("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes", password="an0ther")
        assert_refused(backend, "the server refuses the user or the password")
        locked.execute("CONFIG", "SET", "requirepass", PASSWORD, password="an0ther")
        assert waiting(backend) == ["ann=1"]


def test_user_without_rights_is_said_to_have_none(server: ValkeyServer) -> None:
    server.execute("ACL", "SETUSER", "ann", "on", ">secret", "+@read", "~*")
    backend = backend_at(f"{server.url}?username=ann&password=secret", "flagsync")
    assert_refused(backend, LACKS)


DOCUMENTED = "~{flagsync}:* +eval +evalsha +@read +@write +time".split()


def test_permissions_of_a_user_are_documented() -> None:
    assert " ".join(DOCUMENTED) in PAGES["docs/outbox-servers.md"]


@pytest.mark.parametrize(("database", "more"), [(0, []), (1, ["+select"])])
def test_user_with_the_permissions_that_are_documented_can_do_everything(
    server: ValkeyServer, database: int, more: list[str]
) -> None:
    server.execute(*"ACL SETUSER ann reset on >secret".split(), *DOCUMENTED, *more)
    url = f"{server.url}?username=ann&password=secret&db={database}"
    with closing(backend_at(url, "flagsync")) as backend:
        store(backend, "ann=1")
        assert deliver(backend) == ["ann=1"]


def test_user_who_may_not_select_a_database_is_told_so(server: ValkeyServer) -> None:
    server.execute(*"ACL SETUSER ann reset on >secret".split(), *DOCUMENTED)
    assert_refused(backend_at(f"{server.url}?username=ann&password=secret&db=1", "flagsync"), LACKS)


# URLs


MALFORMED = (
    "redis://:pa#ss@cache/0",
    "redis://:pa/ss@cache:6379/0",
    "redis://cache:port/0",
    "redis://cache/ten",
    "redis://cache/0?db=ten",
    "redis://cache/0?colour=blue",
    "redis://cache/0?protocol=9",
    "redis://cache:0/0",
    "redis://cache?port=99999",
    "redis://cache?db=-1",
    "redis://cache/0?encoding=nonsense",
    "redis://cache/0?credential_provider=nonsense",
    "redis://cache/0?maint_notifications_config=nonsense",
    "redis://cache/0?namespace=one&namespace=two",
    "redis://:%00@cache/0",
    "unix://path/to/socket",
    "rediss://cache/0?ssl_cert_reqs=perhaps",
    "redis://[::1/0",
    "unix://",
    "unix://?db=0",
)


@pytest.mark.parametrize("url", MALFORMED)
def test_url_that_is_malformed_is_refused_without_its_text(url: str) -> None:
    with pytest.raises(
        ValueError, match=r"^outbox: the URL of a Redis or Valkey server is malformed; "
    ) as raised:
        check(url)
    assert not {"pa", "ss@", "colour", "ten"} & {*str(raised.value).split()}
    assert raised.value.__suppress_context__


@pytest.mark.parametrize("scheme", ["redis", "rediss", "valkey", "valkeys", "REDIS", "Valkeys"])
def test_url_may_name_either_server(scheme: str) -> None:
    check(f"{scheme}://user:{QUOTED_PASSWORD}@cache.example:6380/2")
    check(f"{scheme}://cache")


def test_url_has_a_namespace(server: ValkeyServer) -> None:
    for query in ("?namespace=shop", "?namespace=sho%70&db=0", "", "?namespace=flagsync"):
        with closing(open_backend(server.url + query, StoreBounds())) as backend:
            backend.store([message_of("ann=1")], [], [], soon())
    assert totals(f"{server.url}?namespace=shop").every == Totals(accepted=2, unchanged=1)
    assert totals(server.url).every == Totals(accepted=2, unchanged=1)
    with pytest.raises(ValueError, match="namespace must be a text without braces"):
        check(f"{server.url}?namespace={{shop}}")
    with pytest.raises(ValueError, match="namespace must be a text without braces"):
        check(f"{server.url}?namespace=")  # a variable that is not set


def test_url_cannot_make_the_outbox_wait_or_decode(server: ValkeyServer) -> None:
    options = "decode_responses=True&socket_timeout=90&retry_on_timeout=True&max_connections=7&timeout=5"
    with closing(backend_at(f"{server.url}?{options}", "flagsync", SHORT)) as backend:
        store(backend, "ann=\xe4")
        assert waiting(backend) == ["ann=\xe4"]
        began = monotonic()
        with server.paused(), pytest.raises(OSError, match="in time"):
            backend.totals()
        assert monotonic() - began < SHORT.call_seconds + 0.2


# Clients of the application


@pytest.mark.parametrize("options", [{}, {"decode_responses": True}, {"protocol": 3}])
def test_client_of_the_application_is_used_and_never_closed(
    server: ValkeyServer, options: dict[str, Any]
) -> None:
    client = redis.Redis(unix_socket_path=f"{server.directory}/socket", **options)
    before, connection = server.connections(), client.client_id()
    backend = RedisBackend(client, "shop")
    store(backend, "\xe4nn=\xe4", "bob\0=1", evaluation=1)
    assert deliver(backend) == ["\xe4nn=\xe4", "bob\0=1"]
    backend.close()
    assert client.client_id() == connection
    assert server.connections() - before == {connection}
    client.close()


def test_client_of_the_application_has_failures_in_plain_words(tmp_path: Any) -> None:
    # By default, a client tries again for seconds.
    options = {"unix_socket_path": f"{tmp_path}/no-socket", "retry": Retry(NoBackoff(), 0)}
    with closing(redis.Redis(**options)) as client:  # type: ignore[arg-type]
        assert_refused(RedisBackend(client), "the server cannot be reached (No such file or directory)")


def test_client_of_the_application_loads_scripts_again(server: ValkeyServer) -> None:
    with server.client() as client:
        backend = RedisBackend(client)
        store(backend, "ann=1")
        client.script_flush()
        assert waiting(backend) == ["ann=1"]


def test_client_for_asyncio_is_refused() -> None:
    client = AsyncRedis()
    with pytest.raises(
        TypeError, match=r"not a redis\.asyncio\.client\.Redis, since flagsync calls it from threads"
    ):
        RedisBackend(client)  # type: ignore[arg-type]
    asyncio.run(client.aclose())


@pytest.mark.parametrize("of_cluster", [False, True])
def test_client_that_is_a_pipeline_is_refused_since_it_keeps_what_it_is_told(of_cluster: bool) -> None:
    client = RedisCluster.__new__(RedisCluster) if of_cluster else redis.Redis()
    pipeline = ClusterPipeline.__new__(ClusterPipeline) if of_cluster else client.pipeline()
    with pytest.raises(TypeError, match=r"not a redis\.(client\.Pipeline|cluster\.ClusterPipeline)$"):
        RedisBackend(pipeline)


@pytest.mark.parametrize("client", ["redis://cache", None, 7])
def test_client_that_is_none_is_refused(client: Any) -> None:
    with pytest.raises(
        TypeError, match=r"^client must be a redis\.Redis or a redis\.RedisCluster, not a builtins\."
    ):
        RedisBackend(client)
