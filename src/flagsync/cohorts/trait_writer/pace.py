"""When changes are written, and when they are written again.

Guarantee: the last state is written last, if the server ends a request within the time of ``unsure_for``.
"""

from dataclasses import dataclass
from math import inf

from flagsync._clock import monotonic

MAX_DOUBLINGS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """When changes are written, and when they are written again.

    Attributes:
        interval_seconds: How long a change may wait for others, and how often a store that failed is tried again.
        unsure_seconds: Changes in a request that got no answer are written once more, after at least this time.
            Flagsmith carries such a request out, and may overwrite newer traits late.
        unsure_factor: And after at least this many times the duration of the slowest recent request.
        first_retry_seconds: How long a change that Flagsmith fails on is set aside. Each further failure doubles it.
        max_retry_seconds: The longest time that a change is set aside.
        max_tries: After this many tries a change is given up, if others are written meanwhile.
        grace_seconds: How long before the end of a lease the last request must have ended.
    """

    interval_seconds: float = 1.0
    unsure_seconds: float = 30.0
    unsure_factor: float = 4.0
    first_retry_seconds: float = 5.0
    max_retry_seconds: float = 3600.0
    max_tries: int = 20
    grace_seconds: float = 5.0

    def write_until(self, lease_seconds: float) -> float:
        """Return when the last request must have ended if the lease is renewed now: ``time.monotonic()``."""
        return monotonic() + lease_seconds - self.grace_seconds if lease_seconds else inf

    def unsure_for(self, slowest_seconds: float) -> float:
        """Return how long a request without an answer may go on, given the slowest recent one."""
        return max(self.unsure_seconds, self.unsure_factor * slowest_seconds)

    def retry_after(self, tries: int) -> float:
        """Return how long to set aside a change that has failed ``tries`` times."""
        doublings = min(tries - 1, MAX_DOUBLINGS)
        return min(self.first_retry_seconds * float(1 << doublings), self.max_retry_seconds)
