"""Servers on loopback that do with their sockets what no HTTP server of a library does."""

import re
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Self


class _Server:
    """A thread that serves one connection after the other on a free port of loopback."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/engage"
        self.has_hung_up = threading.Event()  # the client
        self._connections: list[socket.socket] = []
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        # Neither a client that has never come nor one that does not hang up is waited for.
        for end in (self._listener, *self._connections):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _run(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._connections.append(connection)
                with suppress(OSError), connection:
                    self.serve(connection)
                self.has_hung_up.set()

    def serve(self, connection: socket.socket) -> None:
        """Serve the connection."""
        raise NotImplementedError


class RawServer(_Server):
    """Answers each request with the next of some bytes, and then waits until the client hangs up."""

    def __init__(self, *answers: bytes) -> None:
        super().__init__()
        self._answers = answers
        self.requests: list[bytes] = []

    def serve(self, connection: socket.socket) -> None:
        with ExitStack() as stack:
            stream = stack.enter_context(connection.makefile("rb"))
            for answer in self._answers:
                head = b""
                while (line := stream.readline()).strip():
                    head += line
                length = re.search(rb"(?i)content-length: (\d+)", head)
                self.requests.append(head + stream.read(int(length[1]) if length else 0))
                connection.sendall(answer)
            while stream.read(1):
                pass


class TricklingServer(_Server):
    """Sends its answer byte by byte, for ever.

    Args:
        head: What it sends at once.
        repeated: What it sends again and again.
    """

    def __init__(self, head: bytes, repeated: bytes = b"x") -> None:
        super().__init__()
        self._head, self._repeated = head, repeated

    def serve(self, connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(self._head)
        connection.settimeout(0.01)
        while True:
            connection.sendall(self._repeated)
            with suppress(TimeoutError):
                if not connection.recv(65536):
                    break


class SlowReader(_Server):
    """Reads nothing before a moment, then a whole body, and accepts it.

    Args:
        size: Of the body.
        pause_seconds: Until it reads.
    """

    def __init__(self, size: int, pause_seconds: float) -> None:
        super().__init__()
        self._size, self._pause = size, threading.Event()
        self._pause_seconds = pause_seconds

    def serve(self, connection: socket.socket) -> None:
        with connection.makefile("rb") as request:
            self._pause.wait(self._pause_seconds)
            request.read(self._size)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1")
            while request.read(1):
                pass


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class ForgetfulServer(_Server):
    """Answers the first request on each connection, and ends the connection instead of answering a second one.

    Args:
        end: Ends a connection, perhaps after it has read something.
        is_before: Whether it ends it before a second request begins, when ``forget`` is called.
        context: For TLS.
    """

    def __init__(
        self,
        end: Callable[[socket.socket], None],
        *,
        is_before: bool = False,
        context: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__()
        if context:
            self._listener = context.wrap_socket(self._listener, server_side=True)
        self._end, self._is_before = end, is_before
        self._forgets, self._has_forgotten = threading.Event(), threading.Event()
        self.connections = 0

    def forget(self) -> None:
        """End the connection that is idle."""
        self._forgets.set()
        assert not self._is_before or self._has_forgotten.wait(10)

    def serve(self, connection: socket.socket) -> None:
        self.connections += 1
        read_request(connection)
        connection.sendall(OK)
        if self._is_before:
            self._forgets.wait()
        elif not connection.recv(1):
            return
        self._end(connection)
        connection.close()
        self._has_forgotten.set()


class TunnelingProxy(_Server):
    """Lets its clients connect to itself, whomever they ask for, and then speaks TLS."""

    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__()
        self._context = context

    def serve(self, connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        with self._context.wrap_socket(connection, server_side=True) as inside:
            read_request(inside)


class TlsRelay(_Server):
    """Speaks TLS with its clients, and passes everything on to a server at a Unix socket, and back.

    Args:
        context: For TLS.
        path: Of the socket.
    """

    def __init__(self, context: ssl.SSLContext, path: str) -> None:
        super().__init__()
        self._context, self._path = context, path
        self.port: int = self._listener.getsockname()[1]

    def serve(self, connection: socket.socket) -> None:
        with (
            self._context.wrap_socket(connection, server_side=True) as inside,
            socket.socket(socket.AF_UNIX) as server,
        ):
            server.connect(self._path)
            answers = threading.Thread(target=pass_on, args=(server, inside))
            answers.start()
            pass_on(inside, server)
            answers.join()


class BreakingServer(_Server):
    """Hangs up in the middle of a TLS handshake."""

    def serve(self, connection: socket.socket) -> None:
        connection.recv(65536)


def pass_on(source: socket.socket, target: socket.socket) -> None:
    """Pass on what comes, until it ends."""
    with suppress(OSError):
        while content := source.recv(65536):
            target.sendall(content)
    with suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)


def read_request(connection: socket.socket) -> bytes:
    """Read a request; return its head."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        if not (byte := connection.recv(1)):
            raise ConnectionResetError
        head += byte
    length = re.search(rb"(?i)content-length: (\d+)", head)
    missing = int(length[1]) if length else 0
    while missing:
        missing -= len(connection.recv(min(missing, 65536)))
    return head


def end_with_fin(connection: socket.socket) -> None:
    """End a connection as a server does that has closed it."""
    connection.shutdown(socket.SHUT_RDWR)


def end_with_reset(connection: socket.socket) -> None:
    """End a connection as a router does that has forgotten it."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def free_port() -> int:
    """Return a port of loopback at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port
