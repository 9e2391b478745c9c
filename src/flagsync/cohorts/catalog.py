"""The known cohorts of a store and their traits, read again only after a change.

Guarantee: the application's filter is called without a lock and outside of transactions. Boundary: ``keys`` chooses the
keys of traits.
"""

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from flagsync.cohorts.keys import Cohort, KnownCohort, TraitKeys


class CohortTable(Protocol):
    """The cohorts of a store, in one transaction."""

    def version(self) -> int:
        """Return the version of the store."""

    def known(self) -> list[KnownCohort]:
        """Return the known cohorts."""


class _Known(NamedTuple):
    version: int | None
    cohorts: list[KnownCohort]


class CohortCatalog:
    """The cohorts of a store.

    Args:
        keys: Which cohorts are included, and what their traits are called.
    """

    def __init__(self, keys: TraitKeys) -> None:
        self._keys = keys
        # Each attribute is replaced as a whole, so that threads need no lock.
        self._known = _Known(None, [])
        self._included: tuple[_Known, Mapping[int, Cohort]] = (self._known, {})

    def includes(self, cohort_id: str, name: str) -> bool:
        """Return whether a cohort is included, as the application says."""
        return bool(self._keys.includes(cohort_id, name))

    def refresh(self, table: CohortTable) -> None:
        """Read the known cohorts, if they may have changed. Call it after reading what refers to them."""
        version = table.version()
        if version != self._known.version:
            self._known = _Known(version, table.known())

    def included(self) -> Mapping[int, Cohort]:
        """Return the included cohorts by number, in the order in which they were first seen."""
        known, included = self._included
        if known is not self._known:
            known = self._known
            self._included = known, (included := self._keys.of(known.cohorts))
        return included
