"""The calls that wait to be encoded: the latest of each identity wins, and each exposure counts.

Guarantee: adding a call takes no lock. The number of waiting calls is bounded.
"""

import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from math import inf

from flagsync._encoding.calls import Call, Exposure
from flagsync._encoding.evaluation import is_evaluated
from flagsync._identifiers import content_of
from flagsync._oldest import first_of
from flagsync._report import MAX_PENDING_REACHED, Reporter, is_interrupt_of_application
from flagsync._stats import Ledger

NOT_MIRRORED = "An identity is not mirrored: {}"
NOT_RECORDED = "An exposure is not recorded: {}"
LOCKED_CALLS = 100  # collecting holds the lock for so many calls: about 20 µs


class Threshold:
    """The number of waiting calls at which a caller must attend to them: wake the thread, or keep the bound.

    The thread sets a new threshold whenever it decides anew. A caller raises one after it has woken the thread, which
    then sets another one: so no call waits for ever, even if a signal handler interrupts the caller for good.
    """

    __slots__ = ("calls",)

    def __init__(self, calls: float) -> None:
        self.calls = calls


@dataclass(slots=True)
class Arrivals:
    """Counts calls that have arrived, and those of them that are exposures."""

    all: int = 0
    exposures: int = 0


class Inbox:
    """Calls in two stages: first as they arrive, then one per identity.

    Args:
        max_pending: Calls that wait at each of the two stages. Beyond it the oldest are dropped.
        enough: This many calls wake the thread even while it lets calls gather.
        ledger: Where outcomes are counted.
        report: Where drops are reported, and once each reason why an identity is not mirrored.

    Attributes:
        calls: The first stage. Any thread appends a call, and removes the oldest ones beyond the bound.
        threshold: When callers must attend.
        is_idle: Whether the thread sleeps, or is being woken by the first call.
        is_closed: Whether calls are refused.
    """

    def __init__(self, max_pending: float, enough: int, ledger: Ledger, report: Reporter) -> None:
        self._max_pending, self._enough, self._ledger, self._report = max_pending, enough, ledger, report
        # A deque's append needs no lock, neither between threads nor in a signal handler.
        self.calls = deque[Call | Exposure]()
        self.threshold = Threshold(1)
        self.is_idle, self.is_closed = True, False
        # The lock is held while calls leave the first stage, so that each is counted once.
        self._gone, self._lock = Arrivals(), threading.RLock()
        # Only the encoder's thread uses these. The key of an exposure is its ``id()``, so that it replaces no other.
        self._taken = deque[Call | Exposure]()
        self._latest: OrderedDict[str | tuple[int, str] | int, Call | Exposure] = OrderedDict()

    def __len__(self) -> int:
        """How many identities and exposures are collected."""
        return len(self._latest)

    @property
    def submitted(self) -> int:
        """How many calls and exposures have arrived. One that leaves the first stage meanwhile may count twice."""
        return len(self.calls) + self._gone.all  # in this order, so that none is left out

    def submitted_apart(self) -> tuple[int, int]:
        """Return how many calls and how many exposures have arrived."""
        with self._lock:
            gone, exposures_gone = self._gone.all, self._gone.exposures
            waiting = self.calls.copy()  # in one step, while other threads append
        exposures = sum(type(call) is Exposure for call in waiting)
        return gone - exposures_gone + len(waiting) - exposures, exposures_gone + exposures

    def has_enough(self) -> bool:
        """Whether enough calls wait, so that they need not gather longer."""
        return len(self.calls) + len(self._latest) >= self._enough

    def has_calls(self) -> bool:
        """Whether anything waits, at either stage."""
        return bool(self.calls or self._taken or self._latest)

    def waits_since(self) -> float:
        """Return when the first call in line was made: ``time.monotonic()``; ``inf`` if none waits. Takes no lock."""
        firsts = first_of(self._latest.values()), first_of(self.calls)
        return min((call[-1] for call in firsts if call is not None), default=inf)

    def wait_for_first(self) -> None:
        """Have the next caller attend: the thread is about to sleep."""
        self.is_idle = True
        self._attend_from(1)

    def wait_for_enough(self) -> None:
        """Have a caller attend once there are enough calls: the thread lets calls gather."""
        self.is_idle = False
        self._attend_from(self._enough)

    def wait_for_none(self) -> None:
        """Have a caller attend only beyond the bound: the thread is at work."""
        self.is_idle = False
        self._attend_from(self._max_pending + 1)

    def spare_callers(self, threshold: Threshold) -> None:
        """Have no further caller attend for now: the thread was woken after this threshold was read."""
        threshold.calls = self._max_pending + 1 if self.has_enough() else self._enough

    def close(self) -> None:
        """Have each caller attend from now on, and refuse the call. Takes no lock."""
        self.is_closed, self.threshold = True, Threshold(0)

    def keep_bound(self) -> None:
        """Drop the oldest calls beyond the bound, in the caller's thread."""
        while len(self.calls) > self._max_pending:
            if (call := self._take_one(self.calls.popleft)) is not None:
                self._drop(call)

    def remove_newest(self) -> Call | Exposure | None:
        """Take the newest call out, in the caller's thread; None if the encoder's thread was faster."""
        return self._take_one(self.calls.pop)

    def collect(self) -> None:
        """Move the calls that have arrived to the second stage, where they replace older ones of their identities.

        It does not rest meanwhile: callers in a tight loop would fill the first stage.
        """
        for _ in range(0, len(self.calls) + len(self._taken), LOCKED_CALLS):
            self._take(self.calls.popleft, self._taken.append, LOCKED_CALLS)
            while self._taken:  # an interrupt of the application leaves the others for the next time
                call = self._taken.popleft()
                if isinstance(call, Exposure):
                    self._latest[id(call)] = call
                else:
                    self._receive(call)
        while len(self._latest) > self._max_pending:
            self._drop(self._latest.popitem(last=False)[1])

    def pop(self) -> Call | Exposure:
        """Remove and return the identity's call or the exposure that has waited longest."""
        return self._latest.popitem(last=False)[1]

    def count_removed(self) -> None:
        """Count a call that has arrived and does not wait."""
        with self._lock:
            self._gone.all += 1

    def _attend_from(self, calls: float) -> None:
        self.threshold = Threshold(calls)
        if self.is_closed:  # another thread may have closed it before the line above
            self.threshold = Threshold(0)

    def _take_one(self, pop: Callable[[], Call | Exposure]) -> Call | Exposure | None:
        taken = list[Call | Exposure]()
        self._take(pop, taken.append)
        return taken[0] if taken else None

    def _take(
        self, pop: Callable[[], Call | Exposure], keep: Callable[[Call | Exposure], None], limit: int = 1
    ) -> None:
        """Take calls from the first stage: no more than ``limit``, and none that another thread was faster to take."""
        gone = self._gone
        with self._lock:
            for _ in range(limit):
                gone.all += 1  # first, for ``submitted``
                try:
                    call = pop()
                except IndexError:
                    gone.all -= 1
                    return
                keep(call)
                # A signal handler that counts, too, may run within this line, but not within the next one.
                is_exposure = type(call) is Exposure
                gone.exposures += is_exposure

    def _receive(self, call: Call) -> None:
        identifier, number, evaluated, _ = call
        try:
            if not number and not is_evaluated(evaluated):  # type: ignore[arg-type] # they are Flags
                self._skip("Flagsmith evaluated no flags")
                return
            key = _key(identifier)
            if self._latest.pop(key, None) is not None:
                self._ledger.count("superseded")
            self._latest[key] = call  # last in line: another identifier may have the same profile
        except BaseException as error:  # an identifier may be an object of the application
            if is_interrupt_of_application(error):
                raise
            self._skip(type(error).__name__)

    def _skip(self, reason: str) -> None:
        self._ledger.count("skipped")
        self._report.warn_once(NOT_MIRRORED.format(reason))

    def _drop(self, call: Call | Exposure) -> None:
        self._ledger.count("dropped", is_event=isinstance(call, Exposure))
        self._report.count_loss(MAX_PENDING_REACHED)


def _key(identifier: object) -> str | tuple[int, str]:
    """Return what tells identifiers apart: the text, and the type, since 1, 1.0 and True are equal."""
    if type(identifier) is str:
        return identifier
    hash(identifier)  # raises for a list or a dictionary, which is no identifier
    return id(type(identifier)), content_of(identifier)
