"""Finds the bad messages of a refused batch: halves it again and again, until the bad ones are alone.

Guarantee: a single bad message among 2000 is alone after 23 requests. While everything is refused, every second request
tries a part elsewhere in the batch, to tell bad messages from a service that refuses everything.
"""

from collections.abc import Collection, Sequence

from flagsync._outbox.contract import Message


class Bisection:
    """The parts of a batch that are not decided yet.

    Attributes:
        accepted: Messages that were accepted.
        rejected: Messages that were refused alone.
    """

    def __init__(self, batch: Sequence[Message]) -> None:
        self._parts: list[Sequence[Message]] = [batch]
        self._looks_elsewhere = self._goes_deeper = False
        self.accepted: list[Message] = []
        self.rejected: list[Message] = []

    @property
    def is_decided(self) -> bool:
        """Whether no part is left."""
        return not self._parts

    def next_part(self) -> Sequence[Message]:
        """Remove and return the next part to send: the first, or every second time, while all is refused, another.

        That other one is the largest part, then its halves until one message is alone, then the largest part again.
        This finds good messages behind many bad ones, and among them.
        """
        self._looks_elsewhere = not self._looks_elsewhere and not self.accepted
        if not self._looks_elsewhere:
            return self._parts.pop(0)
        if self._goes_deeper:
            return self._parts.pop()
        return self._parts.pop(max(range(len(self._parts)), key=lambda place: len(self._parts[place])))

    def accept(self, part: Sequence[Message]) -> None:
        """Note that a part was accepted."""
        self.accepted += part

    def refuse(self, part: Sequence[Message], bad: Collection[int] = ()) -> None:
        """Note that a part was refused: its halves are sent later, or the message is rejected.

        Args:
            part: The part.
            bad: The indexes of the bad messages, if the others were accepted.
        """
        if bad:
            for place, message in enumerate(part):
                (self.rejected if place in bad else self.accepted).append(message)
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
