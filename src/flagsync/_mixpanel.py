"""The Mixpanel SDK and what Mixpanel answers; the only import of ``mixpanel``.

Guarantee: ``Engage.post`` raises nothing and ends within its time. What to do about an answer is the sender's.
"""

import hashlib
import http
import json
from collections.abc import Sequence
from math import inf
from time import monotonic
from typing import Any

from mixpanel import Mixpanel

from flagsync._http import Answer, Http, Outcome

ENVELOPE_SECONDS = 1.0


class UpdateWriter:
    """Writes updates into an envelope of the Mixpanel SDK, whose ``consumer`` it is; for one thread."""

    def __init__(self, token: str) -> None:
        self._mixpanel = Mixpanel(token, consumer=self)
        self._envelope, self._old_at = "", -inf

    def people_set(self, distinct_id: str, properties: str) -> tuple[bytes, bytes]:
        """The JSON of a ``$set``, and 16 bytes that differ when the JSON object ``properties`` does.

        ``$ip: "0"``: the server's address is not the user's city. ``$ignore_time``: being mirrored is no
        activity of the user (``$last_seen``). ``$time`` is up to a second old: an envelope for each
        update is a quarter of what encoding costs.
        """
        if monotonic() >= self._old_at:
            self._mixpanel.people_set("", {}, meta={"$ip": "0", "$ignore_time": True})
            self._old_at = monotonic() + ENVELOPE_SECONDS
        # In no JSON string can these stand with bare quotes.
        update = self._envelope.replace('"$distinct_id":""', f'"$distinct_id":{json.dumps(distinct_id)}')
        update = update.replace('"$set":{}', f'"$set":{properties}')
        return update.encode(), hashlib.blake2b(properties.encode(), digest_size=16).digest()

    def send(self, endpoint: str, json_message: str, *_: object) -> None:  # noqa: ARG002 - the SDK's signature
        self._envelope = json_message


class Engage(Http):
    """Mixpanel's endpoint for profiles, https://developer.mixpanel.com/reference/profile-batch-update."""

    def __init__(self) -> None:
        super().__init__({"Content-Type": "application/json", "X-Mixpanel-Integration-ID": "flagsync"})

    def post(self, url: str, updates: Sequence[bytes], seconds: float) -> Answer:
        """Send updates as one JSON array; say within about ``seconds`` what became of them."""
        reply = self.request("POST", f"{url}?verbose=1", b"[%b]" % b",".join(updates), seconds)
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
    except (ValueError, RecursionError):  # no JSON, or nested without end
        return None
    status = document.get("status") if isinstance(document, dict) else document
    return status if type(status) is int else None
