"""What a sender gets from an outbox in PostgreSQL."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from flagsync._clock import monotonic
from flagsync._outbox.batch import fitting
from flagsync._outbox.contract import Destination, Limits, Message
from flagsync._outbox.postgres import schema as sql
from flagsync._outbox.postgres.rows import as_text, destination_of
from flagsync._postgres.database import EmptyError, Transaction


class Turn(NamedTuple):
    """A destination whose turn it is.

    Attributes:
        store: The number of the store.
        number: The number of the destination.
        url, project: The destination.
        first_version: No message with a lower version waits.
    """

    store: int
    number: int
    url: bytes
    project: bytes
    first_version: int

    @property
    def destination(self) -> Destination:
        """The destination."""
        return destination_of(self.url, self.project)


def turns(transaction: Transaction, last_number: int) -> Iterator[Turn]:
    """Return the destinations for which messages wait, beginning behind the one that came last."""
    return map(Turn._make, transaction.rows(sql.IN_TURN, last_number))


def claim(transaction: Transaction, turn: Turn, limits: Limits, boot: int) -> Sequence[Message]:
    """Return the oldest messages of a destination that fit into one request.

    They have the time of their first evaluation, on the clock of this host.

    Args:
        transaction: A transaction.
        turn: The destination.
        limits: Bounds of the request, which is all that the server sends.
        boot: The number of this host's boot.
    """
    where = turn.number, turn.first_version
    if not (fits := transaction.rows(sql.FITTING, *where, limits.max_batch_messages, limits.max_batch_bytes)):
        return []
    rows = transaction.rows(sql.CLAIM, *where, fits[0][0])
    clock, destination = monotonic(), turn.destination
    digests = {tail for *_, tail in rows} - {b""}
    tails = {b"": b"", **(dict(transaction.rows(sql.TAILS, [*digests])) if digests else {})}
    if not tails.keys() >= digests:
        raise EmptyError("outbox_tails")
    messages = (
        Message(
            as_text(key),
            fingerprint,
            body,
            evaluated_at if its_boot == boot else clock - age,
            destination,
            resend_after_seconds,
            tail=tails[tail],
            replaces=replaces,
            version=version,
        )
        for key, fingerprint, body, its_boot, evaluated_at, age, resend_after_seconds, replaces, version, tail in rows
    )
    return fitting(messages, limits)
