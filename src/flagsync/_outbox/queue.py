"""The pending messages of one destination in memory, and what is known of its keys.

Guarantee: both are text, bytes, numbers and exact tuples of those, which cost the garbage collector nothing.
"""

from collections import OrderedDict
from collections.abc import Iterable
from math import inf
from typing import TypeAlias

from flagsync._clock import monotonic
from flagsync._oldest import first_of
from flagsync._outbox.batch import content_of
from flagsync._outbox.contract import Message
from flagsync._recent import Recent

Entry: TypeAlias = tuple[str, bytes, bytes, float, float, int | None, bytes, bool, int, float]
"""A waiting message without its destination, in the order of ``Message``'s attributes; and when it was first evaluated.

The other time is that of its last evaluation: an equal message does not take its place in the line.
"""
Known: TypeAlias = tuple[int | None, bytes, float]
"""The last message of a key that Mixpanel has or will get: its evaluation, its fingerprint, and when it expires."""
UNKNOWN: Known = (None, b"", -inf)


class Queue:
    """The pending messages of one destination, the oldest first, and what is known of its keys."""

    def __init__(self, max_remembered: int) -> None:
        self.waiting: OrderedDict[str, Entry] = OrderedDict()
        self.size = 0  # bytes of bodies and tails
        self.gathers_since = -inf
        self._max_remembered = max_remembered
        self.known: Recent[str, Known] = Recent(max_remembered)
        self._handed_over: OrderedDict[str, Entry] = OrderedDict()

    def add(self, message: Message, version: int) -> bool:
        """Append a message; return whether it took the place of another one."""
        slot = slot_of(message.key, message.replaces, version)
        if (replaced := self.waiting.get(slot)) is not None:
            self.size -= size_of(replaced)
        self._insert(slot, (*content_of(message)[:-1], version, message.evaluated_at))
        self.waiting.move_to_end(slot)
        return replaced is not None

    def put_back(self, slot: str, entry: Entry, *, last: bool) -> bool:
        """Let a message wait again; False if a newer one took its place."""
        if slot in self.waiting:
            return False
        self._insert(slot, entry)
        self.waiting.move_to_end(slot, last=last)
        return True

    def is_known(self, key: str, evaluation: int, now: float) -> bool:
        """Return whether an evaluation is that of the last message of a key, which has not expired."""
        known, _, until = self.known.get(key) or UNKNOWN
        return known == evaluation and now < until

    def bring_forward(self, key: str, evaluation: int | None, evaluated_at: float) -> None:
        """Note that a waiting message was evaluated again, with an equal result."""
        if (entry := self.waiting.get(key)) is not None:
            self.waiting[key] = evaluated_again(entry, evaluation, evaluated_at)

    def waits_since(self) -> float:
        """Return when the first message in line was first evaluated; ``inf`` if none waits. Takes no lock."""
        firsts = first_of(self._handed_over.values()), first_of(self.waiting.values())
        return min((entry[-1] for entry in firsts if entry is not None), default=inf)

    def hand_over(self) -> Iterable[Entry]:
        """Return what waits. Nothing of it waits any more, unless it is taken back."""
        self._handed_over, self.waiting, self.size = self.waiting, OrderedDict(), 0
        return self._handed_over.values()

    def take_back(self) -> int:
        """Let what was handed over wait again; return how many messages newer ones have taken the place of."""
        newer, self.waiting = self.waiting, self._handed_over
        self._handed_over = OrderedDict()
        replaced = sum(self.waiting.pop(slot, None) is not None for slot in newer)
        self.waiting.update(newer)
        self.size = sum(map(size_of, self.waiting.values()))
        return replaced

    def forget(self) -> None:
        """Forget what was handed over, and what is known of keys."""
        self._handed_over = OrderedDict()
        self.known = Recent(self._max_remembered)

    def remove(self, slot: str) -> Entry:
        entry = self.waiting.pop(slot)
        self.size -= size_of(entry)
        return entry

    def know(self, key: str, fingerprint: bytes, until: float) -> None:
        """Set when a message expires, unless a newer one was put."""
        evaluation, known, _ = self.known.get(key) or UNKNOWN
        if known == fingerprint:
            self.known[key] = evaluation, known, until

    def _insert(self, slot: str, entry: Entry) -> None:
        if not self.waiting:
            self.gathers_since = monotonic()
        self.waiting[slot] = entry
        self.size += size_of(entry)


def size_of(entry: Entry) -> int:
    return len(entry[2]) + len(entry[6])


def slot_of(key: str, replaces: bool, version: int) -> str:  # noqa: FBT001 - as in a message
    """Return the slot of a message: its key or, if it replaces no other one, a text of its own."""
    return key if replaces else f"{key}\0{version}"


def evaluated_again(entry: Entry, evaluation: int | None, evaluated_at: float) -> Entry:
    """Return a message that was evaluated once more, with an equal result."""
    return (*entry[:3], max(entry[3], evaluated_at), entry[4], evaluation, *entry[6:])
