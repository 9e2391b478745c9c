"""Cohorts: what they add to a call, how fast a page is stored, and what kills cost a store and a writer."""

import base64
import io
import json
import os
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, perf_counter_ns, sleep
from typing import Any

from flagsmith import Flagsmith

from flagsync import FlagSync
from flagsync.cohorts import CohortUpdate, CohortWebhook, SQLiteStore, TraitWriter
from flagsync.cohorts.trait_writer.pace import Pace
from flagsync.cohorts.trait_writer.writer import Writing
from tests.benchmarks.calling import interleaved
from tests.benchmarks.inputs import local_client
from tests.benchmarks.server import Server
from tests.benchmarks.surviving import resident_bytes
from tests.benchmarks.table import judge, percentile, show, spread
from tests.support.flagsmith_server import KEY, FlagsmithServer

PAGES, PAGE, OLD_PAGES, PAGE_KILLS = 1000, 1000, 100, 30
WRITTEN, TRAIT_SECONDS, FASTEST = 100_000, 0.003, 210
WRITER_KILLS, USERS = 100, 2000


def lookup(server: Server) -> None:
    """``get_identity_flags`` with cohorts that are cached, beside calls that have the same traits at hand."""
    for count in (10, 60):
        with _store() as store:
            for number in range(count):
                store.apply(CohortUpdate("add_members", f"{number}", f"cohort {number}", members=("user-1",)))
            [cohorts] = store.traits_of(["user-1"]).values()
            with FlagSync(local_client(50), None, cohorts=store) as client:
                bare = client.flagsmith.get_identity_flags
                at_hand = partial(_evaluate_with, bare, cohorts)
                without, theirs, ours = interleaved(bare, at_hand, client.get_identity_flags)
        what, more = f"call, {count} cohorts", percentile(ours, 50) - percentile(theirs, 50)
        show(what, "bare Flagsmith, without them", spread(without))
        show(what, "bare Flagsmith, traits at hand", spread(theirs))
        verdict = judge(f"{more:+.2f}", reached=more <= 2)
        show(what, "flagsync, cohorts=…, cached", spread(ours), "at most +2.0", verdict)


def _evaluate_with(
    evaluate: Callable[..., object], cohorts: dict[str, bool], identifier: str, traits: dict[str, Any]
) -> None:
    evaluate(identifier, {**cohorts, **traits})


def million(server: Server) -> None:
    """A cohort of a million in 1000 pages while the process is killed again and again; then one page more."""
    with _store() as store:
        for number in range(OLD_PAGES):
            store.apply(CohortUpdate("add_members", "1", "all", members=_page(-1 - number)))
        missing = random.sample(range(PAGES), PAGES)
        for _ in range(PAGE_KILLS):
            missing = _apply(store, missing, kill_after=random.randint(1, PAGES // 2 // PAGE_KILLS))
        before, began, middle = resident_bytes(), perf_counter(), len(missing) // 2
        for number in missing[:middle]:
            store.apply(_whole(number))
        first = perf_counter() - began
        for number in missing[middle:]:
            store.apply(_whole(number))
        ratio, grown = (perf_counter() - began - first) / first, resident_bytes() - before
        expected = {identifier for number in range(PAGES) for identifier in _page(number)}
        found = [*store.members("1")]
        wrong = len(expected ^ {*found}) + len(found) - len(expected)
        what = f"{PAGES * PAGE:,} members, {PAGE_KILLS} kills"
        reached = not wrong and ratio < 2 and grown < 100e6
        detail = judge(f"last pages {ratio:.1f} x the ones before, {grown / 1e6:+.1f} MB", reached=reached)
        show(what, "SQLiteStore", f"{wrong} wrong", "0 wrong", detail)
        _measure_pages(store)


def _measure_pages(store: SQLiteStore) -> None:
    with _store() as empty:
        for where, what in ((empty, "an empty store"), (store, f"{PAGES * PAGE:,} members")):
            took = list[int]()
            webhook = CohortWebhook(where, credentials=[("mixpanel", "secret")])
            for number in range(50):
                call = _request(CohortUpdate("add_members", "1", "all", members=_page(PAGES + number)))
                answers = list[str]()
                start = perf_counter_ns()
                webhook.wsgi(call, lambda status, _: answers.append(status))  # noqa: B023 - called at once
                took.append(perf_counter_ns() - start)
                if answers != ["200 OK"]:
                    raise SystemExit(f"The webhook answered {answers}")
            median = percentile(took, 50) / 1000
            verdict = judge(f"p99 {percentile(took, 99) / 1000:.0f} ms", reached=median < 50)
            show(f"a page of {PAGE} members, {what}", "CohortWebhook", f"{median:.1f} ms", "below 50", verdict)


def writer(server: Server) -> None:
    """100,000 changes to a server as fast as a real one; then kills, with every second in 10 ms."""
    with _store() as store, FlagsmithServer(sleep) as flagsmith:
        flagsmith.trait_seconds = TRAIT_SECONDS
        for number in range(WRITTEN // PAGE):
            store.apply(CohortUpdate("add_members", "1", "all", members=_page(number)))
        began = perf_counter()
        with TraitWriter(store, Flagsmith(KEY, flagsmith.api_url)) as one:
            one.flush(1000)
            stats = one.stats()
        took, least = perf_counter() - began, WRITTEN * TRAIT_SECONDS
        reached = stats.requests <= FASTEST and len(flagsmith.traits) == WRITTEN
        verdict = judge(f"{took:.0f} s, {least:.0f} of them the server's", reached=reached)
        show(
            f"{WRITTEN:,} changes in bulk",
            "TraitWriter",
            f"{stats.requests} requests",
            f"at most {FASTEST}",
            verdict,
        )
    with _store() as store, FlagsmithServer(sleep) as flagsmith:
        flagsmith.trait_seconds = TRAIT_SECONDS / 100
        writing = Writing(pace=Pace(unsure_seconds=Pace().unsure_seconds / 100))
        for _ in range(WRITER_KILLS):
            child = _fork(
                lambda: TraitWriter(store, Flagsmith(KEY, flagsmith.api_url), writing=writing).flush(60)
            )
            for _ in range(random.randint(1, 5)):
                some = tuple(f"user-{number}" for number in random.sample(range(USERS), 100))
                action: Any = random.choice(["add_members", "remove_members"])
                store.apply(CohortUpdate(action, "1", "all", members=some))
                sleep(random.uniform(0, 0.3))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            flagsmith.requests.clear()
        with TraitWriter(store, Flagsmith(KEY, flagsmith.api_url), writing=writing) as survivor:
            survivor.flush(60)
        members = {*store.members("1")}
        wrong = sum(value != (who in members) for (who, _), value in flagsmith.traits.items())
        wrong += sum((who, "mixpanel_cohort_all") not in flagsmith.traits for who in members)
        verdict = judge(f"of {len(flagsmith.traits):,} traits", reached=not wrong and bool(members))
        show(f"{WRITER_KILLS} kills of a writer", "TraitWriter", f"{wrong} wrong", "0 wrong", verdict)


def _apply(store: SQLiteStore, missing: list[int], kill_after: int) -> list[int]:
    """Let a process apply pages, kill it in the middle of it; return what it has not said to be stored."""
    reader, pipe = os.pipe()

    def work() -> None:
        for number in missing:
            store.apply(_whole(number))
            os.write(pipe, b"%d\n" % number)

    child = _fork(work)
    os.close(pipe)
    with os.fdopen(reader) as lines:
        said = {int(line) for line, _ in zip(lines, range(kill_after), strict=False)}
        sleep(random.uniform(0, 0.02))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    # As Mixpanel does: what was not answered comes again, and now and then what was.
    said -= {number for number in said if random.random() < 0.05}
    return [number for number in missing if number not in said]


def _fork(work: Callable[[], object]) -> int:
    if (child := os.fork()) == 0:
        try:
            work()
        finally:
            os._exit(0)
    return child


def _page(number: int) -> tuple[str, ...]:
    """Identifiers as random as UUIDs, and the same for the same number."""
    numbers = random.Random(number)
    return tuple(f"{numbers.getrandbits(128):032x}" for _ in range(PAGE))


def _whole(number: int) -> CohortUpdate:
    return CohortUpdate("members", "1", "all", "session", number + 1, PAGES, _page(number))


def _request(update: CohortUpdate) -> dict[str, Any]:
    members = [{"mixpanel_distinct_id": who, "email": f"{who}@example.com"} for who in update.members]
    parameters = {"mixpanel_cohort_id": update.cohort_id, "mixpanel_cohort_name": "all", "members": members}
    body = json.dumps({"action": update.action, "parameters": parameters}).encode()
    return {
        "REQUEST_METHOD": "POST",
        "HTTP_AUTHORIZATION": f"Basic {base64.b64encode(b'mixpanel:secret').decode()}",
        "CONTENT_TYPE": "application/json",
        "CONTENT_LENGTH": f"{len(body)}",
        "wsgi.input": io.BytesIO(body),
    }


@contextmanager
def _store() -> Iterator[SQLiteStore]:
    with TemporaryDirectory() as directory, SQLiteStore(Path(directory) / "cohorts.db") as store:
        yield store
