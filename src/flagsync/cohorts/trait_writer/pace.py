"""When changes are written, and when they are written again.

Guarantee: what holds last comes last, if a server ends a request within the time that ``unsure_for`` says.
"""

from dataclasses import dataclass

MAX_DOUBLINGS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """When changes are written, and when they are written again.

    Attributes:
        interval_seconds: How long a change may wait for others, and how often a store that failed is tried again.
        unsure_seconds: What was in a request that got no answer is written once more after this time at least.
            Flagsmith ends such requests, and what it stores late may be out of date.
        unsure_factor: It is as many times as long as the slowest of the last requests took.
        first_retry_seconds: How long a change is set aside that Flagsmith fails on. Each further time doubles it.
        max_retry_seconds: At most.
        max_tries: After so many times a change is given up, if others are written meanwhile.
    """

    interval_seconds: float = 1.0
    unsure_seconds: float = 30.0
    unsure_factor: float = 4.0
    first_retry_seconds: float = 5.0
    max_retry_seconds: float = 3600.0
    max_tries: int = 20

    def unsure_for(self, slowest_seconds: float) -> float:
        """Return how long a request may go on that got no answer, where one took so long."""
        return max(self.unsure_seconds, self.unsure_factor * slowest_seconds)

    def retry_after(self, tries: int) -> float:
        """Return how long to set aside a change that has failed so often."""
        doublings = min(tries - 1, MAX_DOUBLINGS)
        return min(self.first_retry_seconds * float(1 << doublings), self.max_retry_seconds)
