"""Lets a Flagsmith client with events enabled record its own exposure.

Guarantee: the Flagsmith client decides what it records (flagsmith 6.3), and nothing is evaluated twice.
"""

from flagsmith import Flagsmith
from flagsmith.models import DefaultFlag, Flag, Flags
from flagsmith.types import TraitMapping


def experiment_flag(
    flagsmith: Flagsmith, flags: Flags, feature_name: str, identifier: str, traits: TraitMapping | None
) -> Flag | DefaultFlag:
    """Return a flag of an identity; the Flagsmith client records the exposure if its events are enabled."""
    if getattr(flagsmith, "_event_processor", None) is None:
        return flags.get_flag(feature_name)
    # A class that only passes calls on to a Flagsmith client does not have the method itself.
    record = getattr(type(flagsmith), "get_experiment_flag", Flagsmith.get_experiment_flag)
    return record(_Evaluated(flagsmith, flags), feature_name, identifier, traits)  # type: ignore[arg-type]


class _Evaluated:
    """A Flagsmith client that has already evaluated an identity."""

    def __init__(self, flagsmith: Flagsmith, flags: Flags) -> None:
        self._flagsmith, self._flags = flagsmith, flags

    def get_identity_flags(self, *_: object) -> Flags:
        return self._flags

    def __getattr__(self, name: str) -> object:
        return getattr(self._flagsmith, name)
