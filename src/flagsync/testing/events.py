"""Events of requests to Mixpanel: which ones it refuses, and what its experiment report shows."""

import json
import re
from base64 import b64decode
from binascii import Error
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

from flagsync._clock import time
from flagsync._outbox.contract import MAX_BATCH_MESSAGES, MAX_MESSAGE_BYTES

MAX_AGE_SECONDS = 5 * 86400.0  # of an event for /track; https://developer.mixpanel.com/reference/track-event
EXPERIMENT = "$experiment_started"
EXPERIMENT_NAMES = ("Experiment name", "Variant name")
INSERT_ID = re.compile("[A-Za-z0-9-]{1,36}")


def track_complaint(event: object) -> str | None:
    """Return the error with which Mixpanel's /track refuses an event; None if it accepts it."""
    if (error := complaint(event)) is not None or not isinstance(event, dict):
        return error
    if not _is_text(event["properties"].get("token")):
        return "token, missing or empty"
    if event["properties"].get("time", time()) < time() - MAX_AGE_SECONDS:
        return "properties.time, more than 5 days ago"
    return None


def complaint(event: object) -> str | None:
    """Return the error with which Mixpanel refuses an event at every endpoint; None if it accepts it."""
    if not isinstance(event, dict):
        return "data, must be objects"
    if not _is_text(event.get("event")):
        return "event, missing or empty"
    if not isinstance(properties := event.get("properties"), dict):
        return "properties, must be an object"
    if len(json.dumps(event)) > MAX_MESSAGE_BYTES:
        return "event, more than 1 MB"
    if type(properties.get("time", 0)) not in (int, float):
        return "properties.time, must be a number"
    if INSERT_ID.fullmatch(f"{properties.get('$insert_id', '-')}") is None:
        return "properties.$insert_id, at most 36 letters, digits and dashes"
    return None


def import_answer(
    events: list[Any], headers: Mapping[str, str], strict: list[str] | None
) -> tuple[int, list[Any], bytes]:
    """Return the status, the events that are kept and the body of an answer of Mixpanel's /import.

    Without ``strict=1`` the answer does not name the refused events.
    """
    if not _token(headers.get("Authorization", "")):
        return HTTPStatus.UNAUTHORIZED, [], _body(HTTPStatus.UNAUTHORIZED, error="Unauthorized")
    if not 0 < len(events) <= MAX_BATCH_MESSAGES:
        error = f"between 1 and {MAX_BATCH_MESSAGES} events are accepted"
        return HTTPStatus.BAD_REQUEST, [], _body(HTTPStatus.BAD_REQUEST, error=error)
    errors = [complaint(event) or _missing(event) for event in events]
    failed = [{"index": place, "message": error} for place, error in enumerate(errors) if error is not None]
    bad = {record["index"] for record in failed}
    kept = [event for place, event in enumerate(events) if place not in bad]
    if strict == ["1"] and failed:
        error = "some data points in the request failed validation"
        body = _body(HTTPStatus.BAD_REQUEST, error=error, failed_records=failed, num_records_imported=len(kept))
        return HTTPStatus.BAD_REQUEST, kept, body
    return HTTPStatus.OK, kept, _body(HTTPStatus.OK, num_records_imported=len(kept))


def experiments_of(events: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, set[str]]]:
    """Return experiment -> variant -> ``distinct_id``s, from the events that have both names as text."""
    found: dict[Any, dict[Any, set[str]]] = {}
    for event in events:
        properties = event["properties"]
        experiment, variant = (properties.get(name) for name in EXPERIMENT_NAMES)
        distinct_id = f"{properties.get('distinct_id', '')}"
        if event["event"] == EXPERIMENT and _is_text(experiment) and _is_text(variant):
            found.setdefault(experiment, {}).setdefault(variant, set()).add(distinct_id)
    return found


def _missing(event: Mapping[str, Any]) -> str | None:
    names = (name for name in ("time", "$insert_id") if name not in event["properties"])
    return next((f"properties.{name}, missing" for name in names), None)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _token(authorization: str) -> str:
    """Return the user name of Basic credentials; an empty text without them."""
    try:
        return b64decode(authorization.removeprefix("Basic "), validate=True).decode().partition(":")[0]
    except (Error, UnicodeDecodeError):
        return ""


def _body(status: HTTPStatus, **more: object) -> bytes:
    return json.dumps({"code": status, "status": status.phrase, **more}).encode()
