"""The result of a check."""

from typing import NamedTuple


class Check(NamedTuple):
    """What a check has found.

    Attributes:
        name: What was checked.
        ok: Whether it is as it should be.
        detail: What was found.
        remedy: What to do; empty if nothing needs to be done.
    """

    name: str
    ok: bool
    detail: str
    remedy: str = ""


def fine(name: str, detail: str) -> Check:
    """Return the result of a check that has found nothing wrong."""
    return Check(name, ok=True, detail=detail)


def wrong(name: str, detail: str, remedy: str) -> Check:
    """Return the result of a check that has found something wrong, and what to do about it."""
    return Check(name, ok=False, detail=detail, remedy=remedy)
