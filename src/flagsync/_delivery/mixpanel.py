"""Mixpanel's ingestion endpoints, and what they answer.

Guarantee: ``MixpanelApi.post`` raises nothing and ends within its time. Source for the meaning of answers:
https://developer.mixpanel.com/reference/profile-batch-update
"""

import json
from collections.abc import Sequence

from flagsync._delivery.answers import Answer, Outcome, Service, judge
from flagsync._delivery.http import Http


def read_body(body: bytes) -> tuple[Outcome, str]:
    """Return what the body of an answer with status 200 means; the status alone is not success."""
    try:
        document: object = json.loads(body)
    except (ValueError, RecursionError):  # not JSON, or nested without end
        document = None
    status = document.get("status") if isinstance(document, dict) else document
    if type(status) is not int:
        return Outcome.UNAVAILABLE, ", not an answer of Mixpanel"
    if status == 1:
        return Outcome.ACCEPTED, ""
    return (Outcome.REFUSED, ", status 0") if status == 0 else (Outcome.UNAVAILABLE, f", status {status}")


MIXPANEL = Service(
    name="Mixpanel",
    content="updates",
    successes=range(200, 201),
    read_body=read_body,
    refused=frozenset({400, 413}),
    remedy="mixpanel_token, region and mixpanel_url",
)


class MixpanelApi:
    """Posts batches of records."""

    def __init__(self) -> None:
        self._http = Http({"Content-Type": "application/json", "X-Mixpanel-Integration-ID": "flagsync"})

    def post(self, url: str, bodies: Sequence[bytes], seconds: float) -> Answer:
        """Send records as one JSON array; within about ``seconds``, return what became of them."""
        reply = self._http.request("POST", f"{url}?verbose=1", b"[%b]" % b",".join(bodies), seconds)
        return judge(MIXPANEL, reply)

    def close(self) -> None:
        """Close the connection."""
        self._http.close()
