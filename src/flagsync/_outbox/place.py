"""The store that an ``outbox`` option names: a file, the URL of a server, or a backend.

Guarantee: what cannot be used is an error when the client is built; a server that does not answer is none, since an
application must start without it.
"""

import os
import re
from contextlib import closing
from importlib import import_module
from types import ModuleType

from flagsync._outbox.backend import Backend, StoreTotals
from flagsync._outbox.options import StoreBounds
from flagsync._stats import Stats, exposure_stats_of, stats_of

Place = str | os.PathLike[str] | Backend

# Scheme of a URL -> the module that opens such stores, and needs an extra.
SERVERS = {
    **dict.fromkeys(("redis", "rediss", "valkey", "valkeys", "unix"), "flagsync._outbox.redis"),
    **dict.fromkeys(("postgresql", "postgres"), "flagsync._outbox.postgres"),
}
URL = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)


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


def open_backend(place: Place, bounds: StoreBounds) -> Backend:
    """Return the backend at a place that was checked."""
    backend: Backend = _module(place).open_backend(place, bounds) if isinstance(place, str) else place  # type: ignore[assignment]
    return backend


def totals(place: Place) -> StoreTotals:
    """Return what became of all messages ever stored at a place."""
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
        ValueError: The path does not lead to an outbox file, or the URL is malformed.
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
