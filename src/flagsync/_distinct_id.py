"""Flagsmith identifier -> Mixpanel ``distinct_id``.

Guarantee: what Mixpanel refuses, or would cut and merge with other users' profiles, is never sent.
"""

from collections.abc import Callable

# https://docs.mixpanel.com/troubleshooting/errors/server-side-events-without-a-user
BLOCKED = frozenset(
    "00000000-0000-0000-0000-000000000000 anon anonymous nil none null n/a na undefined unknown <nil> 0 -1 "
    "true false [] {}".split()
)
MAX_BYTES = 255  # of UTF-8, as in every string that Mixpanel stores


class NotMirroredError(Exception):
    """The identity is evaluated but not mirrored; the message says why."""


def distinct_id_of(identifier: object, distinct_id: Callable[[str], str | None]) -> str:
    """The profile of an identifier; raises ``NotMirroredError`` if it has none.

    White space round an identifier is stripped, as Flagsmith's server does. What is no string (a primary
    key, a UUID) counts as its text.
    """
    if isinstance(identifier, bytes):
        raise NotMirroredError("the identifier is bytes: decode it")
    try:
        mapped = distinct_id(str(identifier).strip())
    except BaseException as error:
        raise NotMirroredError(f"distinct_id raised {type(error).__name__}") from error
    if not isinstance(mapped, str):
        raise NotMirroredError(f"distinct_id returned {type(mapped).__name__}, no str")
    text = mapped.strip()
    if not text:
        raise NotMirroredError("the identifier is empty")
    if text.lower() in BLOCKED:
        raise NotMirroredError("Mixpanel blocks the identifier as a placeholder")
    try:
        size = len(text) if text.isascii() else len(text.encode())
    except UnicodeEncodeError as error:
        raise NotMirroredError("the identifier is no valid Unicode") from error
    if size > MAX_BYTES:
        raise NotMirroredError(f"the identifier is longer than {MAX_BYTES} bytes")
    return text
