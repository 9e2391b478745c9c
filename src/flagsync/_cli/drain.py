"""Delivers what waits in an outbox, without a client of Flagsmith.

Guarantee: only one process sends from an outbox: while another one does, this one waits for it.
"""

from collections.abc import Collection, Mapping
from contextlib import suppress

from flagsync._clock import monotonic
from flagsync._delivery.mixpanel import MixpanelApi
from flagsync._delivery.sender import Sender
from flagsync._outbox.backend import Backend
from flagsync._outbox.contract import Claim, Destination, Limits, Mark, Message
from flagsync._outbox.durable import DurableOutbox
from flagsync._outbox.memory import MemoryOutbox
from flagsync._outbox.options import Staging
from flagsync._report import Reporter
from flagsync._stats import Ledger

# A request that has begun ends with the deadline, too. This is for what the thread does around it.
JOIN_SECONDS = 1.0


def drain(backend: Backend, deadline: float) -> None:
    """Deliver what waits until nothing is left, or until a time of ``time.monotonic()``."""
    report, api = Reporter(None), MixpanelApi()
    outbox = _Whole(backend, report)
    sender = Sender(outbox, api, on_end=api.close, ledger=Ledger(), report=report)
    sender.stop(deadline)  # as a client that closes: without delay
    sender.worker.start()
    try:
        sender.flush(deadline)
    finally:
        sender.stop(monotonic())
        sender.worker.join(monotonic() + JOIN_SECONDS)


class _Whole:
    """An outbox that is settled when nothing waits in it any more, whoever has put it there.

    Args:
        backend: Where the messages wait.
        report: Where an outage of the backend is reported.
    """

    is_shared = True

    def __init__(self, backend: Backend, report: Reporter) -> None:
        limits, ledger = Limits(flush_interval_seconds=0.0), Ledger()
        memory = MemoryOutbox(limits, ledger, report)
        self._backend = backend
        self._outbox = DurableOutbox(
            memory, backend, limits=limits, staging=Staging(), ledger=ledger, report=report
        )

    def claim(self, resting: Mapping[Destination, float], *, urgent: bool) -> Claim:
        return self._outbox.claim(resting, urgent=urgent)

    def settle(
        self, accepted: Collection[Message], rejected: Collection[Message], *, last: bool = False
    ) -> None:
        self._outbox.settle(accepted, rejected, last=last)

    def mark(self) -> Mark:
        return Mark(0)

    def is_settled(self, mark: Mark) -> bool:  # noqa: ARG002 - all that waits counts
        with suppress(Exception):  # the outbox has reported it
            return not self._backend.status(()).pending
        return False
