"""The tables of a change log, and who may claim its entries: the contracts of what ``change_log`` is built on."""

from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

from flagsync.cohorts.catalog import CohortTable
from flagsync.cohorts.sessions import SessionTables
from flagsync.cohorts.store import TraitChange


class Environment(NamedTuple):
    """Which part of the log an environment has claimed: what changed up to its cursor.

    Members that left before it began are not on its log.
    """

    number: int
    cursor: int
    began: int


class Entry(NamedTuple):
    """A claimed entry, and whether it is about a member now."""

    position: int
    cohort: int
    identifier: str
    is_member: bool
    is_unsure: bool
    tries: int


class Unsettled(NamedTuple):
    """The claimed entries: how many there are, the position of the first, and when the next one is due."""

    entries: int
    first: int | None
    due_in_seconds: float


class Cohorts(SessionTables, CohortTable, Protocol):
    """The tables that all environments share."""


class LogTables(Protocol):
    """The tables of a store, as the log of one environment uses them.

    Outside a transaction, as in ``LogDatabase.read``, two queries may see different states.
    """

    @property
    def cohorts(self) -> Cohorts:
        """The tables that all environments share."""

    def start(self) -> None:
        """Start the log, with all current members as the first entries. Does nothing the second time."""

    def restart(self) -> None:
        """Start the log again, with all current and former members."""

    def environment(self) -> Environment | None:
        """Return the environment, if its log was started."""

    def own_environment(self) -> Environment | None:
        """Return it if its log was started, and no other process has the lease. Nobody else changes it meanwhile."""

    def position(self) -> int:
        """Return the position of the last change."""

    def is_swept(self) -> bool:
        """Return whether there is nothing to sweep."""

    def first_unclaimed(self, environment: Environment) -> int | None:
        """Return the position of the first entry that is not claimed; None if there is none."""

    def count_unclaimed(self, environment: Environment) -> int:
        """Return how many entries are not claimed."""

    def unsettled(self, environment: Environment) -> Unsettled:
        """Return what is claimed."""

    def last_to_look_at(self, environment: Environment, rows: int) -> int | None:
        """Return the position that is ``rows`` members behind the first one after the cursor; None if fewer are."""

    def claim_up_to(self, environment: Environment, last: int) -> None:
        """Give all entries up to a position a row, and move the cursor there.

        An entry that had a row is due at once. It is unsure if it was, or if it was postponed and not due.
        """

    def due(self, environment: Environment, limit: int) -> list[Entry]:
        """Return the first due changes that were not tried before."""

    def due_again(self, environment: Environment) -> list[Entry]:
        """Return the due change that was tried before and has waited longest, if there is one."""

    def mark_unsure(self, environment: Environment, positions: Sequence[int]) -> None:
        """Mark claimed entries as unsure."""

    def settle(self, environment: Environment, positions: Sequence[int]) -> None:
        """Delete the rows of claimed entries."""

    def postpone(self, environment: Environment, changes: Collection[TraitChange], seconds: float) -> None:
        """Keep claimed entries as given, and due after some time; at once after 0.0."""


class LogDatabase(Protocol):
    """Begins transactions, for the log of one environment. They raise ``StoreUnavailableError``."""

    def read(self) -> AbstractContextManager[LogTables]:
        """Begin to read."""

    def write(self) -> AbstractContextManager[LogTables]:
        """Begin a transaction that is committed at the end."""


class Lease(Protocol):
    """The right to claim the entries of one environment.

    Attributes:
        seconds: As ``lease_seconds`` of a ``ChangeLog``.
    """

    seconds: float

    def try_acquire(self) -> bool:
        """Acquire or renew it if no other process holds it; return whether this process holds it."""

    def release(self) -> None:
        """Release it. Does nothing without it."""
