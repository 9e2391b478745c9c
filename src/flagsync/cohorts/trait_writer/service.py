"""What Flagsmith's API for stored traits takes, and how it answers.

Guarantee: no message holds an identifier or a key.
"""

import json
from hashlib import blake2b

from flagsync._delivery.answers import Answer, Outcome, Reply, Service, document_of, judge
from flagsync._outbox.contract import Destination, Message
from flagsync.cohorts.store import TraitChange
from flagsync.cohorts.update import MAX_IDENTIFIER, is_storable

MAX_IDENTIFIER_BYTES = 2688  # what PostgreSQL 15 can index; measured on Flagsmith 2.265
TOO_LONG = f"Flagsmith stores no identifier of more than {MAX_IDENTIFIER:,} characters"
TOO_MANY_BYTES = (
    f"Flagsmith's database can index no identifier of more than {MAX_IDENTIFIER_BYTES:,} bytes of UTF-8"
)
NO_TEXT = (
    "Flagsmith's database cannot store an identifier that is empty, or has a NUL or half of a surrogate pair"
)
MAX_DETAIL = 200
MAY_EXPLAIN = frozenset({401, 403})


def read_body(body: bytes) -> tuple[Outcome, str]:
    """Return what the body of a successful answer means: an HTML page is not an answer from the API."""
    if body.lstrip().startswith(b"<"):
        return Outcome.MISCONFIGURED, ", not an answer from Flagsmith"
    return Outcome.ACCEPTED, ""


FLAGSMITH = Service(
    name="Flagsmith",
    content="traits",
    successes=range(200, 300),
    read_body=read_body,
    # A 500 may be about the data: values that Flagsmith's database cannot hold get one.
    refused=frozenset({400, 413, 422, 500}),
    remedy="the environment key and api_url",
)
STORES_NOTHING = Answer(
    Outcome.MISCONFIGURED,
    "Flagsmith answers 200 and does not store traits; check that the organisation stores them (persist_trait_data) and "
    "that the key is a server-side one",
    error_type="configuration",
)
CANNOT_TELL = (
    "Flagsmith accepts traits, but the answer does not tell whether it stores them: look at an identity of a cohort in "
    "Flagsmith"
)


def obstacle_of(identifier: str) -> str | None:
    """Return why Flagsmith cannot store an identifier, if it cannot."""
    if not identifier or not is_storable(identifier):
        return NO_TEXT
    if len(identifier) > MAX_IDENTIFIER:
        return TOO_LONG
    return TOO_MANY_BYTES if len(identifier.encode()) > MAX_IDENTIFIER_BYTES else None


def as_json(change: TraitChange) -> bytes:
    """Return a change as the bulk endpoint takes it."""
    identity = {"identifier": change.identifier}
    document = {"identity": identity, "trait_key": change.trait_key, "trait_value": change.value}
    return json.dumps(document).encode()


def as_message(body: bytes, change: TraitChange, destination: Destination) -> Message:
    """Return the message of a change with a body."""
    key, digest = f"{change.identifier}\0{change.trait_key}", blake2b(body, digest_size=16).digest()
    return Message(key, digest, body, 0.0, destination, 0.0, version=change.position)


def judge_reply(reply: Reply | str) -> Answer:
    """Return what a reply means. If Flagsmith refuses the key, add its own words, which are about nothing else."""
    answer = judge(FLAGSMITH, reply)
    if isinstance(reply, str) or reply.status not in MAY_EXPLAIN:
        return answer
    document = document_of(reply.body)
    if not isinstance(document, dict) or "detail" not in document:
        return answer
    detail = document["detail"]
    return answer._replace(reason=f"{answer.reason}: {' '.join(f'{detail}'.split())[:MAX_DETAIL]}")
