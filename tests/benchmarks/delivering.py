"""What delivering costs: updates a second, processor time of all threads, requests."""

import gc
import json
from collections.abc import Callable
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter, process_time

from flagsmith.models import Flags

from flagsync import FlagSync
from tests.benchmarks.inputs import IDENTITIES, buffered, local_client, properties_of, remote_flags
from tests.benchmarks.server import Counts, Server
from tests.benchmarks.table import OURS, judge, show

UPDATES, SLOW_UPDATES, REPEATS = len(IDENTITIES), 1000, 3
CALLERS, ROUNDS = IDENTITIES[:1000], 100


def delivery(server: Server) -> None:
    """Ready flags to the server as fast as it goes."""
    what, flags = "deliver 20,000 x 50 flags", evaluated()
    properties = [properties_of(one) for one in flags]
    theirs, ours, dumps = [], [], []
    for _ in range(REPEATS):
        dumps.append(timed(lambda: [json.dumps(one) for one in properties]))
        theirs.append(timed(lambda: _buffered(server.url, flags)))
        their_counts = server.counts()
        ours.append(timed(lambda: deliver(server.url, flags)))
        our_counts = server.counts()
    (_, dumps_cpu), (their_rate, their_cpu), (our_rate, our_cpu) = map(_per_update, (dumps, theirs, ours))
    fewest = max(-(-UPDATES // 2000), -(-our_counts.bytes // 2_000_000))
    all_came = our_counts.profiles == our_counts.updates == UPDATES

    show(what, "BufferedConsumer", f"{their_rate:,.0f} updates/s")
    verdict = judge(f"{our_rate / their_rate:.1f} x", reached=our_rate >= 2 * their_rate)
    show(what, OURS, f"{our_rate:,.0f} updates/s", "at least 2 x", verdict)
    show("  processor time", "json.dumps of ready dicts", f"{dumps_cpu:.1f} µs an update")
    show("  processor time", "BufferedConsumer", f"{their_cpu:.1f} µs an update")
    verdict = judge(f"{our_cpu / dumps_cpu:.1f} x", reached=our_cpu <= 3 * dumps_cpu)
    show("  processor time", OURS, f"{our_cpu:.1f} µs an update", "at most 3 x json.dumps", verdict)
    show("  requests", "BufferedConsumer", _requests(their_counts))
    verdict = judge("all came" if all_came else "LOST", reached=our_counts.requests <= fewest and all_came)
    show("  requests", OURS, _requests(our_counts), f"the fewest: {fewest}", verdict)


def file(server: Server) -> None:
    """Ready flags to the server through an outbox in memory, and through one in a file."""
    what, flags = "deliver 20,000 x 50 flags", evaluated()
    memory, file = [], []
    with TemporaryDirectory() as directory:
        for number in range(REPEATS):
            memory.append(timed(lambda: deliver(server.url, flags)))
            path = f"{directory}/{number}.db"
            file.append(timed(lambda path=path: deliver(server.url, flags, path)))  # type: ignore[misc]
    all_came = server.counts().profiles == UPDATES
    (memory_rate, _), (file_rate, file_cpu) = map(_per_update, (memory, file))
    show(what, OURS, f"{memory_rate:,.0f} updates/s")
    verdict = judge(f"{file_rate / memory_rate:.2f} x", reached=file_rate >= memory_rate / 2 and all_came)
    show(what, "flagsync, outbox=…", f"{file_rate:,.0f} updates/s", "at least 0.5 x", verdict)
    show("  processor time", "flagsync, outbox=…", f"{file_cpu:.1f} µs an update")


def latency(server: Server) -> None:
    """Ready flags to a server that takes 100 ms for each answer."""
    what, flags, url = "deliver, 100 ms latency", evaluated(), f"{server.url}/slow"
    rate = SLOW_UPDATES / timed(lambda: _buffered(url, flags[:SLOW_UPDATES]))[0]
    show(f"{what}, {SLOW_UPDATES:,}", "BufferedConsumer", f"{rate:,.0f} updates/s")
    server.counts()
    rate = UPDATES / timed(lambda: deliver(url, flags))[0]
    lost = UPDATES - server.counts().profiles
    verdict = judge(f"{lost} dropped", reached=rate >= 10_000 and not lost)
    show(f"{what}, {UPDATES:,}", OURS, f"{rate:,.0f} updates/s", "at least 10,000", verdict)


def unchanged(server: Server) -> None:
    """Rounds of calls that change nothing, with a flush after each."""
    what, bare = "100 rounds of 1000 unchanged", local_client(50)
    cpu = timed(lambda: _rounds(bare.get_identity_flags, lambda: None, ROUNDS))[1]
    show(what, "bare Flagsmith", f"{cpu / ROUNDS / len(CALLERS) * 1e6:.2f} µs CPU a call")
    evaluating = timed(lambda: _rounds(lambda name: bare.get_identity_flags(name).all_flags(), int, 1))[1]
    evaluating *= 1e6 / len(CALLERS)
    show(what, "bare Flagsmith, all_flags()", f"{evaluating:.0f} µs CPU a call")
    server.counts()
    with FlagSync(bare, "token", mixpanel_url=server.url) as client:
        first = timed(lambda: _rounds(client.get_identity_flags, client.flush, 1))[1]
        rest = timed(lambda: _rounds(client.get_identity_flags, client.flush, ROUNDS - 1))[1]
    counts, cpu = server.counts(), (first + rest) / ROUNDS / len(CALLERS) * 1e6
    verdict = judge(f"{cpu / evaluating:.1%}", reached=cpu <= max(6, 0.06 * evaluating))
    show(what, OURS, f"{cpu:.2f} µs CPU a call", "at most 6, or 6 %", verdict)
    later = f"{rest / (ROUNDS - 1) / len(CALLERS) * 1e6:.2f} µs CPU a call"
    show("  after the first", OURS, later)
    once = counts.profiles == counts.updates == len(CALLERS)
    show("  profiles sent", OURS, f"{counts.most} time(s) each", "once", judge("all came", reached=once))


def evaluated() -> list[Flags]:
    """Flags out of the garbage collector's sight: an application has few of them at a time."""
    flags = [remote_flags(number) for number in range(UPDATES)]
    gc.collect()
    gc.freeze()
    return flags


def _buffered(url: str, flags: list[Flags]) -> None:
    mixpanel, consumer = buffered(url)
    for identifier, one in zip(IDENTITIES, flags, strict=False):
        mixpanel.people_set(identifier, properties_of(one))
    consumer.flush()


def deliver(url: str, flags: list[Flags], outbox: str | None = None, token: str = "token") -> None:
    """Deliver flags that are ready."""
    with FlagSync(local_client(1), token, mixpanel_url=url, outbox=outbox) as client:
        for identifier, one in zip(IDENTITIES, flags, strict=True):
            client.mirror(identifier, one)
        client.flush(60)


def _rounds(evaluate: Callable[[str], object], flush: Callable[[], object], count: int) -> None:
    for _ in range(count):
        for identifier in CALLERS:
            evaluate(identifier)
        flush()


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds on the clock, and seconds of processor time of all threads."""
    began, cpu_began = perf_counter(), process_time()
    work()
    return perf_counter() - began, process_time() - cpu_began


def _per_update(runs: list[tuple[float, float]]) -> tuple[float, float]:
    """Updates a second, and microseconds of processor time an update: medians."""
    seconds, cpu = (median(column) for column in zip(*runs, strict=True))
    return UPDATES / seconds, cpu / UPDATES * 1e6


def _requests(counts: Counts) -> str:
    return f"{counts.requests}, {counts.bytes / 1e6:.0f} MB"
