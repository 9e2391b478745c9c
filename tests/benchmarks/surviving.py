"""What a crash costs, and what several processes make of one profile: with real processes and real signals."""

import logging
import os
import random
import resource
import signal
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic, process_time, sleep, time, time_ns
from typing import Any, NamedTuple

from flagsmith.models import Flag, Flags

from flagsync import FlagSync, outbox_stats
from flagsync._delivery.destinations import Backoff
from flagsync._delivery.sender import Sending
from flagsync._options import Tuning
from flagsync.testing import MixpanelServer
from tests.benchmarks.inputs import local_client
from tests.benchmarks.server import Server
from tests.benchmarks.table import judge, show

KILLS, FLUSH_SECONDS, USERS = 200, 0.2, [f"user-{number}" for number in range(50)]
SITES, ROLLOUT_SECONDS = 4, 4.0
SOAK_CALLS, SOAK_USERS, SOAK_BATCH, SOAK_FAULTS = 1_000_000, 50_000, 1000, 0.05
OUTAGE_CALLS, OUTAGE_USERS = 200_000, 10_000
KINDS: list[dict[str, Any]] = [
    {"status": 503},
    {"status": 429},
    {"status": 500},
    {"drop": True},
    {"body": "<p>"},
]


Act = Callable[[FlagSync, str, str], None]
"""What a process does with a client, an identifier and what was served."""


class Call(NamedTuple):
    """A call that a process made: when it began and ended, in nanoseconds, for whom, and what was served."""

    began: int
    ended: int
    identifier: str
    state: str


class Child:
    """A forked process that makes calls, and keeps a record of them that survives it."""

    def __init__(
        self,
        url: str,
        outbox: str | Path | None,
        record: Path,
        state: Callable[[], str],
        act: Act | None = None,
        *,
        tuning: Tuning = Tuning(),  # noqa: B008 - it is frozen
        start: Callable[[], None] = lambda: None,
    ) -> None:
        self._record, self._act, self._tuning, self._start = record, act or _mirror, tuning, start
        record.touch()  # a child may be killed before it writes
        if (pid := os.fork()) == 0:
            try:
                self._work(url, outbox, state)
            finally:
                os._exit(0)
        self._pid = pid

    def end(self, how: signal.Signals) -> list[Call]:
        """Send the signal; return the calls."""
        os.kill(self._pid, how)
        os.waitpid(self._pid, 0)
        lines = self._record.read_text().split("\n")[:-1]  # the last may be cut
        return [Call(int(began), int(ended), *words) for began, ended, *words in map(str.split, lines)]

    def _work(self, url: str, outbox: str | Path | None, state: Callable[[], str]) -> None:
        ended: list[int] = []
        signal.signal(signal.SIGTERM, lambda number, _: ended.append(number))
        self._start()
        with client_of(url, outbox, self._tuning) as client, self._record.open("w", 1) as record:
            while not ended:
                identifier, began, served = random.choice(USERS), time_ns(), state()
                self._act(client, identifier, served)
                record.write(f"{began} {time_ns()} {identifier} {served}\n")
                sleep(0.001)


def kills(server: Server) -> None:
    """``kill -9`` at random moments under load; a survivor then delivers what is in the file."""
    for processes in (1, 4):
        checked = lost = stale = 0
        for _ in range(KILLS // processes):
            with place() as (mixpanel, path):
                children = [Child(mixpanel.url, path, path.with_suffix(f".{n}"), now) for n in range(processes)]
                safe: dict[str, int] = {}
                for child in children:
                    sleep(random.uniform(FLUSH_SECONDS, 3 * FLUSH_SECONDS) / processes)
                    before = time_ns() - FLUSH_SECONDS * 1e9
                    for made in child.end(signal.SIGKILL):
                        if made.ended < before:
                            safe[made.identifier] = max(safe.get(made.identifier, 0), int(made.state))
                survive(mixpanel, path)
                for identifier, state in safe.items():
                    arrived = mixpanel.profiles.get(identifier)
                    checked, lost = checked + 1, lost + (arrived is None)
                    stale += arrived is not None and int(arrived["state"]) < state
        what = f"kill -9, {KILLS} times, {processes} process{'es' * (processes > 1)} a file"
        verdict = judge(f"of {checked:,} profiles", reached=not lost and not stale and checked > 0)
        show(what, "flagsync, outbox=…", f"{lost} lost, {stale} stale", "0 lost, 0 stale", verdict)


def rollout(server: Server) -> None:
    """Four processes whose users have other traits at each call site, while a flag changes for all."""
    for shared in (False, True):
        with place() as (mixpanel, path):
            state = partial(_rolled_out, time() + ROLLOUT_SECONDS / 2)
            outbox = path if shared else None
            children = [
                Child(mixpanel.url, outbox, path.with_suffix(f".{site}"), partial(state, site))
                for site in range(SITES)
            ]
            sleep(ROLLOUT_SECONDS)
            calls = defaultdict[str, list[Call]](list)
            for child in children:
                for made in child.end(signal.SIGTERM):
                    calls[made.identifier].append(made)
            if shared:
                survive(mixpanel, path)
            wrong = sum(
                mixpanel.profiles[identifier]["state"] not in _last(some) for identifier, some in calls.items()
            )
        side = f"flagsync, {'outbox=…' if shared else 'in memory'}"
        verdict = judge(f"of {len(calls)} profiles", reached=not wrong) if shared else ""
        show(f"{SITES} processes, one rollout", side, f"{wrong} wrong", "0" if shared else "", verdict)


def outage(server: Server) -> None:
    """An hour without Mixpanel, in which every second takes a millisecond."""
    scale, records = 1000, list[str]()
    backoff = Backoff(first_seconds=Backoff().first_seconds / scale, max_seconds=Backoff().max_seconds / scale)
    tuning = Tuning(sending=Sending(backoff=backoff))
    log = logging.getLogger("flagsync")
    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())  # type: ignore[method-assign]
    log.addHandler(handler)
    log.propagate = False
    for outbox in (False, True):
        with place() as (mixpanel, path), client_of(mixpanel.url, path if outbox else None, tuning) as client:
            states, warm, cpu = dict[str, str](), 0, process_time()
            began, each = monotonic(), 3600 / scale / OUTAGE_CALLS
            mixpanel.fail(status=503)
            for number in range(OUTAGE_CALLS):
                identifier, state = f"user-{random.randrange(OUTAGE_USERS)}", f"{number}"
                states[identifier] = state
                client.mirror(identifier, _flags(state))
                mixpanel.requests.clear()  # the server's memory is not what is measured
                sleep(max(0, began + number * each - monotonic()) if number % 100 == 0 else 0)
                if number == OUTAGE_CALLS // 4:
                    warm = resident_bytes()
            grown, tries, cpu = resident_bytes() - warm, client.stats().requests, process_time() - cpu
            mixpanel.recover()
            client.flush(60)
            wrong = sum(mixpanel.profiles.get(who, {}).get("state") != state for who, state in states.items())
        what = f"an hour's outage, {OUTAGE_CALLS:,} calls"
        figure = f"{tries} requests, {len(records)} log records"
        cost = f"{grown / 1e6:+.1f} MB, {cpu / OUTAGE_CALLS * 1e6:.0f} µs CPU a call"
        verdict = judge(f"of {len(states):,}, {figure}; {cost}", reached=not wrong)
        show(what, f"flagsync, {'outbox=…' if outbox else 'in memory'}", f"{wrong} wrong", "0 wrong", verdict)
        records.clear()


def soak(server: Server) -> None:
    """A million calls while one request in twenty fails, which is tried again at once."""
    states, faults, warm = dict[str, str](), 0, 0
    tuning = Tuning(sending=Sending(backoff=Backoff(first_seconds=0.01, max_seconds=0.3)))
    logging.getLogger("flagsync").setLevel(logging.CRITICAL)  # each fault is meant to be
    with place() as (mixpanel, path), client_of(mixpanel.url, path, tuning) as client:
        for number in range(SOAK_CALLS):
            identifier, state = f"user-{random.randrange(SOAK_USERS)}", f"{number % 7}"
            states[identifier] = state
            client.mirror(identifier, _flags(state))
            if number % SOAK_BATCH == 0:
                client.flush(60)  # this loop must not be faster than what it feeds
                mixpanel.requests.clear()
                if random.random() < SOAK_FAULTS:
                    faults += 1
                    mixpanel.fail(times=1, **random.choice(KINDS))
            if number == SOAK_CALLS // 4:
                warm = resident_bytes()
        client.flush(60)
        grown, profiles = resident_bytes() - warm, mixpanel.profiles
        lost = sum(identifier not in profiles for identifier in states)
        stale = sum(profiles[who]["state"] != state for who, state in states.items() if who in profiles)
    what = f"{SOAK_CALLS:,} calls, {SOAK_USERS:,} users, {faults} faults"
    verdict = judge(f"{grown / 1e6:+.1f} MB after the first quarter", reached=not lost and not stale)
    show(what, "flagsync, outbox=…", f"{lost} lost, {stale} stale", "0 lost, 0 stale", verdict)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def client_of(url: str, outbox: str | Path | None, tuning: Tuning = Tuning()) -> FlagSync:  # noqa: B008 - it is frozen
    class Client(FlagSync):
        _tuning = tuning

    bare = local_client(1)
    return Client(bare, "token", mixpanel_url=url, flush_interval_seconds=FLUSH_SECONDS, outbox=outbox)


def _last(calls: list[Call]) -> set[str]:
    """The states that may have been served last: no other call began after theirs had ended."""
    latest = max(call.began for call in calls)
    return {call.state for call in calls if call.ended >= latest}


def now() -> str:
    return str(time_ns())


def _rolled_out(changes_at: float, site: int) -> str:
    return f"{'new' if time() >= changes_at else 'old'}-{site % 2}"


def _mirror(client: FlagSync, identifier: str, state: str) -> None:
    client.mirror(identifier, _flags(state))


def _flags(state: str) -> Flags:
    return Flags({"state": Flag(enabled=True, value=state, feature_id=1, feature_name="state")})


@contextmanager
def place() -> Iterator[tuple[MixpanelServer, Path]]:
    """A loopback Mixpanel, and a path for an outbox."""
    with TemporaryDirectory() as directory, MixpanelServer() as mixpanel:
        yield mixpanel, Path(directory) / "outbox.db"


def survive(mixpanel: MixpanelServer, outbox: str | Path, tuning: Tuning = Tuning()) -> None:  # noqa: B008 - it is frozen
    """What is in the outbox reaches Mixpanel through a process that lives."""
    with client_of(mixpanel.url, outbox, tuning) as client:
        while (stats := outbox_stats(outbox)).pending + stats.exposures.pending:
            client.get_identity_flags("survivor")
            client.flush()
