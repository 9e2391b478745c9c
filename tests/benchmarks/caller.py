"""What the caller pays: the cost of a call, and how late other threads get."""

import threading
from collections.abc import Callable, Iterator
from itertools import islice
from time import perf_counter_ns, sleep
from typing import Any, TypeAlias

from flagsync import FlagSync
from tests.benchmarks.inputs import buffered, local_client, properties_of
from tests.benchmarks.report import Row, percentile, verdict
from tests.benchmarks.server import Server

Call: TypeAlias = Callable[[str, dict[str, Any]], object]
IDENTITIES = [f"user-{number}" for number in range(5000)]
# Pauses let the encoder work in between: it is in the middle of it whenever a block begins.
BLOCKS, CALLS, PAUSE_SECONDS, NAIVE_CALLS = 200, 200, 0.002, 1000
BACKLOGS, BACKLOG, WAKE_NS, IDLE_SECONDS = 5, 2000, 2_000_000, 3


def caller(server: Server) -> Iterator[Row]:
    """The cost of ``get_identity_flags`` beside the bare client's and the naive wrapper's."""
    for features in (50, 200, 500):
        bare, what = local_client(features), f"call, {features} flags"
        alone = _interleaved(bare.get_identity_flags)[0]
        yield Row(what, "bare Flagsmith, no encoder", _spread(alone))
        with FlagSync(bare, "token", mixpanel_url=server.url) as client:
            for identity in IDENTITIES:
                client.get_identity_flags(identity, {"round": -1})
            both = _interleaved(bare.get_identity_flags, client.get_identity_flags)
            client.flush(60)
        yield Row(what, "bare Flagsmith, encoder running", _spread(both[0]))
        added = [percentile(both[1], percent) - percentile(both[0], percent) for percent in (50, 99)]
        judged = verdict(reached=added[0] <= 1 and added[1] <= 5, detail=f"+{added[0]:.2f}, +{added[1]:.2f}")  # noqa: PLR2004
        yield Row(what, "flagsync, max_pending 50,000", _spread(both[1]), "at most +1.0, +5.0", judged)
        naive = _naive(bare.get_identity_flags, server.url)
        yield Row(what, "naive: all_flags(), people_set()", _spread(_block(naive, 0, NAIVE_CALLS)))


def stalls(server: Server) -> Iterator[Row]:
    """The lateness of a thread that calls 500 times a second, without and with a backlog."""
    what = "lateness, 500 calls a second"
    with FlagSync(local_client(200), "token", mixpanel_url=server.url) as client:
        idle = _lateness(client, lambda: sleep(IDLE_SECONDS))
        yield Row(what, "encoder idle", _spread(idle))
        busy = _lateness(client, lambda: _chew(client))
    added = percentile(busy, 99) - percentile(idle, 99)
    judged = verdict(reached=added <= 1000, detail=f"+{added:,.0f} µs")  # noqa: PLR2004
    side = f"encoding {BACKLOG} x 200, max_pending 50,000"
    yield Row(what, side, _spread(busy), "p99 at most +1000 µs", judged)


def _interleaved(*calls: Call) -> list[list[int]]:
    """Nanoseconds of each call, in alternating blocks: noise of the machine hits all alike."""
    took: list[list[int]] = [[] for _ in calls]
    for number in range(BLOCKS):
        for call, times in zip(calls, took, strict=True):
            sleep(PAUSE_SECONDS)
            times += _block(call, number * CALLS, CALLS)
    return took


def _block(call: Call, first: int, count: int) -> list[int]:
    took, own_cost = [], _timer_cost()
    traits = {"plan": "premium", "round": first // len(IDENTITIES)}  # changed: the encoder must evaluate
    for number in range(first, first + count):
        identity = IDENTITIES[number % len(IDENTITIES)]
        began = perf_counter_ns()
        call(identity, traits)  # and what is freed by it: bare, the answer; with flagsync, the one overtaken
        took.append(perf_counter_ns() - began - own_cost)
    return took


def _timer_cost() -> int:
    return sorted(-perf_counter_ns() + perf_counter_ns() for _ in range(99))[49]


def _naive(evaluate: Callable[..., Any], url: str) -> Call:
    mixpanel, _ = buffered(url)
    return lambda identity, traits: mixpanel.people_set(identity, properties_of(evaluate(identity, traits)))


def _lateness(client: FlagSync, meanwhile: Callable[[], object]) -> list[int]:
    """Nanoseconds from when each call was due to when it was done."""
    late, ended = [], threading.Event()

    def wake() -> None:
        due = perf_counter_ns()
        while not ended.is_set():
            due += WAKE_NS
            sleep(max(0, due - perf_counter_ns()) / 1e9)
            client.get_identity_flags("the-same", {})  # next to no work for the encoder
            late.append(perf_counter_ns() - due)

    thread = threading.Thread(target=wake)
    thread.start()
    meanwhile()
    ended.set()
    thread.join()
    return late


def _chew(client: FlagSync) -> None:
    for number in range(BACKLOGS):
        for identity in islice(IDENTITIES, BACKLOG):
            client.get_identity_flags(identity, {"round": number})
        client.flush(60)


def _spread(times: list[int]) -> str:
    return f"{percentile(times, 50):,.2f} µs, p99 {percentile(times, 99):,.2f}"
