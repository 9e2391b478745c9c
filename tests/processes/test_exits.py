"""How servers and families of processes end, with and without an outbox in a file, while Mixpanel hangs or not.

How they end without a file while Mixpanel is well is in test_life_cycle.py, but for gevent's workers.
"""

import re
import socket
import subprocess
import urllib.request
from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple, Self

import pytest

from flagsync import FlagSync, outbox_stats
from flagsync.testing import MixpanelServer
from tests.support.processes import HANG_SECONDS, end, names, sent

# Twice the time that an exit may take, for parents and their children, and slack; but less than a request, or
# gunicorn, which kills its workers, would wait: 30 seconds.
EXIT_SECONDS = 25.0
WORKERS = ["sync", "gthread", "gevent"]
FAMILIES = [("fork",), ("process", "fork"), ("process", "forkserver"), ("executor", "spawn")]
FAMILY = [*names("child", 2), "parent"]
USERS = names("user", 4)
LOST = r"The client was closed before Mixpanel accepted them[^:]*: (\d+) updates? lost"

Build = Callable[..., FlagSync]
Start = Callable[..., subprocess.Popen[str]]
Survive = Callable[[Path], None]


class Group(NamedTuple):
    """Processes that have ended together.

    Attributes:
        names: For whom they evaluated.
        errors: What they wrote to their standard error.
    """

    names: list[str]
    errors: str


class Server:
    """A gunicorn with two workers.

    Attributes:
        process: The one that owns the workers.
        names: For whom they have evaluated.
    """

    def __init__(self, start: Start, worker: str, **options: Any) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self._port = listener.getsockname()[1]
            gunicorn = ["-m", "gunicorn", "--no-control-socket", "--workers=2", f"--worker-class={worker}"]
            bind = f"--bind=fd://{listener.fileno()}"
            self.process = start(*gunicorn, bind, "served:app", pass_fds=[listener.fileno()], **options)
        self.names = list[str]()

    def wait_for_workers(self) -> Self:
        """Wait until both workers serve: one that is told to end before may hang (gunicorn 27.0, gevent)."""
        assert self.process.stdout
        self.names += [self.process.stdout.readline().strip() for _ in range(2)]
        assert all(self.names), self.process.communicate(timeout=HANG_SECONDS)[1]
        return self

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


def end_well(process: subprocess.Popen[str], seconds: float) -> str:
    """Wait for the end of a process and its children, which succeed; return what they wrote to their errors."""
    ended = end(process, seconds)
    assert (ended.code, "Traceback" in ended.errors) == (0, False), ended.errors
    return ended.errors


@pytest.fixture
def survive(flagsync: Build) -> Survive:
    """Delivers what processes have left in their outbox."""

    def deliver(outbox: Path) -> None:
        survivor = flagsync(outbox=outbox)
        survivor.get_identity_flags("survivor")
        assert survivor.flush()

    return deliver


@pytest.mark.parametrize("worker", WORKERS)
def test_workers_of_gunicorn_deliver_once_or_leave_it_in_their_outbox(
    worker: str, mixpanel: MixpanelServer, start: Start, survive: Survive, tmp_path: Path
) -> None:
    server = Server(start, worker, outbox=tmp_path / "outbox.db").wait_for_workers()
    for user in USERS:
        server.serve(user)
    server.process.terminate()
    end_well(server.process, EXIT_SECONDS)
    survive(tmp_path / "outbox.db")
    assert sent(mixpanel) == Counter([*server.names, "survivor"])


def test_gevent_workers_of_gunicorn_deliver_once(mixpanel: MixpanelServer, start: Start) -> None:
    server = Server(start, "gevent").wait_for_workers()
    for user in USERS:
        server.serve(user)
    server.process.terminate()
    end_well(server.process, EXIT_SECONDS)
    assert sent(mixpanel) == Counter(server.names)


@pytest.mark.parametrize("family", FAMILIES, ids="-".join)
def test_family_of_processes_delivers_once_or_leaves_it_in_its_outbox(
    family: tuple[str, ...], mixpanel: MixpanelServer, start: Start, survive: Survive, tmp_path: Path
) -> None:
    process = start("children.py", *family, outbox=tmp_path / "outbox.db")
    end_well(process, HANG_SECONDS)
    survive(tmp_path / "outbox.db")
    assert sent(mixpanel) == Counter([*FAMILY, "survivor"])


def end_all(mixpanel: MixpanelServer, start: Start, outboxes: Path | None = None) -> dict[str, Group]:
    """Let servers, with a request on its way, and families end while Mixpanel hangs."""
    mixpanel.fail(delay_seconds=HANG_SECONDS)
    outbox = {name: outboxes / name if outboxes else "" for name in (*WORKERS, *map("-".join, FAMILIES))}
    servers = {name: Server(start, name, outbox=outbox[name], interval=0.001) for name in WORKERS}
    # Families take longer than servers, since the parents wait for their children before they end themselves.
    processes = {
        "-".join(family): start("children.py", *family, outbox=outbox["-".join(family)]) for family in FAMILIES
    }
    for server in servers.values():
        server.wait_for_workers()
    for name, server in servers.items():
        wait_until_sent(mixpanel, server.names, count=1 if outboxes else 2)
        server.serve("user")
        server.process.terminate()
        processes[name] = server.process
    deadline = monotonic() + EXIT_SECONDS
    return {
        name: Group(
            servers[name].names if name in servers else FAMILY, end_well(process, deadline - monotonic())
        )
        for name, process in processes.items()
    }


def wait_until_sent(mixpanel: MixpanelServer, users: Collection[str], count: int) -> None:
    """Wait until requests for so many of the users are on their way."""
    while True:
        requests = len(mixpanel.requests)
        if len(sent(mixpanel).keys() & {*users}) >= count:
            return
        assert mixpanel.wait_for_requests(requests + 1, HANG_SECONDS)


def test_exit_ends_while_mixpanel_hangs_and_reports_what_is_lost(
    mixpanel: MixpanelServer, start: Start
) -> None:
    ended = end_all(mixpanel, start)
    lost = {name: sum(map(int, re.findall(LOST, errors))) for name, (_, errors) in ended.items()}
    assert lost == {name: len(group.names) for name, group in ended.items()}
    # The user is behind the request that was on its way.
    assert sent(mixpanel) == Counter(name for group in ended.values() for name in group.names if name != "user")


def test_exit_ends_while_mixpanel_hangs_and_keeps_what_is_pending_in_the_outbox(
    mixpanel: MixpanelServer, start: Start, survive: Survive, tmp_path: Path
) -> None:
    ended = end_all(mixpanel, start, tmp_path)
    assert [name for name, (_, errors) in ended.items() if re.search(LOST, errors)] == []
    pending = {name: outbox_stats(tmp_path / name).pending for name in ended}
    assert pending == {name: len(group.names) for name, group in ended.items()}
    mixpanel.recover()
    for name in ended:
        survive(tmp_path / name)
    assert {*mixpanel.profiles} == {"survivor", *(name for group in ended.values() for name in group.names)}
