"""Reads what other threads change, without the lock that they hold meanwhile."""

from collections.abc import Iterable
from typing import TypeVar

T = TypeVar("T")


def first_of(items: Iterable[T]) -> T | None:
    """Return the first item of a collection; None if it is empty. Takes no lock."""
    while True:
        try:
            return next(iter(items), None)
        except RuntimeError:  # another thread has changed the collection between the two steps
            continue
