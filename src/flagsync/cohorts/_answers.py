"""What Mixpanel asks, before the body, and what it is answered; https://docs.mixpanel.com/docs/cohort-sync/webhooks.

Guarantee: every answer is one that Mixpanel understands, its code equal to the HTTP status.
"""

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, NamedTuple

MAX_BODY_BYTES, BODY_SECONDS = 32_000_000, 30.0
TOO_LARGE = HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body must not have more than {MAX_BODY_BYTES:,} bytes"
INCOMPLETE = HTTPStatus.SERVICE_UNAVAILABLE, "the body did not come to its end"
UNAVAILABLE = HTTPStatus.SERVICE_UNAVAILABLE, "the change cannot be stored now"


class Head(NamedTuple):
    """What of a request is known before its body; what was not sent is empty."""

    method: str
    authorization: str = ""
    content_type: str = ""
    content_length: str = ""


class Response(NamedTuple):
    """What is sent back."""

    status: HTTPStatus
    headers: list[tuple[str, str]]
    body: bytes


class RefusedError(Exception):
    """A request that gets no success, and what it gets."""

    def __init__(
        self, status: HTTPStatus, message: str, action: str | None = None, *headers: tuple[str, str]
    ) -> None:
        super().__init__(message)
        error = {"message": message, "code": status.value}
        self.response = respond(status, {"action": action, "status": "failure", "error": error}, *headers)


def respond(status: HTTPStatus, document: Mapping[str, Any], *headers: tuple[str, str]) -> Response:
    body = json.dumps(document).encode()
    common = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    return Response(status, [*common, *headers], body)
