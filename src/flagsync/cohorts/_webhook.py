"""The receiver of Mixpanel's cohort webhook: a WSGI and an ASGI application.

Guarantee: success is said when the change is durable, and not before. A status that makes Mixpanel pause the
sync for ever (400, 401) is for what no retry can mend; what may work later is a 503, which it retries.
Source: https://docs.mixpanel.com/docs/cohort-sync/webhooks
"""

from base64 import b64decode
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from hashlib import sha256
from hmac import compare_digest
from http import HTTPStatus
from time import monotonic
from typing import Any, TypeAlias

from flagsync._config import require
from flagsync._report import Reporter
from flagsync.cohorts._answers import (
    BODY_SECONDS,
    INCOMPLETE,
    MAX_BODY_BYTES,
    TOO_LARGE,
    UNAVAILABLE,
    Head,
    RefusedError,
    Response,
    respond,
)
from flagsync.cohorts._asgi import AsgiApp
from flagsync.cohorts._store import STORE, MembershipStore
from flagsync.cohorts._update import MEMBER_KEY, CohortUpdate, is_storable, read_json
from flagsync.exceptions import StoreUnavailableError

MAX_LENGTH_DIGITS, MAX_ECHO, CHUNK_BYTES = 99, 100, 65536
# wsgiref says text/plain where a request says nothing.
JSON_TYPES = ("", "application/json", "text/plain")
Environ: TypeAlias = Mapping[str, Any]


class CohortWebhook:
    """Takes Mixpanel's calls into a store.

    Mount ``wsgi`` in Flask or Django, ``asgi`` in Starlette or FastAPI, at a path of your choice; or serve one
    of them as it is.

    Args:
        store: Where memberships go.
        credentials: (user, password) pairs, all of them valid: the URL of a connection in Mixpanel cannot be
            edited, so a new password is added here before the old one goes. None, said explicitly, takes
            whatever comes.
        member_key: The exported property that is the Flagsmith identifier.

    Raises:
        ValueError: An option cannot be right; the message says how it can.
    """

    def __init__(
        self,
        store: MembershipStore,
        *,
        credentials: Iterable[tuple[str, str]] | None = (),
        member_key: str = MEMBER_KEY,
    ) -> None:
        pairs = None if credentials is None else [*credentials] if isinstance(credentials, Iterable) else []
        require(
            {
                "credentials are the (user, password) pairs that Mixpanel may use, users without a colon; or "
                "None, said explicitly, to take everybody's calls": (
                    pairs is None or (pairs and all(map(_is_pair, pairs)))
                ),
                STORE: hasattr(store, "apply"),
                "member_key is the name of a property": isinstance(member_key, str) and member_key,
            }
        )
        self.asgi = AsgiApp(self._admit, self._take)
        """The application for ASGI servers and frameworks."""
        self._store, self._member_key, self._report = store, member_key, Reporter(None)
        self._credentials = None if pairs is None else [_hash(":".join(pair).encode()) for pair in pairs]

    def wsgi(self, environ: Environ, start_response: Callable[..., object]) -> list[bytes]:
        """The application for WSGI servers and frameworks."""
        head = Head(
            environ["REQUEST_METHOD"],
            environ.get("HTTP_AUTHORIZATION", ""),
            environ.get("CONTENT_TYPE", ""),
            environ.get("CONTENT_LENGTH", ""),
        )
        try:
            self._admit(head)
            response = self._take(_read(environ, head.content_length))
        except RefusedError as refused:
            response = refused.response
        start_response(f"{response.status.value} {response.status.phrase}", response.headers)
        return [response.body]

    def _admit(self, head: Head) -> None:
        """Raise for a request whose body need not be read."""
        if self._credentials is not None and not self._knows(head.authorization):
            self._report.once("A call of the cohort webhook had no right credentials; no others are reported")
            realm = ("WWW-Authenticate", 'Basic realm="flagsync", charset="UTF-8"')
            raise RefusedError(HTTPStatus.UNAUTHORIZED, "user or password is wrong", None, realm)
        if head.method != "POST":
            allow = ("Allow", "POST")
            raise RefusedError(HTTPStatus.METHOD_NOT_ALLOWED, "the method must be POST", None, allow)
        media = head.content_type.partition(";")[0].strip().lower()
        if media not in JSON_TYPES and not media.endswith("+json"):
            raise RefusedError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "the content type must be application/json")
        length = head.content_length
        if length and not (length.isascii() and length.isdigit()):
            raise RefusedError(HTTPStatus.BAD_REQUEST, "Content-Length must be a number")
        if len(length) > MAX_LENGTH_DIGITS or int(length or 0) > MAX_BODY_BYTES:
            raise RefusedError(*TOO_LARGE)

    def _knows(self, authorization: str) -> bool:
        scheme, _, encoded = authorization.partition(" ")
        try:
            given = _hash(b64decode(encoded.strip(), validate=True))
        except ValueError:
            return False
        # All are compared, in a time that tells nothing.
        matches = [compare_digest(given, known) for known in self._credentials or ()]
        return scheme.lower() == "basic" and any(matches)

    def _take(self, body: bytes) -> Response:
        """Parse and store; success means that it is durable."""
        action = None
        try:
            document = read_json(body)
            said = document.get("action")
            action = said[:MAX_ECHO] if isinstance(said, str) else None
            update = CohortUpdate.parse(document, self._member_key)
        except ValueError as error:
            self._report.say(f"A call of the cohort webhook was refused: {error}")
            raise RefusedError(HTTPStatus.BAD_REQUEST, f"{error}", action) from error
        if update.skipped:
            self._report.say(
                f"{update.skipped} members of a cohort have no usable {self._member_key} and are left out; "
                "Mixpanel sends what is chosen under Properties to Export"
            )
        try:
            self._store.apply(update)
        except Exception as error:
            reason = error if isinstance(error, StoreUnavailableError) else type(error).__name__
            self._report.say(f"A call of the cohort webhook was not stored, Mixpanel will repeat it: {reason}")
            raise RefusedError(*UNAVAILABLE, action) from error
        return respond(HTTPStatus.OK, {"action": action, "status": "success"})


def _read(environ: Environ, length: str) -> bytes:
    """The body of a WSGI request."""
    if not length and not environ.get("wsgi.input_terminated"):
        raise RefusedError(HTTPStatus.LENGTH_REQUIRED, "Content-Length is missing")
    left, chunks, deadline = int(length or MAX_BODY_BYTES + 1), list[bytes](), monotonic() + BODY_SECONDS
    stream = environ["wsgi.input"]
    read = getattr(stream, "read1", stream.read)  # what is there, where a server can tell
    with suppress(Exception):  # of the server: the client has gone, or is too slow
        while left and monotonic() < deadline:
            chunk = read(min(left, CHUNK_BYTES))
            left -= len(chunk)
            chunks.append(chunk)
            if not chunk and not length:
                return b"".join(chunks)
            if not chunk:
                break
    if left:
        raise RefusedError(*INCOMPLETE)
    if not length:
        raise RefusedError(*TOO_LARGE)
    return b"".join(chunks)


def _is_pair(pair: object) -> bool:
    return (
        isinstance(pair, tuple | list)
        and len(pair) == 2  # noqa: PLR2004
        and all(isinstance(part, str) and part and is_storable(part) for part in pair)
        and ":" not in pair[0]
    )


def _hash(credentials: bytes) -> bytes:
    """What takes as long to compare for whatever was given."""
    return sha256(credentials).digest()
