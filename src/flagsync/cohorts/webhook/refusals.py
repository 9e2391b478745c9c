"""Why the webhook refuses calls: what the caller is told, and what the log says to the person who can help.

Guarantee: a status that makes Mixpanel pause the sync for good (400, 401) is used only where no retry can help.
"""

from dataclasses import dataclass
from http import HTTPStatus
from typing import NamedTuple


class Refusal(NamedTuple):
    """Why a call is not stored.

    Attributes:
        status: The HTTP status.
        message: For the caller.
        explanation: For the log: what is wrong, and what to do about it.
        headers: Further headers of the response.
    """

    status: HTTPStatus
    message: str
    explanation: str
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyLimits:
    """How large a body may be, and how slow.

    Attributes:
        max_bytes: The most bytes that are read.
        seconds: How long all of it may take to arrive.
    """

    max_bytes: int = 32_000_000
    seconds: float = 30.0


_CHALLENGE = (("WWW-Authenticate", 'Basic realm="flagsync", charset="UTF-8"'),)
_WRONG = "user or password is wrong"
_NOT_WHOLE = "the body is incomplete"

NO_CREDENTIALS = Refusal(
    HTTPStatus.UNAUTHORIZED,
    _WRONG,
    "it has no Authorization header. Fill in user and password of the connection in Mixpanel. If they are filled in, "
    "something in front of the webhook removes the header: mod_wsgi needs 'WSGIPassAuthorization On', and a proxy "
    "may have to be told to pass it on",
    _CHALLENGE,
)
WRONG_CREDENTIALS = Refusal(
    HTTPStatus.UNAUTHORIZED,
    _WRONG,
    "user or password in its Authorization header is wrong, or the header does not use Mixpanel's scheme, which is "
    "Basic. Compare the user and password of the connection in Mixpanel with the credentials of CohortWebhook",
    _CHALLENGE,
)
NOT_POST = Refusal(
    HTTPStatus.METHOD_NOT_ALLOWED,
    "the method must be POST",
    "its method is not POST. If Mixpanel called, a redirect turned its POST into a GET: give Mixpanel the final URL, "
    "with https, and with the slash at the end if there is one. Calls from browsers and health checks do no harm",
    (("Allow", "POST"),),
)
NOT_JSON = Refusal(
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    "the content type must be application/json",
    "its content type is not application/json, which Mixpanel sends. Something else calls this URL, or a proxy changes "
    "the header",
)
NO_NUMBER = Refusal(
    HTTPStatus.BAD_REQUEST,
    "Content-Length must be a number",
    "its Content-Length is not a number. Something other than Mixpanel calls this URL, or a proxy changes the header",
)
NO_LENGTH = Refusal(
    HTTPStatus.LENGTH_REQUIRED,
    "Content-Length is missing",
    "it has no Content-Length, and the server does not say where its body ends (wsgi.input_terminated). Use a server "
    "that does, such as gunicorn, or have the proxy in front of it buffer requests (nginx: proxy_request_buffering on)",
)
INCOMPLETE = Refusal(
    HTTPStatus.SERVICE_UNAVAILABLE,
    _NOT_WHOLE,
    "its body was cut off or took too long. Mixpanel repeats the call. If this goes on, check the timeouts of the "
    "server and of the proxy in front of it, and look for a middleware that reads a part of the body",
)
NOTHING_CAME = Refusal(
    HTTPStatus.SERVICE_UNAVAILABLE,
    _NOT_WHOLE,
    "none of its body arrived. Mixpanel repeats the call. If this goes on, a middleware has already read the body: "
    "mount the webhook in front of it, or have it put the body back (WSGI: environ['wsgi.input'] = io.BytesIO(body); "
    "ASGI: pass on a receive that returns the body)",
)
NOT_STORED = Refusal(
    HTTPStatus.SERVICE_UNAVAILABLE, "the change cannot be stored now", "the store of cohorts cannot be used"
)


def not_understood(error: ValueError) -> Refusal:
    """Return the refusal of a body that cannot be understood."""
    return Refusal(
        HTTPStatus.BAD_REQUEST,
        f"{error}",
        f"{error}. Mixpanel pauses the sync. Something else calls this URL, or changes the body, or Mixpanel's bodies "
        "differ from https://docs.mixpanel.com/docs/cohort-sync/webhooks",
    )


def too_large(limits: BodyLimits) -> Refusal:
    """Return the refusal of a body that is not read, or not to its end."""
    message = f"the body must not have more than {limits.max_bytes:,} bytes"
    return Refusal(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        message,
        f"{message}. Mixpanel's bodies are far smaller: something else calls this URL",
    )


def not_whole(received: bytes | bytearray) -> Refusal:
    """Return the refusal of a body that has ended early or took too long, and may come again."""
    return INCOMPLETE if received else NOTHING_CAME
