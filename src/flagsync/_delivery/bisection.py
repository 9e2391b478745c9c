"""Finds the bad messages of a refused batch: halves it again and again, until the bad ones are alone.

Guarantee: a single bad message among 2000 is alone after 23 requests. While everything is refused, every second request
tries a part elsewhere in the batch, to tell bad messages from a service that refuses everything. Boundary: ``Health``
knows which messages were refused alone in earlier attempts.
"""

from collections.abc import Collection, Container, Sequence

from flagsync._outbox.contract import Message


class Bisection:
    """The parts of a batch that are not decided yet.

    Args:
        batch: The messages.
        last: The versions of those that are tried after the others if the batch is refused as a whole, or once one of
            the others is accepted.

    Attributes:
        accepted: Messages that were accepted.
        rejected: Messages that were refused alone.
    """

    def __init__(self, batch: Sequence[Message], last: Container[int] = ()) -> None:
        self._whole, self._parts = batch, [batch]
        self._first, self._last = _divided(batch, last)
        self._looks_elsewhere = self._goes_deeper = False
        self.accepted: Sequence[Message] = []
        self.rejected: list[Message] = []

    @property
    def is_decided(self) -> bool:
        """Whether no part is left."""
        return not (self._parts or self._last)

    def next_part(self) -> Sequence[Message]:
        """Remove and return the next part to send: the first, or every second time, while all is refused, another.

        That other one is the largest part, then its halves until one message is alone, then the largest part again.
        This finds good messages behind many bad ones, and among them.
        """
        if not self._parts:
            self._add_last()
        self._looks_elsewhere = not self._looks_elsewhere and not self.accepted
        if not self._looks_elsewhere:
            return self._parts.pop(0)
        if self._goes_deeper:
            return self._parts.pop()
        return self._parts.pop(max(range(len(self._parts)), key=lambda place: len(self._parts[place])))

    def accept(self, part: Sequence[Message]) -> None:
        """Note that a part was accepted."""
        self.accepted = [*self.accepted, *part] if self.accepted else part
        if len(part) == len(self._whole):
            self._last = []
        self._add_last()

    def refuse(self, part: Sequence[Message], bad: Collection[int] = ()) -> None:
        """Note that a part was refused: its halves are sent later, or the message is rejected.

        Args:
            part: The part.
            bad: The indexes of the bad messages, if the others were accepted.
        """
        is_whole = len(part) == len(self._whole)
        if bad:
            self.rejected += [one for place, one in enumerate(part) if place in bad]
            self.accepted = [*self.accepted, *(one for place, one in enumerate(part) if place not in bad)]
            self._last = [] if is_whole else self._last
            self._add_last()
            return
        if self._last and is_whole:
            self._parts.append(self._first)
            return
        middle = len(part) // 2
        halves = [part[:middle], part[middle:]] if middle else []
        if not middle:
            self.rejected += part
        if self._looks_elsewhere:
            self._goes_deeper = bool(middle)
            self._parts += halves
        else:
            self._parts[:0] = halves

    def _add_last(self) -> None:
        if self._last:
            self._parts.append(self._last)
            self._last = []


def _divided(batch: Sequence[Message], last: Container[int]) -> tuple[Sequence[Message], Sequence[Message]]:
    """Return the messages to try first, and those to try after them."""
    if not last:
        return batch, []
    first = [message for message in batch if message.version not in last]
    return first, [message for message in batch if message.version in last]
