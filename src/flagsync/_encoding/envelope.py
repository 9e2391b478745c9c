"""Records of the Mixpanel SDK; the only import of ``mixpanel``.

Guarantee: the SDK writes every record's envelope, and so decides its form. Boundary: nothing is sent.
"""

import json
from math import inf
from time import monotonic

from mixpanel import Mixpanel

ENVELOPE_SECONDS = 1.0


class Envelope:
    """Writes profile updates into an envelope of the SDK, whose ``consumer`` it is. For one thread.

    Args:
        token: Of the Mixpanel project.
    """

    def __init__(self, token: str) -> None:
        self._mixpanel = Mixpanel(token, consumer=self)
        self._record, self._renew_at = "", -inf

    def people_set(self, distinct_id: str, properties: str) -> bytes:
        """Return the record that sets properties, which are given as a JSON object.

        ``$ip: "0"``: the server's address is not the user's city. ``$ignore_time``: mirroring is no activity of the
        user (``$last_seen``). ``$time`` is up to a second old: a new envelope for each record is a quarter of what
        encoding costs.
        """
        if monotonic() >= self._renew_at:
            self._mixpanel.people_set("", {}, meta={"$ip": "0", "$ignore_time": True})
            self._renew_at = monotonic() + ENVELOPE_SECONDS
        # A JSON string never contains these texts, since it escapes its quotes.
        record = self._record.replace('"$distinct_id":""', f'"$distinct_id":{json.dumps(distinct_id)}')
        return record.replace('"$set":{}', f'"$set":{properties}').encode()

    def send(self, endpoint: str, json_message: str, *_: object) -> None:  # noqa: ARG002 - the SDK's signature
        """Take a record from the SDK."""
        self._record = json_message
