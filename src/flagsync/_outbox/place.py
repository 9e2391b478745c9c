"""The store that an ``outbox`` option names: a file, the URL of a server, or a backend.

Guarantee: what cannot be used is an error when the client is built; a server that does not answer is none, since an
application must start without it.
"""

import os
import re
from contextlib import closing
from importlib import import_module
from types import ModuleType
from typing import Protocol, TypeGuard, runtime_checkable
from weakref import WeakValueDictionary

from flagsync._outbox.backend import Backend, StoreTotals
from flagsync._outbox.options import StoreBounds
from flagsync._rules import is_instance_of, require, shown
from flagsync._stats import Stats, exposure_stats_of, stats_of

Place = str | os.PathLike[str] | Backend
PLACES = "the path of a file, the URL of a Redis or PostgreSQL server, or a backend of flagsync.outboxes"

# Scheme of a URL -> the module that opens such stores, and needs an extra.
SERVERS = {
    **dict.fromkeys(("redis", "rediss", "valkey", "valkeys", "unix"), "flagsync._outbox.redis"),
    **dict.fromkeys(("postgresql", "postgres"), "flagsync._outbox.postgres"),
}
URL = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)


class User(Protocol):
    """What uses a backend, and keeps it alive."""

    @property
    def is_closed(self) -> bool:
        """Whether it uses the backend no more."""


# By the identity of the backend, which may have no hash. A user keeps its backend, so that no other one gets that.
_users = WeakValueDictionary[int, User]()


@runtime_checkable
class Checked(Protocol):
    """A backend that knows without a server whether it can be used."""

    def check(self) -> None:
        """Raise ``ValueError`` if not."""


def absolute(place: Place | None) -> Place | None:
    """Return a path as an absolute one, wherever the process goes from here, and anything else as it is."""
    is_file = isinstance(place, os.PathLike) or (isinstance(place, str) and not URL.match(place))
    return os.path.realpath(os.fsdecode(place)) if is_file else place  # type: ignore[arg-type]


def check(place: Place | None) -> None:
    """Check what can be checked without a server: a file is created, or the one that is there is checked.

    Raises:
        ValueError: The place cannot be used.
        ImportError: The extra is not installed.
    """
    if isinstance(place, str):
        _module(place).check(place)
    elif isinstance(place, Checked):
        place.check()


def is_place(value: object) -> TypeGuard[Place]:
    """Return whether something is of a type that names a store."""
    return isinstance(value, (str, os.PathLike)) or is_instance_of(value, Backend)


def check_unused(place: Place | None) -> None:
    """Check that no other client uses a backend: two would send at the same time, and count each other's messages.

    Raises:
        ValueError: One does.
    """
    user = _users.get(id(place))
    is_used = user is not None and not user.is_closed
    require(
        {"outbox: another client uses this backend; make one for each client, which may be equal": not is_used}
    )


def note_user(place: Place | None, user: User) -> None:
    """Note who uses a backend from now on."""
    if isinstance(place, Backend):
        _users[id(place)] = user


def open_backend(place: Place, bounds: StoreBounds) -> Backend:
    """Return the backend at a place that was checked."""
    backend: Backend = _module(place).open_backend(place, bounds) if isinstance(place, str) else place  # type: ignore[assignment]
    return backend


def totals(place: Place) -> StoreTotals:
    """Return what became of all messages ever stored at a place."""
    require({f"outbox must be {PLACES}, not {shown(place)}": is_place(place)})
    place = os.fsdecode(place) if isinstance(place, os.PathLike) else place
    if not isinstance(place, str):
        return place.totals()
    if not URL.match(place):
        found: StoreTotals = _module(place).totals(place)  # which makes no file
        return found
    with closing(open_backend(place, StoreBounds())) as backend:
        return backend.totals()


def outbox_stats(outbox: Place) -> Stats:
    """Return what became of all updates ever put into an outbox, by any process.

    ``requests``, ``retries`` and ``skipped`` stay 0, and ``last_success_at`` and ``last_error`` None: each process has
    its own, outside the outbox.

    Args:
        outbox: What the client got as its ``outbox``: a path, a URL or a backend.

    Raises:
        FileNotFoundError: There is no file.
        ValueError: The path does not lead to an outbox file, the URL is malformed, or it is something else.
        OSError: The server does not answer.
    """
    return stats_of_totals(totals(outbox))


def stats_of_totals(found: StoreTotals) -> Stats:
    """Return what became of all updates, of what became of all messages."""
    events, calls = found.events, found.every.without(found.events)
    exposures = exposure_stats_of({**events._asdict(), "skipped": 0}, events.accepted)
    counts = {**calls._asdict(), "skipped": 0}
    return stats_of(counts, calls.accepted, exposures=exposures, oldest_seconds=found.oldest_seconds)


def _module(place: str) -> ModuleType:
    """Return the module that opens a place. Only clients with such a store import it, and what it needs."""
    if (url := URL.match(place)) is None:
        return import_module("flagsync._outbox.file")
    if (scheme := url[1].lower()) not in SERVERS:
        accepted = ", ".join(f"{scheme}://" for scheme in SERVERS)
        raise ValueError(
            f"outbox: '{scheme}://…' is not supported; it takes the path of a file, or a URL with {accepted}"
        )
    return import_module(SERVERS[scheme])
