"""The backend on a PostgreSQL server, shared by processes of any hosts.

Guarantee: what a call has stored survives its process, and the server if that keeps what it has committed. A call
returns within a few seconds, whatever the server does. The server's clock decides how long things last; the clock of a
host is compared with no other one. Boundary: a server whose clock jumps may end a lease early; a replica that takes
over has only what was replicated.
"""

import secrets
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from math import inf
from typing import NamedTuple, TypeVar
from uuid import uuid4

from flagsync._clock import monotonic
from flagsync._outbox.backend import LONG_AGO, Status, StoreTotals, totals_of, waited_seconds
from flagsync._outbox.boot import boot_number
from flagsync._outbox.contract import Absences, Destination, Limits, Message, Repeat
from flagsync._outbox.options import StoreBounds, checked
from flagsync._outbox.postgres import schema as sql
from flagsync._outbox.postgres.change import NEVER, Change, Process
from flagsync._outbox.postgres.claims import claim, turns
from flagsync._outbox.postgres.rows import destination_of
from flagsync._postgres.database import Database, EmptyError
from flagsync._postgres.places import Pool
from flagsync._process import PerProcess

T = TypeVar("T")


class PostgresBackend:
    """Keeps messages in a PostgreSQL database; see ``Backend``.

    Args:
        place: A connection string or URL, or a pool of the application: anything with a context manager
            ``connection()`` that lends a connection of psycopg 3. It is never closed.
        schema: The schema with the tables, which are made when they are needed.
        bounds: How large they get.

    Raises:
        ValueError: The connection string, the pool, the schema or the bounds cannot be used.
    """

    def __init__(
        self,
        place: str | Pool,
        schema: str = "flagsync",
        *,
        bounds: StoreBounds = StoreBounds(),  # noqa: B008 - it is frozen
    ) -> None:
        self._bounds = checked(bounds)
        self.lease_seconds = bounds.lease_seconds
        self._database = Database(place, sql.OUTBOX, schema, bounds.call_seconds)
        self._process = PerProcess[Process](_new_process)
        self._claimed = _Claimed()
        self._pruned_at, self._pruned_up_to = -LONG_AGO, b""
        self._may_hold_lease = False

    def __repr__(self) -> str:
        return f"PostgresBackend({self._database!r})"

    @staticmethod
    def script(schema: str = "flagsync") -> str:
        """Return SQL that makes the tables, for an administrator to run."""
        return sql.OUTBOX.script(schema)

    def store(
        self, messages: Sequence[Message], sent: Sequence[Message], repeats: Sequence[Repeat], deadline: float
    ) -> Sequence[Repeat]:
        new = list[Repeat]()
        for part in self._parts([*sent, *messages, *repeats]):
            with self._change(deadline) as change:
                change.add([one for one in part if isinstance(one, Message)])
                change.drop_beyond(self._bounds.max_pending, self._bounds.prune_rows)
                new += change.confirm([one for one in part if isinstance(one, Repeat)])
        return new

    def claim(self, resting: Collection[Destination], limits: Limits) -> Sequence[Message]:
        with self._database.transaction() as transaction:
            for turn in turns(transaction, self._claimed.number):
                if turn.destination not in resting:
                    batch = claim(transaction, turn, limits, self._process.get().boot)
                    if batch:
                        self._claimed = _Claimed(turn.store, turn.number, batch[0].version)
                        return batch
        return ()

    def settle(
        self,
        accepted: Collection[Message],
        rejected: Collection[Message],
        last: Collection[Message],
        deadline: float,
    ) -> None:
        for outcome, messages in (("delivered", accepted), ("rejected", rejected), ("", last)):
            for part in self._parts(messages):
                with self._change(deadline) as change:
                    if change.store != self._claimed.store:
                        return  # the tables were made again, and have other messages with these versions
                    change.note_first(self._claimed.number, self._claimed.first_version)
                    if outcome:
                        accepted_at = change.now if outcome == "delivered" else NEVER
                        change.settle(self._claimed.number, part, outcome, accepted_at)
                    else:
                        change.postpone(self._claimed.number, part)
                    self._prune(change)

    def status(self, destinations: Collection[Destination]) -> Status:
        with self._database.transaction() as transaction:
            if not (rows := transaction.rows(sql.STATUS, self._process.get().name)):
                raise EmptyError("outbox_store")
        [store, last_version, pending, now, account, *counts] = rows[0][:-4]
        firsts = [
            (version, waits_since, destination_of(url, project))
            for url, project, version, waits_since in (row[-4:] for row in rows)
            if version is not None
        ]
        own, own_events = totals_of(counts)
        return Status(
            store=store,
            account=account,
            own=own,
            own_events=own_events,
            pending=pending,
            oldest_seconds=waited_seconds(now - min(firsts)[1]) if firsts else 0.0,
            first_version=min((first[0] for first in firsts if first[2] in destinations), default=None),
            last_version=last_version,
        )

    def totals(self) -> StoreTotals:
        with self._database.transaction() as transaction:
            [counts] = transaction.rows(sql.TOTALS)
        return StoreTotals(*totals_of(counts), self.status([]).oldest_seconds)

    def try_acquire_lease(self) -> bool:
        self._may_hold_lease = True  # even if the answer does not come
        owner = self._process.get().name
        with self._database.transaction() as transaction:
            self._may_hold_lease = bool(transaction.run(sql.ACQUIRE, owner, self.lease_seconds, owner))
        return self._may_hold_lease

    def note_absences(self, destination: Destination, absences: Absences) -> Absences:
        with self._change(inf) as change:
            return change.note_absences(destination, absences)

    def close(self) -> None:
        try:
            if self._may_hold_lease:
                with self._database.transaction() as transaction:
                    transaction.run(sql.RELEASE, self._process.get().name)
                self._may_hold_lease = False
        finally:
            self._database.close()

    @contextmanager
    def _change(self, deadline: float) -> Iterator[Change]:
        with self._database.transaction(deadline) as transaction:
            change = Change(transaction, self._process.get())
            yield change
            change.finish()

    def _parts(self, all_of_them: Collection[T]) -> Iterator[Sequence[T]]:
        """Divide what one call would take too long for, and keep the others waiting."""
        rest = [*all_of_them]
        for start in range(0, len(rest), self._bounds.call_messages):
            yield rest[start : start + self._bounds.call_messages]

    def _prune(self, change: Change) -> None:
        """Forget some messages that were remembered too long, or are beyond the bound."""
        excess = change.remembered - self._bounds.max_remembered
        if excess <= 0 and monotonic() - self._pruned_at < self._bounds.prune_seconds:
            return
        self._pruned_at, rows = monotonic(), self._bounds.prune_rows
        accepted_before = change.now - self._bounds.remember_seconds
        self._pruned_up_to = change.forget_some(self._pruned_up_to, rows, excess, accepted_before)
        change.forget_tails(self._bounds.prune_tails)
        change.close_accounts(change.now - self._bounds.account_seconds, rows)


class _Claimed(NamedTuple):
    """Where the batch in flight came from."""

    store: int = 0
    number: int = 0
    first_version: int = 0


def _new_process(_: object) -> Process:
    # Where the system does not tell the boot, only the evaluations of this process have one clock.
    return Process(uuid4().hex, boot_number() or -secrets.randbits(47))
