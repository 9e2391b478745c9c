"""Flagsmith identifier -> Mixpanel ``distinct_id``.

Guarantee: an identifier that Mixpanel refuses, or would cut and so merge with another user's profile, is never sent.
"""

from collections.abc import Callable
from typing import NamedTuple

from flagsync._identifiers import content_of, text_of
from flagsync._report import described, is_interrupt_of_application

# https://docs.mixpanel.com/troubleshooting/errors/server-side-events-without-a-user
BLOCKED = frozenset(
    "00000000-0000-0000-0000-000000000000 anon anonymous nil none null n/a na undefined unknown <nil> 0 -1 "
    "true false [] {}".split()
)
MAX_BYTES = 255  # of UTF-8, as in every string that Mixpanel stores
WHITE_SPACE = (
    "An identifier has white space around it. Its profile is that of the stripped identifier, as on Flagsmith's "
    "server, but local evaluation does not strip it and may choose another variant: strip identifiers before the call"
)


class NotMirrored(NamedTuple):
    """Why an identity is evaluated but not mirrored.

    Attributes:
        reason: One of a few texts; empty if the application wants no profile.
        detail: What is logged in place of the reason, the first time.
    """

    reason: str
    detail: str = ""


def distinct_id_of(
    identifier: object,
    distinct_id: Callable[[str], str | None],
    warn: Callable[[str], object] = lambda _: None,
) -> str | NotMirrored:
    """Return the profile of an identifier, or why it has none.

    White space around an identifier is stripped, as on Flagsmith's server, and ``warn`` is called each time.
    ``distinct_id`` may raise anything.
    """
    if isinstance(identifier, bytes):
        return NotMirrored("the identifier is bytes; decode it")
    given = None
    try:
        content = content_of(identifier)
        given = content.strip()
        mapped = distinct_id(given)
    except BaseException as error:  # the application's object or callback may raise anything
        if is_interrupt_of_application(error):
            raise
        who = "the identifier's own str()" if given is None else "distinct_id"
        reason = f"{who} raised {type(error).__name__}"
        return NotMirrored(reason, f"{who} raised {described(error, given or '')}")
    if mapped is None:
        return NotMirrored("")
    if not isinstance(mapped, str):
        return NotMirrored(f"distinct_id returned {type(mapped).__name__}, not str")
    text = given if mapped is given else text_of(mapped)
    if fault := _fault(text):
        return NotMirrored(fault)
    if given != content:
        warn(WHITE_SPACE)
    return text


def _fault(text: str) -> str | None:
    """Return why Mixpanel does not take a ``distinct_id``; None if it does."""
    if not text:
        return "the identifier is empty"
    if text.lower() in BLOCKED:
        return "Mixpanel blocks the identifier as a placeholder"
    try:
        size = len(text) if text.isascii() else len(text.encode())
    except UnicodeEncodeError:
        return "the identifier is not valid Unicode"
    return f"the identifier is longer than {MAX_BYTES} bytes" if size > MAX_BYTES else None
