"""Faults that a test orders from the loopback server."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flagsync.testing.updates import distinct_ids


@dataclass(slots=True)
class Fault:
    """What happens to the next requests, as ``MixpanelServer.fail()`` describes it."""

    times: float = 0
    status: int | None = None
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_seconds: float = 0.0
    drop: bool = False
    distinct_id: str | None = None
    endpoint: str = ""

    def meets(self, path: str, updates: list[dict[str, Any]]) -> bool:
        """Return whether the fault applies to a request."""
        is_concerned = self.distinct_id in (None, *distinct_ids(updates)) and path.startswith(self.endpoint)
        return self.times >= 1 and is_concerned
