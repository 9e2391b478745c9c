"""The backend on a Redis or Valkey server, shared by the processes of many hosts.

Guarantee: what the server has acknowledged survives this process. Each script does a bounded amount of work, whatever
the size of the store. Boundary: what a server loses when it fails depends on its settings.
"""

import os
from collections.abc import Collection, Iterator, Sequence
from itertools import chain
from math import inf
from struct import Struct
from typing import Any, NamedTuple

from flagsync._clock import monotonic
from flagsync._outbox.backend import Status, StoreTotals, Totals, totals_of, waited_seconds
from flagsync._outbox.batch import fitting
from flagsync._outbox.boot import boot_number
from flagsync._outbox.contract import Absences, Destination, Limits, Message, Repeat
from flagsync._outbox.options import StoreBounds, checked
from flagsync._outbox.redis.advice import advice
from flagsync._outbox.redis.keys import check_namespace, keys_of
from flagsync._outbox.redis.parts import parts_of
from flagsync._outbox.redis.records import Now, destination_of, messages_of, name_of, packed_settled
from flagsync._outbox.redis.scripts import Scripts
from flagsync._outbox.redis.server import Argument, Client, UrlServer, server_of
from flagsync._process import PerProcess
from flagsync._report import Reporter

ACCOUNT = Struct(">14d")
BUSY_SECONDS = 0.25  # for a call after its deadline: an idle server needs less


class RedisBackend:
    """Keeps messages on a server; see ``Backend``.

    Args:
        client: The application's ``redis.Redis`` or ``redis.RedisCluster``, or the client of a master that a Sentinel
            returns. Its ``socket_timeout`` and ``retry`` bound how long a call takes.
        namespace: Backends with the same one share the pending messages. All keys begin with it, in braces.
        bounds: How large the store gets.

    Raises:
        TypeError: The client cannot be used, such as one for asyncio.
        ValueError: The namespace or the bounds are invalid.
    """

    def __init__(
        self,
        client: Client | UrlServer,
        namespace: str = "flagsync",
        bounds: StoreBounds = StoreBounds(),  # noqa: B008 - it is frozen
    ) -> None:
        self._server, self._bounds = server_of(client), checked(bounds)
        self.lease_seconds = bounds.lease_seconds
        self._scripts = Scripts(self._server, keys_of(check_namespace(namespace)))
        self._process = PerProcess[_Process](lambda _: _Process())

    def store(
        self, messages: Sequence[Message], sent: Sequence[Message], repeats: Sequence[Repeat], deadline: float
    ) -> Sequence[Repeat]:
        new, process = list[Repeat](), self._process.get()
        if process.may_hold_lease:
            self._prune(process, deadline)
        for part in parts_of(messages, sent, repeats, self._bounds.call_messages):
            bounds = self._bounds.max_pending, self._bounds.call_messages, self._bounds.max_remembered
            own = _new_store(), process.account, process.boot, monotonic(), *bounds
            reply: Any = self._run("store", *own, *part.arguments(), deadline=deadline)
            places, has_excess = reply
            process.prune_at = -inf if has_excess else process.prune_at
            new += (part.repeats[place - 1] for place in places)
        return new

    def claim(self, resting: Collection[Destination], limits: Limits) -> Sequence[Message]:
        return fitting(self._waiting(self._process.get(), resting, limits), limits)

    def settle(
        self,
        accepted: Collection[Message],
        rejected: Collection[Message],
        last: Collection[Message],
        deadline: float,
    ) -> None:
        claimed, most = self._process.get().claimed, self._bounds.call_messages
        for outcome, messages in (("accepted", accepted), ("rejected", rejected), ("last", last)):
            settled = [message for message in messages if message.version in claimed.accounts]
            for part in (settled[start : start + most] for start in range(0, len(settled), most)):
                versions = [message.version for message in part]
                about = claimed.store, claimed.name, outcome, min(versions), max(versions)
                own = (packed_settled(message, claimed.accounts[message.version]) for message in part)
                self._run("settle", *about, b"".join(own), deadline=deadline)

    def status(self, destinations: Collection[Destination]) -> Status:
        names = map(name_of, destinations)
        reply: Any = self._run("status", _new_store(), self._process.get().account, *names)
        store, account, pending, oldest, first, last = reply
        number, (own, own_events) = _account_of(account)
        return Status(
            store=int(store),
            account=number,
            own=own,
            own_events=own_events,
            pending=pending,
            oldest_seconds=waited_seconds(float(oldest)) if oldest else 0.0,
            first_version=int(first) if first else None,
            last_version=int(last),
        )

    def totals(self) -> StoreTotals:
        reply: Any = self._run("totals")
        _, totals = _account_of(reply)
        return StoreTotals(*totals, self.status([]).oldest_seconds)

    def try_acquire_lease(self) -> bool:
        process = self._process.get()
        process.may_hold_lease = True  # also if no answer comes
        process.may_hold_lease = bool(self._run("lease", process.account, self.lease_seconds))
        if process.may_hold_lease and not process.is_advised:
            for warning in advice(self._server, self._bounds.call_seconds):
                process.report.warn_once(warning)
            process.is_advised = True
        return process.may_hold_lease

    def note_absences(self, destination: Destination, absences: Absences) -> Absences:
        times: Iterator[Argument] = chain.from_iterable(absences.items())
        reply: Any = self._run("absences", name_of(destination), *times)
        return {text.decode(): float(time) for text, time in zip(reply[::2], reply[1::2], strict=True)}

    def close(self) -> None:
        process = self._process.get()
        try:
            if process.may_hold_lease:
                self._run("lease", process.account, 0)
                process.may_hold_lease = False
        finally:
            self._server.close()

    def _waiting(
        self, process: "_Process", resting: Collection[Destination], limits: Limits
    ) -> Iterator[Message]:
        """Return the messages that wait for the destination that is next, read in parts."""
        most = min(self._bounds.call_messages, limits.max_batch_messages)
        turn, resting_names = process.claimed.number, [*map(name_of, resting)]
        number, after, has_more = 0, 0, True
        while has_more:
            where = number, after, most, limits.max_batch_bytes, turn
            reply: Any = self._run("claim", *where, *resting_names)
            if not reply or (number and reply[0] != process.claimed.store):
                return  # nothing waits, or the store was emptied
            store, number, name, there, found, ends, has_more = reply
            if not after:
                process.claimed = _Claimed(store, number, name, {})
            tails = dict(zip(ends[::2], ends[1::2], strict=True))
            now = Now(process.boot, monotonic(), float(there))
            for account, message in messages_of(found, destination_of(name), tails, now):
                after = message.version
                process.claimed.accounts[after] = account
                yield message

    def _prune(self, process: "_Process", deadline: float) -> None:
        """Forget some of what was remembered too long, or is beyond the bound."""
        if monotonic() < process.prune_at:
            return
        bounds = self._bounds
        remembered = bounds.remember_seconds, bounds.max_remembered, bounds.account_seconds
        sizes = min(bounds.prune_rows, bounds.call_messages), bounds.prune_tails
        reply: Any = self._run(
            "prune", process.account, *remembered, *sizes, *process.cursors, deadline=deadline
        )
        process.cursors, process.prune_at = reply, monotonic() + bounds.prune_seconds

    def _run(self, script: str, *arguments: Argument, deadline: float = inf) -> object:
        seconds = min(self._bounds.call_seconds, max(BUSY_SECONDS, deadline - monotonic()))
        return self._scripts.run(script, *arguments, seconds=seconds)


class _Claimed(NamedTuple):
    """Where the batch in flight came from.

    Attributes:
        store: Number of the store.
        number: Of the destination.
        name: Of the destination.
        accounts: The account of each message, by version.
    """

    store: bytes = b""
    number: int = 0
    name: bytes = b""
    accounts: dict[int, bytes] = {}  # noqa: RUF012 - replaced, and not changed


class _Process:
    """What a backend keeps for one process.

    Attributes:
        account: The name of its account, and of the owner of the lease.
        boot: Equal for processes whose monotonic clocks agree.
        claimed: Where the batch in flight came from.
        may_hold_lease: Whether the lease may be its own.
        report: Where it warns of the server's settings.
        is_advised: Whether they were looked at.
        prune_at: When to prune next.
        cursors: Where that goes on: in the rows, tails and accounts.
    """

    def __init__(self) -> None:
        self.account, own = os.urandom(8), os.urandom(6)
        self.boot = boot_number().to_bytes(6) if boot_number() else own
        self.claimed, self.may_hold_lease = _Claimed(), False
        self.report, self.is_advised = Reporter(None), False
        self.prune_at, self.cursors = -inf, [b"0"] * 3


def _new_store() -> int:
    """Return the number that the store gets if it has none."""
    return int.from_bytes(os.urandom(6)) + 1


def _account_of(record: bytes) -> tuple[int, tuple[Totals, Totals]]:
    """Return the number of an account and its totals; zeros if there is none."""
    number, _, *counts = map(int, ACCOUNT.unpack(record) if record else (0,) * 14)
    return number, totals_of(counts)
