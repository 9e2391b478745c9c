"""Cohorts in every evaluation: a cache before a store, which a thread asks.

Guarantee: a caller waits ``WAIT_SECONDS`` for the store at most, and once in ``REST_SECONDS`` if it is slow or
down; then it gets what is cached, and that is reported. A change in the store is seen within ``FRESH_SECONDS``.
Boundary: which cohorts there are is the store's.
"""

import threading
from collections.abc import Collection
from os import getpid
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any

from flagsmith.types import TraitMapping

from flagsync._recent import Recent
from flagsync._report import Reporter
from flagsync.cohorts._store import MembershipStore
from flagsync.cohorts._update import is_storable

WAIT_SECONDS, FRESH_SECONDS, REST_SECONDS, IDLE_SECONDS = 0.2, 1.0, 5.0, 1.0
REMEMBERED_IDENTITIES = 10_000
# Transient: evaluating writes nothing to Flagsmith.
MEMBER, NO_MEMBER = ({"value": value, "transient": True} for value in (True, False))


class _Question:
    """An identifier whose cohorts somebody waits for."""

    def __init__(self, identifier: str) -> None:
        self.asked = identifier
        # White space round it is no part of it for Flagsmith's server; what no store can hold is in no cohort.
        self.identifier = identifier.strip() if is_storable(identifier) else ""
        self._answered = threading.Lock()
        self._answered.acquire()
        self.answer = self._answered.release

    def wait(self) -> bool:
        return self._answered.acquire(timeout=WAIT_SECONDS)


class _Desk:
    """Where a process's questions lie, and whether a thread answers them."""

    def __init__(self) -> None:
        self.pid = getpid()
        self.questions = SimpleQueue[_Question | None]()
        self.served = False

    def collect(self) -> tuple[list[_Question], bool]:
        """What was asked, and whether it is enough."""
        questions = list[_Question]()
        try:
            question = self.questions.get(timeout=IDLE_SECONDS)
            while question is not None:
                questions.append(question)
                question = self.questions.get_nowait()
        except Empty:
            return questions, not questions
        return questions, True


class CohortTraits:
    """Merges an identity's cohorts into the traits of a call."""

    def __init__(self, store: MembershipStore, report: Reporter) -> None:
        self._store, self._report = store, report
        self._cached: Recent[tuple[object, dict[str, Any]]] = Recent(REMEMBERED_IDENTITIES)
        self._shared: dict[tuple[tuple[str, bool], ...], dict[str, Any]] = {}  # most identities have the same
        self._version: object = None
        self._fresh_until = self._rest_until = 0.0
        self._failing = False
        self._desk = _Desk()

    def merge(self, identifier: str, traits: TraitMapping | None) -> TraitMapping | None:
        """The traits of the call and, where it has none of that name, those of every cohort that is taken."""
        if not isinstance(identifier, str):
            return traits
        version, cohorts = self._cached.get(identifier) or (self, {})
        if version is not self._version or monotonic() >= self._fresh_until:
            self._look_up(identifier)
            _, cohorts = self._cached.get(identifier) or (self, {})
        try:
            return {**cohorts, **traits} if traits else cohorts.copy()
        except TypeError:  # no mapping: Flagsmith's to refuse
            return traits

    def stop(self) -> None:
        """End the thread, until it is needed again."""
        if self._desk.pid == getpid():
            self._desk.questions.put(None)

    def _look_up(self, identifier: str) -> None:
        """Let the thread bring what is cached for the identifier up to date."""
        if monotonic() < self._rest_until:
            return
        if self._desk.pid != getpid():  # the thread, and who asked it, are in the parent
            self._desk = _Desk()
        question, desk = _Question(identifier), self._desk
        desk.questions.put(question)
        if not desk.served and not self._start(desk):
            self._fail("no thread starts")
        elif not question.wait():
            self._fail("it does not answer")

    def _start(self, desk: _Desk) -> bool:
        desk.served = True
        try:
            threading.Thread(target=self._serve, args=(desk,), name="flagsync-cohorts", daemon=True).start()
        except RuntimeError:  # Python >= 3.12 starts none while it exits, and the caller must not wait
            desk.served = False
            return False
        return True

    def _serve(self, desk: _Desk) -> None:
        """Answer until stopped, or until nobody has asked for a while: the body of the thread."""
        while desk.served:
            questions, ends = desk.collect()
            if questions:
                self._answer(questions)
            if ends:
                desk.served = False
                if not desk.questions.empty():
                    desk.served = True  # who asked meanwhile relies on this thread

    def _answer(self, questions: Collection[_Question]) -> None:
        began = monotonic()
        try:
            if (version := self._store.version()) != self._version:
                self._version = version
            if len(self._shared) > REMEMBERED_IDENTITIES:
                self._shared.clear()
            traits = self._store.traits_of({question.identifier for question in questions})
            for question in questions:
                cohorts = tuple(traits[question.identifier].items())
                if cohorts not in self._shared:
                    self._shared[cohorts] = {key: MEMBER if value else NO_MEMBER for key, value in cohorts}
                self._cached[question.asked] = self._version, self._shared[cohorts]
            self._fresh_until = monotonic() + FRESH_SECONDS
            if monotonic() < began + WAIT_SECONDS:
                self._recover()
        except BaseException as error:  # noqa: BLE001 - a store may raise anything, evaluations go on
            self._fail(type(error).__name__)
        finally:
            for question in questions:
                question.answer()

    def _fail(self, reason: str) -> None:
        self._rest_until = monotonic() + REST_SECONDS
        if not self._failing:
            self._failing = True
            self._report.say(f"The store of cohorts cannot be used ({reason}): evaluations have what is cached")

    def _recover(self) -> None:
        self._rest_until = 0.0
        if self._failing:
            self._failing = False
            self._report.say("The store of cohorts is in use again")
