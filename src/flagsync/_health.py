"""Says whether a client mirrors as it should and, if not, why.

Guarantee: does no I/O, and holds up no call that is not dropped. Boundary: evaluating flags does not depend on any of
this, so it is no reason to restart a process or to take it out of service.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from flagsmith import Flagsmith

from flagsync._messages import NO_THREADS
from flagsync._options import Options
from flagsync._pipeline import Pipeline
from flagsync._process import PerProcess, threads_run
from flagsync._refresh import Refresh

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
        options: The client's options.

    Attributes:
        refresh: How old the environment document is.
    """

    def __init__(self, flagsmith: Flagsmith, pipelines: PerProcess[Pipeline] | None, options: Options) -> None:
        self._pipelines, thresholds = pipelines, options.tuning.thresholds
        self._lasting_seconds = thresholds.lasting_seconds
        self._old_seconds = thresholds.old_seconds + options.flush_interval_seconds
        self.refresh = Refresh(flagsmith, thresholds)

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
            if outage.is_active and outage.needs_action:
                yield f"Configuration error: {outage.reason}"
            elif outage.seconds > self._lasting_seconds:
                yield f"{outage.reason}, for {outage.seconds:.0f} seconds"
        waited = pipeline.stats().oldest_seconds
        if waited > self._old_seconds:
            yield f"The oldest pending update has waited for {waited:.0f} seconds"
