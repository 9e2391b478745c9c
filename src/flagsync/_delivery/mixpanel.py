"""Mixpanel's ingestion endpoints, and what they answer.

Guarantee: ``MixpanelApi.post`` raises nothing and ends within its time. Source for the meaning of answers:
https://developer.mixpanel.com/reference/profile-batch-update, …/track-event and …/import-events
"""

import json
import re
from collections.abc import Sequence
from http import HTTPStatus
from urllib.parse import quote, urlsplit

from flagsync._clock import time
from flagsync._delivery.answers import Answer, Outcome, Reply, Service, document_of, judge
from flagsync._delivery.http import Http

# /track accepts events of the last five days, and a batch may be retried for a while.
MAX_TRACK_SECONDS = 4.5 * 86400
TRACK, IMPORT = "/track", "/import"
# Quotation marks within texts are escaped, so this matches only the property itself.
EVENT_TIME = re.compile(rb'"time":(\d+)')


def read_body(body: bytes) -> tuple[Outcome, str]:
    """Return what the body of an answer with status 200 means; the status alone is not success."""
    document = document_of(body)
    status = document.get("status") if isinstance(document, dict) else document
    if type(status) is not int:
        return Outcome.UNAVAILABLE, ", not an answer from Mixpanel"
    if status == 1:
        return Outcome.ACCEPTED, ""
    return (Outcome.REFUSED, ", status 0") if status == 0 else (Outcome.UNAVAILABLE, f", status {status}")


def read_import_body(body: bytes) -> tuple[Outcome, str]:
    """Return what the body of an answer of /import with status 200 means; a captive portal answers something else."""
    document = document_of(body)
    is_answer = isinstance(document, dict) and document.get("code") == HTTPStatus.OK
    return (Outcome.ACCEPTED, "") if is_answer else (Outcome.UNAVAILABLE, ", not an answer from Mixpanel")


def refused_records(body: bytes, count: int) -> frozenset[int]:
    """Return the indexes of the records that /import refused, out of ``count``; it imported the others."""
    document = document_of(body)
    failed = document.get("failed_records") if isinstance(document, dict) else None
    places = [record.get("index") for record in failed or () if isinstance(record, dict)]
    return frozenset(place for place in places if type(place) is int and 0 <= place < count)


MIXPANEL = Service(
    name="Mixpanel",
    content="updates",
    successes=range(200, 201),
    read_body=read_body,
    refused=frozenset({400, 413}),
    remedy="mixpanel_token, region and mixpanel_url",
)

MIXPANEL_IMPORT = MIXPANEL._replace(read_body=read_import_body)


class MixpanelApi:
    """Posts batches of records."""

    def __init__(self) -> None:
        self._http = Http({"Content-Type": "application/json", "X-Mixpanel-Integration-ID": "flagsync"})

    def post(self, url: str, bodies: Sequence[bytes], seconds: float) -> Answer:
        """Send records as one JSON array; within about ``seconds``, return what became of them."""
        content = json_array(bodies)
        if url.endswith(TRACK) and _oldest(bodies) < time() - MAX_TRACK_SECONDS:
            return self._import(url, bodies, content, seconds)
        return judge(MIXPANEL, self._http.request("POST", f"{url}?verbose=1", content, seconds))

    def ask(self, url: str, token: str, seconds: float) -> Reply | str:
        """Ask whether a token is accepted, without an event, so that nothing is stored; return the reply, or why none.

        Only /import checks it: it answers 401 to a wrong token, also to that of another region, and other endpoints
        accept anything. https://docs.mixpanel.com/troubleshooting/errors/401-unauthorized
        """
        return self._http.request("POST", _import_url(url, token), b"[]", seconds)

    def _import(self, url: str, bodies: Sequence[bytes], content: bytes, seconds: float) -> Answer:
        """Send events that are too old for /track to /import, which expects the token as the user name."""
        token = json.loads(bodies[0])["properties"]["token"]
        reply = self._http.request("POST", _import_url(url.removesuffix(TRACK), token), content, seconds)
        answer = judge(MIXPANEL_IMPORT, reply)
        if isinstance(reply, Reply) and reply.status == HTTPStatus.BAD_REQUEST:
            return answer._replace(refused=refused_records(reply.body, len(bodies)))
        return answer

    def close(self) -> None:
        """Close the connection."""
        self._http.close()


def json_array(bodies: Sequence[bytes]) -> bytes:
    """Return a JSON array of at least one record. It may be 2 MB, so it is written once, without a copy."""
    pieces = [b","] * (2 * len(bodies) + 1)
    pieces[1::2] = bodies
    pieces[0], pieces[-1] = b"[", b"]"
    return b"".join(pieces)


def _import_url(url: str, token: str) -> str:
    """Return the URL of /import, where the token is the user name."""
    parts = urlsplit(url + IMPORT)
    host = f"{quote(token, safe='')}:@{parts.netloc.rpartition('@')[2]}"
    return parts._replace(netloc=host, query="strict=1").geturl()


def _oldest(events: Sequence[bytes]) -> float:
    """Return the time of the oldest of some events, in seconds since 1970."""
    found = (EVENT_TIME.search(event) for event in events)
    return min((float(match[1]) for match in found if match), default=time())
