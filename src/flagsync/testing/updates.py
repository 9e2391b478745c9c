"""Bodies of requests to Mixpanel: what is in them, and what Mixpanel refuses."""

import json
from contextlib import suppress
from typing import Any

from flagsync._outbox.contract import MAX_MESSAGE_BYTES


def decoded(body: bytes) -> list[dict[str, Any]]:
    """Return the JSON array that a body holds; an empty one if it holds none."""
    with suppress(ValueError):
        document = json.loads(body)
        return document if isinstance(document, list) else []
    return []


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
