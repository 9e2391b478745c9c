"""Start and end of a pipeline, as far as one process can show them; test_life_cycle.py has the real ones."""

import os
import threading
import weakref
from collections.abc import Callable
from multiprocessing import util
from time import monotonic
from typing import Any

import pytest
from flagsmith import Flagsmith

from flagsync import DeliveryError, FlagSync, _client, _pipeline, _sender
from flagsync.testing import MixpanelServer

Build = Callable[..., FlagSync]


def pretend_to_be_forked(monkeypatch: pytest.MonkeyPatch, client: FlagSync) -> None:
    """Let a client see what it sees in a child that C code has forked past Python's hooks."""
    client._mark[0], pid = 0, os.getpid() + 1
    monkeypatch.setattr(os, "getpid", lambda: pid)
    monkeypatch.setattr(_client, "getpid", lambda: pid)
    monkeypatch.setattr(_sender, "getpid", lambda: pid)


@pytest.fixture
def exiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """What ``close_all`` does to this process ends with the test."""
    monkeypatch.setattr(_pipeline, "_ended", False)
    monkeypatch.setattr(_pipeline, "_pipelines", weakref.WeakSet())


def test_a_child_gets_a_pipeline_of_its_own(
    flagsync: Build, mixpanel: MixpanelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = flagsync(flush_interval_seconds=60)
    client.get_identity_flags("parent")
    [parent] = client._pipelines.values()
    with monkeypatch.context() as child:
        pretend_to_be_forked(child, client)
        assert client.stats().accepted == 0
        client.get_identity_flags("child")
        assert client.close()
        assert [*mixpanel.profiles] == ["child"]
    assert parent.close(monotonic() + 10)
    assert [*mixpanel.profiles] == ["child", "parent"]


def test_threads_that_race_for_the_childs_pipeline_share_one(
    flagsync: Build, mixpanel: MixpanelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, built = flagsync(), list[Any]()

    class Pipeline(_pipeline.Pipeline):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            built.append(self)
            if len(built) == 1:
                client.get_identity_flags("faster")  # what another thread does meanwhile

    with monkeypatch.context() as child:
        pretend_to_be_forked(child, client)
        child.setattr(_client, "Pipeline", Pipeline)
        client.get_identity_flags("slower")
        assert client.close()
    assert len(built) == 2
    assert sorted(mixpanel.profiles) == ["faster", "slower"]


def test_a_client_closed_before_a_fork_is_closed_after_it(
    flagsync: Build, monkeypatch: pytest.MonkeyPatch, logged: Callable[[], list[str]]
) -> None:
    client = flagsync()
    client.close()
    with monkeypatch.context() as child:
        pretend_to_be_forked(child, client)
        client.get_identity_flags("child")
        assert client.stats().skipped == 1
    assert logged() == ["An identity is not mirrored: the client is closed"]


def test_a_call_makes_no_system_call_to_know_its_process(
    flagsync: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, asked = flagsync(), list[int]()
    with monkeypatch.context() as watched:
        watched.setattr(_client, "getpid", lambda: asked.append(1))
        client.get_identity_flags("user_1")
    assert not asked


def test_an_inherited_pipeline_is_left_alone(flagsync: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    client = flagsync()
    [pipeline] = client._pipelines.values()
    with monkeypatch.context() as child:
        pretend_to_be_forked(child, client)
        pipeline.stop()
    assert not pipeline.closed


def test_a_refresher_that_is_another_processs_is_told(
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


def test_where_no_thread_starts_close_delivers(
    flagsync: Build, mixpanel: MixpanelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = flagsync()
    with monkeypatch.context() as exiting:

        def start(_: threading.Thread) -> None:
            raise RuntimeError("can't create new thread at interpreter shutdown")

        exiting.setattr(threading.Thread, "start", start)
        client.get_identity_flags("user_1")
    assert client.close()
    assert [*mixpanel.profiles] == ["user_1"]


def test_a_child_of_multiprocessing_closes_when_it_ends(
    flagsync: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    registered: list[Any] = []
    monkeypatch.setattr(_pipeline, "parent_process", lambda: "a parent")
    monkeypatch.setattr(util, "Finalize", lambda *arguments, **options: registered.append((arguments, options)))
    flagsync().get_identity_flags("user_1")
    assert registered == [((None, _pipeline.close_all), {"exitpriority": 0})]


@pytest.mark.usefixtures("exiting")
def test_the_end_of_the_process_closes_every_client(flagsync: Build, mixpanel: MixpanelServer) -> None:
    clients = [flagsync(flush_interval_seconds=60) for _ in range(2)]
    for number, client in enumerate(clients):
        client.get_identity_flags(f"user_{number}")
    _pipeline.close_all()
    assert sorted(mixpanel.profiles) == ["user_0", "user_1"]


@pytest.mark.usefixtures("exiting")
def test_a_client_built_after_that_says_that_it_mirrors_nothing(
    flagsync: Build, logged: Callable[[], list[str]]
) -> None:
    _pipeline.close_all()
    flagsync().get_identity_flags("user_1")
    assert logged() == ["An identity is not mirrored: the client is closed"]


@pytest.mark.parametrize(("delay_seconds", "flushed"), [(0, True), (3600, False)])
def test_flushing_while_python_exits_and_starts_no_thread_delivers_in_time(
    delay_seconds: float,
    flushed: bool,
    flagsync: Build,
    mixpanel: MixpanelServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    really_start = threading.Thread.start

    def start(thread: threading.Thread) -> None:
        if thread.name.startswith("flagsync-"):
            raise RuntimeError("can't create new thread at interpreter shutdown")
        really_start(thread)

    mixpanel.fail(delay_seconds=delay_seconds)
    monkeypatch.setattr(_pipeline, "python_exits", lambda: True)
    monkeypatch.setattr(_pipeline, "EXIT_SECONDS", 0.2)
    client = flagsync(when_full="wait", max_pending=1)
    with monkeypatch.context() as exiting:
        exiting.setattr(threading.Thread, "start", start)
        client.get_identity_flags("user_1")
    assert client.flush(0.2) is flushed
    assert client.close(0.2) is flushed


def test_closing_does_not_return_while_another_thread_still_says_what_is_lost(
    flagsync: Build, mixpanel: MixpanelServer
) -> None:
    speaks, go, said = threading.Event(), threading.Event(), list[str]()

    def speak(error: DeliveryError) -> None:
        if not error.will_retry:
            speaks.set()
            go.wait(10)
            said.append(error.reason)

    mixpanel.fail(status=503)
    client = flagsync(on_error=speak)
    client.get_identity_flags("user_1")
    first = threading.Thread(target=client.close, args=(0.1,))
    first.start()
    assert speaks.wait(10)
    second = threading.Thread(target=lambda: said.append(f"closed {client.close(0)}"))
    second.start()
    go.set()
    first.join()
    second.join()
    [reason, closed] = said
    assert reason.startswith(
        "The client was closed before Mixpanel took them; Mixpanel does not take updates ("
    )
    assert closed == "closed False"


def test_a_listener_may_close_the_client_that_says_its_last_word(
    flagsync: Build, mixpanel: MixpanelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_pipeline, "LAST_WORD_SECONDS", 600.0)  # of which none pass
    mixpanel.fail(status=403)
    client: FlagSync
    closed = list[bool]()
    client = flagsync(on_error=lambda _: closed.append(client.close(0)))
    client.get_identity_flags("user_1")
    assert not client.close()
    assert closed == [False]


def test_an_interrupt_of_a_listener_leaves_no_lock_behind(
    flagsync: Build, mixpanel: MixpanelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: DeliveryError) -> None:
        raise KeyboardInterrupt

    mixpanel.fail(status=403)
    client = flagsync(on_error=interrupt)
    [pipeline] = client._pipelines.values()
    monkeypatch.setattr(pipeline._encoder, "_start", lambda: False)  # close() does it all, in this thread
    client.get_identity_flags("user_1")
    with pytest.raises(KeyboardInterrupt):
        client.close()
    free = list[bool]()

    def acquire() -> None:
        with pipeline._last_word:
            free.append(True)

    thread = threading.Thread(target=acquire, daemon=True)
    thread.start()
    thread.join(10)
    assert free == [True]


def test_a_listener_that_blocks_holds_up_the_end_for_a_moment_only(
    flagsync: Build, mixpanel: MixpanelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_pipeline, "LAST_WORD_SECONDS", 0.01)
    mixpanel.fail(status=503)
    told, ends = threading.Event(), threading.Event()

    def listen(error: DeliveryError) -> None:
        if not error.will_retry:
            told.set()
            ends.wait()

    client = flagsync(on_error=listen)
    client.get_identity_flags("user_1")
    closing = threading.Thread(target=client.close, args=(0.0,))
    closing.start()
    assert told.wait(10)
    assert not client.close(0.0)
    ends.set()
    closing.join()
