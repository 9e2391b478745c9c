"""The messages of one request.

Guarantee: while they are in flight they are text, bytes, numbers and exact tuples of those, which cost the garbage
collector nothing; a ``Message`` exists only while it is looked at.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, TypeAlias, TypeVar, overload

from flagsync._outbox.contract import Destination, Limits, Message

Content: TypeAlias = tuple[str, bytes, bytes, float, float, int | None, bytes, bool, int]
"""A message without its destination, in the order of its attributes."""
C = TypeVar("C", bound=tuple[Any, ...])  # begins with a Content


class Batch(Sequence[Message]):
    """Messages to one destination.

    Args:
        destination: Where they go.
        contents: The messages without it, as ``message_of`` takes them.
    """

    def __init__(self, destination: Destination, contents: Sequence[tuple[Any, ...]]) -> None:
        self._destination, self._contents = destination, contents

    __hash__ = None  # type: ignore[assignment] # as of a list

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and [*self] == [*other]

    def __len__(self) -> int:
        return len(self._contents)

    def __iter__(self) -> Iterator[Message]:
        return (message_of(content, self._destination) for content in self._contents)

    @overload
    def __getitem__(self, place: int) -> Message: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[Message]: ...

    def __getitem__(self, place: int | slice) -> Message | Sequence[Message]:
        if isinstance(place, slice):
            return Batch(self._destination, self._contents[place])
        return message_of(self._contents[place], self._destination)


def fitting(messages: Iterable[Message], limits: Limits) -> Sequence[Message]:
    """Return the first messages to one destination that fit into one request; one at least, if there is any."""
    rest = iter(messages)
    if (first := next(rest, None)) is None:
        return ()
    return Batch(first.destination, fitting_contents(map(content_of, chain((first,), rest)), limits))


def fitting_contents(contents: Iterable[C], limits: Limits) -> list[C]:
    """Return the first messages that fit into one request, as ``fitting`` does, without their destination."""
    found, size = list[C](), 1  # two brackets, and a comma between messages
    for content in contents:
        size += len(content[2]) + len(content[6]) + 1
        if len(found) == limits.max_batch_messages or (found and size > limits.max_batch_bytes):
            break
        found.append(content)
    return found


def content_of(message: Message) -> Content:
    return (*message[:4], *message[5:])


def message_of(content: Sequence[object], destination: Destination) -> Message:
    """Return a message, given without its destination; what follows its attributes does not count."""
    return Message._make((*content[:4], destination, *content[4:9]))
