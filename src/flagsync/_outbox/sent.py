"""What memory has sent while the backend was out of use, and the backend has to learn.

Guarantee: bounded, and kept as text, bytes and numbers. Of each key only the last message counts.
"""

from collections.abc import Iterable
from typing import TypeAlias

from flagsync._outbox.contract import Destination, Message

Sent: TypeAlias = tuple[bytes, float, float, bool]
"""Fingerprint, time of evaluation, ``resend_after_seconds`` and ``replaces`` of a message."""


class SentMessages:
    """The last messages that memory has sent.

    Args:
        max_remembered: How many keys of one destination are remembered.
    """

    def __init__(self, max_remembered: int) -> None:
        self._max_remembered = max_remembered
        self._sent: dict[Destination, dict[str, Sent]] = {}

    def __len__(self) -> int:
        """How many there are."""
        return sum(map(len, self._sent.values()))

    def add(self, messages: Iterable[Message], *, is_certain: bool) -> None:
        """Remember messages; if it is not certain that they arrived, without their content."""
        for message in messages:
            sent = self._sent.setdefault(message.destination, {})
            fingerprint = message.fingerprint if is_certain else b""
            sent[message.key] = (
                fingerprint,
                message.evaluated_at,
                message.resend_after_seconds,
                message.replaces,
            )
            if len(sent) > self._max_remembered:
                del sent[next(iter(sent))]

    def messages(self) -> list[Message]:
        """Return them, without their bodies."""
        return [
            Message(key, fingerprint, b"", evaluated_at, destination, resend_after_seconds, replaces=replaces)
            for destination, sent in self._sent.items()
            for key, (fingerprint, evaluated_at, resend_after_seconds, replaces) in sent.items()
        ]

    def clear(self) -> None:
        """Forget them: the backend has learnt them."""
        self._sent.clear()
