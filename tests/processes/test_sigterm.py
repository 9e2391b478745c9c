"""close_on_sigterm: scripts and servers that get SIGTERM deliver first, and end as they did."""

import atexit
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
import weakref
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from time import monotonic
from types import ModuleType
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI
from starlette.applications import Starlette

from flagsync import FlagSync, _process, _signals, close_on_sigterm
from flagsync.testing import MixpanelServer
from tests.support.processes import HANG_SECONDS, Ended, can_be_first, end, sent

Build = Callable[..., FlagSync]
Start = Callable[..., subprocess.Popen[str]]
SIGTERM = signal.SIGTERM


@pytest.fixture
def terminated(start: Start) -> Callable[[str], Ended]:
    """Runs the script, sends SIGTERM when it is ready, and closes its input."""

    def run(how: str, *arguments: str) -> Ended:
        process = start("sigterm.py", how, *arguments)
        assert process.stdout
        assert process.stdout.readline() == "ready\n", end(process).errors
        process.send_signal(SIGTERM)
        if how in ("ignore", "note", "later"):
            process.send_signal(SIGTERM)  # it is handled each time
        return end(process)

    return run


# Scripts


@pytest.mark.parametrize(
    ("how", "code", "delivered"),
    [
        ("default", -SIGTERM, ["before"]),
        ("twice", -SIGTERM, ["before"]),
        ("kill", -SIGTERM, ["before"]),
        ("exit", 7, ["before"]),
        ("again", -SIGTERM, ["before", "meanwhile", "after"]),
        ("ignore", 0, ["before", "after"]),
        ("note", 0, ["before", "after"]),
        ("later", 0, ["before", "after"]),
    ],
)
def test_sigterm_delivers_what_is_pending_and_does_what_it_did(
    how: str, code: int, delivered: list[str], terminated: Callable[[str], Ended], mixpanel: MixpanelServer
) -> None:
    ended = terminated(how)
    assert (ended.code, "Traceback" in ended.errors) == (code, False), ended.errors
    assert ({*ended.output} == {"handled"}) == (how in ("note", "later"))
    assert sent(mixpanel) == Counter(delivered)


def test_sigterm_ends_a_script_while_mixpanel_hangs(
    terminated: Callable[[str], Ended], mixpanel: MixpanelServer
) -> None:
    mixpanel.fail(delay_seconds=HANG_SECONDS)
    ended = terminated("default")
    assert ended.code == -SIGTERM
    assert "The client was closed before Mixpanel accepted them" in ended.errors


@pytest.mark.skipif(not can_be_first(), reason="the system gives no namespace of processes")
def test_sigterm_ends_the_first_process_of_a_container(start: Start, mixpanel: MixpanelServer) -> None:
    process = start("container.py", "sigterm.py", "default")
    assert process.stdout
    pid, ready = (process.stdout.readline().strip() for _ in range(2))
    assert ready == "ready", end(process).errors
    os.kill(int(pid), SIGTERM)
    assert end(process).code == 128 + SIGTERM
    assert sent(mixpanel) == Counter(["before"])


# Servers


def serve(start: Start, *command: str, **more: str) -> tuple[subprocess.Popen[str], str]:
    """Start a server on a socket that it gets from here, so that nobody else has its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        filled = [word.format(listener.fileno()) for word in command]
        variables = {"OUTBOX": "", "FLUSH_INTERVAL_SECONDS": "60", **more}
        process = start("-W", "ignore", *filled, variables=variables, pass_fds=[listener.fileno()])
        return process, f"http://127.0.0.1:{listener.getsockname()[1]}"


def get(url: str) -> None:
    with urllib.request.urlopen(url, timeout=HANG_SECONDS) as response:
        assert response.status == 200


def advice(ended: Ended) -> int:
    """How often a process was told to call close_on_sigterm()."""
    return ended.errors.count("Call flagsync.close_on_sigterm() once")


UVICORN = {
    # This imports the application before uvicorn handles signals (0.54).
    "command": ["-m", "uvicorn", "--fd={}", "--log-level=warning", "django_asgi:application"],
    # This imports it while uvicorn does, which later puts back what did, and raises the signal again.
    "server": [
        "-c",
        "import uvicorn as u; u.Server(u.Config('django_asgi:application', fd={}, log_level='warning')).run()",
    ],
}


def fastapi(how: str) -> list[str]:
    return [word.replace("django_asgi:application", "fastapi_asgi:app") for word in UVICORN[how]]


@pytest.mark.parametrize("how", UVICORN)
def test_django_behind_uvicorn_delivers_what_it_served_before_and_after_sigterm(
    how: str, start: Start, mixpanel: MixpanelServer
) -> None:
    process, url = serve(start, *UVICORN[how])
    get(f"{url}/?user=first")
    get(f"{url}/thread?user=thread")
    get(f"{url}/?user=last&end=")
    ended = end(process)
    assert (ended.code, "Traceback" in ended.errors, advice(ended)) == (-SIGTERM, False, 0), ended.errors
    assert sent(mixpanel) == Counter(["first", "thread", "last", "last, after SIGTERM"])


@pytest.mark.parametrize("lifespan", ["auto", "off"])
def test_django_behind_uvicorn_is_told_once_to_call_close_on_sigterm(
    lifespan: str, start: Start, mixpanel: MixpanelServer
) -> None:
    command = [*UVICORN["command"][:-1], f"--lifespan={lifespan}", "django_asgi:application"]
    process, url = serve(start, *command, FORGETFUL="1")
    for user in ("first", "second"):
        get(f"{url}/?user={user}")
    process.terminate()
    assert advice(end(process)) == 1


@pytest.mark.parametrize("how", ["command", "server"])
def test_fastapi_without_a_lifespan_is_told_once_to_call_close_on_sigterm(
    how: str, start: Start, mixpanel: MixpanelServer
) -> None:
    process, url = serve(start, *fastapi(how), LIFESPAN="", FORGETFUL="1")
    for user in ("first", "second"):
        get(f"{url}/?user={user}")
    process.terminate()
    assert advice(end(process)) == 1


@pytest.mark.parametrize("how", ["command", "server"])
@pytest.mark.parametrize("lifespan", ["closes", "closes_by_event", ""])
def test_fastapi_that_closes_its_client_or_calls_close_on_sigterm_is_told_nothing(
    how: str, lifespan: str, start: Start, mixpanel: MixpanelServer
) -> None:
    forgetful = {"FORGETFUL": "1"} if lifespan else {}
    process, url = serve(start, *fastapi(how), LIFESPAN=lifespan, **forgetful)
    get(f"{url}/?user=first")
    process.terminate()
    assert advice(end(process)) == 0
    assert sent(mixpanel) == Counter(["first"])


def test_application_that_closes_its_client_in_its_lifespan_is_told_nothing(
    start: Start, mixpanel: MixpanelServer
) -> None:
    process, url = serve(start, *UVICORN["command"][:-1], "asgi_lifespan:application")
    get(f"{url}/?user=first")
    process.terminate()
    assert advice(end(process)) == 0
    assert sent(mixpanel) == Counter(["first"])


@pytest.mark.parametrize("worker", ["sync", "gthread", "gevent"])
def test_gunicorn_ends_as_before(worker: str, start: Start, mixpanel: MixpanelServer) -> None:
    options = ["--no-control-socket", "--bind=fd://{}", f"--worker-class={worker}"]
    process, url = serve(start, "-m", "gunicorn", *options, "served_closing:app")
    assert process.stdout
    worker_name = process.stdout.readline().strip()
    assert worker_name, end(process).errors
    get(f"{url}/user")
    process.terminate()
    ended = end(process)
    assert (ended.code, "Traceback" in ended.errors) == (0, False), ended.errors
    assert sent(mixpanel) == Counter([worker_name, "user"])


# In this process


@pytest.fixture
def handled(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The signals that a handler of the application gets; the test leaves no trace in this process."""
    monkeypatch.setattr(_process, "_closed", False)
    monkeypatch.setattr(_process, "_closeables", weakref.WeakSet())
    monkeypatch.setattr(threading, "Thread", _Ending)
    _Ending.end.clear()
    signals: list[int] = []
    before = signal.signal(SIGTERM, lambda number, _: signals.append(number))
    yield signals
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {SIGTERM})
    signal.signal(SIGTERM, before)
    atexit.unregister(_signals._let_go)
    _Ending.end.set()


class _Ending(threading.Thread):
    """A thread whose target does not wait longer than the test."""

    end = threading.Event()

    def __init__(self, **options: Any) -> None:
        is_waiting = options.get("name") == "flagsync-signals"
        super().__init__(**{**options, **({"target": _Ending.end.wait} if is_waiting else {})})


def is_blocked() -> bool:
    return SIGTERM in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_sigterm_is_delivered_to_the_handler_that_is_there(
    handled: list[int], flagsync: Build, mixpanel: MixpanelServer
) -> None:
    client = flagsync(flush_interval_seconds=60.0)
    client.get_identity_flags("user")
    close_on_sigterm()
    signal.raise_signal(SIGTERM)
    assert (handled, {*mixpanel.profiles}) == ([SIGTERM], {"user"})


def test_sigterm_from_outside_is_handled_again(handled: list[int]) -> None:
    close_on_sigterm()
    signal.raise_signal(SIGTERM)
    os.kill(os.getpid(), SIGTERM)
    deadline = monotonic() + 10
    while len(handled) < 2 and monotonic() < deadline:
        is_blocked()  # another thread gets the signal; before Python 3.12, this one must look for it
    assert (handled, is_blocked()) == ([SIGTERM] * 2, True)


def test_sigterm_that_is_raised_again_waits_for_the_exit(handled: list[int], flagsync: Build) -> None:
    client = flagsync(flush_interval_seconds=60.0)
    close_on_sigterm()
    signal.raise_signal(SIGTERM)
    client.get_identity_flags("meanwhile")
    signal.raise_signal(SIGTERM)
    assert (handled, client.stats().delivered) == ([SIGTERM], 0)
    _signals._let_go(SIGTERM)
    assert (handled, client.stats().delivered) == ([SIGTERM] * 2, 1)


def test_exit_without_another_sigterm_closes_nothing_early(handled: list[int], flagsync: Build) -> None:
    client = flagsync()
    close_on_sigterm()
    signal.raise_signal(SIGTERM)
    _signals._let_go(SIGTERM)
    client.get_identity_flags("user")
    assert (is_blocked(), client.stats().skipped) == (False, 0)


def test_sigterm_is_not_held_back_where_threads_are_greenlets(
    handled: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_Ending, "native_id", threading.main_thread().native_id, raising=False)
    close_on_sigterm()
    signal.raise_signal(SIGTERM)
    assert (handled, is_blocked()) == ([SIGTERM], False)


def test_sigterm_that_was_ignored_delivers_and_is_ignored(
    handled: list[int], flagsync: Build, mixpanel: MixpanelServer
) -> None:
    signal.signal(SIGTERM, signal.SIG_IGN)
    client = flagsync(flush_interval_seconds=60.0)
    client.get_identity_flags("user")
    close_on_sigterm()
    signal.raise_signal(SIGTERM)
    assert ({*mixpanel.profiles}, is_blocked()) == ({"user"}, False)


def test_sigterm_ends_the_process_by_default_once_all_is_delivered(
    handled: list[int], flagsync: Build, mixpanel: MixpanelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends: list[tuple[str, int, object]] = []
    client = flagsync(flush_interval_seconds=60.0)
    client.get_identity_flags("user")
    signal.signal(SIGTERM, signal.SIG_DFL)
    close_on_sigterm()
    handler: Any = signal.getsignal(SIGTERM)
    with monkeypatch.context() as process:
        process.setattr(signal, "raise_signal", lambda n: ends.append(("raise", n, signal.getsignal(n))))
        process.setattr(os, "_exit", lambda code: ends.append(("exit", code, {*mixpanel.profiles})))
        handler(SIGTERM, None)
    assert ends == [("raise", SIGTERM, signal.SIG_DFL), ("exit", 128 + SIGTERM, {"user"})]


def test_second_call_changes_nothing(handled: list[int]) -> None:
    close_on_sigterm()
    first = signal.getsignal(SIGTERM)
    close_on_sigterm()
    assert signal.getsignal(SIGTERM) is first


def test_call_in_another_thread_is_refused(handled: list[int]) -> None:
    raised: list[str] = []

    def call() -> None:
        try:
            close_on_sigterm()
        except RuntimeError as error:
            raised.append(str(error))

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    assert raised == [_signals.NOT_THE_MAIN_THREAD]


@pytest.mark.parametrize("program", ["a program that embeds Python", "uWSGI"])
def test_call_warns_and_changes_nothing_where_python_does_not_handle_sigterm(
    program: str, handled: list[int], monkeypatch: pytest.MonkeyPatch, logged: Callable[[], list[str]]
) -> None:
    handler = signal.getsignal(SIGTERM)
    with monkeypatch.context() as embedded:
        if program == "uWSGI":
            embedded.setitem(sys.modules, "uwsgi", ModuleType("uwsgi"))
        else:
            embedded.setattr(signal, "getsignal", lambda _: None)
        close_on_sigterm()
    assert logged() == [_signals.NOT_OF_PYTHON]
    assert signal.getsignal(SIGTERM) is handler


class Uvicorn:
    """A uvicorn server that handles SIGTERM in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_signals, "_prepared", set())
        self.server = uvicorn.Server(uvicorn.Config(plain, log_config=None))
        self.handle()

    def handle(self) -> None:
        signal.signal(SIGTERM, self.server.handle_exit)

    def serve(self, application: Any, lifespan: Any = "auto") -> Any:
        """Get as far as having an application with a lifespan, which is returned."""
        config = self.server.config
        config.app, config.lifespan = application, lifespan
        config.load()
        self.server.lifespan = config.lifespan_class(config)
        return self.server.lifespan


async def plain(scope: Any, receive: Any, send: Any) -> None:
    """An application without any framework."""


class Odd:
    """An application whose attributes cannot be read."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        pass

    @property
    def router(self) -> Any:
        raise RuntimeError


@asynccontextmanager
async def closing(_: Any) -> AsyncIterator[None]:
    """Close the client at the end, as far as anybody can tell."""
    yield


def fastapi_with_a_shutdown_handler() -> FastAPI:
    application = FastAPI()
    application.router.on_shutdown.append(lambda: None)
    return application


@pytest.fixture
def server(handled: list[int], monkeypatch: pytest.MonkeyPatch) -> Uvicorn:
    return Uvicorn(monkeypatch)


def advice_of_two_calls(flagsync: Build, logged: Callable[[], list[str]]) -> list[str]:
    client = flagsync()
    client.get_identity_flags("user_1")
    client.get_identity_flags("user_2")
    assert client.flush()
    return [message for message in logged() if "close_on_sigterm" in message]


@pytest.mark.parametrize(
    ("application", "is_advised"),
    [
        (plain, False),
        (Odd(), False),
        (Starlette(), True),
        (Starlette(lifespan=closing), False),
        (FastAPI(), True),
        (FastAPI(lifespan=closing), False),
        (fastapi_with_a_shutdown_handler(), False),
    ],
)
def test_first_call_under_uvicorn_without_a_lifespan_says_what_to_add(
    application: Any, server: Uvicorn, flagsync: Build, logged: Callable[[], list[str]], *, is_advised: bool
) -> None:
    server.serve(application)
    assert advice_of_two_calls(flagsync, logged) == [_signals.SIGTERM_SKIPS_EXIT] * is_advised


def test_first_call_under_uvicorn_with_its_lifespan_off_says_what_to_add(
    server: Uvicorn, flagsync: Build, logged: Callable[[], list[str]]
) -> None:
    server.serve(FastAPI(lifespan=closing), lifespan="off")
    assert advice_of_two_calls(flagsync, logged) == [_signals.SIGTERM_SKIPS_EXIT]


@pytest.mark.parametrize("spelling", ["error_occurred", "error_occured"])
def test_first_call_under_uvicorn_with_an_application_that_refuses_a_lifespan_says_what_to_add(
    spelling: str, server: Uvicorn, flagsync: Build, logged: Callable[[], list[str]]
) -> None:
    setattr(server.serve(plain), spelling, True)  # as uvicorn notes it; 0.30 to 0.54 differ
    assert advice_of_two_calls(flagsync, logged) == [_signals.SIGTERM_SKIPS_EXIT]


def test_call_while_uvicorn_imports_the_application_says_nothing_yet(
    server: Uvicorn, flagsync: Build, logged: Callable[[], list[str]]
) -> None:
    assert advice_of_two_calls(flagsync, logged) == []


def test_close_on_sigterm_before_uvicorn_sets_its_handler_is_remembered(
    server: Uvicorn, flagsync: Build, logged: Callable[[], list[str]]
) -> None:
    close_on_sigterm()
    server.handle()
    server.serve(plain, lifespan="off")
    assert advice_of_two_calls(flagsync, logged) == []


def test_close_on_sigterm_of_the_parent_is_not_that_of_a_forked_child(
    server: Uvicorn, flagsync: Build, logged: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as parent:  # a worker of gunicorn sets its own handlers after the fork
        parent.setattr(_signals, "this_process", lambda: (1, 1))
        close_on_sigterm()
    server.handle()
    server.serve(plain, lifespan="off")
    assert advice_of_two_calls(flagsync, logged) == [_signals.SIGTERM_SKIPS_EXIT]
