"""The receiver of Mixpanel's cohort webhook, as a WSGI and an ASGI application.

Guarantee: the webhook answers success only when the change is durable, and 503, which Mixpanel retries, if the call may
succeed later. Each cause of a refusal is logged once. Boundary: the store decides what a call changes. Source:
https://docs.mixpanel.com/docs/cohort-sync/webhooks
"""

from base64 import b64decode
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from hmac import compare_digest
from typing import Any, TypeAlias, TypeGuard

from flagsync._clock import monotonic
from flagsync._report import Outage, Reporter
from flagsync._rules import is_instance_of, require, shown
from flagsync._stats import Counts
from flagsync.cohorts.store import MembershipSink
from flagsync.cohorts.update import MEMBER_KEY, CohortUpdate, is_storable, read_json
from flagsync.cohorts.webhook.answers import Head, Response, failure, success
from flagsync.cohorts.webhook.asgi import AsgiApp
from flagsync.cohorts.webhook.refusals import (
    NO_CREDENTIALS,
    NO_LENGTH,
    NO_NUMBER,
    NOT_JSON,
    NOT_POST,
    NOT_STORED,
    WRONG_CREDENTIALS,
    BodyLimits,
    Refusal,
    not_understood,
    not_whole,
    too_large,
)
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
        store: Where memberships are stored: any object that has ``apply``.
        credentials: (user, password) pairs, all of them valid. Mixpanel cannot edit the URL of a connection, so add a
            new password here before you remove the old one. An explicit None accepts every call.
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
                f"store must have apply(update), such as flagsync.cohorts.SQLiteStore, not {shown(store)}": (
                    is_instance_of(store, MembershipSink)
                ),
                f"member_key must be the name of a property, not {shown(member_key)}": (
                    isinstance(member_key, str) and bool(member_key)
                ),
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
            response = self._receiver.answer(read_body(environ, head.content_length, self._limits))
        start_response(f"{response.status.value} {response.status.phrase}", response.headers)
        return [response.body]


class _Receiver:
    """Decides on requests and stores what they say.

    Attributes:
        calls: Counts the calls by the HTTP status of their response.
    """

    def __init__(
        self,
        store: MembershipSink,
        pairs: Iterable[tuple[str, str]] | None,
        member_key: str,
        limits: BodyLimits,
    ) -> None:
        self._store, self._member_key, self._limits = store, member_key, limits
        self._report = Reporter(None)
        self._outage = Outage(self._report)
        self.calls = Counts()
        self._hashes = None if pairs is None else [_hash(":".join(pair).encode()) for pair in pairs]

    def refuse(self, head: Head) -> Response | None:
        """Return the response to a request whose body need not be read; None if it is to be read."""
        refusal = self._refusal(head)
        return None if refusal is None else self._refuse(refusal)

    def answer(self, body: bytes | Refusal) -> Response:
        """Parse and store a call, unless its body is to be refused; success means that it is durable."""
        if isinstance(body, Refusal):
            return self._refuse(body)
        action = None
        try:
            document = read_json(body)
            given = document.get("action")
            action = given[:MAX_ECHO] if isinstance(given, str) else None
            update = CohortUpdate.parse(document, self._member_key)
        except ValueError as error:
            return self._refuse(not_understood(error), action)
        response = success(action) if self._store_update(update) else failure(NOT_STORED, action)
        self.calls.count(f"{response.status.value}")
        return response

    def _refusal(self, head: Head) -> Refusal | None:
        if self._hashes is not None and not _is_authorized(head.authorization, self._hashes):
            return WRONG_CREDENTIALS if head.authorization.strip() else NO_CREDENTIALS
        if head.method != "POST":
            return NOT_POST
        media = head.content_type.partition(";")[0].strip().lower()
        if media not in JSON_TYPES and not media.endswith("+json"):
            return NOT_JSON
        length = head.content_length
        if length and not (length.isascii() and length.isdigit()):
            return NO_NUMBER
        if len(length) > MAX_LENGTH_DIGITS or int(length or 0) > self._limits.max_bytes:
            return too_large(self._limits)
        return None

    def _refuse(self, refusal: Refusal, action: str | None = None) -> Response:
        """Return the response to a call that is refused, and log the first one of each cause."""
        self.calls.count(f"{refusal.status.value}")
        self._report.warn_once(
            f"A call of the cohort webhook was refused with HTTP {refusal.status}: {refusal.explanation}. "
            "Further such calls are not logged"
        )
        return failure(refusal, action)

    def _store_update(self, update: CohortUpdate) -> bool:
        """Store what a call says; False if Mixpanel has to repeat the call."""
        if update.left_out:
            causes = "; ".join(f"{count:,} because {cause}" for cause, count in update.left_out.items())
            self._report.log(f"Members of a cohort are left out: {causes}")
        try:
            self._store.apply(update)
        except Exception as error:  # noqa: BLE001 - a store may raise anything, and Mixpanel repeats the call
            reason = error if isinstance(error, StoreUnavailableError) else type(error).__name__
            self._outage.begin(
                f"Calls of the cohort webhook cannot be stored, and Mixpanel will repeat them: {reason}",
                f"{reason}",
            )
            return False
        else:
            self._outage.end("Calls of the cohort webhook are stored again")
            return True
        finally:
            self._report.report_deferred()


def read_body(
    environ: Environ, length: str, limits: BodyLimits, clock: Callable[[], float] = monotonic
) -> bytes | Refusal:
    """Return the body of a WSGI request, or why there is none that can be stored.

    Args:
        environ: The WSGI environment of the request.
        length: Its ``Content-Length``, if it has one.
        limits: How large the body may be.
        clock: Returns the time in seconds.
    """
    if not length and not environ.get("wsgi.input_terminated"):
        return NO_LENGTH
    missing, body, deadline = int(length or limits.max_bytes + 1), bytearray(), clock() + limits.seconds
    stream = environ["wsgi.input"]
    read = getattr(stream, "read1", stream.read)  # returns what has arrived already, if the server can tell
    while missing:
        try:
            chunk = read(min(missing, CHUNK_BYTES)) if clock() < deadline else None
        except Exception:  # noqa: BLE001 - the server raises if the client has gone or is too slow
            chunk = None
        if not chunk:
            has_ended = chunk is not None and not length and body
            return bytes(body) if has_ended else not_whole(body)
        missing -= len(chunk)
        body += chunk
    return bytes(body) if length else too_large(limits)


def _is_authorized(authorization: str, hashes: Iterable[bytes]) -> bool:
    scheme, _, encoded = authorization.partition(" ")
    try:
        given = _hash(b64decode(encoded.strip(), validate=True))
    except ValueError:
        return False
    # Compare all of them, in a time that does not depend on how much is right.
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
    """Return a digest, which takes equally long to compare, whatever was given."""
    return sha256(credentials).digest()
