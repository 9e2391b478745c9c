"""What the application's threads pay: the cost of a call, and how late others get."""

import threading
from collections.abc import Callable
from functools import partial
from itertools import chain
from statistics import median
from time import perf_counter_ns, sleep
from typing import Any

from flagsmith import Flagsmith
from mixpanel import Mixpanel

from flagsync import FlagSync
from tests.benchmarks.inputs import IDENTITIES, buffered, local_client, properties_of
from tests.benchmarks.server import Server
from tests.benchmarks.table import OURS, judge, percentile, show, spread

CALLERS, BLOCKS, CALLS, PAUSE_SECONDS = IDENTITIES[:5000], 40, 1000, 0.01
BACKLOGS, BACKLOG, WAKE_NS = 9, IDENTITIES[:2000], 2_000_000


def call(server: Server) -> None:
    """``get_identity_flags`` beside the bare client's and the naive wrapper's."""
    for features in (50, 200, 500):
        what, bare = f"call, {features} flags", local_client(features)
        show(what, "bare Flagsmith, no encoder", spread(interleaved(bare.get_identity_flags)[0]))
        with FlagSync(bare, "token", mixpanel_url=server.url) as client:
            for identifier in CALLERS:
                client.get_identity_flags(identifier)
            theirs, ours = interleaved(bare.get_identity_flags, client.get_identity_flags)
            client.flush(60)
        show(what, "bare Flagsmith, encoder running", spread(theirs))
        half, p99 = (percentile(ours, percent) - percentile(theirs, percent) for percent in (50, 99))
        verdict = judge(f"{half:+.2f}, {p99:+.2f}", reached=half <= 1 and p99 <= 5)
        show(what, OURS, spread(ours), "at most +1.0, p99 +5.0", verdict)
        naive = partial(_evaluate_and_set, bare, buffered(server.url)[0])
        show(what, "naive: all_flags(), people_set()", spread(_timed_calls(naive, 0)))


def stall(server: Server) -> None:
    """The lateness of a thread that calls 500 times a second, while the encoder is idle and while it is not.

    The rounds tell what the machine has to do with it, which now and then holds both up for milliseconds.
    """
    idle, busy = list[list[int]](), list[list[int]]()
    # What is pending must become none without flush(): nobody waits for the encoder.
    with FlagSync(local_client(200), "token", mixpanel_url=server.url, flush_interval_seconds=0.1) as client:
        for number in range(BACKLOGS):
            idle.append(_lateness(client, lambda: sleep(1)))
            busy.append(_lateness(client, lambda: _chew(client, number)))  # noqa: B023 - called at once
    rounds = [percentile(ours, 99) - percentile(theirs, 99) for theirs, ours in zip(idle, busy, strict=True)]
    all_idle, all_busy = [*chain(*idle)], [*chain(*busy)]
    p99 = percentile(all_busy, 99) - percentile(all_idle, 99)
    show("lateness, 500 calls a second", "encoder idle", spread(all_idle))
    detail = (
        f"{p99:+,.0f}; round by round {min(rounds):+,.0f} to {max(rounds):+,.0f}, median {median(rounds):+,.0f}"
    )
    verdict = judge(detail, reached=p99 <= 1000)
    show(
        f"  while 2000 x 200 flags wait, {BACKLOGS} times", OURS, spread(all_busy), "p99 at most +1000", verdict
    )


def _evaluate_and_set(bare: Flagsmith, mixpanel: Mixpanel, identifier: str, traits: dict[str, Any]) -> None:
    mixpanel.people_set(identifier, properties_of(bare.get_identity_flags(identifier, traits)))


def interleaved(*calls: Callable[..., object]) -> list[list[int]]:
    """Nanoseconds of the calls, in alternating blocks: noise of the machine hits all of them."""
    took: list[list[int]] = [[] for _ in calls]
    for number in range(BLOCKS):
        for which, evaluate in enumerate(calls):
            sleep(PAUSE_SECONDS)  # the encoder works: a block begins while it is in the middle of it
            took[which] += _timed_calls(evaluate, number * CALLS)
    return took


def _timed_calls(evaluate: Callable[..., object], first: int) -> list[int]:
    took, own_cost = [], sorted(-perf_counter_ns() + perf_counter_ns() for _ in range(99))[49]
    traits = {"plan": "premium", "round": first // len(CALLERS)}  # changes: the encoder must evaluate
    for number in range(first, first + CALLS):
        identifier = CALLERS[number % len(CALLERS)]
        began = perf_counter_ns()
        evaluate(identifier, traits)  # and free what nobody has any more: the answer, or the one it supersedes
        took.append(perf_counter_ns() - began - own_cost)
    return took


def _lateness(client: FlagSync, meanwhile: Callable[[], object]) -> list[int]:
    """Nanoseconds from when each call was due to when it was done."""
    late, ended = list[int](), threading.Event()

    def wake() -> None:
        due = perf_counter_ns()
        while not ended.is_set():
            due += WAKE_NS
            sleep(max(0, due - perf_counter_ns()) / 1e9)
            client.get_identity_flags("the-same")  # next to no work for the encoder
            late.append(perf_counter_ns() - due)

    thread = threading.Thread(target=wake)
    thread.start()
    meanwhile()
    ended.set()
    thread.join()
    return late


def _chew(client: FlagSync, number: int) -> None:
    traits: dict[str, Any] = {"plan": ("free", "premium")[number % 2], "round": number}
    for position, identifier in enumerate(BACKLOG):
        client.get_identity_flags(identifier, traits)
        if position % 50 == 0:
            sleep(0.001)  # this loop must not be what holds the other thread up
    while client.stats().pending:
        sleep(0.005)
