"""Calls of the webhook about the cohort 7, "vips", and what a store makes of them."""

from collections.abc import Iterator
from typing import Protocol

from flagsync.cohorts import ChangeLog, CohortUpdate, MembershipSink

KEY = "mixpanel_cohort_vips"


class Listing(MembershipSink, Protocol):
    """A store that lists the members of a cohort."""

    def members(self, cohort_id: str) -> Iterator[str]:
        """Return the identifiers in a cohort."""


def add(*members: str, cohort: str = "7", name: str = "vips") -> CohortUpdate:
    return CohortUpdate("add_members", cohort, name, members=members)


def remove(*members: str) -> CohortUpdate:
    return CohortUpdate("remove_members", "7", "vips", members=members)


def page(session: str, number: int, pages: int, *members: str, skipped: int = 0) -> CohortUpdate:
    return CohortUpdate("members", "7", "vips", session, number, pages, members, skipped)


def after(store: Listing, *updates: CohortUpdate) -> list[str]:
    """Return the members after some calls."""
    for update in updates:
        store.apply(update)
    return [*store.members("7")]


def drain(log: ChangeLog, limit: int = 1000) -> list[tuple[str, bool]]:
    """Take all changes off a log; return what they say."""
    written = []
    log.start()
    while log.sweep() or log.state().first is not None:
        assert log.try_acquire_lease()
        changes = log.claim(limit)
        written += [(change.identifier, change.value) for change in changes]
        log.settle(changes)
    return written
