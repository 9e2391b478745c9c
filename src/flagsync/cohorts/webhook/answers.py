"""The requests and responses of the webhook, for any server; https://docs.mixpanel.com/docs/cohort-sync/webhooks.

Guarantee: Mixpanel understands every response; the code in its body equals its HTTP status. Boundary: ``app`` decides
which response a request gets, and ``refusals`` has the reasons for refusing a call.
"""

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import NamedTuple, TypeAlias

from flagsync.cohorts.webhook.refusals import Refusal

Headers: TypeAlias = list[tuple[str, str]]


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


def failure(refusal: Refusal, action: str | None = None) -> Response:
    """Return the response to a call that is not stored. ``action`` is that of the call, if it is known."""
    error = {"message": refusal.message, "code": refusal.status.value}
    document = {"action": action, "status": "failure", "error": error}
    return _respond(refusal.status, document, *refusal.headers)


def _respond(status: HTTPStatus, document: Mapping[str, object], *headers: tuple[str, str]) -> Response:
    body = json.dumps(document).encode()
    common = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    return Response(status, [*common, *headers], body)
