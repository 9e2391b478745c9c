"""Adds cohorts to every evaluation, from a cache in front of a store that a background thread reads.

Guarantee: a caller waits for the store at most ``wait_seconds``, and while the store is slow or down, only once in
``rest_seconds``. It then gets the cached cohorts, and the outage is reported. A change in the store is seen within
``fresh_seconds``. Boundary: the store knows which cohorts exist.
"""

import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass
from math import inf
from queue import Empty, SimpleQueue
from typing import TypeAlias

from flagsmith.types import TraitConfig, TraitMapping

from flagsync._clock import monotonic
from flagsync._identifiers import content_of, text_of
from flagsync._process import PerProcess
from flagsync._recent import Recent
from flagsync._report import Outage, Reporter, is_interrupt_of_application
from flagsync._worker import Worker
from flagsync.cohorts.store import MembershipReader
from flagsync.cohorts.update import is_storable

Traits: TypeAlias = dict[str, TraitConfig]
# Transient: evaluating writes nothing to Flagsmith.
MEMBER, NO_MEMBER = (TraitConfig(value=value, transient=True) for value in (True, False))


@dataclass(frozen=True, slots=True, kw_only=True)
class Freshness:
    """How current cohorts are, and what that may cost a caller.

    Attributes:
        wait_seconds: How long a caller waits for the store at most.
        fresh_seconds: How long cached cohorts are used without asking the store.
        rest_seconds: How long a store that was slow or failed is left alone.
        idle_seconds: The thread ends after this time without a lookup.
        max_remembered: How many identities are cached, at least; at most twice as many.
    """

    wait_seconds: float = 0.2
    fresh_seconds: float = 1.0
    rest_seconds: float = 5.0
    idle_seconds: float = 1.0
    max_remembered: int = 10_000


class CohortTraits:
    """Merges the cohorts of an identity into the traits of a call.

    Args:
        store: Where memberships are read.
        report: Where each outage of the store is reported once.
        freshness: How current cohorts are.
        clock: Returns the time in seconds.
    """

    def __init__(
        self,
        store: MembershipReader,
        report: Reporter,
        freshness: Freshness = Freshness(),
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._store, self._report, self._freshness, self._clock = store, report, freshness, clock
        self._cached: Recent[str, tuple[object, Traits]] = Recent(freshness.max_remembered)
        self._shared: dict[tuple[tuple[str, bool], ...], Traits] = {}  # most identities share a few
        self._version: object = None
        self._fresh_until = self._rests_until = -inf
        self._processes = PerProcess[_Process](lambda _: _Process(self._step, report))

    def merge(
        self, identifier: object, traits: TraitMapping | None, *, may_ask: bool = True
    ) -> TraitMapping | None:
        """Return the traits of a call, and those of every cohort for which the call has no trait of that name.

        Without ``may_ask`` it waits for nothing: it takes the cohorts that are cached.
        """
        if (given := _content(identifier)) is None:
            return traits
        if may_ask and not self._is_fresh(given):
            self._look_up(given)
        cached = self._cached.get(given)
        cohorts = cached[1] if cached else {}
        try:
            return {**cohorts, **traits} if traits else {**cohorts}
        except TypeError:  # it is not a mapping, which Flagsmith refuses
            return traits

    def must_ask_store(self, identifier: object) -> bool:
        """Return whether ``merge`` would wait for the store."""
        given = _content(identifier)
        return given is not None and not self._is_fresh(given) and self._clock() >= self._rests_until

    def stop(self) -> None:
        """End the thread until it is needed again. Takes no lock."""
        if (process := self._processes.existing()) is not None:
            process.lookups.put(None)

    def _is_fresh(self, identifier: str) -> bool:
        cached = self._cached.get(identifier)
        return cached is not None and cached[0] is self._version and self._clock() < self._fresh_until

    def _look_up(self, identifier: str) -> None:
        """Have the thread refresh what is cached for an identifier, and wait for that."""
        if self._clock() < self._rests_until:
            return
        lookup, process = _Lookup(identifier), self._processes.get()
        process.lookups.put(lookup)
        if not process.ensure_thread():
            self._fail(process, "no thread can start")
        elif not lookup.wait(self._freshness.wait_seconds):
            self._fail(process, "it does not answer")

    def _step(self) -> float | None:
        """Answer the lookups of callers; None to end, after an idle time or a call of ``stop``."""
        process = self._processes.get()
        lookups, ends = process.collect(self._freshness.idle_seconds)
        if lookups:
            self._read(process, lookups)
        if ends:
            process.has_thread = False
            if process.lookups.empty():
                return None
            process.has_thread = True  # a caller that came meanwhile relies on this thread
        return 0.0

    def _read(self, process: "_Process", lookups: Collection["_Lookup"]) -> None:
        began = self._clock()
        try:
            if (version := self._store.version()) != self._version:
                self._version = version
            found = self._store.traits_of({lookup.identifier for lookup in lookups})
            for lookup in lookups:
                cohorts = self._traits(tuple(found[lookup.identifier].items()))
                self._cached[lookup.given] = self._version, cohorts
            self._fresh_until = self._clock() + self._freshness.fresh_seconds
            if self._clock() < began + self._freshness.wait_seconds:
                self._rests_until = -inf
                process.end_outage("The store of cohorts is in use again")
                self._report.report_deferred()
        except BaseException as error:  # noqa: BLE001 - a store may raise anything, evaluations go on
            self._fail(process, type(error).__name__)
        finally:
            for lookup in lookups:
                lookup.finish()

    def _traits(self, cohorts: tuple[tuple[str, bool], ...]) -> Traits:
        """Return memberships as Flagsmith takes them; equal ones are one object."""
        if len(self._shared) > self._freshness.max_remembered:
            self._shared.clear()
        if (traits := self._shared.get(cohorts)) is None:
            traits = self._shared[cohorts] = {key: MEMBER if value else NO_MEMBER for key, value in cohorts}
        return traits

    def _fail(self, process: "_Process", reason: str) -> None:
        self._rests_until = self._clock() + self._freshness.rest_seconds
        process.begin_outage(
            f"The store of cohorts cannot be used ({reason}): evaluations use cached memberships"
        )
        self._report.report_deferred()


def _content(identifier: object) -> str | None:
    """Return what an identifier says; None if it is an object that raises, which Flagsmith decides about."""
    try:
        return identifier if type(identifier) is str else content_of(identifier)
    except BaseException as error:
        if is_interrupt_of_application(error):
            raise
        return None


class _Lookup:
    """An identifier whose cohorts a caller waits for."""

    def __init__(self, identifier: str) -> None:
        self.given = identifier
        # An identifier that no store can hold is in no cohort.
        self.identifier = text_of(identifier) if is_storable(identifier) else ""
        self._is_pending = threading.Lock()
        self._is_pending.acquire()

    def finish(self) -> None:
        self._is_pending.release()

    def wait(self, seconds: float) -> bool:
        return self._is_pending.acquire(timeout=seconds)


class _Process:
    """The lookups of one process, and whether it has a thread for them."""

    def __init__(self, step: Callable[[], float | None], report: Reporter) -> None:
        self._step, self._report = step, report
        self.lookups = SimpleQueue[_Lookup | None]()  # None: end
        self.has_thread = False
        self._lock = threading.RLock()  # held for a few instructions only
        self._outage = Outage(report)

    def ensure_thread(self) -> bool:
        """Start a thread if there is none; False if none can start any more."""
        if self.has_thread:
            return True
        self.has_thread = True
        if not Worker("flagsync-cohorts", self._step, self._report).start():
            self.has_thread = False
            return False
        return True

    def collect(self, idle_seconds: float) -> tuple[list[_Lookup], bool]:
        """Wait for lookups; return them, and whether the thread is to end."""
        lookups = list[_Lookup]()
        try:
            lookup = self.lookups.get(timeout=idle_seconds)
            while lookup is not None:
                lookups.append(lookup)
                lookup = self.lookups.get_nowait()
        except Empty:
            return lookups, not lookups
        return lookups, True

    def begin_outage(self, message: str) -> None:
        with self._lock:
            self._outage.begin(message)

    def end_outage(self, message: str) -> None:
        with self._lock:
            self._outage.end(message)
