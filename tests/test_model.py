"""Whatever happens: profiles end as the last evaluation left them, states land in order, counts add up."""

import logging
import time
from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from flagsmith import Flagsmith
from flagsmith.models import Flag, Flags
from flagsmith.offline_handlers import LocalFileHandler
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from flagsync import FlagSync, Stats, _outbox, _sender, _sqlite, outbox_stats
from flagsync.testing import MixpanelServer

DOCUMENT = str(Path(__file__).parent / "data" / "environment-document.json")
OFFLINE = Flagsmith(offline_mode=True, offline_handler=LocalFileHandler(DOCUMENT))
USERS = st.sampled_from(["ann", "bob", "cid"])
VALUES = st.sampled_from(["blue", "green", 1, True])
FAULTS: list[dict[str, Any]] = [
    {"status": 503},
    {"status": 429, "headers": {"Retry-After": "0"}},
    {"status": 200, "body": "<html>"},
    {"status": 403},
    {"drop": True},
]


class Anything(RuleBasedStateMachine):
    """Clients that share what they may share, a Mixpanel with faults, and a clock that can be moved."""

    outbox = ""
    processes = 1

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.moved = 0.0
        self.patch.setattr(_outbox, "monotonic", lambda: time.monotonic() + self.moved)
        self.patch.setattr(_sqlite, "time", lambda: time.time() + self.moved)
        self.patch.setattr(_sender, "BACKOFF_SECONDS", 0.0)
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
            self.clients[process] = FlagSync(OFFLINE, "token", mixpanel_url=self.mixpanel.url, **options)
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

    def lands_in_order(self, user: str, served: Any) -> None:
        """What was sent is a part of what was served, in its order; the same may be sent again."""
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


some = settings(
    max_examples=60,
    stateful_step_count=20,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
TestInMemory = Anything.TestCase
TestInMemory.settings = some
TestInAFile = AnythingWithAFile.TestCase
TestInAFile.settings = some
