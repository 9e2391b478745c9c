"""Identifiers of an application's own types."""

from enum import Enum


class User(str, Enum):  # noqa: UP042 - a StrEnum shows its content
    """Members whose ``str()`` is ``User.ANN``."""

    ANN = "ann"
    BOB = "bob"


class Masked(str):
    """Text that does not show itself in logs."""

    __slots__ = ()

    def __str__(self) -> str:
        return "***"


class Unspeakable:
    """Has no text."""

    def __str__(self) -> str:
        raise SystemExit
