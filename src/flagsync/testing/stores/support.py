"""What the tests of the contract share: calls of the webhook, and what follows from them."""

# ruff: noqa: D103, S101 - it consists of tests, whose names say what they are for
from typing import Protocol

from flagsync.cohorts import ChangeLog, ChangeLogs, CohortUpdate, MembershipReader, MembershipSink, TraitChange

PEOPLE = ("ann", "bob", "eve", "new", "old", "zoe")


class Memberships(MembershipSink, MembershipReader, Protocol):
    """A store that the webhook writes to and evaluations read."""


def add(*members: str, cohort: str = "7", name: str = "vips") -> CohortUpdate:
    return CohortUpdate("add_members", cohort, name, members=members)


def remove(*members: str) -> CohortUpdate:
    return CohortUpdate("remove_members", "7", "vips", members=members)


def page(session: str, number: int, pages: int, *members: str, skipped: int = 0) -> CohortUpdate:
    return CohortUpdate("members", "7", "vips", session, number, pages, members, skipped)


def members_after(store: Memberships, *updates: CohortUpdate) -> list[str]:
    """Return who is in any cohort after some calls, of those that the tests know."""
    for update in updates:
        store.apply(update)
    return [who for who, traits in sorted(store.traits_of(PEOPLE).items()) if any(traits.values())]


def keys_of(store: Memberships) -> set[str]:
    return {*store.traits_of(["nobody"])["nobody"]}


def started(store: ChangeLogs, environment: str = "production") -> ChangeLog:
    """Return the log of an environment, started and swept."""
    change_log = store.change_log(environment)
    change_log.start()
    while change_log.sweep():
        pass
    return change_log


def claim(change_log: ChangeLog, limit: int = 1000) -> list[TraitChange]:
    assert change_log.try_acquire_lease()
    return change_log.claim(limit)


def drained(change_log: ChangeLog) -> dict[str, bool]:
    """Settle all changes on the log; return the last value of each identity."""
    written = dict[str, bool]()
    while change_log.sweep() or change_log.state().first is not None:
        changes = claim(change_log)
        written |= {change.identifier: change.value for change in changes}
        change_log.settle(changes)
    return written
