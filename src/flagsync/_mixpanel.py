"""The Mixpanel SDK and HTTP to Mixpanel; the only import of ``mixpanel`` and of ``requests``.

Guarantee: ``Engage.post`` raises nothing, ends within its time, follows no redirect with the payload and
reads what Mixpanel answered. What to do about an answer is the sender's.
"""

import hashlib
import http.client
import io
import json
import socket
from collections.abc import Callable, Sequence
from email.utils import parsedate_to_datetime
from enum import Enum
from time import monotonic, time
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import requests
from mixpanel import Mixpanel
from requests.adapters import HTTPAdapter

CONNECT_SECONDS, READ_SECONDS = 5.0, 10.0
EMPTY_SET = '"$set":{}'
MAX_ANSWER_BYTES = 65536
MAX_RETRY_AFTER_SECONDS = 3600.0


class UpdateWriter:
    """Lets the Mixpanel SDK write an update and keeps the JSON: the SDK's ``consumer``, for one thread."""

    def __init__(self, token: str) -> None:
        self._mixpanel = Mixpanel(token, consumer=self)
        self._json = ""

    def people_set(self, distinct_id: str, properties: str) -> tuple[bytes, bytes]:
        """The JSON of a ``$set``, and 16 bytes that differ when the JSON object ``properties`` does.

        ``$ip: "0"``: the server's address is not the user's city. ``$ignore_time``: being mirrored is no
        activity of the user (``$last_seen``).
        """
        self._mixpanel.people_set(distinct_id, {}, meta={"$ip": "0", "$ignore_time": True})
        # The place of the properties; in no JSON string can it stand with bare quotes.
        json = self._json.replace(EMPTY_SET, f'"$set":{properties}', 1)
        return json.encode(), hashlib.blake2b(properties.encode(), digest_size=16).digest()

    def send(self, endpoint: str, json_message: str, *_: object) -> None:  # noqa: ARG002 - the SDK's signature
        self._json = json_message


class Outcome(Enum):
    """What an answer means for the updates that were sent."""

    ACCEPTED = 1
    REFUSED = 2  # one of them, or all, will never get through
    UNAVAILABLE = 3  # the same request may succeed later
    MISCONFIGURED = 4  # nothing gets through until a person acts


class Answer(NamedTuple):
    """How a request ended, and what to tell a person; ``text`` is Mixpanel's own and may quote the request."""

    outcome: Outcome
    reason: str = ""
    retry_after_seconds: float = 0.0
    text: str = ""


class Engage:
    """Mixpanel's endpoint for profiles, https://developer.mixpanel.com/reference/profile-batch-update."""

    def __init__(self) -> None:
        self._session = requests.Session()
        self._session.headers.update(
            {"Content-Type": "application/json", "X-Mixpanel-Integration-ID": "flagsync"}
        )
        self._deadline = 0.0
        for scheme in ("https://", "http://"):
            self._session.mount(scheme, _DeadlineAdapter(lambda: self._deadline))
        self.close = self._session.close

    def post(self, url: str, updates: Sequence[bytes], seconds: float) -> Answer:
        """Send updates as one JSON array; say within about ``seconds`` what became of them."""
        self._deadline = monotonic() + seconds
        # A test server is not to be sought through the proxy of the company.
        self._session.trust_env = urlsplit(url).hostname not in ("127.0.0.1", "localhost", "::1")
        try:
            with self._session.post(
                url,
                params={"verbose": "1"},
                data=b"".join((b"[", b",".join(updates), b"]")),
                timeout=(min(CONNECT_SECONDS, seconds), min(READ_SECONDS, seconds)),
                allow_redirects=False,
                stream=True,
            ) as response:
                body = response.raw.read(MAX_ANSWER_BYTES, decode_content=True)
        except Exception as error:  # noqa: BLE001 - besides RequestException, errors of urllib3 and ssl get through
            # Nothing but the name: messages of urllib3 hold URLs, which may hold the password of a proxy.
            return Answer(Outcome.UNAVAILABLE, f"Mixpanel cannot be reached ({type(error).__name__})")
        return read_answer(response.status_code, body, response.headers.get("Retry-After", ""))


def read_answer(status: int, body: bytes, retry_after: str = "") -> Answer:
    """What Mixpanel said. Status 200 is no success: with ``verbose=1`` that is in the body."""
    text = body.decode(errors="replace")[:500]
    reason = f"HTTP {status}"
    if status == http.HTTPStatus.OK:
        verdict = _verdict(body)
        if verdict == 1:
            return Answer(Outcome.ACCEPTED)
        reason += ", status 0" if verdict == 0 else ", not an answer of Mixpanel"
        outcome = Outcome.REFUSED if verdict == 0 else Outcome.UNAVAILABLE
    elif status in (400, 413):
        outcome = Outcome.REFUSED
    elif status in (408, 425, 429) or status >= 500:  # noqa: PLR2004
        outcome = Outcome.UNAVAILABLE
    else:
        outcome = Outcome.MISCONFIGURED
        reason += "; check mixpanel_token, region and mixpanel_url"
    return Answer(outcome, f"Mixpanel does not take updates ({reason})", _seconds(retry_after), text)


def _verdict(body: bytes) -> int | None:
    try:
        document: Any = json.loads(body)
    except ValueError:
        return None
    status = document.get("status") if isinstance(document, dict) else document
    return status if type(status) is int else None


def _seconds(retry_after: str) -> float:
    """``Retry-After`` in seconds from now, at most an hour; 0 if there is none to honour."""
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(retry_after).timestamp() - time()
        except (ValueError, OverflowError):
            return 0.0
    return min(seconds, MAX_RETRY_AFTER_SECONDS) if seconds > 0 else 0.0


class _DeadlineAdapter(HTTPAdapter):
    """Answers must be complete at the deadline; the timeout of ``requests`` starts anew with each byte."""

    def __init__(self, deadline: Callable[[], float]) -> None:
        super().__init__(pool_connections=1, pool_maxsize=1)
        self._pools: list[Any] = []
        self._response = lambda *args, **kwargs: _DeadlineResponse(*args, deadline=deadline, **kwargs)

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as requests has it
        pool: Any = super().get_connection_with_tls_context(*args, **kwargs)
        if "ConnectionCls" not in vars(pool):  # http.client answers with the connection's response_class
            response_class = {"response_class": staticmethod(self._response)}
            pool.ConnectionCls = type("DeadlineConnection", (pool.ConnectionCls,), response_class)
            self._pools.append(pool)
        return pool

    def close(self) -> None:
        for pool in self._pools:  # while Python exits, urllib3 2.8 leaves that to the garbage collector
            pool.close()
        super().close()


class _DeadlineResponse(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, deadline: Callable[[], float], **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(sock, *args, **kwargs)
        self.fp = io.BufferedReader(_DeadlineStream(self.fp.detach(), sock, deadline))


class _DeadlineStream(io.RawIOBase):
    def __init__(self, raw: Any, sock: socket.socket, deadline: Callable[[], float]) -> None:  # noqa: ANN401
        self._raw, self._sock, self._deadline = raw, sock, deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:  # noqa: ANN401 - a writable buffer
        if (left := self._deadline() - monotonic()) <= 0:
            raise TimeoutError
        self._sock.settimeout(min(left, READ_SECONDS))
        return self._raw.readinto(buffer)  # type: ignore[no-any-return]

    def close(self) -> None:
        self._raw.close()
        super().close()
