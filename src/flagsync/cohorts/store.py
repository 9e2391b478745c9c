"""Who is in which cohort: the contracts of a store, one for each of its callers.

Guarantee: a store that passes ``flagsync.testing.contracts.MembershipStoreContract`` keeps them. Boundary: a store
knows neither HTTP nor Flagsmith.
"""

from collections.abc import Collection, Mapping
from typing import NamedTuple, Protocol, runtime_checkable

from flagsync.cohorts.update import CohortUpdate


class TraitChange(NamedTuple):
    """A trait that Flagsmith is to store for an identity.

    Attributes:
        identifier: The identifier of the identity.
        trait_key: The key of the cohort's trait.
        value: Whether the identity is a member now.
        position: The position of its entry on the change log.
        is_unsure: Whether an earlier request with it may still be under way, and arrive after the next one.
        tries: How often it was tried alone and failed.
    """

    identifier: str
    trait_key: str
    value: bool
    position: int = 0
    is_unsure: bool = False
    tries: int = 0


class LogState(NamedTuple):
    """The state of a change log at one moment.

    Attributes:
        first: Position of the first entry that is not settled; None if there is none.
        last: The last position that was given; 0 if none was.
        is_complete: Whether the log has every entry it should have: it was started, and ``sweep`` has nothing to do.
        due_in_seconds: How long until an entry can be claimed: 0.0 if one can be claimed now, ``inf`` if there is none.
    """

    first: int | None
    last: int
    is_complete: bool
    due_in_seconds: float


@runtime_checkable
class MembershipSink(Protocol):
    """A store as the webhook sees it. Any thread and any process may call."""

    def apply(self, update: CohortUpdate) -> None:
        """Store one call of the webhook, durably and as a whole, before returning.

        An unknown cohort is created. ``add_members`` and ``remove_members`` are differences, and may arrive twice.
        ``members`` is one page of a session, which replaces the cohort:

        - Whoever is on a page is a member from then on.
        - Whoever is on no page leaves when all pages have arrived, unless added since the session began.
        - Pages arrive in any order, more than once, and between those of other sessions. When a session is complete,
          those that began before it are over, and their further pages are ignored.
        - A page that contradicts its session, by another number of pages or by other members than before, starts the
          session over.
        - A session that has members, none of them usable, replaces nothing.
        - A page without a session is a whole session of its own.

        Raises:
            StoreUnavailableError: Nothing was stored, and the same call may succeed later.
        """


@runtime_checkable
class MembershipReader(Protocol):
    """A store as evaluations see it. One thread of each process calls."""

    def version(self) -> object:
        """Return a value that differs from all former ones after each change of the store.

        Called before ``traits_of``, whose result is used until the version changes.

        Raises:
            StoreUnavailableError: The store cannot be read now.
        """

    def traits_of(self, identifiers: Collection[str]) -> Mapping[str, Mapping[str, bool]]:
        """Return the traits of identities: identifier -> trait key of every cohort -> whether it is a member.

        Every identifier has an entry, and each entry has every cohort, also those that the identity is not in. An
        unknown identity is in no cohort. An evaluation waits for this call, up to a bound.

        Raises:
            StoreUnavailableError: The store cannot be read now.
        """


class ChangeLog(Protocol):
    """The changes that one environment of Flagsmith has not received, or may not have received.

    Each identity and cohort has one entry at most: its last change. One thread of each process claims. Each method may
    raise ``StoreUnavailableError`` if the same call may succeed later.

    Attributes:
        lease_seconds: How long a process may write after it acquired the lease. Nobody else acquires it meanwhile,
            unless it is released. 0.0 if the lease does not end before the process does.
    """

    @property
    def lease_seconds(self) -> float:
        """See above."""

    def start(self) -> None:
        """Start the log, with all current members as the first entries. Does nothing the second time."""

    def restart(self) -> None:
        """Start the log again, with all current and former members. Any thread may call."""

    def sweep(self) -> bool:
        """Log some of those who left when a whole cohort was replaced; return whether there may be more."""

    def state(self) -> LogState:
        """Return where the log begins and ends. Changes nothing.

        Positions rise in the order in which changes can be seen. They are not consecutive, and each is given only once.
        """

    def pending(self) -> int:
        """Return how many entries are not settled, whoever claims them. Any thread may call."""

    def try_acquire_lease(self) -> bool:
        """Acquire the lease if no other process holds it; return whether this process holds it.

        Called before each claim, which renews it. Each environment has a lease of its own, which ends with its process
        or after ``lease_seconds``, and when the store is replaced. A process whose lease has ended may not know that
        until it tries again.
        """

    def release_lease(self) -> None:
        """Release the lease, so that another process can claim entries. Does nothing without the lease."""

    def claim(self, limit: int) -> list[TraitChange]:
        """Return the first entries as they are now, in their order, at most ``limit``; none without the lease.

        A change that was tried before comes alone. While such changes and others can be claimed, they come in turn. A
        claimed change stays on the log, and can be claimed again at once, but is unsure until it is settled or
        postponed: the process that has claimed it may have died while sending it. Entries of cohorts that are left out
        are removed.
        """

    def settle(self, changes: Collection[TraitChange]) -> None:
        """Take claimed changes off the log: those that Flagsmith has accepted, or will never accept.

        An entry whose position has changed meanwhile stays, and so does everything that another process may have
        claimed after the lease of this one had ended.
        """

    def postpone(self, changes: Collection[TraitChange], seconds: float) -> None:
        """Keep claimed changes as given, with their ``is_unsure`` and ``tries``, to be claimed after some time.

        A further change of the same identity and cohort can be claimed at once; it is unsure until then.
        """


@runtime_checkable
class ChangeLogs(Protocol):
    """A store as the trait writer sees it: it keeps a change log for each environment of Flagsmith."""

    def change_log(self, environment: str) -> ChangeLog:
        """Return the log of an environment, which is named by an arbitrary text.

        A log that nobody reads any more costs nothing.
        """


class MembershipStore(MembershipSink, MembershipReader, ChangeLogs, Protocol):
    """A store in all three roles."""
