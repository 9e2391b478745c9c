"""What delivering costs: updates a second, processor time, requests."""

import gc
import json
from collections.abc import Callable, Iterator, Mapping
from statistics import median
from time import perf_counter, process_time

from flagsmith.models import Flags

from flagsync import FlagSync
from tests.benchmarks.inputs import buffered, local_client, properties_of, remote_flags
from tests.benchmarks.report import Row, verdict
from tests.benchmarks.server import Counts, Server

UPDATES, SLOW_UPDATES, REPEATS = 20_000, 1000, 3
IDENTITIES, ROUNDS = 1000, 100


def delivery(server: Server) -> Iterator[Row]:
    """Ready flags to the server as fast as it goes."""
    what, everything = "deliver 20,000 x 50 flags", _everything(UPDATES)
    theirs, ours = [], []
    for _ in range(REPEATS):
        theirs.append(_timed(lambda: _buffered(server.url, everything)))
        their_counts = server.counts()
        ours.append(_timed(lambda: _flagsync(server.url, everything)))
        our_counts = server.counts()
    their_rate, our_rate = (UPDATES / median(run[0] for run in runs) for runs in (theirs, ours))
    their_cpu, our_cpu = (median(run[1] for run in runs) / UPDATES * 1e6 for runs in (theirs, ours))
    dumped = [properties_of(flags) for flags in everything.values()]
    dumps_cpu = _timed(lambda: [json.dumps(properties) for properties in dumped])[1] / UPDATES * 1e6
    side = "flagsync, max_pending 50,000"

    yield Row(what, "BufferedConsumer", f"{their_rate:,.0f} updates/s")
    judged = verdict(reached=our_rate >= 2 * their_rate, detail=f"{our_rate / their_rate:.1f} x")
    yield Row(what, side, f"{our_rate:,.0f} updates/s", "at least 2 x", judged)
    yield Row(what, "json.dumps of ready dicts, alone", f"{dumps_cpu:.1f} µs CPU an update")
    yield Row(what, "BufferedConsumer", f"{their_cpu:.1f} µs CPU an update")
    judged = verdict(reached=our_cpu <= 30, detail=f"{our_cpu / their_cpu:.2f} x")  # noqa: PLR2004
    yield Row(what, side, f"{our_cpu:.1f} µs CPU an update", "at most 30 µs", judged)
    yield Row(what, "BufferedConsumer", _requests(their_counts))
    fewest = max(-(-UPDATES // 2000), -(-our_counts.bytes // 2_000_000))
    judged = verdict(reached=our_counts.requests <= fewest and our_counts.profiles == UPDATES)
    yield Row(what, side, _requests(our_counts), f"the fewest: {fewest}", judged)


def latency(server: Server) -> Iterator[Row]:
    """Ready flags to a server that takes 100 ms for each answer."""
    what, everything = "deliver, 100 ms latency", _everything(UPDATES)
    some = dict(list(everything.items())[:SLOW_UPDATES])
    rate = SLOW_UPDATES / _timed(lambda: _buffered(server.slow_url, some))[0]
    yield Row(what, f"BufferedConsumer ({SLOW_UPDATES:,} updates)", f"{rate:,.0f} updates/s")
    server.counts()
    with FlagSync(local_client(1), "token", mixpanel_url=server.slow_url) as client:
        rate = UPDATES / _timed(lambda: _mirror(client, everything))[0]
        dropped, counts = client.stats().dropped, server.counts()
    judged = verdict(reached=rate >= 10_000 and not dropped and counts.profiles == UPDATES)  # noqa: PLR2004
    figure = f"{rate:,.0f}/s, {dropped} dropped"
    yield Row(what, "flagsync, max_pending 50,000", figure, "at least 10,000/s, 0", judged)


def unchanged(server: Server) -> Iterator[Row]:
    """Rounds of calls that change nothing."""
    what, bare = "100 rounds x 1000 unchanged", local_client(50)
    identities, calls = [f"user-{number}" for number in range(IDENTITIES)], IDENTITIES * ROUNDS

    def rounds(evaluate: Callable[[str], Flags], flush: Callable[[], object], count: int) -> None:
        for _ in range(count):
            for identity in identities:
                evaluate(identity)
            flush()

    cpu = _timed(lambda: rounds(bare.get_identity_flags, int, ROUNDS))[1] / calls * 1e6
    yield Row(what, "bare Flagsmith", f"{cpu:.2f} µs CPU a call")
    server.counts()
    with FlagSync(bare, "token", mixpanel_url=server.url) as client:
        first = _timed(lambda: rounds(client.get_identity_flags, client.flush, 1))[1]
        rest = _timed(lambda: rounds(client.get_identity_flags, client.flush, ROUNDS - 1))[1]
    counts, side = server.counts(), "flagsync, max_pending 50,000"
    cpu = (first + rest) / calls * 1e6
    yield Row(what, side, f"{cpu:.2f} µs CPU a call", "at most 6 µs", verdict(reached=cpu <= 6))  # noqa: PLR2004
    yield Row(what, "  without the first round", f"{rest / (calls - IDENTITIES) * 1e6:.2f} µs CPU a call")
    judged = verdict(reached=counts.profiles == IDENTITIES and counts.most == 1)
    yield Row(what, side, f"each sent {counts.updates / max(1, counts.profiles):g} times", "once", judged)


def _everything(count: int) -> dict[str, Flags]:
    """Evaluated flags by identifier, out of the garbage collector's sight: an application has few at a time."""
    everything = {f"user-{number}": remote_flags(number) for number in range(count)}
    gc.collect()
    gc.freeze()
    return everything


def _buffered(url: str, everything: Mapping[str, Flags]) -> None:
    mixpanel, consumer = buffered(url)
    for identity, flags in everything.items():
        mixpanel.people_set(identity, properties_of(flags))
    consumer.flush()


def _flagsync(url: str, everything: Mapping[str, Flags]) -> None:
    with FlagSync(local_client(1), "token", mixpanel_url=url) as client:
        _mirror(client, everything)


def _mirror(client: FlagSync, everything: Mapping[str, Flags]) -> None:
    for identity, flags in everything.items():
        client.mirror(identity, flags)
    client.flush(60)


def _timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds on the clock and seconds of processor time, of all threads."""
    began, cpu_began = perf_counter(), process_time()
    work()
    return perf_counter() - began, process_time() - cpu_began


def _requests(counts: Counts) -> str:
    return f"{counts.requests:,} requests, {counts.bytes / 1e6:.0f} MB"
