"""Exposures of experiments: what a call costs, how fast events arrive, and how many there are."""

import gc
import logging
import random
import signal
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter, perf_counter_ns, sleep, time_ns

from flagsmith.models import Flag
from mixpanel import BufferedConsumer, Mixpanel

from flagsync import FlagSync
from flagsync._delivery.destinations import Backoff
from flagsync._delivery.sender import Sending
from flagsync._options import Tuning
from flagsync.testing import MixpanelServer
from tests.benchmarks.inputs import IDENTITIES, local_client
from tests.benchmarks.server import Server
from tests.benchmarks.surviving import (
    FLUSH_SECONDS,
    KINDS,
    Child,
    client_of,
    place,
    resident_bytes,
    survive,
)
from tests.benchmarks.table import OURS, judge, show, spread

REPEATS, ROUNDS, WORKERS = 3, 10, 4
USERS, EXPERIMENTS, CHUNK, FAULTS = 100_000, 5, 2000, 0.05
WARM_CALLS, PAUSE_SECONDS, NUMBERED = 20_000, 0.01, ("distinct_id", "Experiment name")
KILLS, KILLED_USERS = 100, 1000
# A fault after which Mixpanel has the events would let them come twice; ``exposure_kills`` looks at those.
REFUSALS = [kind for kind in KINDS if "body" not in kind]


def exposures(server: Server) -> None:
    """``track_exposure``, delivery, and users who meet an experiment again and again."""
    flags = [_flag("checkout") for _ in IDENTITIES]
    with FlagSync(local_client(1), "token", mixpanel_url=server.url) as client:
        took = _timed_calls(client, flags)
    half = median(took) / 1000
    show("track_exposure()", OURS, spread(took), "at most 2 µs", judge(f"{half:.2f} µs", reached=half <= 2))
    _delivered(server, flags)
    _repeated(server)
    _of_workers(server, flags)


def exposure_soak(server: Server) -> None:
    """A million calls of 100,000 users in five experiments, while one request in twenty fails."""
    logging.getLogger("flagsync").setLevel(logging.CRITICAL)  # each fault is meant to be
    for shared in (True, False):
        with place() as (mixpanel, path):
            sending = Sending(backoff=Backoff(first_seconds=0.01, max_seconds=0.3))
            client = client_of(mixpanel.url, path if shared else None, Tuning(sending=sending))
            with client:
                met, grown = _soaked(client, mixpanel)
            stats = client.stats().exposures
        events, pairs = sum(met), USERS * EXPERIMENTS
        side = f"flagsync, {'outbox=…' if shared else 'in memory'}"
        show(f"{2 * pairs:,} calls, {pairs:,} exposures", side, f"{events:,} events", *_verdict(met, shared))
        figure = f"{grown / 1e6:+.1f} MB"
        show(f"  memory after the first {WARM_CALLS:,}", side, figure, "", f"{stats.dropped} dropped")


def exposure_kills(server: Server) -> None:
    """``kill -9`` at random moments; a survivor then delivers what is in the file."""
    checked = lost = duplicates = wrong = 0
    for _ in range(KILLS):
        with place() as (mixpanel, path):
            child = Child(mixpanel.url, path, path.with_suffix(".calls"), _user, _expose)
            sleep(random.uniform(FLUSH_SECONDS, 4 * FLUSH_SECONDS))
            before = time_ns() - FLUSH_SECONDS * 1e9
            safe = {made.state for made in child.end(signal.SIGKILL) if made.ended < before}
            survive(mixpanel, path)
            arrived = _arrived(mixpanel)
        twice = {who: copies for who, copies in arrived.items() if len(copies) > 1}
        checked, lost = checked + len(safe), lost + len(safe - {*arrived})
        duplicates += len(twice)
        # The batch in flight may come twice; every other event comes once.
        in_flight = {min(number for number, _ in copies) for copies in twice.values()}
        ids = [len({insert_id for _, insert_id in copies}) for copies in twice.values()]
        wrong += (len(in_flight) > 1) or any(count > 1 for count in ids)
    verdict = judge(f"of {checked:,} exposures", reached=not lost and not wrong and checked > 0)
    figure = f"{lost} lost, {duplicates} twice"
    show(f"kill -9, {KILLS} times", "flagsync, outbox=…", figure, "0 lost", verdict)
    show("  came twice and should not have", "flagsync, outbox=…", f"{wrong} times", "0")


def _delivered(server: Server, flags: list[Flag]) -> None:
    """Ready flags to the server as fast as it goes."""
    what, theirs, ours = f"deliver {len(flags):,} exposures", list[float](), list[float]()
    gc.collect()
    gc.freeze()
    server.counts()
    for _ in range(REPEATS):
        theirs.append(_timed(lambda: _buffered(server.url)))
        their_counts = server.counts()
        ours.append(_timed(lambda: _flagsync(server.url, flags)))
        our_counts = server.counts()
    rate, our_rate = (len(flags) / median(seconds) for seconds in (theirs, ours))
    show(what, "BufferedConsumer", f"{rate:,.0f} events/s", "", f"{their_counts.requests} requests")
    all_came = our_counts.profiles == our_counts.updates == len(flags)
    verdict = judge(f"{our_rate / rate:.1f} x, {our_counts.requests} requests", reached=all_came)
    show(what, OURS, f"{our_rate:,.0f} events/s", "", verdict)


def _repeated(server: Server) -> None:
    """Users who meet the same experiment in each round: evaluated, remembered, sent once."""
    what, bare = f"{ROUNDS} x {len(IDENTITIES):,} evaluated exposures", local_client(1)
    [feature] = (flag.feature_name for flag in bare.get_identity_flags("ann").all_flags())
    seconds = _rounds(lambda name: bare.get_identity_flags(name).get_flag(feature))
    _show_rate(what, "bare Flagsmith", seconds, server)
    if find_spec("posthog") is None:
        show(what, "PostHog", "pip install posthog")
    else:
        with _posthog(server.url) as evaluate:
            seconds = _rounds(evaluate)
        _show_rate(what, "PostHog", seconds, server)
    with FlagSync(bare, "token", mixpanel_url=server.url) as client:
        seconds = _rounds(
            lambda name: client.track_exposure(name, bare.get_identity_flags(name).get_flag(feature)),
            lambda: client.flush(60),
        )
    _show_rate(what, OURS, seconds, server)


def _of_workers(server: Server, flags: list[Flag]) -> None:
    """The same users in four workers, which share a file or do not."""
    what = f"{len(IDENTITIES):,} exposures in {WORKERS} workers"
    with TemporaryDirectory() as directory:
        for outbox in (None, f"{directory}/outbox.db"):
            server.counts()
            for _ in range(WORKERS):
                _flagsync(server.url, flags, outbox)
            events = server.counts().updates
            verdict = judge("one each", reached=events == len(flags)) if outbox else ""
            side = f"flagsync, {'outbox=…' if outbox else 'in memory'}"
            show(what, side, f"{events:,} events", f"{len(flags):,}" if outbox else "", verdict)


def _soaked(client: FlagSync, mixpanel: MixpanelServer) -> tuple[bytearray, int]:
    """Make the calls; return how often each exposure came, and how much memory grew."""
    flags = [_flag(f"experiment_{number}") for number in range(EXPERIMENTS)]
    met, warm = bytearray(USERS * EXPERIMENTS), 0
    for number in range(2 * len(met)):
        user, experiment = divmod(number % len(met), EXPERIMENTS)
        client.track_exposure(f"user_{user}", flags[experiment])
        if number % CHUNK == 0:
            client.flush(60)  # this loop must not be faster than what it feeds
            _take(mixpanel, met)
            if random.random() < FAULTS:
                mixpanel.fail(times=1, **random.choice(REFUSALS))
        if number == WARM_CALLS:
            warm = resident_bytes()
    client.flush(60)
    grown = resident_bytes() - warm
    _take(mixpanel, met)
    return met, grown


def _take(mixpanel: MixpanelServer, met: bytearray) -> None:
    """Count the events, and remove them: the server's memory is not what is measured."""
    mixpanel.requests.clear()
    events = [*mixpanel.events]
    del mixpanel.events[: len(events)]
    for event in events:
        properties = event["properties"]
        user, experiment = (int(properties[name].rpartition("_")[2]) for name in NUMBERED)
        met[user * EXPERIMENTS + experiment] += 1


def _verdict(met: bytearray, shared: bool) -> tuple[str, str]:
    if shared:
        return f"exactly {len(met):,}", judge("one each", reached=met.count(1) == len(met))
    return "none missing", judge(f"at most {max(met)} each", reached=not met.count(0))


def _arrived(mixpanel: MixpanelServer) -> dict[str, list[tuple[int, str]]]:
    """Return the places of the requests that an exposure came in, and its ids."""
    found = defaultdict[str, list[tuple[int, str]]](list)
    for number, request in enumerate(mixpanel.requests):
        for event in request.updates if request.path.startswith("/track") else ():
            properties = event["properties"]
            found[properties["distinct_id"]].append((number, properties["$insert_id"]))
    return found


def _user() -> str:
    return f"user_{random.randrange(KILLED_USERS)}"


def _expose(client: FlagSync, _: str, user: str) -> None:
    client.track_exposure(user, _flag("checkout"))


def _flag(experiment: str) -> Flag:
    return Flag(enabled=True, value="blue", feature_id=1, feature_name=experiment, variant="treatment")


def _flagsync(url: str, flags: list[Flag], outbox: str | None = None) -> None:
    with FlagSync(local_client(1), "token", mixpanel_url=url, outbox=outbox) as client:
        for identifier, flag in zip(IDENTITIES, flags, strict=True):
            client.track_exposure(identifier, flag)
        client.flush(60)


def _buffered(url: str) -> None:
    consumer = BufferedConsumer(events_url=f"{url}/track")
    mixpanel = Mixpanel("token", consumer=consumer)
    for identifier in IDENTITIES:
        properties = {"Experiment name": "checkout", "Variant name": "treatment"}
        mixpanel.track(identifier, "$experiment_started", properties)
    consumer.flush()


@contextmanager
def _posthog(url: str) -> Iterator[Callable[[str], object]]:
    """PostHog's client, which evaluates locally and sends an event for each user that it does not remember."""
    posthog = import_module("posthog")  # not a requirement
    variants = [{"key": key, "rollout_percentage": 50} for key in ("control", "treatment")]
    filters = {
        "groups": [{"properties": [], "rollout_percentage": 100}],
        "multivariate": {"variants": variants},
    }
    client = posthog.Posthog("key", host=url, max_queue_size=100_000)
    client.feature_flags = [{"id": 1, "key": "checkout", "active": True, "filters": filters}]
    # The call is deprecated, and has the same dedupe as its successor.
    with warnings.catch_warnings(action="ignore"):
        yield lambda name: client.get_feature_flag("checkout", name, only_evaluate_locally=True)
        client.shutdown()


def _rounds(evaluate: Callable[[str], object], flush: Callable[[], object] = bool) -> float:
    """Seconds for all users, again and again."""

    def work() -> None:
        for _ in range(ROUNDS):
            for identifier in IDENTITIES:
                evaluate(identifier)
            flush()

    return _timed(work)


def _show_rate(what: str, side: str, seconds: float, server: Server) -> None:
    calls, events = ROUNDS * len(IDENTITIES), server.counts().updates
    show(what, side, f"{calls / seconds:,.0f} calls/s", "", f"{events:,} events")


def _timed(work: Callable[[], object]) -> float:
    began = perf_counter()
    work()
    return perf_counter() - began


def _timed_calls(client: FlagSync, flags: list[Flag]) -> list[int]:
    """Nanoseconds of each call, the loop's own cost taken off."""
    took = []
    for number, (identifier, flag) in enumerate(zip(IDENTITIES, flags, strict=True)):
        if number % CHUNK == 0:
            sleep(PAUSE_SECONDS)  # the encoder works: a block begins while it is in the middle of it
        began = perf_counter_ns()
        client.track_exposure(identifier, flag)
        took.append(perf_counter_ns() - began)
    return took
