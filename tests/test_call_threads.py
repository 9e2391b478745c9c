"""Threads for blocking calls of tasks: what the task gets, and that nothing is left behind."""

import asyncio
import gc
import subprocess
import threading
import weakref
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import anyio
import pytest

from flagsync._call_threads import CallThreads, _Threads
from tests.support.forks import in_child
from tests.support.tasks import Run, calls_in_threads, join_threads, until


def test_cancelled_call_that_fails_later_warns_of_nothing(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    reached, may_fail = threading.Event(), threading.Event()

    def fail() -> None:
        reached.set()
        may_fail.wait()
        raise ValueError

    async def serve() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(CallThreads(1).run, fail)
            await until(reached.is_set)
            tasks.cancel_scope.cancel()
        may_fail.set()
        await until(lambda: not calls_in_threads())

    run(serve)
    gc.collect()
    assert caplog.record_tuples == []


def test_call_runs_even_if_its_task_is_cancelled_before_its_thread_runs(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads, ran, may_run = CallThreads(1), threading.Event(), threading.Event()
    original = _Threads._run

    def run_late(self: _Threads, call: Any) -> None:
        may_run.wait()
        original(self, call)

    monkeypatch.setattr(_Threads, "_run", run_late)

    async def cancel() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(threads.run, ran.set)
            await until(calls_in_threads)
            tasks.cancel_scope.cancel()

    run(cancel)
    may_run.set()
    join_threads()
    assert ran.is_set()


def test_call_that_waits_for_a_thread_is_given_up_with_its_task(run: Run) -> None:
    threads, may_end, ran = CallThreads(1), threading.Event(), threading.Event()

    async def cancel() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(threads.run, may_end.wait)
            await until(calls_in_threads)
            tasks.start_soon(threads.run, ran.set)
            await until(lambda: threads._processes.get()._waiting)
            tasks.cancel_scope.cancel()

    run(cancel)
    may_end.set()
    join_threads()
    assert not ran.is_set()


def test_call_in_a_thread_has_the_context_variables_of_its_task(run: Run) -> None:
    variable = ContextVar("variable", default="outside")

    async def serve() -> Any:
        variable.set("of the task")
        return await CallThreads(1).run(variable.get)

    assert run(serve) == "of the task"


def test_call_in_a_thread_may_raise_what_no_task_can(run: Run) -> None:
    def stop() -> None:
        raise StopIteration

    async def serve() -> None:
        with pytest.raises(RuntimeError, match="coroutine raised StopIteration"):
            await CallThreads(1).run(stop)

    run(serve)


def test_call_in_a_thread_leaves_no_garbage_that_only_the_collector_frees(run: Run) -> None:
    class CustomError(Exception):
        """An exception that can be referred to weakly."""

    def fail() -> None:
        raise CustomError

    async def serve() -> weakref.ref[CustomError] | None:
        try:
            await CallThreads(1).run(fail)
        except CustomError as error:
            return weakref.ref(error)
        return None

    gc.disable()
    try:
        reference = run(serve)
        join_threads()
        assert reference() is None
    finally:
        gc.enable()


def test_call_that_hangs_keeps_no_process_alive(start: Callable[..., subprocess.Popen[str]]) -> None:
    process = start("hanging.py")
    assert process.communicate(timeout=60) == ("cancelled\n", "")
    assert process.returncode == 0


def test_call_runs_in_the_event_loop_where_no_thread_starts_any_more(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def serve() -> Any:
        monkeypatch.setattr(threading.Thread, "start", refuse)
        name = await CallThreads(1).run(lambda: threading.current_thread().name)
        monkeypatch.undo()
        return name

    assert run(serve) == "MainThread"


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # Python >= 3.12, of forks with threads
def test_call_in_a_forked_child_has_a_thread_of_its_own(run: Run) -> None:
    threads, may_end, runs = CallThreads(1), threading.Event(), threading.Event()

    def hang() -> None:
        runs.set()
        may_end.wait()

    async def serve() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(threads.run, hang)
            await until(runs.is_set)
            assert await CallThreads(1).run(lambda: in_child(lambda: asyncio.run(threads.run(lambda: True))))
            may_end.set()

    run(serve)
