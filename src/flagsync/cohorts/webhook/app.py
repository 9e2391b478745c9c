"""The receiver of Mixpanel's cohort webhook, as a WSGI and an ASGI application.

Guarantee: success is answered when the change is durable, and not before. A status that makes Mixpanel pause the sync
for good (400, 401) is for what no retry can change; what may work later is a 503, which Mixpanel retries. Boundary:
what a call changes is decided by the store. Source: https://docs.mixpanel.com/docs/cohort-sync/webhooks
"""

from base64 import b64decode
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from hmac import compare_digest
from http import HTTPStatus
from time import monotonic
from typing import Any, TypeAlias, TypeGuard

from flagsync._report import Reporter
from flagsync._rules import require
from flagsync.cohorts.store import MembershipSink
from flagsync.cohorts.update import MEMBER_KEY, CohortUpdate, is_storable, read_json
from flagsync.cohorts.webhook.answers import (
    BodyLimits,
    Head,
    Response,
    failure,
    incomplete,
    success,
    too_large,
    unavailable,
)
from flagsync.cohorts.webhook.asgi import AsgiApp
from flagsync.exceptions import StoreUnavailableError

MAX_LENGTH_DIGITS, MAX_ECHO, CHUNK_BYTES = 99, 100, 65536
# wsgiref says text/plain where a request has no content type.
JSON_TYPES = ("", "application/json", "text/plain")
Environ: TypeAlias = Mapping[str, Any]


class CohortWebhook:
    """Receives Mixpanel's calls and stores them.

    Mount ``wsgi`` in Flask or Django, ``asgi`` in Starlette or FastAPI, at a path of your choice; or serve one of them
    alone.

    Args:
        store: Where memberships are stored: anything that has ``apply``.
        credentials: (user, password) pairs, all of them valid: the URL of a connection in Mixpanel cannot be edited, so
            a new password is added here before the old one is removed. None, given explicitly, accepts every call.
        member_key: The exported property that is the Flagsmith identifier.

    Raises:
        ValueError: An option is invalid; the message says what is accepted.
    """

    def __init__(
        self,
        store: MembershipSink,
        *,
        credentials: Iterable[tuple[str, str]] | None = (),
        member_key: str = MEMBER_KEY,
    ) -> None:
        pairs = None if credentials is None else [*credentials] if isinstance(credentials, Iterable) else []
        require(
            {
                "credentials must be the (user, password) pairs that Mixpanel may use, users without a colon; or "
                "None, given explicitly, to accept every call": pairs is None
                or (bool(pairs) and all(map(_is_pair, pairs))),
                "store must have apply(update), such as flagsync.cohorts.SQLiteStore": isinstance(
                    store, MembershipSink
                ),
                "member_key must be the name of a property": isinstance(member_key, str) and bool(member_key),
            }
        )
        self._limits = BodyLimits()
        self._receiver = _Receiver(store, pairs, member_key, self._limits)
        self.asgi = AsgiApp(self._receiver, self._limits)
        """The application for ASGI servers and frameworks."""

    def wsgi(self, environ: Environ, start_response: Callable[..., object]) -> list[bytes]:
        """Answer one request: the application for WSGI servers and frameworks."""
        head = Head(
            environ["REQUEST_METHOD"],
            environ.get("HTTP_AUTHORIZATION", ""),
            environ.get("CONTENT_TYPE", ""),
            environ.get("CONTENT_LENGTH", ""),
        )
        response = self._receiver.refuse(head)
        if response is None:
            body = read_body(environ, head.content_length, self._limits)
            response = self._receiver.store(body) if isinstance(body, bytes) else body
        start_response(f"{response.status.value} {response.status.phrase}", response.headers)
        return [response.body]


class _Receiver:
    """Decides on requests and stores what they say."""

    def __init__(
        self,
        store: MembershipSink,
        pairs: Iterable[tuple[str, str]] | None,
        member_key: str,
        limits: BodyLimits,
    ) -> None:
        self._store, self._member_key, self._limits = store, member_key, limits
        self._report = Reporter(None)
        self._hashes = None if pairs is None else [_hash(":".join(pair).encode()) for pair in pairs]

    def refuse(self, head: Head) -> Response | None:
        """Return the response to a request whose body need not be read; None if it is to be read."""
        if self._hashes is not None and not _is_authorized(head.authorization, self._hashes):
            self._report.warn_once(
                "A call of the cohort webhook had no right credentials; no others are reported"
            )
            realm = ("WWW-Authenticate", 'Basic realm="flagsync", charset="UTF-8"')
            return failure(HTTPStatus.UNAUTHORIZED, "user or password is wrong", None, realm)
        if head.method != "POST":
            allow = ("Allow", "POST")
            return failure(HTTPStatus.METHOD_NOT_ALLOWED, "the method must be POST", None, allow)
        media = head.content_type.partition(";")[0].strip().lower()
        if media not in JSON_TYPES and not media.endswith("+json"):
            return failure(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "the content type must be application/json")
        length = head.content_length
        if length and not (length.isascii() and length.isdigit()):
            return failure(HTTPStatus.BAD_REQUEST, "Content-Length must be a number")
        if len(length) > MAX_LENGTH_DIGITS or int(length or 0) > self._limits.max_bytes:
            return too_large(self._limits)
        return None

    def store(self, body: bytes) -> Response:
        """Parse and store a call; success means that it is durable."""
        action = None
        try:
            document = read_json(body)
            given = document.get("action")
            action = given[:MAX_ECHO] if isinstance(given, str) else None
            update = CohortUpdate.parse(document, self._member_key)
        except ValueError as error:
            self._report.log(f"A call of the cohort webhook was refused: {error}")
            return failure(HTTPStatus.BAD_REQUEST, f"{error}", action)
        if update.skipped:
            self._report.log(
                f"{update.skipped} members of a cohort have no usable {self._member_key} and are left out; "
                "Mixpanel sends what is chosen under Properties to Export"
            )
        try:
            self._store.apply(update)
        except Exception as error:  # noqa: BLE001 - a store may raise anything, and Mixpanel repeats the call
            reason = error if isinstance(error, StoreUnavailableError) else type(error).__name__
            self._report.log(f"A call of the cohort webhook was not stored, Mixpanel will repeat it: {reason}")
            return unavailable(action)
        return success(action)


def read_body(
    environ: Environ, length: str, limits: BodyLimits, clock: Callable[[], float] = monotonic
) -> bytes | Response:
    """Return the body of a WSGI request, or the response to a bad one.

    Args:
        environ: Of the request.
        length: Its ``Content-Length``, if it has one.
        limits: How large the body may be.
        clock: Tells the seconds.
    """
    if not length and not environ.get("wsgi.input_terminated"):
        return failure(HTTPStatus.LENGTH_REQUIRED, "Content-Length is missing")
    missing, chunks, deadline = int(length or limits.max_bytes + 1), list[bytes](), clock() + limits.seconds
    stream = environ["wsgi.input"]
    read = getattr(stream, "read1", stream.read)  # what is there already, where a server can tell
    while missing:
        try:
            chunk = read(min(missing, CHUNK_BYTES)) if clock() < deadline else None
        except Exception:  # noqa: BLE001 - of the server: the client has gone, or is too slow
            return incomplete()
        if chunk is None or (length and not chunk):
            return incomplete()
        if not chunk:
            return b"".join(chunks)
        missing -= len(chunk)
        chunks.append(chunk)
    return b"".join(chunks) if length else too_large(limits)


def _is_authorized(authorization: str, hashes: Iterable[bytes]) -> bool:
    scheme, _, encoded = authorization.partition(" ")
    try:
        given = _hash(b64decode(encoded.strip(), validate=True))
    except ValueError:
        return False
    # All are compared, in a time that does not depend on how much is right.
    matches = [compare_digest(given, known) for known in hashes]
    return scheme.lower() == "basic" and any(matches)


def _is_pair(pair: object) -> TypeGuard[tuple[str, str]]:
    return (
        isinstance(pair, tuple | list)
        and len(pair) == 2  # noqa: PLR2004
        and all(isinstance(part, str) and part and is_storable(part) for part in pair)
        and ":" not in pair[0]
    )


def _hash(credentials: bytes) -> bytes:
    """Return what takes as long to compare, whatever was given."""
    return sha256(credentials).digest()
