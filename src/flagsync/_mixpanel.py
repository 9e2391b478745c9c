"""The Mixpanel SDK and what Mixpanel answers; the only import of ``mixpanel``.

Guarantee: ``Engage.post`` raises nothing and ends within its time. What to do about an answer is the sender's.
"""

import hashlib
import http
import json
from collections.abc import Sequence
from typing import Any

from mixpanel import Mixpanel

from flagsync._http import Answer, Http, Outcome

EMPTY_SET = '"$set":{}'


class UpdateWriter:
    """Lets the Mixpanel SDK write an update and keeps the JSON: the SDK's ``consumer``, for one thread."""

    def __init__(self, token: str) -> None:
        self._mixpanel = Mixpanel(token, consumer=self)
        self._json = ""

    def people_set(self, distinct_id: str, properties: str) -> tuple[bytes, bytes]:
        """The JSON of a ``$set``, and 16 bytes that differ when the JSON object ``properties`` does.

        ``$ip: "0"``: the server's address is not the user's city. ``$ignore_time``: being mirrored is no
        activity of the user (``$last_seen``).
        """
        self._mixpanel.people_set(distinct_id, {}, meta={"$ip": "0", "$ignore_time": True})
        # The place of the properties; in no JSON string can it stand with bare quotes.
        json = self._json.replace(EMPTY_SET, f'"$set":{properties}', 1)
        return json.encode(), hashlib.blake2b(properties.encode(), digest_size=16).digest()

    def send(self, endpoint: str, json_message: str, *_: object) -> None:  # noqa: ARG002 - the SDK's signature
        self._json = json_message


class Engage:
    """Mixpanel's endpoint for profiles, https://developer.mixpanel.com/reference/profile-batch-update."""

    def __init__(self) -> None:
        headers = {"Content-Type": "application/json", "X-Mixpanel-Integration-ID": "flagsync"}
        self._http = Http(headers)
        self.close = self._http.close

    def post(self, url: str, updates: Sequence[bytes], seconds: float) -> Answer:
        """Send updates as one JSON array; say within about ``seconds`` what became of them."""
        reply = self._http.request(
            "POST", f"{url}?verbose=1", b"".join((b"[", b",".join(updates), b"]")), seconds
        )
        if isinstance(reply, str):
            return Answer(Outcome.UNAVAILABLE, f"Mixpanel cannot be reached ({reply})")
        return read_answer(*reply)


def read_answer(status: int, body: bytes, retry_after_seconds: float = 0.0) -> Answer:
    """What Mixpanel said. Status 200 is no success: with ``verbose=1`` that is in the body."""
    text = body.decode(errors="replace")[:500]
    reason = f"HTTP {status}"
    if status == http.HTTPStatus.OK:
        verdict = _verdict(body)
        if verdict == 1:
            return Answer(Outcome.ACCEPTED)
        reason += ", status 0" if verdict == 0 else ", not an answer of Mixpanel"
        outcome = Outcome.REFUSED if verdict == 0 else Outcome.UNAVAILABLE
    elif status in (400, 413):
        outcome = Outcome.REFUSED
    elif status in (408, 425, 429) or status >= 500:  # noqa: PLR2004
        outcome = Outcome.UNAVAILABLE
    else:
        outcome = Outcome.MISCONFIGURED
        reason += "; check mixpanel_token, region and mixpanel_url"
    return Answer(outcome, f"Mixpanel does not take updates ({reason})", retry_after_seconds, text)


def _verdict(body: bytes) -> int | None:
    try:
        document: Any = json.loads(body)
    except ValueError:
        return None
    status = document.get("status") if isinstance(document, dict) else document
    return status if type(status) is int else None
