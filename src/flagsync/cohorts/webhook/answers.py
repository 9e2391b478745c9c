"""The requests and responses of the webhook, whatever the server; https://docs.mixpanel.com/docs/cohort-sync/webhooks.

Guarantee: Mixpanel understands every response; the code in its body equals its HTTP status. Boundary: which response a
request gets is decided by ``app``.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import NamedTuple, TypeAlias

Headers: TypeAlias = list[tuple[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyLimits:
    """How large a body may be.

    Attributes:
        max_bytes: The most bytes that are read.
        seconds: How long all of it may take to arrive.
    """

    max_bytes: int = 32_000_000
    seconds: float = 30.0


class Head(NamedTuple):
    """What is known of a request before its body. A header that was not sent is empty."""

    method: str
    authorization: str = ""
    content_type: str = ""
    content_length: str = ""


class Response(NamedTuple):
    """What is sent back."""

    status: HTTPStatus
    headers: Headers
    body: bytes


def success(action: str | None) -> Response:
    """Return the response to a call that is stored."""
    return _respond(HTTPStatus.OK, {"action": action, "status": "success"})


def failure(status: HTTPStatus, message: str, action: str | None = None, *headers: tuple[str, str]) -> Response:
    """Return the response to a call that is not stored.

    Args:
        status: The HTTP status.
        message: What to tell a person.
        action: The action of the call, if it is known.
        headers: Further headers.
    """
    error = {"message": message, "code": status.value}
    return _respond(status, {"action": action, "status": "failure", "error": error}, *headers)


def too_large(limits: BodyLimits) -> Response:
    """Return the response to a body that is not read, or not to its end."""
    message = f"the body must not have more than {limits.max_bytes:,} bytes"
    return failure(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, message)


def incomplete() -> Response:
    """Return the response to a body that has ended early or took too long, and may come again."""
    return failure(HTTPStatus.SERVICE_UNAVAILABLE, "the body did not come to its end")


def unavailable(action: str | None) -> Response:
    """Return the response to a call that could not be stored, and may come again."""
    return failure(HTTPStatus.SERVICE_UNAVAILABLE, "the change cannot be stored now", action)


def _respond(status: HTTPStatus, document: Mapping[str, object], *headers: tuple[str, str]) -> Response:
    body = json.dumps(document).encode()
    common = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    return Response(status, [*common, *headers], body)
