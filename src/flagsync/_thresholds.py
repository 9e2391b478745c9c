"""What a health check tolerates, which tests choose and users do not."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """From when on something is wrong.

    Attributes:
        lasting_seconds: An outage that ends sooner is none: after a failure, the next attempt follows within a minute.
        old_seconds: How long a message may wait, besides ``flush_interval_seconds``.
        stale_seconds: How old the environment document may be, at least.
        missing_refreshes: How many refreshes of it may be missing.
    """

    lasting_seconds: float = 60.0
    old_seconds: float = 300.0
    stale_seconds: float = 300.0
    missing_refreshes: int = 3
