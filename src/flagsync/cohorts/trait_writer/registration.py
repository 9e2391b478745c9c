"""Allows one writer for each environment of a store in a process."""

from flagsync._process import PerProcess
from flagsync._rules import require
from flagsync.cohorts.store import ChangeLogs

ONE_WRITER = "a store can have only one TraitWriter for an environment at a time: close the other one"


class Registration:
    """Notes that a store has a writer for an environment in this process. Stores are compared by identity."""

    def __init__(self, store: ChangeLogs, environment: str) -> None:
        self.store, self.environment = store, environment

    def is_about_the_same(self, other: "Registration") -> bool:
        """Return whether another one is for the same store and environment."""
        return self.store is other.store and self.environment == other.environment

    def end(self) -> None:
        """Let the store have another writer for the environment."""
        _registered.get().remove(self)


_registered: PerProcess[list[Registration]] = PerProcess(lambda _: [])


def register(store: ChangeLogs, environment: str) -> Registration:
    """Raise ``ValueError`` if a store has a writer for an environment already."""
    own, registered = Registration(store, environment), _registered.get()
    registered.append(own)  # before looking, so that at most one of two threads succeeds
    is_first = next(other for other in [*registered] if own.is_about_the_same(other)) is own
    if not is_first:
        own.end()
    require({ONE_WRITER: is_first})
    return own
