"""Fixtures of the whole suite: a loopback Mixpanel, an offline Flagsmith, and no thread left behind."""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from flagsmith import Flagsmith
from flagsmith.offline_handlers import LocalFileHandler
from hypothesis import settings

from flagsync import FlagSync
from tests.support.postgres import PostgresServer, postgres_server
from tests.support.tasks import Run
from tests.support.valkey import ValkeyServer, valkey_server

if TYPE_CHECKING:  # pytest imports it as a plugin, after this file
    from flagsync.testing import MixpanelServer

pytest_plugins = ["flagsync.testing"]
# Each run tries the same examples.
settings.register_profile("flagsync", derandomize=True)
settings.load_profile("flagsync")
# Where coverage is measured, a worker is, and the programs that it starts are not.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.pop("COVERAGE_PROCESS_START", None)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell has started this in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which the programs inherit as the default

DATA = Path(__file__).parent / "data"
PROGRAMS = Path(__file__).parent / "programs"
# Python >= 3.12 warns of every fork with threads; the programs fork on purpose, all other warnings are errors.
PYTHON = (sys.executable, "-W", "error", "-W", "ignore:This process:DeprecationWarning")


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    """Fail a test whose threads outlive it."""
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        thread.join(5)
        assert not thread.is_alive(), f"{thread.name} is left"


@pytest.fixture(params=["asyncio", "trio"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs an async function to its end."""
    return lambda function: anyio.run(function, backend=request.param)


@pytest.fixture
def mixpanel(mixpanel_server: "MixpanelServer") -> "MixpanelServer":
    """A loopback Mixpanel."""
    return mixpanel_server


@pytest.fixture(scope="session")
def valkey() -> Iterator[ValkeyServer]:
    """A Valkey server of all tests, with settings that it warns of nothing."""
    with valkey_server(appendonly="yes", appendfsync="everysec") as server:
        yield server


@pytest.fixture
def document() -> dict[str, Any]:
    """An environment document recorded from a real Flagsmith server."""
    loaded: dict[str, Any] = json.loads((DATA / "environment-document.json").read_text("utf-8"))
    return loaded


@pytest.fixture
def offline() -> Flagsmith:
    """A Flagsmith client on the recorded document, without network."""
    return Flagsmith(
        offline_mode=True, offline_handler=LocalFileHandler(str(DATA / "environment-document.json"))
    )


@pytest.fixture
def flagsync(offline: Flagsmith, mixpanel: "MixpanelServer") -> Iterator[Callable[..., FlagSync]]:
    """Builds clients of the offline Flagsmith and the loopback Mixpanel; closes them."""
    clients: list[FlagSync] = []

    def build(flagsmith: Flagsmith = offline, token: str | None = "project-token", **options: Any) -> FlagSync:
        client = FlagSync(flagsmith, token, **{"mixpanel_url": mixpanel.url, **options})
        clients.append(client)
        return client

    yield build
    for client in clients:
        client.close(0.1)


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """The messages of the logger ``flagsync`` so far."""
    caplog.set_level(logging.DEBUG, "flagsync")
    return lambda: [record.getMessage() for record in caplog.records if record.name == "flagsync"]


@pytest.fixture
def start(mixpanel: "MixpanelServer") -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts Python, told where Mixpanel is, with its children in a group that does not outlive the test."""
    processes: list[subprocess.Popen[str]] = []

    def start_python(
        *command: str, variables: Mapping[str, str] = MappingProxyType({}), **options: Any
    ) -> subprocess.Popen[str]:
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        environment = {**os.environ, "MIXPANEL_URL": mixpanel.url, **variables}
        options = {**pipes, "cwd": PROGRAMS, "env": environment, "start_new_session": True, **options}
        processes.append(subprocess.Popen([*PYTHON, *command], text=True, **options))
        return processes[-1]

    yield start_python
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server that all tests share: each takes a schema of its own, and leaves the server running."""
    with postgres_server() as server:
        yield server


@pytest.fixture(scope="session")
def _restless_postgres() -> Iterator[PostgresServer]:
    with postgres_server() as server:
        yield server


@pytest.fixture
def own_postgres(_restless_postgres: PostgresServer) -> Iterator[PostgresServer]:
    """A PostgreSQL server that a test may kill, pause and configure, if it leaves it running."""
    yield _restless_postgres
    _restless_postgres.end_sessions()
    _restless_postgres.drop_schemas()
