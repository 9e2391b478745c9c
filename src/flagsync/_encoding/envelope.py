"""Records of the Mixpanel SDK; the only import of ``mixpanel``.

Guarantee: the SDK writes every record's envelope, and so decides its form. Boundary: nothing is sent.
"""

import json
from collections.abc import Mapping
from math import inf

from mixpanel import Mixpanel

from flagsync._clock import monotonic

ENVELOPE_SECONDS = 1.0


class Envelope:
    """Writes profile updates into an envelope of the SDK, whose ``consumer`` it is. For one thread.

    Args:
        token: Of the Mixpanel project.
    """

    def __init__(self, token: str) -> None:
        self._mixpanel = Mixpanel(token, consumer=self)
        self._begin, self._end, self._renew_at = "", "", -inf

    def people_set(self, distinct_id: str, members: str) -> bytes:
        """Return a record that sets properties, up to and with some members of the JSON object of properties.

        ``$ip: "0"``: the server's address is not the user's city. ``$ignore_time``: mirroring is no activity of the
        user (``$last_seen``). ``$time`` is up to a second old: a new envelope for each record is a quarter of what
        encoding costs.
        """
        if monotonic() >= self._renew_at:
            self._renew()
        # A JSON string never contains this text, since it escapes its quotes.
        begin = self._begin.replace('"$distinct_id":""', f'"$distinct_id":{json.dumps(distinct_id)}')
        return f"{begin}{members}".encode()

    def end(self, members: str) -> bytes:
        """Return the rest of every record, which begins with the other members."""
        if not self._end:
            self._renew()
        return f"{members}{self._end}".encode()

    def _renew(self) -> None:
        self._mixpanel.people_set("", {}, meta={"$ip": "0", "$ignore_time": True})
        self._renew_at = monotonic() + ENVELOPE_SECONDS

    def send(self, endpoint: str, json_message: str, *_: object) -> None:  # noqa: ARG002 - the SDK's signature
        """Take a record without properties from the SDK."""
        begin, found, end = json_message.partition('"$set":{')
        self._begin, self._end = begin + found, end


class EventEnvelope:
    """Writes events, as the SDK does. For one thread.

    Args:
        token: Of the Mixpanel project.
    """

    def __init__(self, token: str) -> None:
        self._mixpanel, self._record = Mixpanel(token, consumer=self), ""

    def track(self, distinct_id: str, event: str, properties: Mapping[str, object]) -> bytes:
        """Return the record of an event."""
        self._mixpanel.track(distinct_id, event, properties)
        return self._record.encode()

    def send(self, endpoint: str, json_message: str, *_: object) -> None:  # noqa: ARG002 - the SDK's signature
        """Take a record from the SDK."""
        self._record = json_message
