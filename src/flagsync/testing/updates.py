"""Bodies of requests to Mixpanel: what is in them, and what Mixpanel refuses."""

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Never
from urllib.parse import parse_qsl

from flagsync._outbox.contract import MAX_MESSAGE_BYTES


def decoded(body: bytes, form: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the updates of a body: a JSON array or, as ``data`` of a form, also one object; else an empty list."""
    with suppress(ValueError):
        document = json.loads(form.get("data", "") if form else body, parse_constant=_refuse)
        if form and isinstance(document, dict):
            return [document]
        return document if isinstance(document, list) else []
    return []


def _refuse(constant: str) -> Never:
    """Refuse ``NaN`` and ``Infinity``, which Python reads and writes, but which are not JSON."""
    raise ValueError(constant)


def form_of(headers: Mapping[str, str], body: bytes) -> dict[str, str]:
    """Return the parameters of a form, in which Mixpanel's own SDKs send; empty if a body is something else."""
    types = [value for name, value in headers.items() if name.lower() == "content-type"]
    if not any(value.startswith("application/x-www-form-urlencoded") for value in types):
        return {}
    return dict(parse_qsl(body.decode(errors="replace"), keep_blank_values=True))


def distinct_ids(updates: list[Any]) -> list[object]:
    """Return the ``distinct_id`` of each update and event."""
    found = (update.get("properties", update) for update in updates if isinstance(update, dict))
    return [one.get("$distinct_id", one.get("distinct_id")) for one in found if isinstance(one, dict)]


def complaint(update: object) -> str | None:
    """Return the error with which Mixpanel refuses an update; None if it accepts it."""
    if not isinstance(update, dict):
        return "data, must be objects"
    for key in ("$token", "$distinct_id"):
        if not isinstance(update.get(key), str) or not update[key]:
            return f"{key}, missing or empty"
    if len(json.dumps(update)) > MAX_MESSAGE_BYTES:
        return "update, more than 1 MB"
    if not isinstance(update.get("$set", {}), dict) or not isinstance(update.get("$unset", []), list):
        return "$set must be an object, $unset a list"
    if "$set" not in update and "$unset" not in update:
        return "no operation"
    return None
