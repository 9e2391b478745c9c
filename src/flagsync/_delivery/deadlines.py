"""An adapter for ``requests`` that sends and receives by a deadline, whoever trickles.

A timeout of ``requests`` starts anew with each byte that comes; a server that sends one a second would hold a thread
for ever. Guarantee: the reply, or ``TimeoutError``, comes by the deadline. Informational replies are passed over.
"""

import http.client
import io
import socket
from collections.abc import Callable
from typing import Any

from requests.adapters import HTTPAdapter

FIRST_FINAL_STATUS, SWITCHING_PROTOCOLS = 200, 101


class DeadlineAdapter(HTTPAdapter):
    """Gives each connection the time that is left.

    Args:
        seconds_left: The time until the deadline of the current request.
    """

    def __init__(self, seconds_left: Callable[[], float]) -> None:
        super().__init__(pool_connections=1, pool_maxsize=1)
        self._pools: list[Any] = []
        self._seconds_left = seconds_left

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as requests has it
        pool: Any = super().get_connection_with_tls_context(*args, **kwargs)
        if "ConnectionCls" not in vars(pool):
            bases, seconds_left = (_DeadlineConnection, pool.ConnectionCls), staticmethod(self._seconds_left)
            pool.ConnectionCls = type("DeadlineConnection", bases, {"seconds_left": seconds_left})
            self._pools.append(pool)
        return pool

    def close(self) -> None:
        for pool in self._pools:  # while Python exits, urllib3 2.8 leaves that to the garbage collector
            pool.close()
        super().close()


class _DeadlineConnection:
    """What a connection of ``http.client`` does differently."""

    seconds_left: Callable[[], float]
    sock: socket.socket | None

    def send(self, data: Any) -> None:  # noqa: ANN401 - as http.client has it
        if self.sock:  # else it connects first; urllib3 2.8 gives a body no more time than connecting has
            set_timeout(self.sock, self.seconds_left())
        super().send(data)  # type: ignore[misc]

    def response_class(self, sock: socket.socket, *args: Any, **kwargs: Any) -> http.client.HTTPResponse:  # noqa: ANN401
        response = _FinalResponse(sock, *args, **kwargs)
        response.fp = io.BufferedReader(_DeadlineStream(response.fp.detach(), sock, self.seconds_left))
        return response


class _FinalResponse(http.client.HTTPResponse):
    """Passes over informational replies such as 103 Early Hints, of which ``http.client`` only knows 100."""

    def _read_status(self) -> tuple[str, int, str]:
        while True:
            version, status, reason = super()._read_status()  # type: ignore[misc]
            if status >= FIRST_FINAL_STATUS or status in (http.HTTPStatus.CONTINUE, SWITCHING_PROTOCOLS):
                return version, status, reason
            http.client.parse_headers(self.fp)


class _DeadlineStream(io.RawIOBase):
    def __init__(self, raw: Any, sock: socket.socket, seconds_left: Callable[[], float]) -> None:  # noqa: ANN401
        self._raw, self._sock, self._seconds_left = raw, sock, seconds_left

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:  # noqa: ANN401 - a writable buffer
        set_timeout(self._sock, self._seconds_left())
        return self._raw.readinto(buffer)  # type: ignore[no-any-return]

    def close(self) -> None:
        self._raw.close()
        super().close()


def set_timeout(sock: socket.socket, seconds: float) -> None:
    """Let what a socket does next take no longer; ``TimeoutError`` if there is no time left."""
    if seconds <= 0:
        raise TimeoutError
    sock.settimeout(seconds)
