"""Exposures of processes that share an outbox: one event for each user and experiment."""

import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from flagsync import outbox_stats
from flagsync.testing import MixpanelServer

Start = Callable[..., subprocess.Popen[str]]
USERS, EXPERIMENTS, PROCESSES = 200, 3, 4


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
