"""Who is in which cohort: what a store does for each of its callers.

Guarantee: what the docstrings say, for every store that passes ``flagsync.testing.MembershipStoreContract``.
Boundary: neither HTTP nor Flagsmith.
"""

from collections.abc import Collection, Mapping
from typing import NamedTuple, Protocol, runtime_checkable

from flagsync.cohorts.update import CohortUpdate


class TraitChange(NamedTuple):
    """What Flagsmith is to store of an identity.

    Attributes:
        identifier: Of the identity.
        trait_key: Of the cohort's trait.
        value: Whether the identity is a member now.
        positions: Of the entries on the change log that this settles, in rising order.
    """

    identifier: str
    trait_key: str
    value: bool
    positions: tuple[int, ...] = ()


class LogState(NamedTuple):
    """The state of a change log at one moment.

    Attributes:
        first: Position of the first entry; None if there is none.
        last: Position of the last entry; 0 if there is none.
        is_complete: Whether everything is on the log that belongs there: it was started, and ``sweep`` has nothing
            to do.
        is_unsure: Whether changes that were claimed may still be on their way to Flagsmith.
    """

    first: int | None
    last: int
    is_complete: bool
    is_unsure: bool


@runtime_checkable
class MembershipSink(Protocol):
    """A store as the webhook sees it. Any thread and any process may call."""

    def apply(self, update: CohortUpdate) -> None:
        """Store one call of the webhook, durably and as a whole, before returning.

        A cohort that is not known yet is made. ``add_members`` and ``remove_members`` are differences, and may come
        twice. ``members`` is one page of a session, which replaces the cohort:

        - Whoever is on a page is a member from then on.
        - Whoever is on no page leaves when all pages have come, unless added since the session began.
        - Pages come in any order, more than once, and between those of other sessions. Of two sessions, the one that
          began first is over when the other one is complete, and its further pages mean nothing.
        - A page that contradicts its session, by another number of pages or by other members than before, starts the
          session over.
        - A session of which no member at all is usable replaces nothing.
        - A page without a session is a whole session of its own.

        Raises:
            StoreUnavailableError: Nothing was stored, and the same call may succeed later.
        """


@runtime_checkable
class MembershipReader(Protocol):
    """A store as evaluations see it. One thread of each process calls."""

    def version(self) -> object:
        """Return a value that is unequal to all former ones after each change of the store.

        Called before ``traits_of``, whose result is used until the version changes.

        Raises:
            StoreUnavailableError: The store cannot be read now.
        """

    def traits_of(self, identifiers: Collection[str]) -> Mapping[str, Mapping[str, bool]]:
        """Return the traits of identities: identifier -> trait key of every cohort -> whether it is a member.

        Every identifier has an entry, and each entry has every cohort, also those that the identity is not in. An
        identity that nobody has heard of is in no cohort. How many seconds this takes is the time that an evaluation
        waits, up to a bound.

        Raises:
            StoreUnavailableError: The store cannot be read now.
        """


@runtime_checkable
class ChangeLog(Protocol):
    """A store as the trait writer sees it: the list of memberships that changed.

    One thread of each process calls. Each method may raise ``StoreUnavailableError`` for what may work later.
    """

    def start_log(self) -> None:
        """Have changes logged from now on, beginning with all present members. Does nothing the second time."""

    def sweep(self) -> bool:
        """Put some entries on the log that were too many to be put there at once; return whether there may be more.

        These are the present members after ``start_log``, and those who left when a whole cohort was replaced.
        """

    def log_state(self) -> LogState:
        """Return where the log begins and ends. Changes nothing.

        Positions rise in the order in which changes can be seen. They are not consecutive, and are given once only.
        """

    def pending(self) -> int:
        """Return how many entries the log has, whoever claims them."""

    def try_acquire_lease(self) -> bool:
        """Become the process that claims changes, if no other one is; return whether this process is the one.

        Called before each claim. The lease ends with its process, or when the store is another one. It is not
        promised that a process whose lease has ended is told before it tries again.
        """

    def release_lease(self) -> None:
        """Let another process claim changes. Does nothing without the lease."""

    def claim(self, limit: int) -> list[TraitChange]:
        """Return what the first entries of the log say now, in their order; an empty list without the lease.

        At most ``limit`` entries are looked at. Entries of one identity and cohort are one change. They stay on the
        log until they are settled, and the log is unsure until then. Entries of cohorts that are left out are removed.
        """

    def settle(self, changes: Collection[TraitChange], *, sure: bool) -> None:
        """Take the entries of changes off the log.

        Args:
            changes: Claimed ones that Flagsmith has accepted or will never accept.
            sure: Whether nothing that was claimed is on its way any more. If not, the log stays unsure.
        """


class MembershipStore(MembershipSink, MembershipReader, ChangeLog, Protocol):
    """A store in all three roles."""
