"""Start and end of a pipeline, as far as one process can show them; tests/processes has the real ones."""

import gc
import logging
import multiprocessing
import os
import sys
import threading
import weakref
from collections.abc import Callable
from math import inf
from multiprocessing import util
from time import monotonic
from typing import Any

import pytest
from flagsmith import Flagsmith

from flagsync import DeliveryError, FlagSync, Stats, _pipeline, _process
from flagsync._loss import Loss
from flagsync._options import Tuning
from flagsync._pipeline import Pipeline
from flagsync._process import PerProcess
from flagsync._report import Reporter
from flagsync.testing import MixpanelServer

Build = Callable[..., FlagSync]


def pipelines_of(client: FlagSync) -> PerProcess[Pipeline]:
    """Return the pipelines of a client, one for each process."""
    assert client._pipelines is not None
    return client._pipelines


def own_pipeline(client: FlagSync) -> Pipeline:
    """Return the pipeline of this process."""
    return pipelines_of(client).get()


def pretend_to_be_forked(monkeypatch: pytest.MonkeyPatch, pipelines: PerProcess[Pipeline]) -> None:
    """Let a client see what it sees in a child that C code has forked past Python's hooks."""
    pipelines._mark[0], pid = 0, os.getpid() + 1
    monkeypatch.setattr(os, "getpid", lambda: pid)


@pytest.fixture
def exiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what ``close_all`` does to this process end with the test."""
    monkeypatch.setattr(_process, "_closed", False)
    monkeypatch.setattr(_process, "_closeables", weakref.WeakSet())


@pytest.fixture
def no_thread_starts(mixpanel: MixpanelServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no thread of a client start, as while Python 3.12 exits."""
    really_start = threading.Thread.start

    def start(thread: threading.Thread) -> None:
        if thread.name in ("flagsync-encoder", "flagsync-sender", "flagsync-report"):
            raise RuntimeError("can't create new thread at interpreter shutdown")
        really_start(thread)

    monkeypatch.setattr(threading.Thread, "start", start)


def test_forked_child_gets_an_empty_pipeline_of_its_own(
    flagsync: Build, mixpanel: MixpanelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = flagsync()
    client.get_identity_flags("parent")
    assert client.flush()
    parent = own_pipeline(client)
    with monkeypatch.context() as child:
        pretend_to_be_forked(child, pipelines_of(client))
        assert own_pipeline(client) is not parent
        assert client.stats() == Stats()
        client.get_identity_flags("child")
        assert client.close()
    assert [*mixpanel.profiles] == ["parent", "child"]
    assert parent.close(monotonic() + 1)  # its threads may have found themselves in the child, and ended there


def test_client_closed_before_a_fork_is_closed_after_it(
    flagsync: Build, monkeypatch: pytest.MonkeyPatch, logged: Callable[[], list[str]]
) -> None:
    client = flagsync()
    client.close()
    with monkeypatch.context() as child:
        pretend_to_be_forked(child, pipelines_of(client))
        client.get_identity_flags("child")
        assert client.stats() == Stats(skipped=1)
    assert logged() == ["An identity is not mirrored: the client is closed"]


def test_client_that_is_collected_in_a_forked_child_gets_a_pipeline_that_nobody_stops(
    offline: Flagsmith, mixpanel: MixpanelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = FlagSync(offline, "token", mixpanel_url=mixpanel.url)
    pipelines = client._pipelines
    assert pipelines is not None
    parent = pipelines.get()
    with monkeypatch.context() as child:
        pretend_to_be_forked(child, pipelines)
        del client
        gc.collect()
        assert pipelines.get() is not parent
        assert not pipelines.get().is_closed
        assert pipelines.get().close(monotonic())


def test_call_makes_no_system_call_to_know_its_process(
    flagsync: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, asked = flagsync(), list[int]()
    client.get_identity_flags("user_1")
    assert client.flush()
    with monkeypatch.context() as watched:
        watched.setattr(os, "getpid", lambda: asked.append(threading.get_ident()))
        client.mirror("user_1", client.flagsmith.get_identity_flags("user_1"))
    assert threading.get_ident() not in asked


def test_inherited_pipeline_is_not_stopped_by_a_child(flagsync: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    client = flagsync()
    pipeline = own_pipeline(client)
    with monkeypatch.context() as child:
        pretend_to_be_forked(child, pipelines_of(client))
        pipeline.stop(monotonic())
    assert not pipeline.is_closed


def test_stale_flagsmith_client_of_another_process_is_reported(
    offline: Flagsmith, flagsync: Build, monkeypatch: pytest.MonkeyPatch, logged: Callable[[], list[str]]
) -> None:
    ended = threading.Thread(target=int)
    ended.start()
    ended.join()
    monkeypatch.setattr(offline, "event_stream_thread", ended, raising=False)
    flagsync()
    assert [message.split(",")[0] for message in logged()] == [
        "The Flagsmith client was built before this process was forked"
    ]


@pytest.mark.usefixtures("no_thread_starts")
def test_close_delivers_by_itself_where_no_thread_starts(flagsync: Build, mixpanel: MixpanelServer) -> None:
    client = flagsync()
    client.get_identity_flags("user_1")
    assert client.close()
    assert [*mixpanel.profiles] == ["user_1"]


def test_child_of_multiprocessing_closes_its_clients_when_it_ends(
    flagsync: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    registered: list[Any] = []
    monkeypatch.setattr(multiprocessing, "parent_process", lambda: "a parent")
    monkeypatch.setattr(util, "Finalize", lambda *arguments, **options: registered.append((arguments, options)))
    flagsync().get_identity_flags("user_1")
    assert registered == [((None, _process.close_all), {"exitpriority": 0})]


def test_process_without_multiprocessing_registers_nothing(
    flagsync: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "multiprocessing")
    monkeypatch.setattr(util, "Finalize", None)
    client = flagsync()
    client.get_identity_flags("user_1")
    assert client.flush()


@pytest.mark.usefixtures("exiting")
def test_exit_closes_every_client(flagsync: Build, mixpanel: MixpanelServer) -> None:
    clients = [flagsync(flush_interval_seconds=60) for _ in range(2)]
    for number, client in enumerate(clients):
        client.get_identity_flags(f"user_{number}")
    _process.close_all()
    assert sorted(mixpanel.profiles) == ["user_0", "user_1"]


@pytest.mark.usefixtures("exiting")
def test_client_built_after_the_exit_hook_mirrors_nothing_and_says_so(
    flagsync: Build, logged: Callable[[], list[str]]
) -> None:
    _process.close_all()
    flagsync().get_identity_flags("user_1")
    assert logged() == ["An identity is not mirrored: the client is closed"]


@pytest.mark.usefixtures("no_thread_starts")
@pytest.mark.parametrize(("delay_seconds", "flushed"), [(0, True), (3600, False)])
def test_flush_delivers_in_time_while_python_exits_and_starts_no_thread(
    delay_seconds: float,
    flushed: bool,
    offline: Flagsmith,
    mixpanel: MixpanelServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Hasty(FlagSync):
        _tuning = Tuning(exit_seconds=0.2)

    mixpanel.fail(delay_seconds=delay_seconds)
    monkeypatch.setattr(_pipeline, "python_exits", lambda: True)  # the interpreter's own state
    client = Hasty(offline, "token", mixpanel_url=mixpanel.url, when_full="wait", max_pending=1)
    client.get_identity_flags("user_1")
    assert client.flush(0.2) is flushed
    assert client.close(0.2) is flushed


def test_flush_waits_in_vain_where_no_thread_starts_though_python_does_not_exit(
    flagsync: Build, mixpanel: MixpanelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = flagsync()

    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as exhausted:
        exhausted.setattr(threading.Thread, "start", start)
        client.get_identity_flags("user_1")
        assert not client.flush()
    client.get_identity_flags("user_2")
    assert client.flush()
    assert [*mixpanel.profiles] == ["user_1", "user_2"]


def test_close_waits_until_another_thread_has_reported_the_loss(
    flagsync: Build, mixpanel: MixpanelServer
) -> None:
    reports, go, events = threading.Event(), threading.Event(), list[str]()

    def on_error(error: DeliveryError) -> None:
        if not error.will_retry:
            reports.set()
            go.wait(10)
            events.append(error.reason)

    mixpanel.fail(status=503)
    client = flagsync(on_error=on_error)
    client.get_identity_flags("user_1")
    first = threading.Thread(target=client.close, args=(0.1,))
    first.start()
    assert reports.wait(10)
    second = threading.Thread(target=lambda: events.append(f"closed {client.close(10)}"))
    second.start()
    second.join(0.05)  # time to return too early
    go.set()
    first.join()
    second.join()
    [reason, closed] = events
    assert reason.startswith(
        "The client was closed before Mixpanel accepted them; Mixpanel does not accept updates ("
    )
    assert closed == "closed False"


def test_on_error_may_close_the_client_while_it_ends(flagsync: Build, mixpanel: MixpanelServer) -> None:
    mixpanel.fail(status=403)
    client: FlagSync
    closed = list[bool]()
    client = flagsync(on_error=lambda _: closed.append(client.close(600) or client.flush(600)))
    client.get_identity_flags("user_1")
    assert not client.close()
    assert closed == [False]


def test_close_keeps_its_timeout_while_on_error_blocks(flagsync: Build, mixpanel: MixpanelServer) -> None:
    mixpanel.fail(status=503)
    told, ends = threading.Event(), threading.Event()

    def on_error(_: DeliveryError) -> None:
        told.set()
        ends.wait()

    client = flagsync(on_error=on_error)
    client.get_identity_flags("user_1")
    assert not client.flush(0.1)
    assert told.wait(10)
    assert not client.flush(0.1)  # returns, though on_error does not
    assert not client.close(0.1)
    assert not client.close(0.1)
    assert client.stats() == Stats(accepted=1, dropped=1, requests=1)
    ends.set()


def test_loss_is_reported_once_though_two_threads_find_it() -> None:
    errors, loss = list[DeliveryError](), Loss()
    report = Reporter(errors.append)
    for count in (2, 1):
        loss.report(report, DeliveryError("closed", count), in_thread=False)
    assert [error.count for error in errors] == [2]
    assert loss.wait(inf)


@pytest.mark.parametrize(("seconds", "report_seconds"), [(0.01, 60.0), (60.0, 0.01)])
def test_waiting_for_the_report_of_a_loss_ends_while_on_error_blocks(
    seconds: float, report_seconds: float
) -> None:
    loss, ends, began = Loss(report_seconds), threading.Event(), monotonic()

    def on_error(_: DeliveryError) -> None:
        ends.wait(60)

    loss.report(Reporter(on_error), DeliveryError("closed", 2), in_thread=True)
    assert loss.wait(monotonic() + seconds)
    assert monotonic() - began < 30
    ends.set()
    assert loss.wait(inf)


class Failing:
    """What gives something up when it is closed."""

    def __init__(self) -> None:
        self.process, self.deadlines = _process.this_process(), list[float]()

    def stop(self, deadline: float) -> None:
        self.deadlines.append(deadline)

    def close(self, deadline: float) -> bool:
        self.deadlines.append(deadline)
        return False

    def flush(self, deadline: float) -> bool:
        return deadline > 0


@pytest.mark.usefixtures("exiting")
def test_exit_lets_a_loss_be_reported_after_the_deadline() -> None:
    failing = Failing()
    _process.close_before_exit(failing)
    _process.close_all()
    stopped, closed, reported = failing.deadlines
    assert (stopped, reported) == (closed, closed + _process.REPORT_SECONDS)


@pytest.mark.usefixtures("no_thread_starts")
def test_loss_is_only_logged_where_no_thread_starts(logged: Callable[[], list[str]]) -> None:
    errors, loss = list[DeliveryError](), Loss()
    loss.report(Reporter(errors.append), DeliveryError("closed", 2), in_thread=True)
    assert (errors, logged()) == ([], ["closed: 2 updates lost"])
    assert loss.wait(inf)


@pytest.mark.usefixtures("no_thread_starts")
def test_close_only_logs_where_no_thread_starts_in_which_on_error_could_run(
    flagsync: Build, mixpanel: MixpanelServer, logged: Callable[[], list[str]]
) -> None:
    errors = list[DeliveryError]()
    mixpanel.fail(status=403)
    client = flagsync(on_error=errors.append, property_name={"int_on": "int_on"}.get)
    client.get_identity_flags("user_1")
    assert not client.close()
    assert (errors, [message.rpartition(":")[2] for message in logged()]) == ([], [" 1 update lost"])


def test_on_error_of_a_client_whose_threads_start_when_it_closes_runs_in_one_of_them(
    flagsync: Build, mixpanel: MixpanelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    threads = list[str]()
    mixpanel.fail(status=403)
    client = flagsync(on_error=lambda _: threads.append(threading.current_thread().name))
    with monkeypatch.context() as exhausted:
        exhausted.setattr(threading.Thread, "start", start)
        client.get_identity_flags("user_1")
    assert not client.close()
    assert threads == ["flagsync-sender"]


@pytest.mark.usefixtures("no_thread_starts")
def test_interrupt_in_the_main_thread_leaves_the_client_closed(
    flagsync: Build, mixpanel: MixpanelServer
) -> None:
    class Interrupting(logging.Handler):
        def emit(self, _: logging.LogRecord) -> None:
            raise KeyboardInterrupt

    mixpanel.fail(status=403)
    client = flagsync(property_name={"int_on": "int_on"}.get)
    client.get_identity_flags("user_1")
    log, handler = logging.getLogger("flagsync"), Interrupting()
    log.addHandler(handler)
    with pytest.raises(KeyboardInterrupt):
        client.close()  # which delivers in this thread, since no other one starts
    log.removeHandler(handler)
    assert not client.close(0)
