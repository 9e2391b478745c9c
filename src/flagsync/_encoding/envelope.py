"""Builds records with the Mixpanel SDK; the only import of ``mixpanel``.

Guarantee: the SDK decides the form of every record. Boundary: nothing is sent.
"""

import json
from collections.abc import Mapping, Sequence
from math import inf

from mixpanel import Mixpanel

from flagsync._clock import monotonic

ENVELOPE_SECONDS = 1.0
META = {"$ip": "0", "$ignore_time": True}


class Envelope:
    """Puts properties into an update that the SDK has written, as its ``consumer``. For one thread.

    Args:
        token: The Mixpanel project token.
    """

    def __init__(self, token: str) -> None:
        self._mixpanel = Mixpanel(token, consumer=self)
        self._begin, self._end, self._renew_at = "", "", -inf
        self._unset: Sequence[str] = ()

    def people_set(self, distinct_id: str, members: str, unset: Sequence[str] = ()) -> bytes:
        """Return the beginning of a record that sets properties, with the first members of their JSON object.

        If there are properties to remove, a record that removes them comes first: an update has one operation.

        ``$ip`` is ``"0"``, since the server's address does not tell the user's city. ``$ignore_time`` is set, since
        mirroring is not an activity of the user (``$last_seen``). ``$time`` is up to a second old, since a new envelope
        for each record would be a quarter of the cost of encoding.
        """
        if monotonic() >= self._renew_at or unset != self._unset:
            self._renew(unset)
        # A JSON string never contains this text, since it escapes its quotes.
        begin = self._begin.replace('"$distinct_id":""', f'"$distinct_id":{json.dumps(distinct_id)}')
        return f"{begin}{members}".encode()

    def end(self, members: str) -> bytes:
        """Return the end of every record, which starts with the remaining members."""
        if not self._end:
            self._renew()
        return f"{members}{self._end}".encode()

    def _renew(self, unset: Sequence[str] = ()) -> None:
        self._begin, self._unset = "", unset
        if unset:
            self._mixpanel.people_unset("", [*unset], meta=META)
            self._begin += ","
        self._mixpanel.people_set("", {}, meta=META)
        self._renew_at = monotonic() + ENVELOPE_SECONDS

    def send(self, endpoint: str, json_message: str, *_: object) -> None:  # noqa: ARG002 - the SDK's signature
        """Receive a record without properties, or one that removes some, from the SDK."""
        begin, found, self._end = json_message.partition('"$set":{')
        self._begin += begin + found


class Records:
    """Writes whole records, as the SDK does. For one thread.

    Args:
        token: The token of the Mixpanel project.
    """

    def __init__(self, token: str) -> None:
        self._mixpanel, self._record = Mixpanel(token, consumer=self), ""

    def track(self, distinct_id: str, event: str, properties: Mapping[str, object]) -> bytes:
        """Return the record of an event."""
        self._mixpanel.track(distinct_id, event, properties)
        return self._record.encode()

    def people_unset(self, distinct_id: str, names: Sequence[str]) -> bytes:
        """Return the record that removes properties of a profile."""
        self._mixpanel.people_unset(distinct_id, [*names], meta=META)
        return self._record.encode()

    def send(self, endpoint: str, json_message: str, *_: object) -> None:  # noqa: ARG002 - the SDK's signature
        """Take a record from the SDK."""
        self._record = json_message
