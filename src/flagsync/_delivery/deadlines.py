"""An adapter for ``requests`` that sends and receives by a deadline, however slowly the bytes arrive.

A timeout of ``requests`` starts again with each byte that arrives: a server that sends one byte a second could hold a
thread for ever. Guarantee: the reply, or ``TimeoutError``, comes by the deadline, and an ``Exchange`` tells how far the
request got. Informational replies are skipped.
"""

import http.client
import io
import socket
from enum import Enum
from typing import Any

from requests.adapters import HTTPAdapter

from flagsync._clock import monotonic

FIRST_FINAL_STATUS, SWITCHING_PROTOCOLS = 200, 101


class Stage(Enum):
    """How far a request has got."""

    PREPARED = 1  # nothing was connected or sent
    CONNECTED = 2  # a connection was opened for it, or attempted
    REUSED = 3  # it was sent over a connection that was kept
    ANSWERED = 4  # a byte of the reply has arrived


class Exchange:
    """The current request of a session: how far it has got, and how long it may take.

    Attributes:
        deadline: When it must end, on the clock of ``monotonic``.
        began_at: When it was sent, on the same clock.
        stage: How far it has got.
    """

    def __init__(self) -> None:
        self.deadline, self.began_at, self.stage = 0.0, 0.0, Stage.PREPARED

    def begin(self) -> None:
        """Note that it is sent, or sent again."""
        self.began_at, self.stage = monotonic(), Stage.PREPARED

    def seconds_left(self) -> float:
        """Return the time until the deadline."""
        return self.deadline - monotonic()

    def met_a_dead_connection(self, within_seconds: float) -> bool:
        """Whether it ended soon, before its deadline, on a kept connection without any byte of a reply."""
        is_soon = monotonic() < min(self.began_at + within_seconds, self.deadline)
        return self.stage is Stage.REUSED and is_soon


class DeadlineAdapter(HTTPAdapter):
    """Limits each connection to the time that is left.

    Args:
        exchange: The current request.
    """

    def __init__(self, exchange: Exchange) -> None:
        super().__init__(pool_connections=1, pool_maxsize=1)
        self._pools: list[Any] = []
        self._exchange = exchange

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as requests has it
        pool: Any = super().get_connection_with_tls_context(*args, **kwargs)
        if "ConnectionCls" not in vars(pool):
            bases = (_DeadlineConnection, pool.ConnectionCls)
            pool.ConnectionCls = type("DeadlineConnection", bases, {"exchange": self._exchange})
            self._pools.append(pool)
        return pool

    def close(self) -> None:
        for pool in self._pools:  # while Python exits, urllib3 2.8 leaves that to the garbage collector
            pool.close()
        self._pools.clear()
        super().close()


class _DeadlineConnection:
    """What differs from a connection of ``http.client``."""

    exchange: Exchange
    sock: socket.socket | None

    def connect(self) -> None:
        self.exchange.stage = Stage.CONNECTED
        super().connect()  # type: ignore[misc]

    def send(self, data: Any) -> None:  # noqa: ANN401 - as http.client has it
        if self.sock:  # else it connects first
            if self.exchange.stage is Stage.PREPARED:
                self.exchange.stage = Stage.REUSED
            # urllib3 2.8 allows a body only the time for connecting.
            set_timeout(self.sock, self.exchange.seconds_left())
        super().send(data)  # type: ignore[misc]

    def response_class(self, sock: socket.socket, *args: Any, **kwargs: Any) -> http.client.HTTPResponse:  # noqa: ANN401
        response = _FinalResponse(sock, *args, **kwargs)
        response.fp = io.BufferedReader(_DeadlineStream(response.fp.detach(), sock, self.exchange))
        return response


class _FinalResponse(http.client.HTTPResponse):
    """Skips informational replies such as 103 Early Hints; ``http.client`` itself skips only 100."""

    def _read_status(self) -> tuple[str, int, str]:
        while True:
            version, status, reason = super()._read_status()  # type: ignore[misc]
            if status >= FIRST_FINAL_STATUS or status in (http.HTTPStatus.CONTINUE, SWITCHING_PROTOCOLS):
                return version, status, reason
            http.client.parse_headers(self.fp)


class _DeadlineStream(io.RawIOBase):
    def __init__(self, raw: Any, sock: socket.socket, exchange: Exchange) -> None:  # noqa: ANN401
        self._raw, self._sock, self._exchange = raw, sock, exchange

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:  # noqa: ANN401 - a writable buffer
        set_timeout(self._sock, self._exchange.seconds_left())
        count: int | None = self._raw.readinto(buffer)
        if count:
            self._exchange.stage = Stage.ANSWERED
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


def set_timeout(sock: socket.socket, seconds: float) -> None:
    """Limit how long the next operation of a socket takes; ``TimeoutError`` if no time is left."""
    if seconds <= 0:
        raise TimeoutError
    sock.settimeout(seconds)
