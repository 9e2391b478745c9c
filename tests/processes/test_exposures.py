"""Exposures of processes that share an outbox: one event for each user and experiment."""

import subprocess
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from time import time_ns

import pytest

from flagsync import FlagSync, outbox_stats
from flagsync.testing import MixpanelServer

Start = Callable[..., subprocess.Popen[str]]
USERS, EXPERIMENTS, PROCESSES = 200, 3, 4
INTERVAL_SECONDS = 0.5


def test_four_processes_and_a_restart_record_each_exposure_once(
    start: Start, mixpanel: MixpanelServer, tmp_path: Path
) -> None:
    outbox = tmp_path / "outbox.db"
    mixpanel.fail(times=1, status=503, headers={"Retry-After": "1"})
    for _ in range(2):
        started = [start("exposures.py", f"{outbox}", f"{USERS}", f"{EXPERIMENTS}") for _ in range(PROCESSES)]
        assert [process.communicate(timeout=60)[0] for process in started] == ["True\n"] * PROCESSES
    met = Counter(
        (event["properties"]["distinct_id"], event["properties"]["Experiment name"])
        for event in mixpanel.events
    )
    assert len(met) == USERS * EXPERIMENTS
    assert {*met.values()} == {1}
    exposures = outbox_stats(outbox).exposures
    assert (exposures.delivered, exposures.pending, exposures.dropped) == (USERS * EXPERIMENTS, 0, 0)
    assert exposures.accepted == 2 * PROCESSES * USERS * EXPERIMENTS


@pytest.mark.parametrize("intervals", [1.5, 3.0])
def test_killed_process_loses_no_exposure_that_is_older_than_the_flush_interval(
    start: Start, flagsync: Callable[..., FlagSync], mixpanel: MixpanelServer, tmp_path: Path, intervals: float
) -> None:
    outbox = tmp_path / "outbox.db"
    process = start("exposures_killed.py", f"{outbox}", f"{INTERVAL_SECONDS}")
    ended: dict[str, int] = {}
    assert process.stdout
    for line in process.stdout:
        user, now = line.split()
        ended[user] = int(now)
        if int(now) > ended["user_0"] + intervals * INTERVAL_SECONDS * 1e9:
            break
    old = {user for user, now in ended.items() if now < time_ns() - INTERVAL_SECONDS * 1e9}
    process.kill()
    process.communicate()
    assert flagsync(outbox=outbox).flush()
    ids = defaultdict[str, set[str]](set)
    for event in mixpanel.events:
        ids[event["properties"]["distinct_id"]].add(event["properties"]["$insert_id"])
    assert (len(old) > 0, old - {*ids}) == (True, set())
    assert {len(those) for those in ids.values()} == {1}  # an event that came twice has one id
