"""A bounded map of the entries used last, in two generations of plain dicts.

It needs half the memory of an ``OrderedDict``. Guarantee: every operation takes constant time. Threads may share a map,
but an entry that two threads use at the same time may be forgotten early.
"""

from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Recent(Generic[K, V]):
    """Keeps at least the ``size`` entries used last, and at most twice as many. Values must not be None."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._young: dict[K, V] = {}
        self._old: dict[K, V] = {}

    def __bool__(self) -> bool:
        return bool(self._young or self._old)

    def get(self, key: K) -> V | None:
        value = self._young.get(key)
        if value is None and (value := self._old.pop(key, None)) is not None:
            self[key] = value
        return value

    def __setitem__(self, key: K, value: V) -> None:
        self._young[key] = value
        if len(self._young) >= self._size:
            self._old, self._young = self._young, {}

    def forget(self, key: K) -> None:
        self._young.pop(key, None)
        self._old.pop(key, None)
