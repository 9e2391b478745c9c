"""A real HTTP server on loopback that behaves like Mixpanel, for tests and examples.

Guarantee: it refuses what Mixpanel refuses, and fails on demand. Boundary: ``/engage`` with ``$set`` and ``$unset``,
``/track`` and ``/import``; nothing is kept when the server ends.
"""

import json
import socket
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from flagsync._outbox.contract import MAX_BATCH_MESSAGES
from flagsync.testing.events import experiments_of, import_answer, track_complaint
from flagsync.testing.faults import Fault
from flagsync.testing.updates import complaint, decoded, form_of

MAX_BODY_BYTES = 10_000_000
JOIN_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it arrived, whether it was answered with success or not.

    Attributes:
        method: The HTTP method; Mixpanel expects ``"POST"``.
        path: Path and query.
        headers: By name, in the spelling of the client.
        body: The raw bytes.
        updates: The decoded updates or events, from a JSON array or the ``data`` of a form; empty if there are none.
        connection: A number that requests on one connection share.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    updates: list[dict[str, Any]]
    connection: int


class MixpanelServer:
    """A loopback Mixpanel, from construction until ``close()`` or the end of its ``with``.

        with MixpanelServer() as mixpanel:
            client = FlagSync(flagsmith, "token", mixpanel_url=mixpanel.url)
            ...
            assert mixpanel.profiles["user_42"]["checkout_v2"] is True

    Args:
        port: The port; 0 is a free one.

    Raises:
        OSError: The port is in use.

    Attributes:
        url: For ``mixpanel_url``.
        requests: Every request so far, oldest first.
        profiles: ``distinct_id`` -> properties, after all updates that were accepted.
        events: Every event that was accepted, oldest first: ``{"event": name, "properties": {…}}``.
    """

    def __init__(self, port: int = 0) -> None:
        self.requests: list[Request] = []
        self.profiles: dict[str, dict[str, Any]] = {}
        self.events: list[dict[str, Any]] = []
        self._faults: list[Fault] = []
        self._changed = threading.Condition()
        self._ending = threading.Event()
        self._connections: dict[socket.socket, threading.Thread] = {}
        self._server = _Server(("127.0.0.1", port), _Handler)
        self._server.mixpanel = self
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.01,), name="flagsync-testing", daemon=True
        )
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def experiments(self) -> dict[str, dict[str, set[str]]]:
        """Experiment -> variant -> the ``distinct_id``s that have met it, from the events that were accepted."""
        return experiments_of([*self.events])

    def close(self) -> None:
        """Stop answering and close every connection. Idempotent."""
        self._ending.set()
        self._server.shutdown()
        self._server.server_close()
        threads = [self._thread]
        for connection, thread in [*self._connections.items()]:
            threads.append(thread)
            with suppress(OSError):  # its client was faster
                connection.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(JOIN_SECONDS)

    def fail(
        self,
        *,
        times: float = float("inf"),
        status: int | None = None,
        body: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
        delay_seconds: float = 0.0,
        drop: bool = False,
        distinct_id: str | None = None,
        endpoint: str = "",
    ) -> None:
        """Answer the next requests with a fault. Faults of several calls are used one after the other.

        Args:
            times: How many requests get this fault; by default, all until ``recover()``.
            status: The HTTP status; None: what Mixpanel would answer, after ``delay_seconds``.
            body: The whole body of the answer.
            headers: Further headers of the answer.
            delay_seconds: How long to wait before answering, at most until the server ends.
            drop: Close the connection without an answer.
            distinct_id: Only requests with an update or an event of this profile get this fault.
            endpoint: Only requests to this path, such as ``"/track"``, get this fault.
        """
        data = body.encode() if isinstance(body, str) else body
        with self._changed:
            fault = Fault(times, status, data, headers or {}, delay_seconds, drop, distinct_id, endpoint)
            self._faults.append(fault)

    def recover(self) -> None:
        """Forget all faults."""
        with self._changed:
            self._faults.clear()

    def wait_for_requests(self, count: int, timeout_seconds: float = 10.0) -> bool:
        """Wait until ``count`` requests have arrived; False after the timeout."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self.requests) >= count, timeout_seconds)

    def _receive(self, request: Request) -> Fault:
        """Note a request; return the fault that it meets, if only one that does nothing."""
        with self._changed:
            self.requests.append(request)
            self._changed.notify_all()
            fault = next(
                (fault for fault in self._faults if fault.meets(request.path, request.updates)), Fault()
            )
            fault.times -= 1
            return fault

    def _answer(self, request: Request) -> tuple[int, bytes]:
        """Apply a request as Mixpanel would; return its status and body."""
        parts = urlsplit(request.path)
        query = parse_qs(parts.query)
        if parts.path not in ("/engage", "/track", "/import"):
            return HTTPStatus.NOT_FOUND, b"Not found"
        if request.method != "POST":
            return HTTPStatus.METHOD_NOT_ALLOWED, b"Method not allowed"
        if len(request.body) > MAX_BODY_BYTES:
            return HTTPStatus.REQUEST_ENTITY_TOO_LARGE, b"Request Entity Too Large"
        if parts.path == "/import":
            status, events, content = import_answer(request.updates, request.headers, query.get("strict"))
            self._apply(events)
            return status, content
        find = complaint if parts.path == "/engage" else track_complaint
        status, error = HTTPStatus.OK, next(filter(None, map(find, request.updates)), None)
        if not request.updates:
            status, error = HTTPStatus.BAD_REQUEST, "data, missing or empty"
        if len(request.updates) > MAX_BATCH_MESSAGES:
            status, error = HTTPStatus.BAD_REQUEST, f"data, at most {MAX_BATCH_MESSAGES} updates"
        if error is None:
            self._apply(request.updates)
        answer = {"status": int(error is None), "error": error}
        is_verbose = "1" in (*query.get("verbose", ()), form_of(request.headers, request.body).get("verbose"))
        return status, json.dumps(answer if is_verbose else answer["status"]).encode()

    def _apply(self, updates: list[dict[str, Any]]) -> None:
        with self._changed:
            for update in updates:
                if "event" in update:
                    self.events.append(update)
                    continue
                profile = self.profiles.setdefault(update["$distinct_id"], {})
                profile.update(update.get("$set", {}))
                for name in update.get("$unset", []):
                    profile.pop(name, None)


class _Server(ThreadingHTTPServer):
    daemon_threads = True  # so that a server which nobody closes keeps no process alive
    mixpanel: MixpanelServer

    def handle_error(self, *address: Any) -> None:  # noqa: ANN401 - socketserver's own
        """Say nothing of clients that have died."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(*address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 65536  # one write: an answer in two meets delayed acknowledgement and takes 40 ms longer
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.server.mixpanel._connections[self.connection] = threading.current_thread()  # noqa: SLF001 - the two are one

    def finish(self) -> None:
        self.server.mixpanel._connections.pop(self.connection, None)  # noqa: SLF001
        super().finish()

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers, port = dict(self.headers), self.client_address[1]
        updates = decoded(body, form_of(headers, body))
        request = Request(self.command, self.path, headers, body, updates, port)
        mixpanel = self.server.mixpanel
        fault = mixpanel._receive(request)  # noqa: SLF001 - the two are one
        mixpanel._ending.wait(fault.delay_seconds)  # noqa: SLF001
        if fault.drop:
            self.close_connection = True
            return
        status, answer = (fault.status, b"") if fault.status else mixpanel._answer(request)  # noqa: SLF001
        answer = answer if fault.body is None else fault.body
        self.send_response_only(status)
        for name, value in {"Content-Length": str(len(answer)), **fault.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer)

    do_POST = do_GET = do_PUT = do_DELETE = handle_any  # noqa: N815 - http.server's names

    def log_message(self, *_: object) -> None:
        """Say nothing: ``requests`` holds it all."""
