"""Who is in which cohort: the ``MembershipStore`` protocol.

Guarantee: what its docstring says, for every implementation. Boundary: neither HTTP nor Flagsmith.
"""

from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple, Protocol

from flagsync.cohorts._traits import Cohort
from flagsync.cohorts._update import CohortUpdate

STORE = "store is a MembershipStore, such as flagsync.cohorts.SQLiteStore"


class TraitChange(NamedTuple):
    """What Flagsmith is to store of an identity; ``numbers`` are the entries of the list that it settles."""

    identifier: str
    trait_key: str
    value: bool
    numbers: tuple[int, ...] = ()


class MembershipStore(Protocol):
    """Memberships, and the list of those that changed.

    Any thread and any process may call; each raises ``StoreUnavailableError`` for what may work later.

    ``apply`` has stored the update durably when it returns, as one, and makes a cohort that is not known.
    ``add_members`` and ``remove_members`` are differences, which may come twice. ``members`` is a page of a
    session: who is on it joins; who is on no page of it leaves when all its pages have come, unless added
    since it began. Pages come in any order, again, and between those of other sessions. Of two sessions, the
    one that began first is over when the other is complete, and its further pages mean nothing. A page that
    contradicts its session, by another number of pages or other members than before, starts the session over.
    A session of which no member at all is usable replaces nothing.

    ``traits_of`` has for each identifier every cohort that is taken, True or False; it may be kept as long as
    ``version`` is equal.

    From the first ``list_changes`` on, who joins or leaves is on a list, which begins with all who are in. Its
    numbers rise in the order in which changes can be seen. ``take`` returns the first entries, with what holds
    now, to one process at a time, the one that ``is_elected`` until it ``resign``s or dies, and forgets those
    of cohorts that are not taken. ``settle`` takes entries off; unless it is ``sure``, a process that is
    elected later finds the store ``is_unsure``: changes may still be on their way. ``sweep`` puts some of those
    on the list who left with a whole session, and is True until all are. ``bounds`` are the first and the last
    number on the list, if there is any; the first is 0 while not all are on it that belong there.
    """

    def apply(self, update: CohortUpdate) -> None: ...
    def cohorts(self) -> Sequence[Cohort]: ...
    def members(self, cohort_id: str) -> Iterator[str]: ...
    def version(self) -> object: ...
    def traits_of(self, identifiers: Collection[str]) -> dict[str, dict[str, bool]]: ...
    def list_changes(self) -> None: ...
    def sweep(self) -> bool: ...
    def is_elected(self) -> bool: ...
    def resign(self) -> None: ...
    def bounds(self) -> tuple[int, int] | None: ...
    def pending(self) -> int: ...
    def take(self, limit: int) -> list[TraitChange]: ...
    def settle(self, changes: Collection[TraitChange], *, sure: bool) -> None: ...
    def is_unsure(self) -> bool: ...
    def close(self) -> None: ...
