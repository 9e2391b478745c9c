"""Cohorts -> trait keys; pure.

Guarantee: each cohort has a key of its own, which stays when the cohort is renamed in Mixpanel. Boundary: the store
knows which cohorts exist.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain, count
from typing import NamedTuple

from flagsync._rules import call_fault, require, shown

PREFIX, MAX_KEY = "mixpanel_cohort_", 200  # Flagsmith's limit, in characters


class KnownCohort(NamedTuple):
    """What a store knows of a cohort.

    Attributes:
        number: The store's own number, which rises in the order in which cohorts were first seen.
        id: Mixpanel's id.
        first_name: The name when the cohort was first seen.
        name: The name in Mixpanel's last call.
    """

    number: int
    id: str
    first_name: str
    name: str


class Cohort(NamedTuple):
    """A Mixpanel cohort and the Flagsmith trait that tells who is in it.

    Attributes:
        id: Mixpanel's id of the cohort; it never changes.
        name: The name in Mixpanel's last call.
        trait_key: Key of the boolean trait.
    """

    id: str
    name: str
    trait_key: str


class TraitKeys:
    """Which trait belongs to which cohort, and which cohorts are included.

    Args:
        traits: Cohort id, or name when first seen -> trait key.
        includes: (cohort id, name) -> whether the cohort is included. May be called at any time.

    Raises:
        ValueError: An option is invalid; the message says what is accepted.
    """

    def __init__(self, traits: Mapping[str, str], includes: Callable[[str, str], bool]) -> None:
        is_mapping = isinstance(traits, Mapping) and all(isinstance(name, str) for name in traits)
        keys = [*traits.values()] if is_mapping else []
        fault = call_fault(includes, 2)
        is_text = all(isinstance(key, str) and 0 < len(key) <= MAX_KEY for key in keys)
        require(
            {
                f"traits must be a mapping of cohort ids or names, as text, to trait keys, not {shown(traits)}": (
                    is_mapping
                ),
                f"a trait key in traits must be text of 1 to {MAX_KEY} characters, and belong to one cohort": (
                    is_text and len({*keys}) == len(keys)
                ),
                f"takes must be a function of a cohort's id and name, not {fault}": not fault,
            }
        )
        self._traits, self.includes = dict(traits), includes

    def of(self, known: Iterable[KnownCohort]) -> dict[int, Cohort]:
        """Return the included cohorts by number.

        A configured key goes to the cohort with that id, or to the first one that had that name when it was first seen.
        The key of a cohort without a configured one is made from its first name.
        """
        cohorts = sorted(known)
        keys = self._configured_keys(cohorts)
        used = {*keys.values()}
        for cohort in cohorts:
            if cohort.number not in keys:
                candidates = default_keys(cohort.first_name, cohort.id)
                keys[cohort.number] = next(key for key in candidates if key not in used)
                used.add(keys[cohort.number])
        return {c.number: Cohort(c.id, c.name, keys[c.number]) for c in cohorts if self.includes(c.id, c.name)}

    def _configured_keys(self, cohorts: Iterable[KnownCohort]) -> dict[int, str]:
        keys = dict[int, str]()
        for field in ("id", "first_name"):
            for cohort in cohorts:
                key = self._traits.get(getattr(cohort, field))
                if key and cohort.number not in keys and key not in keys.values():
                    keys[cohort.number] = key
        return keys


def default_keys(name: str, cohort_id: str) -> Iterator[str]:
    """Return keys to choose from: ``…_power_users``, ``…_power_users_7``, ``…_power_users_7_2`` and so on."""
    slug = re.sub(r"\W+", "_", name.casefold()).strip("_")
    suffixes = chain(["", f"_{cohort_id}"], (f"_{cohort_id}_{number}" for number in count(2)))
    return (f"{PREFIX}{slug or cohort_id}"[: MAX_KEY - len(suffix)] + suffix for suffix in suffixes)
