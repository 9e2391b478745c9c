"""Cohorts -> trait keys; pure.

Guarantee: each cohort has a key of its own, which stays when the cohort is renamed in Mixpanel.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain, count
from typing import NamedTuple

from flagsync._config import require

PREFIX, MAX_KEY = "mixpanel_cohort_", 200  # Flagsmith's limit, in characters


class Known(NamedTuple):
    """What a store knows of a cohort: ``number`` tells the order of first sight."""

    number: int
    id: str
    first_name: str
    name: str


class Cohort(NamedTuple):
    """A Mixpanel cohort and the Flagsmith trait that tells who is in it.

    Attributes:
        id: Stable.
        name: As it was in Mixpanel's last call.
        trait_key: Of a boolean trait.
    """

    id: str
    name: str
    trait_key: str


class TraitKeys:
    """Which trait belongs to which cohort, and which cohorts are taken."""

    def __init__(self, traits: Mapping[str, str], takes: Callable[[str, str], bool]) -> None:
        mapping = isinstance(traits, Mapping) and all(isinstance(name, str) for name in traits)
        keys = [*traits.values()] if mapping else []
        require(
            {
                "traits is a mapping of cohort ids or names, as text, to trait keys": mapping,
                f"a trait key in traits is text of 1 to {MAX_KEY} characters, and of one cohort": (
                    all(isinstance(key, str) and 0 < len(key) <= MAX_KEY for key in keys)
                    and len({*keys}) == len(keys)
                ),
                "takes is a function of a cohort's id and name": callable(takes),
            }
        )
        self._traits, self.takes = dict(traits), takes

    def of(self, known: Iterable[Known]) -> dict[int, Cohort]:
        """The cohorts that are taken, by number.

        A configured key goes to the cohort with that id, or to the first one that had that name when it was
        first seen. What has none is called after its name at first sight.
        """
        cohorts, keys, used = sorted(known), dict[int, str](), set[str]()
        for field in ("id", "first_name"):
            for cohort in cohorts:
                key = self._traits.get(getattr(cohort, field))
                if key and cohort.number not in keys and key not in used:
                    keys[cohort.number] = key
                    used.add(key)
        for cohort in cohorts:
            if cohort.number not in keys:
                candidates = default_keys(cohort.first_name, cohort.id)
                keys[cohort.number] = next(key for key in candidates if key not in used)
                used.add(keys[cohort.number])
        return {c.number: Cohort(c.id, c.name, keys[c.number]) for c in cohorts if self.takes(c.id, c.name)}


def default_keys(name: str, cohort_id: str) -> Iterator[str]:
    """``Power users!`` with the id 7: ``…_power_users``, or ``…_power_users_7``, or with another number."""
    slug = re.sub(r"\W+", "_", name.casefold()).strip("_")
    suffixes = chain(["", f"_{cohort_id}"], (f"_{cohort_id}_{number}" for number in count(2)))
    return (f"{PREFIX}{slug or cohort_id}"[: MAX_KEY - len(suffix)] + suffix for suffix in suffixes)
