"""What the answer of a server means for what was sent, with one table per service.

Guarantee: every answer has an outcome. Boundary: what to do about it is the sender's.
"""

import json
from collections.abc import Callable
from enum import Enum
from http import HTTPStatus
from typing import NamedTuple

MAX_TEXT = 500  # characters of an answer that are kept
TEMPORARY = frozenset({408, 425, 429})


class Outcome(Enum):
    """What an answer means."""

    ACCEPTED = 1
    REFUSED = 2  # something in this request will never be accepted
    UNAVAILABLE = 3  # the same request may succeed later
    MISCONFIGURED = 4  # nothing is accepted until a person acts


class Answer(NamedTuple):
    """How a request ended.

    Attributes:
        outcome: What it means.
        reason: What to tell a person; safe to log.
        retry_after_seconds: How long the server asks to be left alone; 0.0 if it does not say.
        text: The beginning of the server's answer, which may quote the request.
        refused: The indexes of the messages that were refused while the others were accepted; empty if the answer
            does not name them.
    """

    outcome: Outcome
    reason: str = ""
    retry_after_seconds: float = 0.0
    text: str = ""
    refused: frozenset[int] = frozenset()


class Misconfiguration(str):
    """Why no request can be made, or none can get through, until a person acts."""

    __slots__ = ()


class Reply(NamedTuple):
    """What a server answered, and the time on its clock, as HTTP writes it."""

    status: int
    body: bytes
    retry_after_seconds: float = 0.0
    date: str = ""


class Service(NamedTuple):
    """How a service answers.

    Attributes:
        name: Its name in messages.
        content: What is sent to it, in the plural.
        successes: Statuses whose body tells the outcome.
        read_body: Body -> the outcome, and what to add to the reason.
        refused: Statuses that refuse what was sent.
        remedy: What to check if nothing is accepted.
    """

    name: str
    content: str
    successes: range
    read_body: Callable[[bytes], tuple[Outcome, str]]
    refused: frozenset[int]
    remedy: str


def document_of(body: bytes) -> object:
    """Return the JSON document in a body; None if it has none."""
    try:
        document: object = json.loads(body)
    except (ValueError, RecursionError):  # not JSON, or nested without end
        return None
    return document


def judge(service: Service, reply: Reply | str) -> Answer:
    """Return what the reply of a service means; a text instead says why there was no reply."""
    if isinstance(reply, str):
        is_wrong = isinstance(reply, Misconfiguration)
        outcome = Outcome.MISCONFIGURED if is_wrong else Outcome.UNAVAILABLE
        return Answer(outcome, f"{service.name} cannot be reached ({reply})")
    outcome, note = _outcome(service, reply)
    if outcome is Outcome.ACCEPTED:
        return Answer(outcome)
    if outcome is Outcome.MISCONFIGURED:
        is_of_proxy = reply.status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED
        note += f"; check {'the credentials of the proxy' if is_of_proxy else service.remedy}"
    reason = f"{service.name} does not accept {service.content} (HTTP {reply.status}{note})"
    text = reply.body.decode(errors="replace")[:MAX_TEXT]
    return Answer(outcome, reason, reply.retry_after_seconds, text)


def _outcome(service: Service, reply: Reply) -> tuple[Outcome, str]:
    if reply.status in service.successes:
        return service.read_body(reply.body)
    if reply.status in service.refused:
        return Outcome.REFUSED, ""
    if reply.status in TEMPORARY or reply.status >= 500:  # noqa: PLR2004 - errors of a server
        return Outcome.UNAVAILABLE, ""
    return Outcome.MISCONFIGURED, ""
