"""How clients begin and end: real processes, forks, threads, signals and collections."""

import asyncio
import gc
import re
import signal
import socket
import subprocess
import threading
import urllib.request
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from flagsmith import Flagsmith

from flagsync import FlagSync
from flagsync._encoding.properties import served_value
from flagsync.testing import MixpanelServer
from tests.support.processes import HANG_SECONDS, Ended, can_be_first, end, names, sent

Build = Callable[..., FlagSync]
Run = Callable[..., Ended]
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def run(start: Start) -> Run:
    """Runs one of the programs to its end, which leaves no traceback."""

    def run_program(program: str, *arguments: str) -> Ended:
        ended = end(start(f"{program}.py", *arguments))
        # gevent itself complains of the threads that a fork has copied.
        assert {"exception", "gevent"} & {*arguments} or "Traceback" not in ended.errors, ended.errors
        return ended

    return run_program


def in_threads(*calls: Callable[[], object]) -> None:
    threads = [threading.Thread(target=call, daemon=True) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(HANG_SECONDS)
        assert not thread.is_alive()


def threads_of_clients() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if re.match("flagsync[-_](?!testing)", thread.name)]


ENDS = {"return": 0, "sys.exit": 3, "exception": 1}


@pytest.mark.parametrize("way", ENDS)
def test_process_end_delivers_what_is_pending(way: str, mixpanel: MixpanelServer, run: Run) -> None:
    assert run("end", way).code == ENDS[way]
    assert sent(mixpanel) == Counter(names("user", 3))


def test_process_ends_while_mixpanel_hangs(mixpanel: MixpanelServer, start: Start) -> None:
    mixpanel.fail(delay_seconds=HANG_SECONDS)
    processes = [start("end.py", way) for way in ENDS]
    assert [end(process).code for process in processes] == [*ENDS.values()]


@pytest.mark.parametrize("how", ["unused", "used", "flush", "wait", "late"])
def test_evaluation_in_an_atexit_handler_is_delivered(how: str, mixpanel: MixpanelServer, run: Run) -> None:
    assert run("at_exit", "after", how)[:2] == (0, ["True"] if how == "flush" else [])
    assert sorted(mixpanel.profiles) == [*["early"] * (how == "used"), *names("late", 3)]


@pytest.mark.parametrize("how", ["unused", "used", "flush", "wait", "late"])
def test_atexit_handler_after_flagsyncs_own_is_warned(how: str, mixpanel: MixpanelServer, run: Run) -> None:
    ended = run("at_exit", "before", how)
    assert ended[:2] == (0, ["True"] if how == "flush" else [])
    assert ended.errors.count("An identity is not mirrored: the client is closed") == 1
    assert sorted(mixpanel.profiles) == ["early"] * (how == "used")


@pytest.mark.parametrize("state", ["pending", "unused"])
def test_each_side_of_a_fork_mirrors_its_own_once(state: str, mixpanel: MixpanelServer, run: Run) -> None:
    assert run("fork", state)[:2] == (0, ["True", "True"])
    assert sent(mixpanel) == Counter(["child", "parent"])


def test_fork_in_the_middle_of_a_request_sends_nothing_twice(mixpanel: MixpanelServer, start: Start) -> None:
    mixpanel.fail(times=1, delay_seconds=1.0)
    process = start("fork.py", "request")
    assert mixpanel.wait_for_requests(1, HANG_SECONDS)
    assert end(process)[:2] == (0, ["True", "True"])
    assert sent(mixpanel) == Counter(["child", "parent"])


def test_fork_of_greenlets_sends_nothing_twice(mixpanel: MixpanelServer, run: Run) -> None:
    mixpanel.fail(distinct_id="child", delay_seconds=0.5)  # time for the copied greenlets of the parent
    assert run("fork", "gevent")[:2] == (0, ["True", "True"])
    assert sent(mixpanel) == Counter(["child", "parent"])


@pytest.mark.skipif(not can_be_first(), reason="the system gives no namespace of processes")
def test_child_with_the_process_id_of_its_parent_mirrors_its_own(mixpanel: MixpanelServer, run: Run) -> None:
    ended = run("container", "namespaced.py")
    assert (ended.code, ended.output[1:]) == (0, ["1 True", "1 True"])
    assert sent(mixpanel) == Counter(["parent", "pending", "child"])


def test_client_closed_before_a_fork_is_closed_in_the_child(mixpanel: MixpanelServer, run: Run) -> None:
    assert run("fork", "closed").errors.count("the client is closed") == 2
    assert sent(mixpanel) == Counter(["parent"])


def test_children_forked_amid_busy_threads_mirror_their_own_and_end(mixpanel: MixpanelServer, run: Run) -> None:
    assert run("fork_often")[:2] == (0, ["{0}"])
    children = [name for child in names("child", 5) for name in names(child, 8)]
    parents = [name for parent in names("parent", 2) for name in names(parent, 100)]
    assert sent(mixpanel) == Counter([*children, *parents])


@pytest.mark.parametrize(
    ("built_before", "warned"), [("both", ["child"]), ("Flagsmith", ["child"]), ("nothing", [])]
)
def test_child_is_warned_once_of_a_flagsmith_client_whose_thread_it_lacks(
    built_before: str, warned: list[str], run: Run
) -> None:
    ended = run("stale", built_before)
    assert ended.code == 0
    assert re.findall("^(.+): The Flagsmith client was built before", ended.errors, re.MULTILINE) == warned


@pytest.mark.parametrize("kind", ["process", "pool", "executor"])
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_children_of_multiprocessing_deliver_before_they_end(
    method: str, kind: str, mixpanel: MixpanelServer, run: Run
) -> None:
    assert run("processes", method, kind).code == 0
    arrived = sent(mixpanel)
    assert (arrived.pop("import", 0) > 0) == (method != "fork")
    assert arrived == Counter(["parent", *names("child", 3)])


@pytest.mark.parametrize("preload", [[], ["--preload"]], ids=["", "preload"])
@pytest.mark.parametrize("worker", ["sync", "gthread"])
def test_workers_of_gunicorn_mirror_what_they_serve(
    worker: str, preload: list[str], mixpanel: MixpanelServer, start: Start
) -> None:
    options = ["--no-control-socket", "--workers=2", "--threads=2", f"--worker-class={worker}", *preload]
    # gunicorn does not close the socket that it is given.
    gunicorn = ["-W", "ignore::ResourceWarning", "-m", "gunicorn"]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        options.append(f"--bind=fd://{listener.fileno()}")
        server = start(*gunicorn, *options, "web:app", pass_fds=[listener.fileno()])
        for user in names("user", 6):
            url = f"http://127.0.0.1:{listener.getsockname()[1]}/{user}"
            with urllib.request.urlopen(url, timeout=HANG_SECONDS) as response:
                assert response.status == 200
        server.terminate()
        ended = end(server)
    assert (ended.code, "Traceback" in ended.errors) == (0, False)
    assert sent(mixpanel) == Counter({**dict.fromkeys(names("user", 6), 1), "import": 1 if preload else 2})


def test_gevent_patched_process_mirrors_and_ends(mixpanel: MixpanelServer, run: Run) -> None:
    assert run("patched")[:2] == (0, ["True"])
    assert sent(mixpanel) == Counter(["last", *names("user", 20)])


def test_outbox_survives_kill_9_and_an_outage(
    mixpanel: MixpanelServer, run: Run, flagsync: Build, tmp_path: Path
) -> None:
    outbox = tmp_path / "outbox.db"
    mixpanel.fail(status=503)
    assert run("killed", str(outbox), "20").code == -signal.SIGKILL
    assert not mixpanel.profiles
    mixpanel.recover()
    survivor = flagsync(outbox=outbox)
    survivor.get_identity_flags("survivor")
    assert survivor.flush()
    assert {*mixpanel.profiles} == {"survivor", *names("user", 20)}


def test_signal_handler_may_evaluate_and_close_at_any_point(mixpanel: MixpanelServer, run: Run) -> None:
    ended = run("signals", "50")
    assert (ended.code, ended.output[0], ended.output[2]) == (0, "True True 0 0", "{True}")
    assert {*mixpanel.profiles} == {*names("handler", int(ended.output[1])), *names("loop", 50)}


def test_signal_handler_may_flush_while_it_interrupts_stats(run: Run, tmp_path: Path) -> None:
    assert run("flush_in_handler", str(tmp_path / "outbox.db"), "100")[:2] == (0, ["True", "{True}"])


def test_exception_of_a_signal_handler_leaves_no_lock_held(mixpanel: MixpanelServer, run: Run) -> None:
    assert run("interrupted").code == 0
    assert {*mixpanel.profiles} >= {"first", *names("other", 60)}


@pytest.mark.parametrize("users", [0, 500])
def test_close_may_be_called_again_and_by_two_threads_at_once(
    users: int, flagsync: Build, mixpanel: MixpanelServer
) -> None:
    client = flagsync()
    for user in names("user", users):
        client.get_identity_flags(user)
    closed: list[bool] = []
    in_threads(*[lambda: closed.append(client.close())] * 2)
    assert [*closed, client.close()] == [True, True, True]
    assert sent(mixpanel) == Counter(names("user", users))


def test_closed_client_evaluates_warns_once_and_counts(
    offline: Flagsmith, flagsync: Build, logged: Callable[[], list[str]]
) -> None:
    client = flagsync()
    client.close()
    served = [client.get_identity_flags("user_1").all_flags() for _ in range(3)]
    assert served == [offline.get_identity_flags("user_1").all_flags()] * 3
    assert logged() == ["An identity is not mirrored: the client is closed"]
    assert (client.stats().skipped, client.stats().accepted) == (3, 0)


@pytest.mark.parametrize("users", [0, 1])
def test_flush_after_close_has_nothing_to_wait_for(users: int, flagsync: Build) -> None:
    client = flagsync()
    for user in names("user", users):
        client.get_identity_flags(user)
    assert (client.close(), client.flush(HANG_SECONDS)) == (True, True)


def test_flush_in_the_midst_of_encoding_returns_when_all_is_settled(flagsync: Build) -> None:
    encoding = threading.Event()
    client = flagsync(property_name=lambda _: encoding.set())
    for user in names("user", 1000):
        client.get_identity_flags(user)
    assert encoding.wait(HANG_SECONDS)
    assert (client.flush(HANG_SECONDS), client.stats().pending) == (True, 0)


def test_close_releases_callers_who_wait_for_room(flagsync: Build) -> None:
    client = flagsync(when_full="wait", max_pending=1, flush_interval_seconds=0.001)
    in_threads(*(partial(client.get_identity_flags, user) for user in names("user", 50)), client.close)


def test_close_reports_a_loss_once_with_its_reason(flagsync: Build) -> None:
    encoding, go_on = threading.Event(), threading.Event()

    def distinct_id(identifier: str) -> str:
        encoding.set()
        go_on.wait(HANG_SECONDS)
        return identifier

    errors: list[Any] = []
    client = flagsync(distinct_id=distinct_id, on_error=errors.append)
    for user in names("user", 100):
        client.get_identity_flags(user)
    assert encoding.wait(HANG_SECONDS)
    closed = client.close(0.0)
    go_on.set()
    for thread in threads_of_clients():
        thread.join()
    assert (closed, client.stats().pending) == (False, 0)
    assert {error.reason for error in errors} == {"The client was closed before Mixpanel accepted them"}
    assert sum(error.count for error in errors) == client.stats().dropped == 100


def test_with_block_delivers_at_its_end(offline: Flagsmith, mixpanel: MixpanelServer) -> None:
    with FlagSync(offline, "token", mixpanel_url=mixpanel.url) as client:
        client.get_identity_flags("user_1")
    assert sent(mixpanel) == Counter(["user_1"])


def test_collected_client_delivers_and_leaves_no_thread(offline: Flagsmith, mixpanel: MixpanelServer) -> None:
    client = FlagSync(offline, "token", mixpanel_url=mixpanel.url)
    client.get_identity_flags("user_1")
    threads = threads_of_clients()
    del client
    gc.collect()
    for thread in threads:
        thread.join(HANG_SECONDS)
    assert (len(threads), threads_of_clients()) == (2, [])
    assert sent(mixpanel) == Counter(["user_1"])


def test_collection_of_a_client_does_not_wait_for_mixpanel(offline: Flagsmith) -> None:
    with MixpanelServer() as hanging:
        hanging.fail(delay_seconds=HANG_SECONDS)
        client = FlagSync(offline, "token", mixpanel_url=hanging.url, flush_interval_seconds=0.001)
        client.get_identity_flags("user_1")
        assert hanging.wait_for_requests(1)
        del client
        gc.collect()
        assert len(threads_of_clients()) > 0


def test_threads_may_share_a_client(offline: Flagsmith, flagsync: Build, mixpanel: MixpanelServer) -> None:
    client = flagsync()
    plans = {f"user_{number}": {"plan": ("free", "premium")[number % 2]} for number in range(1000)}

    def evaluate(first: int) -> None:
        for number in range(1000):
            user = f"user_{(first + number) % 1000}"
            client.get_identity_flags(user, plans[user])

    in_threads(*(partial(evaluate, 125 * number) for number in range(8)))
    assert client.flush(HANG_SECONDS)
    for user, traits in plans.items():
        flags = offline.get_identity_flags(user, traits).all_flags()
        assert mixpanel.profiles[user] == {flag.feature_name: served_value(flag) for flag in flags}
    stats = client.stats()
    assert (stats.accepted, stats.delivered, stats.pending) == (8000, 1000, 0)
    assert stats.unchanged + stats.superseded == 7000


def test_event_loop_may_evaluate_directly_or_in_threads(flagsync: Build, mixpanel: MixpanelServer) -> None:
    client = flagsync()

    async def serve() -> None:
        client.get_identity_flags("direct")
        calls = [asyncio.to_thread(client.get_identity_flags, user) for user in names("user", 20)]
        await asyncio.gather(*calls)

    asyncio.run(serve())
    assert client.flush()
    assert sent(mixpanel) == Counter(["direct", *names("user", 20)])
