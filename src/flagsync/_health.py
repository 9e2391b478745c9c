"""Says whether a client mirrors as it should and, if not, why.

Guarantee: does no I/O, and takes no lock that a call waits for. Boundary: evaluating flags does not depend on any of
this, so it is no reason to restart a process or to take it out of service.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from flagsmith import Flagsmith

from flagsync._messages import NO_THREADS
from flagsync._pipeline import Pipeline
from flagsync._process import PerProcess, threads_run
from flagsync._refresh import Refresh

# What heals by itself sooner is no reason: a retry follows after at most a minute.
LASTING_SECONDS = 60.0
OLD_SECONDS = 300.0
CLOSED = "The client is closed, and mirrors nothing any more"


@dataclass(frozen=True, slots=True)
class ClientHealth:
    """Whether a client mirrors as it should. It is true if ``ok`` is.

    Attributes:
        ok: Whether nothing is wrong, as far as this process knows.
        reasons: What is wrong, in sentences without token, identifier or payload; empty if ``ok``.
    """

    ok: bool
    reasons: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self.ok


class HealthCheck:
    """Checks the health of one client.

    Args:
        flagsmith: Its Flagsmith client.
        pipelines: What mirrors; None if nothing is mirrored.
        flush_interval_seconds: How long an update waits without anything being wrong.

    Attributes:
        refresh: How old the environment document is.
    """

    def __init__(
        self, flagsmith: Flagsmith, pipelines: PerProcess[Pipeline] | None, flush_interval_seconds: float
    ) -> None:
        self._pipelines, self._flush_interval_seconds = pipelines, flush_interval_seconds
        self.refresh = Refresh(flagsmith)

    def check(self) -> ClientHealth:
        """Return the health now, in this process."""
        troubles = [] if self._pipelines is None else [*self._of_pipeline(self._pipelines.get())]
        if trouble := self.refresh.trouble():
            troubles.append(trouble)
        return ClientHealth(not troubles, tuple(troubles))

    def _of_pipeline(self, pipeline: Pipeline) -> Iterator[str]:
        if pipeline.is_closed:
            yield CLOSED
            return
        if not threads_run():
            yield NO_THREADS
        for outage in pipeline.outages():
            reason, seconds = outage.reason, outage.seconds
            if outage.needs_action and seconds:
                yield f"Configuration error: {reason}"
            elif seconds > LASTING_SECONDS:
                yield f"{reason}, for {seconds:.0f} seconds"
        waited = pipeline.stats().oldest_seconds
        if waited > OLD_SECONDS + self._flush_interval_seconds:
            yield f"The oldest pending update has waited for {waited:.0f} seconds"
