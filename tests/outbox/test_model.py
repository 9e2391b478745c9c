"""Whatever happens: profiles end as the last evaluation left them, states land in order, counts add up."""

import logging
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import pytest
from flagsmith import Flagsmith
from flagsmith.models import Flag, Flags
from flagsmith.offline_handlers import LocalFileHandler
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from flagsync import FlagSync, Stats, outbox_stats
from flagsync._delivery.destinations import Backoff
from flagsync._delivery.sender import Sending
from flagsync._options import Tuning
from flagsync._outbox import change, memory, sqlite
from flagsync._outbox.backend import Backend, Status
from flagsync._outbox.contract import Destination, Limits, Message, Repeat
from flagsync._outbox.options import StoreBounds
from flagsync._outbox.postgres import PostgresBackend
from flagsync._outbox.postgres.schema import NOW
from flagsync._outbox.sqlite import SQLiteBackend
from flagsync._postgres.database import Row, Transaction
from flagsync.testing import MixpanelServer
from tests.support import reference_backend
from tests.support.outboxes import HERE, THERE, message, repeat
from tests.support.postgres import PostgresServer, schema_of
from tests.support.reference_backend import ReferenceBackend, ReferenceStore

DOCUMENT = str(Path(__file__).parents[1] / "data" / "environment-document.json")
OFFLINE = Flagsmith(offline_mode=True, offline_handler=LocalFileHandler(DOCUMENT))
USERS = st.sampled_from(["ann", "bob", "cid"])
VALUES = st.sampled_from(["blue", "green", 1, True])
KEYS = st.sampled_from(["ann", "bob", "bob\0event", "b\\ob"])
FAULTS: list[dict[str, Any]] = [
    {"status": 503},
    {"status": 429, "headers": {"Retry-After": "0"}},
    {"status": 200, "body": "<html>"},
    {"status": 403},
    {"drop": True},
]


class Client(FlagSync):
    """A client that tries again at once."""

    _tuning: ClassVar[Tuning] = Tuning(
        sending=Sending(backoff=Backoff(first_seconds=0.0, max_seconds=0.0, jitter=(0.0, 0.0)))
    )


class Anything(RuleBasedStateMachine):
    """Clients that share what they may share, a Mixpanel with faults, and a clock that can be moved."""

    outbox = ""
    processes = 1

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.moved = 0.0
        self.patch.setattr(memory, "monotonic", lambda: time.monotonic() + self.moved)
        self.patch.setattr(change, "time", lambda: time.time() + self.moved)
        self.patch.setattr(sqlite, "time", lambda: time.time() + self.moved)
        logging.getLogger("flagsync").setLevel(logging.CRITICAL)
        self.directory = TemporaryDirectory()
        self.mixpanel = MixpanelServer()
        self.clients: dict[int, FlagSync] = {}
        self.calls = 0
        self.served: dict[str, list[object]] = defaultdict(list)

    def client(self, process: int) -> FlagSync:
        if process not in self.clients:
            path = Path(self.directory.name) / self.outbox if self.outbox else None
            options: dict[str, Any] = {"outbox": path, "flush_interval_seconds": 0.02, "max_pending": 100}
            self.clients[process] = Client(OFFLINE, "token", mixpanel_url=self.mixpanel.url, **options)
        return self.clients[process]

    @rule(process=st.integers(0, 1), user=USERS, value=VALUES)
    def evaluate(self, process: int, user: str, value: Any) -> None:
        flag = Flag(enabled=True, value=value, feature_id=1, feature_name="colour")
        self.client(process % self.processes).mirror(user, Flags({"colour": flag}))
        self.served[user].append(value)
        self.calls += 1

    @rule(fault=st.sampled_from(FAULTS), times=st.integers(1, 3))
    def fail(self, fault: dict[str, Any], times: int) -> None:
        self.mixpanel.fail(times=times, **fault)

    @rule(seconds=st.sampled_from([1.0, 200.0, 400.0]))
    def wait(self, seconds: float) -> None:
        self.moved += seconds

    @rule(process=st.integers(0, 1))
    def flush(self, process: int) -> None:
        assert self.client(process % self.processes).flush()

    @rule(process=st.integers(0, 1))
    def restart(self, process: int) -> None:
        if client := self.clients.pop(process % self.processes, None):
            assert client.close()
            self.adds_up(client.stats())

    @invariant()
    def all_add_up(self) -> None:
        for client in self.clients.values():
            self.adds_up(client.stats())

    def adds_up(self, stats: Stats) -> None:
        parts = (
            stats.delivered,
            stats.unchanged,
            stats.superseded,
            stats.dropped,
            stats.rejected,
            stats.pending,
        )
        assert stats.accepted == sum(parts)
        assert min(parts) >= 0

    def teardown(self) -> None:
        self.mixpanel.recover()
        try:
            for process in range(self.processes):
                assert self.client(process).flush()
            path = Path(self.directory.name) / (self.outbox or "none")
            while path.exists() and outbox_stats(path).pending:  # of a client that is gone
                self.client(0).get_identity_flags("somebody")
                assert self.client(0).flush()
            for user, served in self.served.items():
                assert self.mixpanel.profiles[user] == {"colour": served[-1]}
                assert type(self.mixpanel.profiles[user]["colour"]) is type(served[-1])
                self.lands_in_order(user, iter(served))
            if path.exists():
                assert outbox_stats(path).dropped == outbox_stats(path).rejected == 0
        finally:
            for client in self.clients.values():
                client.close(0.1)
            self.mixpanel.close()
            self.directory.cleanup()
            self.patch.undo()
            logging.getLogger("flagsync").setLevel(logging.NOTSET)

    def lands_in_order(self, user: str, served: Iterator[object]) -> None:
        """Assert that what was sent is a part of what was served, in its order; the same may be sent again."""
        last: object = None
        for request in self.mixpanel.requests:
            for update in request.updates:
                if update["$distinct_id"] == user and repr(update["$set"]["colour"]) != repr(last):
                    last = update["$set"]["colour"]
                    assert any(repr(value) == repr(last) for value in served)


class AnythingWithAFile(Anything):
    """The same with two clients that share an outbox."""

    outbox = "outbox.db"
    processes = 2


class AnyBackend(RuleBasedStateMachine):
    """Processes that share a store, a file here, and, beside it, a store of the reference: both always say the same."""

    processes = 3
    bounds = StoreBounds(max_pending=4, prune_rows=2)

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.now = pytest.MonkeyPatch(), time.time()
        for module in (change, sqlite, reference_backend):
            self.patch.setattr(module, "time", lambda: self.now)
        self.directory, self.store_beside = TemporaryDirectory(), ReferenceStore(max_pending=4)
        self.pairs = list[tuple[Backend, ReferenceBackend]]()
        self.batches: dict[int, tuple[Sequence[Message], Sequence[Message]]] = {}

    @initialize(prunes=st.booleans())
    def begin(self, prunes: bool) -> None:
        self.bounds = replace(self.bounds, prune_seconds=-1.0 if prunes else 1e6)
        # A store that prunes forgets rejected messages at once, and the reference never does.
        self.rejected = "a" if prunes else "r"
        self.pairs += [self.pair() for _ in range(self.processes)]

    def pair(self) -> tuple[Backend, ReferenceBackend]:
        return self.backend(Path(self.directory.name)), ReferenceBackend(self.store_beside)

    def backend(self, path: Path) -> Backend:
        return SQLiteBackend(path / "outbox.db", self.bounds)

    def contents(self, batch: Sequence[Message]) -> list[Message]:
        return [one._replace(version=0) for one in batch]

    messages = st.lists(
        st.builds(
            lambda key, body, second, where, resend, evaluation, tail, *, replaces: message(
                f"{key}={body}",
                second,
                where,
                resend_after_seconds=resend,
                evaluation=evaluation,
                tail=tail,
                replaces=replaces,
            ),
            KEYS,
            st.sampled_from("AB"),
            st.integers(1, 6),
            st.sampled_from([HERE, THERE]),
            st.sampled_from([0.0, 300.0]),
            st.sampled_from([None, 1, 2]),
            st.sampled_from([b"", b"+", b"-"]),
            replaces=st.sampled_from([True, True, False]),
        ),
        max_size=6,
    )
    repeats = st.lists(
        st.builds(repeat, KEYS, st.sampled_from([1, 2]), st.integers(1, 6), st.sampled_from([HERE, THERE])),
        max_size=6,
        unique_by=lambda one: one[:2],  # destination and key
    )

    @rule(process=st.integers(0, processes - 1), messages=messages, repeats=repeats)
    def store(self, process: int, messages: list[Message], repeats: list[Repeat]) -> None:
        one, other = self.pairs[process]
        new = one.store(messages, [], repeats, time.monotonic() + 10)
        assert {*new} == {*other.store(messages, [], repeats, time.monotonic() + 10)}

    @rule(process=st.integers(0, processes - 1), repeats=repeats)
    def confirm(self, process: int, repeats: list[Repeat]) -> None:
        self.store(process, [], repeats)

    @rule(process=st.integers(0, processes - 1), messages=messages, certain=st.booleans())
    def tell_sent(self, process: int, messages: list[Message], certain: bool) -> None:
        sent = {(one.destination, one.key): one._replace(body=b"") for one in messages}
        told = [one if certain else one._replace(fingerprint=b"") for one in sent.values()]
        for backend in self.pairs[process]:
            backend.store([], told, [], time.monotonic() + 10)

    @rule(
        process=st.integers(0, processes - 1),
        resting=st.sampled_from([(), (HERE,), (THERE,), (HERE, THERE)]),
        limits=st.builds(
            Limits, max_batch_messages=st.integers(1, 4), max_batch_bytes=st.sampled_from([5, 99])
        ),
    )
    def claim(self, process: int, resting: tuple[Destination, ...], limits: Limits) -> None:
        one, other = self.pairs[process]
        may_send = one.try_acquire_lease()
        assert may_send == other.try_acquire_lease()
        if may_send:
            batch, expected = one.claim(resting, limits), other.claim(resting, limits)
            assert self.contents(batch) == self.contents(expected)
            self.batches = {process: (batch, expected)}

    @rule(
        process=st.integers(0, processes - 1), fates=st.lists(st.sampled_from("arlk"), min_size=4, max_size=4)
    )
    def settle(self, process: int, fates: list[str]) -> None:
        if process not in self.batches or not self.batches[process][0]:
            return
        (one, other), (batch, expected) = self.pairs[process], self.batches.pop(process)
        fates = [self.rejected if fate == "r" else fate for fate in fates]
        one.settle(*_divided(batch, fates), time.monotonic() + 10)
        other.settle(*_divided(expected, fates), time.monotonic() + 10)

    @rule(seconds=st.sampled_from([1.0, 200.0, 400.0, -1.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(process=st.integers(0, processes - 1))
    def release(self, process: int) -> None:
        for backend in self.pairs[process]:
            backend.close()
        self.batches.pop(process, None)

    @rule(process=st.integers(0, processes - 1))
    def restart(self, process: int) -> None:
        for backend in self.pairs[process]:
            backend.close()
        self.batches.pop(process, None)
        self.pairs[process] = self.pair()

    @invariant()
    def both_say_the_same(self) -> None:
        for one, other in self.pairs:
            for where in ([HERE], [THERE], [HERE, THERE]):
                status, expected = one.status(where), other.status(where)
                assert _numbers(status) == _numbers(expected)
            assert one.totals().every == other.totals().every
            assert one.totals().every.pending == one.status([]).pending

    def teardown(self) -> None:
        try:
            self.both_drain_to_the_same()
        finally:
            for one, _ in self.pairs:
                one.close()
            self.directory.cleanup()
            self.patch.undo()

    def both_drain_to_the_same(self) -> None:
        for process in range(self.processes):
            self.release(process)
        one, other = self.pairs[0]
        while True:
            self.claim(0, (), Limits())
            if not self.batches[0][0]:
                break
            self.settle(0, ["a"] * 4)
        assert one.totals().every.pending == other.totals().every.pending == 0


class AnyPostgresBackend(AnyBackend):
    """The same with a schema of a server."""

    server: ClassVar[PostgresServer]

    def __init__(self) -> None:
        super().__init__()
        rows = Transaction.rows

        def rows_now(transaction: Transaction, query: str, *values: object) -> list[Row]:
            return rows(transaction, query.replace(NOW, f"{self.now!r}::double precision"), *values)

        self.patch.setattr(Transaction, "rows", rows_now)

    def backend(self, path: Path) -> Backend:
        return PostgresBackend(self.server.url(), schema_of(path), bounds=replace(self.bounds, prune_rows=99))

    def contents(self, batch: Sequence[Message]) -> list[Message]:
        """Return what is sent; a message keeps the time of its first evaluation."""
        return [one._replace(evaluated_at=0.0) for one in super().contents(batch)]

    def teardown(self) -> None:
        super().teardown()
        self.server.run(f"DROP SCHEMA IF EXISTS {schema_of(Path(self.directory.name))} CASCADE")


def _divided(batch: Sequence[Message], fates: list[str]) -> tuple[list[Message], list[Message], list[Message]]:
    """Return what is accepted, rejected, and to be last of a batch; the rest is kept."""
    by_fate = {fate: list[Message]() for fate in "arlk"}
    for one, fate in zip(batch, fates, strict=False):
        by_fate[fate].append(one)
    return by_fate["a"], by_fate["r"], by_fate["l"]


def _numbers(status: Status) -> tuple[object, ...]:
    return status.own, status.pending, status.first_version is None, status.oldest_seconds == 0.0


some = settings(
    max_examples=60,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestInMemory = Anything.TestCase
TestInMemory.settings = some
TestInAFile = AnythingWithAFile.TestCase
TestInAFile.settings = some
TestBackends = AnyBackend.TestCase
TestBackends.settings = settings(some, max_examples=50, stateful_step_count=30)


class TestPostgresBackends(AnyPostgresBackend.TestCase):  # type: ignore[misc, valid-type]
    settings = settings(some, max_examples=12, stateful_step_count=30)

    @pytest.fixture(autouse=True)
    def server(self, postgres: PostgresServer) -> None:
        AnyPostgresBackend.server = postgres
