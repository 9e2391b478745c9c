"""The contract of a membership store as plainly as Python can say it: stores are compared with this one."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from math import inf

from flagsync.cohorts import Cohort, CohortUpdate, LogState, TraitChange


@dataclass(eq=False)
class Session:
    """What has come of one whole cohort so far, and who stays in it."""

    id: str
    pages: int
    came: dict[int, CohortUpdate] = field(default_factory=dict)
    stays: set[str] = field(default_factory=set)

    def contradicts(self, update: CohortUpdate) -> bool:
        known = self.came.get(update.page, update)
        return update.pages != self.pages or update.members != known.members

    def is_complete(self) -> bool:
        usable = sum(len(page.members) for page in self.came.values())
        skipped = sum(page.skipped for page in self.came.values())
        return len(self.came) == self.pages and (usable > 0 or skipped == 0)


class ReferenceStore:
    """The contract in memory, with the default keys."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._keys: dict[str, str] = {}
        self._members: dict[str, set[str]] = {}
        self._sessions: dict[str, list[Session]] = {}  # the oldest first
        self._over: set[tuple[str, str]] = set()
        self._changed: dict[tuple[str, str], int] = {}  # of (cohort, identifier), in rising order
        self._position = self._version = 0
        self._logs: dict[str, ReferenceLog] = {}

    def apply(self, update: CohortUpdate) -> None:
        cohort = update.cohort_id
        self._names[cohort] = update.cohort_name
        self._version += 1
        self._keys.setdefault(cohort, f"mixpanel_cohort_{update.cohort_name}")
        members, sessions = self._members.setdefault(cohort, set()), self._sessions.setdefault(cohort, [])
        if update.action == "remove_members":
            for session in sessions:
                session.stays -= {*update.members}
            self._change(cohort, members - {*update.members})
            return
        if update.action == "add_members":
            concerned = sessions
        elif (current := self._session(update)) is None:
            return
        else:
            concerned = sessions[: sessions.index(current) + 1]
        for other in concerned:
            other.stays |= {*update.members}
        self._change(cohort, members | {*update.members})
        if update.action == "members" and concerned[-1].is_complete():
            self._over |= {(cohort, session.id) for session in concerned[:-1] if session.id}
            del sessions[: len(concerned) - 1]
            self._change(cohort, self._members[cohort] & concerned[-1].stays)

    def _session(self, update: CohortUpdate) -> Session | None:
        sessions = self._sessions[update.cohort_id]
        if (update.cohort_id, update.session_id) in self._over:
            return None
        known = [session for session in sessions if session.id == update.session_id != ""]
        if known and not known[0].contradicts(update) and update.page in known[0].came:
            return None
        if known and known[0].contradicts(update):
            sessions.remove(known.pop())
        if not known:
            known = [Session(update.session_id, update.pages)]
            sessions += known
        known[0].came[update.page] = update
        return known[0]

    def _change(self, cohort: str, members: set[str]) -> None:
        for identifier in sorted(self._members[cohort] ^ members):
            self._position += 1
            self._changed.pop((cohort, identifier), None)
            self._changed[cohort, identifier] = self._position
        self._members[cohort] = members

    def cohorts(self) -> list[Cohort]:
        return [Cohort(cohort, name, self._keys[cohort]) for cohort, name in self._names.items()]

    def members(self, cohort_id: str) -> Iterator[str]:
        return iter(sorted(self._members.get(cohort_id, ())))

    def version(self) -> int:
        return self._version

    def traits_of(self, identifiers: Collection[str]) -> dict[str, dict[str, bool]]:
        cohorts = self.cohorts()
        return {who: {c.trait_key: who in self._members[c.id] for c in cohorts} for who in identifiers}

    def change_log(self, environment: str) -> "ReferenceLog":
        return self._logs.setdefault(environment, ReferenceLog(self))


@dataclass
class Entry:
    """A change that was claimed and is not settled."""

    position: int
    due: float = 0.0
    is_unsure: bool = False
    tries: int = 0


class ReferenceLog:
    """The change log of one environment; its time stands still."""

    lease_seconds = 0.0

    def __init__(self, store: ReferenceStore) -> None:
        self._store = store
        self._began: int | None = None
        self._cursor = 0
        self._unsettled: dict[tuple[str, str], Entry] = {}
        self._was_tried = False  # the last claimed change

    def start(self) -> None:
        if self._began is None:
            self._began = self._store._position

    def restart(self) -> None:
        self._began = self._cursor = 0

    def sweep(self) -> bool:
        return False

    def _unclaimed(self) -> dict[tuple[str, str], int]:
        began, found = self._began, self._store._changed.items()
        if began is None:
            return {}
        members = self._store._members
        return {
            key: position
            for key, position in found
            if position > self._cursor and (key[1] in members[key[0]] or position > began)
        }

    def state(self) -> LogState:
        unclaimed, entries = self._unclaimed().values(), self._unsettled.values()
        positions = [*unclaimed, *(entry.position for entry in entries)]
        dues = [0.0] * len(unclaimed) + [entry.due for entry in entries]
        first = min(positions, default=None)
        return LogState(first, self._store._position, self._began is not None, min(dues, default=inf))

    def pending(self) -> int:
        return len(self._unclaimed()) + len(self._unsettled)

    def try_acquire_lease(self) -> bool:
        return True

    def release_lease(self) -> None:
        pass

    def claim(self, limit: int) -> list[TraitChange]:
        due = {key: entry for key, entry in self._unsettled.items() if entry.due <= 0}
        tried = [item for item in due.items() if item[1].tries][:1]
        others = [item for item in due.items() if not item[1].tries]
        if tried and not self._was_tried:
            others = []
        else:
            for key, position in [*self._unclaimed().items()][: max(0, limit - len(others))]:
                self._cursor = position
                before = self._unsettled.get(key, Entry(0))
                entry = Entry(position, 0.0, before.is_unsure or before.due > 0, before.tries)
                self._unsettled[key] = entry
                (tried if entry.tries else others).append((key, entry))
        self._was_tried = not others
        others.sort(key=lambda item: item[1].position)
        return [self._claimed(*item) for item in others[:limit] or tried[:1]]

    def _claimed(self, key: tuple[str, str], entry: Entry) -> TraitChange:
        (cohort, identifier), store = key, self._store
        value = identifier in store._members[cohort]
        was_unsure, entry.is_unsure = entry.is_unsure, True
        return TraitChange(
            identifier, store._keys[cohort], value, entry.position, was_unsure, tries=entry.tries
        )

    def settle(self, changes: Collection[TraitChange]) -> None:
        settled = {change.position for change in changes}
        self._unsettled = {k: entry for k, entry in self._unsettled.items() if entry.position not in settled}

    def postpone(self, changes: Collection[TraitChange], seconds: float) -> None:
        given = {change.position: change for change in changes}
        for entry in self._unsettled.values():
            if (change := given.get(entry.position)) is not None:
                entry.due, entry.is_unsure, entry.tries = seconds, change.is_unsure, change.tries
