"""Divides what one call stores into parts that a server stores quickly, since it serves nobody else meanwhile."""

from collections.abc import Iterator, Sequence
from itertools import chain

from flagsync._outbox.contract import Destination, Message, Repeat
from flagsync._outbox.redis.records import digest_of, name_of, packed, packed_repeat
from flagsync._outbox.redis.server import Argument

MAX_BYTES = 2_000_000  # of bodies; one has up to 1 MB


class Part:
    """What one script stores: messages in their order, and then repeats.

    Attributes:
        repeats: The repeats.
        size: How many messages and repeats it has.
        bytes: Of the bodies.
    """

    def __init__(self) -> None:
        self._places: dict[Destination, int] = {}
        self._tails: dict[bytes, bytes] = {}
        self._messages, self._repeats = list[bytes](), list[bytes]()
        self.repeats = list[Repeat]()
        self.size = self.bytes = 0

    def add(self, one: Message | Repeat) -> None:
        """Add a message, or a repeat after all messages."""
        place = self._places.setdefault(one.destination, len(self._places))
        self.size += 1
        if isinstance(one, Repeat):
            self.repeats.append(one)
            self._repeats.append(packed_repeat(one, place))
            return
        self.bytes += len(one.body)
        if one.body:
            self._tails[digest_of(one.tail)] = one.tail
        self._messages.append(packed(one, place))

    def arguments(self) -> list[Argument]:
        """Return the arguments of the script: messages, repeats, how many destinations, these, and tails."""
        # Both are one argument each: redis-py copies arguments one by one, and sends what is longer than 6 KB at once.
        messages, repeats = b"".join(self._messages), b"".join(self._repeats)
        tails = chain.from_iterable(self._tails.items())
        return [messages, repeats, len(self._places), *map(name_of, self._places), *tails]


def parts_of(
    messages: Sequence[Message], sent: Sequence[Message], repeats: Sequence[Repeat], most: int
) -> Iterator[Part]:
    """Return the parts of a call, in their order; at least one."""
    part = Part()
    for one in chain[Message | Repeat](sent, messages, repeats):
        if part.size == most or part.bytes > MAX_BYTES:
            yield part
            part = Part()
        part.add(one)
    yield part
