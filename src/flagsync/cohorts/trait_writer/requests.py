"""The requests that carry changes, as ``ChangeList`` sees them."""

from collections.abc import Mapping
from typing import Protocol

from flagsync._delivery.answers import Answer


class Requests(Protocol):
    """What a list must know of the requests that carry its changes."""

    @property
    def is_unsure(self) -> bool:
        """Whether the server may still be working on the last request."""

    @property
    def max_batch(self) -> int:
        """How many changes may be sent at once."""

    @property
    def slowest_seconds(self) -> float:
        """How long the slowest of the last requests took."""

    def take_failures(self) -> Mapping[bytes, Answer]:
        """Return the changes that the server failed on alone since the last call, though it may accept them later.

        The outcome is ``UNAVAILABLE`` if it is likely that the server fails on all changes.
        """
