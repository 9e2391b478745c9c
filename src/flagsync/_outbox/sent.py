"""Messages that were sent from memory during an outage, and that the backend must be told.

Guarantee: bounded, and kept as text, bytes and numbers. Of each key only the last message counts.
"""

from collections.abc import Iterable
from typing import TypeAlias

from flagsync._outbox.contract import Destination, Message

Sent: TypeAlias = tuple[bytes, float, float, bool]
"""Fingerprint, time of evaluation, ``resend_after_seconds`` and ``replaces`` of a message."""


class SentMessages:
    """The last messages that were sent from memory.

    Args:
        max_remembered: How many keys of one destination are remembered.
    """

    def __init__(self, max_remembered: int) -> None:
        self._max_remembered = max_remembered
        self._sent: dict[Destination, dict[str, Sent]] = {}

    def __len__(self) -> int:
        """How many keys are remembered."""
        return sum(map(len, self._sent.values()))

    def add(self, messages: Iterable[Message], *, is_certain: bool) -> None:
        """Remember messages, without their fingerprints if it is not certain that they arrived."""
        for message in messages:
            sent = self._sent.setdefault(message.destination, {})
            before = sent.get(message.key)
            sent[message.key] = (
                message.fingerprint if is_certain else b"",
                message.evaluated_at if before is None else max(before[1], message.evaluated_at),
                message.resend_after_seconds,
                message.replaces,
            )
            if len(sent) > self._max_remembered:
                del sent[next(iter(sent))]

    def bring_forward(self, destination: Destination, key: str, evaluated_at: float) -> None:
        """Note that the last message of a key was evaluated again, with an equal result."""
        sent = self._sent.get(destination, {})
        if (message := sent.get(key)) is not None:
            sent[key] = (message[0], max(message[1], evaluated_at), *message[2:])

    def messages(self) -> list[Message]:
        """Return the messages, without their bodies."""
        return [
            Message(key, fingerprint, b"", evaluated_at, destination, resend_after_seconds, replaces=replaces)
            for destination, sent in self._sent.items()
            for key, (fingerprint, evaluated_at, resend_after_seconds, replaces) in sent.items()
        ]

    def clear(self) -> None:
        """Forget the messages: the backend knows them now."""
        self._sent.clear()
