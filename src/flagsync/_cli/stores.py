"""Opens the outbox that a command names, by the path of a file or the URL of a server.

Guarantee: a file that is not there is not made, and reading changes nothing: neither the messages nor who sends them.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Annotated, NamedTuple

import typer

from flagsync._cli.failure import MISUSED, WRONG, Failure
from flagsync._outbox.backend import Backend, Status, StoreTotals
from flagsync._outbox.contract import Destination, Limits, Message
from flagsync._outbox.options import StoreBounds
from flagsync._outbox.place import absolute, open_backend, totals
from flagsync._report import described

ALL = 10**12  # more messages, and more bytes, than any store has
Place = Annotated[
    str,
    typer.Argument(
        metavar="PATH_OR_URL",
        envvar="FLAGSYNC_OUTBOX",
        show_default=False,
        help="The outbox: the path of a file, or the URL of a Redis or PostgreSQL server.",
    ),
]


class Store(NamedTuple):
    """An outbox that is there.

    Attributes:
        backend: Its backend.
        totals: What became of its messages so far.
        status: Its state when it was opened.
    """

    backend: Backend
    totals: StoreTotals
    status: Status

    def again(self) -> "Store":
        """Return its state now."""
        with _failing():
            return Store(self.backend, self.backend.totals(), self.backend.status(()))

    def waiting(self, most: int = ALL) -> Iterator[Sequence[Message]]:
        """Return what waits for each destination, at most so many messages of each, oldest first.

        ``claim`` only reads. Nothing of it is settled, and this process does not acquire the lease.
        """
        limits, seen = Limits(max_batch_messages=most, max_batch_bytes=ALL), set[Destination]()
        while True:
            with _failing():
                batch = self.backend.claim(seen, limits)
            if not batch:
                return
            seen.add(batch[0].destination)
            yield batch


@contextmanager
def opened(place: str) -> Iterator[Store]:
    """Open an outbox.

    Raises:
        Failure: It cannot be used: the name is wrong, or the store fails.
    """
    with _failing():
        found = totals(place)  # before the backend, which would make a file
        backend = open_backend(f"{absolute(place)}", StoreBounds())
    try:
        with _failing():
            store = Store(backend, found, backend.status(()))
        yield store
    finally:
        with suppress(Exception):  # a server that is away keeps nothing of this process
            backend.close()


def shown_url(url: str) -> str:
    """Return a URL, or ``user:password@host:port``, without what may be a secret: the user and the query.

    It need not be a valid one.
    """
    scheme, separator, rest = url.rpartition("://")
    place, *query = re.split("[?#]", rest, maxsplit=1)
    place = "…" if "@" in "".join(query) else place.rpartition("@")[2]  # a password may have any character
    return f"{scheme}{separator}{place}"


@contextmanager
def _failing() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise Failure(
            f"outbox: there is no file {error.filename!r}; a client creates it on first use"
        ) from error
    except (ValueError, ImportError) as error:
        raise Failure(f"{error}", MISUSED) from error
    except Exception as error:  # a store may raise anything
        raise Failure(f"outbox: it cannot be used now ({described(error)})", WRONG) from error
