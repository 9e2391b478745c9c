"""How servers and families of processes end, with and without an outbox in a file, while Mixpanel hangs or not.

How they end without a file while Mixpanel is well is in test_life_cycle.py, but for gevent's workers.
"""

import re
import socket
import subprocess
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

import pytest

from flagsync import FlagSync, outbox_stats
from flagsync.testing import MixpanelServer

HANG_SECONDS = 60.0  # longer than any program may take
# Twice the time that an exit may take, for parents and their children, and slack; but less than a request, or
# gunicorn, which kills its workers, would wait: 30 seconds.
EXIT_SECONDS = 25.0
WORKERS = ["sync", "gthread", "gevent"]
FAMILIES = [("fork",), ("process", "fork"), ("process", "forkserver"), ("executor", "spawn")]
FAMILY = ["child_0", "child_1", "parent"]
USERS = [f"user_{number}" for number in range(4)]
LOST = r"The client was closed before Mixpanel took them[^:]*: (\d+) updates? lost"

Build = Callable[..., FlagSync]
Start = Callable[..., subprocess.Popen[str]]
Survive = Callable[[Path], None]


class Ended(NamedTuple):
    names: list[str]
    """For whom it evaluated."""
    errors: str


class Server:
    """A gunicorn with two workers that have begun to serve; ``names``: for whom they evaluated."""

    def __init__(self, start: Start, worker: str, **options: Any) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self._port = listener.getsockname()[1]
            gunicorn = ["-m", "gunicorn", "--no-control-socket", "--workers=2", f"--worker-class={worker}"]
            bind = f"--bind=fd://{listener.fileno()}"
            self.process = start(*gunicorn, bind, "served:app", pass_fds=[listener.fileno()], **options)
        assert self.process.stdout
        # A worker that is told to end before it has begun may hang by itself (gunicorn 27.0, gevent).
        self.names = [self.process.stdout.readline().strip() for _ in range(2)]
        assert all(self.names), self.process.communicate(timeout=HANG_SECONDS)[1]

    def serve(self, user: str) -> None:
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/{user}", timeout=HANG_SECONDS) as response:
            assert response.status == 200
        self.names.append(user)


@pytest.fixture
def start(start: Start) -> Start:
    """Starts Python, told where its outbox is, too."""

    def start_python(
        *command: str, outbox: object = "", interval: float = 60.0, **options: Any
    ) -> subprocess.Popen[str]:
        variables = {"OUTBOX": str(outbox), "FLUSH_INTERVAL_SECONDS": str(interval)}
        # gunicorn does not close the socket that it is given.
        return start("-W", "ignore::ResourceWarning", *command, variables=variables, **options)

    return start_python


def end(process: subprocess.Popen[str], deadline: float) -> str:
    """Wait for the end of a process and, by the pipes they inherit, of its children; what it complained of."""
    _, errors = process.communicate(timeout=deadline - monotonic())
    assert (process.returncode, "Traceback" in errors) == (0, False), errors
    return errors


def sent(mixpanel: MixpanelServer) -> Counter[str]:
    """How often each profile was sent, whatever became of it."""
    return Counter(update["$distinct_id"] for request in mixpanel.requests for update in request.updates)


@pytest.fixture
def survive(flagsync: Build) -> Survive:
    """Delivers what processes have left in their outbox."""

    def deliver(outbox: Path) -> None:
        survivor = flagsync(outbox=outbox)
        survivor.get_identity_flags("survivor")
        assert survivor.flush()

    return deliver


@pytest.mark.parametrize("worker", WORKERS)
def test_what_workers_of_gunicorn_served_is_delivered_once_or_in_their_outbox(
    worker: str, mixpanel: MixpanelServer, start: Start, survive: Survive, tmp_path: Path
) -> None:
    server = Server(start, worker, outbox=tmp_path / "outbox.db")
    for user in USERS:
        server.serve(user)
    server.process.terminate()
    end(server.process, monotonic() + EXIT_SECONDS)
    survive(tmp_path / "outbox.db")
    assert sent(mixpanel) == Counter([*server.names, "survivor"])


def test_what_gevent_workers_of_gunicorn_served_is_delivered_once(
    mixpanel: MixpanelServer, start: Start
) -> None:
    server = Server(start, "gevent")
    for user in USERS:
        server.serve(user)
    server.process.terminate()
    end(server.process, monotonic() + EXIT_SECONDS)
    assert sent(mixpanel) == Counter(server.names)


@pytest.mark.parametrize("family", FAMILIES, ids="-".join)
def test_what_a_family_of_processes_evaluated_is_delivered_once_or_in_its_outbox(
    family: tuple[str, ...], mixpanel: MixpanelServer, start: Start, survive: Survive, tmp_path: Path
) -> None:
    process = start("children.py", *family, outbox=tmp_path / "outbox.db")
    end(process, monotonic() + HANG_SECONDS)
    survive(tmp_path / "outbox.db")
    assert sent(mixpanel) == Counter([*FAMILY, "survivor"])


def end_all(mixpanel: MixpanelServer, start: Start, outboxes: Path | None = None) -> dict[str, Ended]:
    """Let servers, with a request on its way, and families end while Mixpanel hangs."""
    mixpanel.fail(delay_seconds=HANG_SECONDS)
    outbox = {name: outboxes / name if outboxes else "" for name in (*WORKERS, *map("-".join, FAMILIES))}
    servers = {name: Server(start, name, outbox=outbox[name], interval=0.001) for name in WORKERS}
    assert mixpanel.wait_for_requests(len(WORKERS) * (1 if outboxes else 2), HANG_SECONDS)
    for server in servers.values():
        server.serve("user")
        server.process.terminate()
    processes = {name: server.process for name, server in servers.items()}
    for family in FAMILIES:
        name = "-".join(family)
        processes[name] = start("children.py", *family, outbox=outbox[name])
    deadline = monotonic() + EXIT_SECONDS
    return {
        name: Ended(servers[name].names if name in servers else FAMILY, end(process, deadline))
        for name, process in processes.items()
    }


def test_no_process_waits_for_a_mixpanel_that_hangs_and_each_says_what_is_lost(
    mixpanel: MixpanelServer, start: Start
) -> None:
    ended = end_all(mixpanel, start)
    lost = {name: sum(map(int, re.findall(LOST, errors))) for name, (_, errors) in ended.items()}
    assert lost == {name: len(names) for name, (names, _) in ended.items()}
    # The user is behind the request that was on its way.
    assert sent(mixpanel) == Counter(name for names, _ in ended.values() for name in names if name != "user")


def test_no_process_waits_for_a_mixpanel_that_hangs_and_what_is_pending_stays_in_the_outbox(
    mixpanel: MixpanelServer, start: Start, survive: Survive, tmp_path: Path
) -> None:
    ended = end_all(mixpanel, start, tmp_path)
    assert [name for name, (_, errors) in ended.items() if re.search(LOST, errors)] == []
    pending = {name: outbox_stats(tmp_path / name).pending for name in ended}
    assert pending == {name: len(names) for name, (names, _) in ended.items()}
    mixpanel.recover()
    for name in ended:
        survive(tmp_path / name)
    assert {*mixpanel.profiles} == {"survivor", *(name for names, _ in ended.values() for name in names)}
