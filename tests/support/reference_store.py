"""The contract of a membership store as plainly as Python can say it: stores are compared with this one."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

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
        self._log: list[tuple[int, str, str]] | None = None
        self._position = self._version = 0
        self._is_unsure = False

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
            if self._log is not None:
                self._position += 1
                self._log.append((self._position, cohort, identifier))
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

    def start_log(self) -> None:
        if self._log is None:
            self._log = []
            for cohort, members in self._members.items():
                self._members[cohort] = set()
                self._change(cohort, members)

    def sweep(self) -> bool:
        return False

    def log_state(self) -> LogState:
        positions = [position for position, _, _ in self._log or ()]
        first, last = min(positions, default=None), max(positions, default=0)
        return LogState(first, last, self._log is not None, self._is_unsure)

    def pending(self) -> int:
        return len(self._log or ())

    def try_acquire_lease(self) -> bool:
        return True

    def release_lease(self) -> None:
        pass

    def claim(self, limit: int) -> list[TraitChange]:
        changes = dict[tuple[str, str], TraitChange]()
        for position, cohort, identifier in (self._log or ())[:limit]:
            positions = changes[cohort, identifier].positions if (cohort, identifier) in changes else ()
            holds = identifier in self._members[cohort]
            key = self._keys[cohort]
            changes[cohort, identifier] = TraitChange(identifier, key, holds, (*positions, position))
        self._is_unsure = bool(changes)
        return [*changes.values()]

    def settle(self, changes: Collection[TraitChange], *, sure: bool) -> None:
        self._is_unsure = not sure
        settled = {position for change in changes for position in change.positions}
        self._log = [entry for entry in self._log or () if entry[0] not in settled]
