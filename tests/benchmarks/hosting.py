"""One outbox for many hosts: what it costs, and whether it keeps the order while hosts and the store die."""

import gc
import random
import signal
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import monotonic, perf_counter, sleep, time_ns
from typing import Any, NamedTuple

from flagsync import FlagSync
from flagsync._delivery.destinations import Backoff
from flagsync._delivery.sender import Sending
from flagsync._options import Tuning
from flagsync._outbox.contract import Destination, Limits, Message, Outbox
from flagsync._outbox.durable import DurableOutbox
from flagsync._outbox.memory import MemoryOutbox
from flagsync._outbox.options import Staging, StoreBounds
from flagsync._outbox.place import open_backend
from flagsync._report import Reporter
from flagsync._stats import Ledger
from flagsync.testing import MixpanelServer
from tests.benchmarks.delivering import UPDATES, deliver, evaluated, timed
from tests.benchmarks.inputs import local_client
from tests.benchmarks.server import Server
from tests.benchmarks.surviving import FLUSH_SECONDS, USERS, Child, now, survive
from tests.benchmarks.table import judge, show
from tests.support.postgres import PostgresServer, postgres_server
from tests.support.valkey import ValkeyServer, valkey_server

MESSAGES, BODY_BYTES, REPEATS = 20_000, 1200, 3
HOSTS, KILLS, FAULTS, ONCE_USERS, SYNCED_RUNS = 4, 200, 0.05, 1000, 20
HERE = Destination("https://mixpanel.invalid/engage", "project")
LIMITS = Limits(max_pending=MESSAGES, max_remembered=MESSAGES)
# A host that dies keeps the others waiting for two seconds instead of 45, and a failed request for half a second.
SHORT_LEASE = Tuning(
    sending=Sending(request_seconds=1.0, backoff=Backoff(first_seconds=0.1, max_seconds=0.5)),
    store=StoreBounds(lease_seconds=2.0),
    staging=Staging(grace_seconds=0.5, retry_seconds=0.1, max_retry_seconds=0.5),
)
SYNC_SECONDS = 0.2  # what the log's thread does within this is one sync
# Two evaluations that are closer together may be ordered either way: a call of the store takes so long.
CALL_SECONDS = 0.1


class Store(NamedTuple):
    """A server for an outbox.

    Attributes:
        name: What the table calls it.
        url: What ``outbox`` is.
        restart: Kills the server, and starts it again with its data.
    """

    name: str
    url: str
    restart: Callable[[], None]


class Recorder(MixpanelServer):
    """A loopback Mixpanel that remembers in which order it has applied updates."""

    def __init__(self) -> None:
        self.applied = list[dict[str, Any]]()
        super().__init__()

    def _apply(self, updates: list[dict[str, Any]]) -> None:
        with self._changed:
            self.applied += updates
            super()._apply(updates)


def hosts(server: Server) -> None:
    """Put, claim and settle, and unchanged messages of 1,200 bytes; then everything from the call to Mixpanel."""
    with stores() as servers, TemporaryDirectory() as directory:
        outboxes: dict[str, str | None] = {"memory": None, "file": f"{directory}/outbox.db"}
        outboxes |= {store.name: store.url for store in servers}
        for name, outbox in outboxes.items():
            runs = [_measured(outbox, number) for number in range(REPEATS)]
            put, settle, same = (MESSAGES / median(seconds) for seconds in zip(*runs, strict=True))
            what = f"{MESSAGES:,} messages of {BODY_BYTES:,} bytes"
            show(what, f"outbox: {name}", f"{put:,.0f} put/s")
            show("", "", f"{settle:,.0f} claimed and settled/s")
            show("", "", f"{same:,.0f} unchanged/s")
        _longest_script(servers[0])
        _delivered(server, servers)


def hosts_once(server: Server) -> None:
    """Four hosts evaluate the same identities: each profile is sent once."""
    identifiers = [f"user-{number}" for number in range(ONCE_USERS)]
    with stores() as servers:
        for store in servers:
            with MixpanelServer() as mixpanel, ExitStack() as stack:
                clients = [
                    stack.enter_context(
                        FlagSync(local_client(50), "token", mixpanel_url=mixpanel.url, outbox=store.url)
                    )
                    for _ in range(HOSTS)
                ]
                for identifier in identifiers:
                    for client in clients:
                        client.get_identity_flags(identifier)
                for client in clients:
                    client.flush(60)
                updates = sum(len(request.updates) for request in mixpanel.requests)
            verdict = judge("all came", reached=updates == len(mixpanel.profiles) == ONCE_USERS)
            show(
                f"{HOSTS} clients, the same {ONCE_USERS:,} users",
                f"outbox: {store.name}",
                f"{updates:,} updates",
                "1,000",
                verdict,
            )


def host_kills(server: Server) -> None:
    """Four hosts with clocks of their own are killed at random moments, the store is restarted, requests fail."""
    with stores() as servers:
        for store in servers:
            checked = lost = stale = backwards = 0
            for number in range(KILLS // HOSTS):
                made, mixpanel = _killed(store, restart=number % 5 == 0)
                for identifier, state in made.items():
                    arrived = mixpanel.profiles.get(identifier)
                    checked, lost = checked + 1, lost + (arrived is None)
                    stale += arrived is not None and int(arrived["state"]) < state
                backwards += _backwards(mixpanel)
            verdict = judge(
                f"of {checked:,} profiles", reached=not lost and not stale and not backwards and checked > 0
            )
            figure = f"{lost} lost, {stale} stale, {backwards} older after newer"
            show(f"kill -9, {KILLS} times, {HOSTS} hosts", f"outbox: {store.name}", figure, "0, 0, 0", verdict)


def everysec(server: Server) -> None:
    """Redis with ``appendfsync everysec``: how long what it has accepted may still be lost if its machine fails."""
    from redis import Redis  # noqa: PLC0415 - as in _longest_script

    with (
        valkey_server(appendonly="yes", appendfsync="everysec") as valkey,
        Redis.from_url(valkey.url) as client,
        ThreadPoolExecutor(1) as threads,
    ):
        syncs = _Syncs(client.info("server")["process_id"])
        work = threads.submit(lambda: [_measured(valkey.url, number) for number in range(SYNCED_RUNS)])
        while not work.done():
            syncs.look()
            sleep(0.002)
    unsafe = [end - began for (began, _), (_, end) in pairwise(syncs.found[:-1])]
    show(
        f"appendfsync everysec, {SYNCED_RUNS * MESSAGES:,} messages",
        "outbox: Redis",
        f"on disk after {median(unsafe):.2f} s at most, once {max(unsafe):.2f} s",
    )


class _Syncs:
    """When a Valkey server writes its log to the disk: its thread for that waits, except at a sync (Linux)."""

    def __init__(self, process_id: int) -> None:
        tasks = Path(f"/proc/{process_id}/task").iterdir()
        self._thread = next(task for task in tasks if (task / "comm").read_text() == "bio_aof\n")
        self._switches = self._count()
        self.found = list[tuple[float, float]]()  # when each sync began and ended

    def look(self) -> None:
        """Note whether the thread has worked since the last look."""
        if (switches := self._count()) != self._switches:
            self._switches, now = switches, monotonic()
            is_same = self.found and now - self.found[-1][1] < SYNC_SECONDS
            self.found.append((self.found.pop()[0] if is_same else now, now))

    def _count(self) -> str:
        lines = (self._thread / "status").read_text().splitlines()
        return next(line for line in lines if line.startswith("voluntary_ctxt_switches"))


@contextmanager
def stores() -> Iterator[list[Store]]:
    """A Valkey server that writes each change to its log, and a PostgreSQL server, both with their data on disk."""
    settings = {"appendonly": "yes", "appendfsync": "always"}
    with valkey_server(**settings) as valkey, postgres_server() as postgres:
        yield [
            Store(
                "Redis",
                valkey.url,
                partial(_restart_valkey, valkey, settings),
            ),
            Store("PostgreSQL", postgres.url(), partial(_restart_postgres, postgres)),
        ]


def _restart_valkey(server: ValkeyServer, settings: dict[str, str]) -> None:
    server.kill()
    server.start(**settings)


def _restart_postgres(server: PostgresServer) -> None:
    server.kill()
    server.start()


def _measured(outbox: str | None, number: int) -> tuple[float, float, float]:
    """Seconds for putting messages, for claiming and settling them, and for putting them once more."""
    made, ledger, report = _messages(number), Ledger(), Reporter(None)
    memory: MemoryOutbox = MemoryOutbox(LIMITS, ledger, report)
    used: Outbox = memory
    if outbox is not None:
        backend = open_backend(outbox, StoreBounds())
        used = DurableOutbox(memory, backend, limits=LIMITS, staging=Staging(), ledger=ledger, report=report)
    gc.collect()
    seconds = _put(used, made), _settle(used), _put(used, made)
    used.close()
    return seconds


def _messages(number: int) -> list[Message]:
    body = b"x" * BODY_BYTES
    fingerprint = blake2b(f"{number}".encode(), digest_size=16).digest()
    return [Message(f"user-{n}", fingerprint, body, monotonic(), HERE, 3600.0) for n in range(MESSAGES)]


def _put(outbox: Outbox, messages: list[Message]) -> float:
    began = perf_counter()
    for message in messages:
        outbox.put(message._replace(evaluated_at=monotonic()))
    outbox.save()
    return perf_counter() - began


def _settle(outbox: Outbox) -> float:
    began, settled = perf_counter(), 0
    while (claim := outbox.claim({}, urgent=True)).messages:
        outbox.settle(claim.messages, ())
        settled += len(claim.messages)
    assert settled == MESSAGES
    return perf_counter() - began


def _longest_script(redis: Store) -> None:
    from redis import Redis  # noqa: PLC0415 - only this figure needs it

    client: Any = Redis.from_url(redis.url)
    client.config_set("slowlog-log-slower-than", 0)
    client.config_set("slowlog-max-len", 10_000)
    client.slowlog_reset()
    _measured(redis.url, -1)
    longest = (
        max(entry["duration"] for entry in client.slowlog_get(10_000) if b"EVALSHA" in entry["command"]) / 1000
    )
    client.config_set("slowlog-log-slower-than", -1)
    client.close()
    show("longest script", "outbox: Redis", f"{longest:.1f} ms", "below 15 ms", judge("", reached=longest < 15))


def _delivered(server: Server, servers: list[Store]) -> None:
    """Ready flags to Mixpanel: through memory, and through each store."""
    flags, what = evaluated(), f"deliver {UPDATES:,} x 50 flags"
    outboxes: dict[str, str | None] = {"memory": None, **{store.name: store.url for store in servers}}
    seconds = defaultdict[str, list[float]](list)
    for number in range(REPEATS):
        for name, outbox in outboxes.items():  # in turn, since the speed of a machine changes
            # Each round has another project, to which nothing was sent before.
            work = partial(deliver, server.url, flags, outbox, f"token-{number}")
            seconds[name].append(timed(work)[0])
    memory, *rates = (UPDATES / median(taken) for taken in seconds.values())
    show(what, "outbox: memory", f"{memory:,.0f} updates/s")
    for store, rate in zip(servers, rates, strict=True):
        ratio, is_redis = f"{rate / memory:.2f} x", store is servers[0]
        verdict = judge(ratio, reached=rate >= memory / 2) if is_redis else ratio
        show(what, f"outbox: {store.name}", f"{rate:,.0f} updates/s", "at least 0.5 x" * is_redis, verdict)


def _killed(store: Store, *, restart: bool) -> tuple[dict[str, int], Recorder]:
    """Kill hosts; return the last state of each profile that must not be lost, and what arrived."""
    safe: dict[str, int] = {}
    with Recorder() as mixpanel, TemporaryDirectory() as directory:
        children = [
            Child(
                mixpanel.url,
                store.url,
                Path(directory) / f"{n}",
                now,
                start=partial(become_host, n),
                tuning=SHORT_LEASE,
            )
            for n in range(HOSTS)
        ]
        if restart:
            sleep(random.uniform(FLUSH_SECONDS, 2 * FLUSH_SECONDS))
            store.restart()
            sleep(1.0)  # what is evaluated during an outage is only in memory, and is lost with its host
        for child in children:
            if random.random() < FAULTS * HOSTS:
                mixpanel.fail(status=503, times=1)
            sleep(random.uniform(FLUSH_SECONDS, 3 * FLUSH_SECONDS) / HOSTS)
            before = time_ns() - FLUSH_SECONDS * 1e9
            for made in child.end(signal.SIGKILL):
                if made.ended < before:
                    safe[made.identifier] = max(safe.get(made.identifier, 0), int(made.state))
        survive(mixpanel, store.url, SHORT_LEASE)
    return safe, mixpanel


def _backwards(mixpanel: Recorder) -> int:
    """Count updates that arrived after one that was evaluated noticeably later."""
    states = defaultdict[str, list[int]](list)
    for update in mixpanel.applied:
        if update["$distinct_id"] in USERS:
            states[update["$distinct_id"]].append(int(update["$set"]["state"]))
    return sum(
        later < former - CALL_SECONDS * 1e9 for some in states.values() for former, later in pairwise(some)
    )


def become_host(number: int) -> None:
    """Give this process the clocks and the boot of another machine."""
    seconds = number * 1000.0
    for module in [module for name, module in sys.modules.items() if name.startswith("flagsync.")]:
        for name in ("monotonic", "time"):
            if callable(clock := getattr(module, name, None)):
                setattr(module, name, lambda clock=clock: clock() + seconds)
        if hasattr(module, "boot_number"):
            module.boot_number = lambda: number + 1  # type: ignore[attr-defined]
