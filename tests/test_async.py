"""The asynchronous methods under asyncio and trio: their results, and that nothing blocks the event loop."""

import asyncio
import threading
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from math import inf
from pathlib import Path
from typing import Any

import anyio
import pytest
from flagsmith import Flagsmith
from flagsmith.exceptions import FlagsmithAPIError
from flagsmith.models import Flag, Flags
from flagsmith.offline_handlers import LocalFileHandler

from flagsync import FlagSync, Stats
from flagsync._async_calls import MAX_EVALUATING
from flagsync._call_threads import CallThreads
from flagsync._delivery.destinations import Backoff
from flagsync._delivery.sender import Sending
from flagsync._options import Tuning
from flagsync._pipeline import Pipeline
from flagsync._report import Reporter
from flagsync._stats import ExposureStats
from flagsync.cohorts import CohortUpdate, SQLiteStore
from flagsync.cohorts.lookup import CohortTraits, Freshness
from flagsync.testing import MixpanelServer
from tests.conftest import DATA
from tests.support.evaluating_flagsmith import EvaluatingFlagsmith
from tests.support.flagsmith_server import KEY
from tests.support.identifiers import Unspeakable
from tests.support.tasks import Run, calls_in_threads, join_threads, until

Build = Callable[..., FlagSync]
VIPS = "mixpanel_cohort_vips"
PATIENT = Freshness(wait_seconds=60.0)
DELIVERED = Stats(accepted=1, delivered=1, requests=1)


class Noting(Flagsmith):
    """A Flagsmith client that notes in which thread it evaluates."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.threads: list[str] = []
        self.traits: list[Any] = []

    def get_identity_flags(self, identifier: str, traits: Any = None, *, transient: bool = False) -> Flags:
        self.threads.append(threading.current_thread().name)
        self.traits.append(traits)
        return super().get_identity_flags(identifier, traits, transient=transient)


class SlowStore(SQLiteStore):
    """A store that answers when it may, and counts what is looked up."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.may_answer = threading.Event()
        self.looked_up = 0

    def traits_of(self, identifiers: Collection[str]) -> dict[str, dict[str, bool]]:
        self.looked_up += len(identifiers)
        self.may_answer.wait()
        return super().traits_of(identifiers)


@pytest.fixture(autouse=True)
def _failed_requests_are_soon_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    sending = Sending(backoff=Backoff(first_seconds=0.01, max_seconds=0.01))
    monkeypatch.setattr(FlagSync, "_tuning", Tuning(sending=sending))


@pytest.fixture
def server(document: dict[str, Any]) -> Iterator[EvaluatingFlagsmith]:
    """A loopback Flagsmith."""
    with EvaluatingFlagsmith(document) as started:
        yield started


@pytest.fixture
def remote(server: EvaluatingFlagsmith) -> Noting:
    """A client that has Flagsmith evaluate."""
    return Noting(KEY, api_url=server.api_url, request_timeout_seconds=60)


@pytest.fixture
def offline() -> Noting:
    """A client that evaluates the recorded document."""
    return Noting(offline_mode=True, offline_handler=LocalFileHandler(str(DATA / "environment-document.json")))


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[SlowStore]:
    """A store that hangs, in which ann is a vip."""
    with SlowStore(tmp_path / "cohorts.db") as store:
        store.apply(CohortUpdate("add_members", "vips", "vips", members=("ann",)))
        yield store
        store.may_answer.set()


def of_calls(threads: Collection[str]) -> bool:
    return {*threads} == {"flagsync-async"}


def values(flags: Flags) -> dict[str, Any]:
    return {flag.feature_name: (flag.enabled, flag.value) for flag in flags.all_flags()}


def become_patient(client: FlagSync, store: SQLiteStore, freshness: Freshness = PATIENT) -> CohortTraits:
    """Have a client wait for its store longer than a test takes."""
    client._evaluator._cohorts = cohorts = CohortTraits(store, Reporter(None), freshness)
    return cohorts


@pytest.mark.parametrize("mode", ["offline", "remote"])
def test_async_call_returns_and_mirrors_what_the_other_one_does(
    mode: str, request: pytest.FixtureRequest, run: Run, flagsync: Build, mixpanel: MixpanelServer
) -> None:
    client = flagsync(request.getfixturevalue(mode))
    other = flagsync(request.getfixturevalue(mode), distinct_id=lambda _: "other")

    async def serve() -> None:
        flags = await client.aget_identity_flags("user_1", {"plan": "pro"})
        assert values(flags) == values(other.get_identity_flags("user_1", {"plan": "pro"}))
        await client.aget_identity_flags("user_3", transient=True)
        assert await client.aflush()

    run(serve)
    assert other.flush()
    assert mixpanel.profiles["user_1"] == mixpanel.profiles["other"]
    assert client.stats() == Stats(accepted=1, delivered=1, skipped=1, requests=1)


@pytest.mark.parametrize("mode", ["offline", "remote"])
def test_async_experiment_flag_records_the_exposure(
    mode: str, request: pytest.FixtureRequest, run: Run, flagsync: Build, mixpanel: MixpanelServer
) -> None:
    client = flagsync(request.getfixturevalue(mode))

    async def serve() -> Any:
        flag = await client.aget_experiment_flag("mv_keyed", "user_3")
        assert await client.aflush()
        return flag

    flag = run(serve)
    assert isinstance(flag, Flag)
    assert flag.value == "val_b"
    assert mixpanel.experiments == {"mv_keyed": {"val_b": {"user_3"}}}
    assert "user_3" in mixpanel.profiles


def test_async_call_raises_what_flagsmith_raises(
    run: Run, flagsync: Build, server: EvaluatingFlagsmith, remote: Noting, logged: Callable[[], list[str]]
) -> None:
    client = flagsync(remote)
    server.fail(status=403)

    async def serve() -> None:
        with pytest.raises(FlagsmithAPIError):
            await client.aget_identity_flags("user_1")

    run(serve)
    [message] = logged()
    assert "HTTP status 403" in message


def test_async_evaluation_runs_in_the_event_loop_offline_and_locally(
    run: Run, flagsync: Build, server: EvaluatingFlagsmith, offline: Noting
) -> None:
    local = Noting(KEY, api_url=server.api_url, enable_local_evaluation=True)

    async def serve() -> None:
        for flagsmith in (offline, local):
            client = flagsync(flagsmith)
            await client.aget_identity_flags("user_1")
            await client.aget_experiment_flag("mv_keyed", "user_1")

    run(serve)
    assert offline.threads == local.threads == ["MainThread", "MainThread"]
    local.environment_data_polling_manager_thread.stop()


def test_async_evaluation_runs_in_a_thread_remotely(run: Run, flagsync: Build, remote: Noting) -> None:
    client = flagsync(remote)

    async def serve() -> None:
        await client.aget_identity_flags("user_1")
        await client.aget_experiment_flag("mv_keyed", "user_1")

    run(serve)
    assert of_calls(remote.threads)


def test_async_evaluation_runs_in_a_thread_as_long_as_there_is_no_document(
    run: Run, flagsync: Build, server: EvaluatingFlagsmith, remote: Noting
) -> None:
    remote.enable_local_evaluation = True
    client = flagsync(remote)

    async def serve() -> None:
        await client.aget_identity_flags("user_1")

    run(serve)
    assert of_calls(remote.threads)


def test_async_evaluation_lets_other_tasks_go_on_while_flagsmith_hangs(
    run: Run, flagsync: Build, server: EvaluatingFlagsmith, remote: Noting, offline: Noting
) -> None:
    client, other = flagsync(remote), flagsync(offline)
    server.may_answer.clear()

    async def serve() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.aget_identity_flags, "user_1")
            tasks.start_soon(client.aget_experiment_flag, "mv_keyed", "user_2")
            await until(lambda: len(server.requests) == 2)
            assert (await other.aget_identity_flags("user_3")).is_feature_enabled("bool_on")
            server.may_answer.set()
        assert await client.aflush()

    run(serve)
    assert client.stats().delivered == 2


def test_async_evaluations_that_hang_leave_the_executor_of_the_event_loop_free(
    flagsync: Build, server: EvaluatingFlagsmith, remote: Noting, mixpanel: MixpanelServer
) -> None:
    client = flagsync(remote)
    server.may_answer.clear()

    async def serve() -> None:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        calls = [asyncio.create_task(client.aget_identity_flags(f"user_{number}")) for number in range(50)]
        await until(lambda: len(server.requests) == MAX_EVALUATING)
        assert await asyncio.to_thread(lambda: "free") == "free"
        server.may_answer.set()
        await asyncio.gather(*calls)

    asyncio.run(serve())


def test_async_flush_and_close_do_not_wait_for_evaluations_that_hang(
    run: Run, flagsync: Build, server: EvaluatingFlagsmith, remote: Noting, offline: Noting
) -> None:
    client = flagsync(remote)
    client.mirror("user_1", offline.get_identity_flags("user_1"))
    server.may_answer.clear()

    async def serve() -> None:
        async with anyio.create_task_group() as tasks:
            for number in range(2 * MAX_EVALUATING):
                tasks.start_soon(client.aget_identity_flags, f"user_{number}")
            await until(lambda: len(server.requests) == MAX_EVALUATING)
            assert await client.aflush()
            assert client.stats() == DELIVERED
            assert await client.aclose()
            server.may_answer.set()

    run(serve)


@pytest.mark.parametrize("mode", ["offline", "remote"])
def test_async_evaluations_of_a_thousand_tasks_are_all_mirrored(
    mode: str, request: pytest.FixtureRequest, run: Run, flagsync: Build, mixpanel: MixpanelServer
) -> None:
    client = flagsync(request.getfixturevalue(mode))
    users = [f"user_{number}" for number in range(1000)]
    found: dict[str, Any] = {}

    async def evaluate(user: str) -> None:
        found[user] = (await client.aget_identity_flags(user)).get_feature_value("mv_keyed")

    async def serve() -> None:
        async with anyio.create_task_group() as tasks:
            for user in users:
                tasks.start_soon(evaluate, user)
        assert await client.aflush()

    run(serve)
    assert {user: profile["mv_keyed"] for user, profile in mixpanel.profiles.items()} == found
    assert {*found} == {*users}


def test_async_evaluations_use_no_more_threads_than_requests_keeps_connections(
    run: Run, flagsync: Build, server: EvaluatingFlagsmith, remote: Noting
) -> None:
    client = flagsync(remote)
    server.may_answer.clear()

    async def serve() -> None:
        async with anyio.create_task_group() as tasks:
            for number in range(50):
                tasks.start_soon(client.aget_identity_flags, f"user_{number}")
            await until(lambda: len(server.requests) == MAX_EVALUATING)
            server.may_answer.set()

    run(serve)
    assert len(server.requests) == 50
    assert server.most_at_once == MAX_EVALUATING
    assert remote.session.get_adapter(remote.api_url)._pool_maxsize == MAX_EVALUATING  # type: ignore[attr-defined]


def test_cancelled_evaluations_end_at_once_and_leave_nothing_behind(
    run: Run,
    flagsync: Build,
    server: EvaluatingFlagsmith,
    remote: Noting,
    caplog: pytest.LogCaptureFixture,
) -> None:
    client = flagsync(remote, property_name={"bool_on": "on"}.get)
    server.may_answer.clear()

    async def serve() -> None:
        async with anyio.create_task_group() as tasks:
            for number in range(50):
                tasks.start_soon(client.aget_identity_flags, f"user_{number}")
            await until(lambda: len(server.requests) == MAX_EVALUATING)
            tasks.cancel_scope.cancel()
        assert len(calls_in_threads()) == MAX_EVALUATING
        server.may_answer.set()
        await until(lambda: not calls_in_threads())
        assert len(server.requests) == MAX_EVALUATING  # whoever waited for a thread asks nothing any more
        await client.aget_identity_flags("user_99")
        assert await client.aflush()

    run(serve)
    assert client.stats().delivered == MAX_EVALUATING + 1
    assert caplog.record_tuples == []


def test_cancelled_experiment_flag_records_no_exposure(
    run: Run, flagsync: Build, server: EvaluatingFlagsmith, remote: Noting, mixpanel: MixpanelServer
) -> None:
    client = flagsync(remote)
    server.may_answer.clear()

    async def serve() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.aget_experiment_flag, "mv_keyed", "user_3")
            await until(lambda: server.requests)
            tasks.cancel_scope.cancel()
        server.may_answer.set()
        await until(lambda: not calls_in_threads())
        assert await client.aflush()

    run(serve)
    assert "user_3" in mixpanel.profiles
    assert (mixpanel.events, client.stats().exposures) == ([], ExposureStats())


def test_async_evaluation_that_outlives_its_event_loop_ends_silently(
    run: Run,
    flagsync: Build,
    server: EvaluatingFlagsmith,
    remote: Noting,
    caplog: pytest.LogCaptureFixture,
) -> None:
    client = flagsync(remote, property_name={"bool_on": "on"}.get)
    server.may_answer.clear()

    async def serve() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.aget_identity_flags, "user_1")
            await until(lambda: server.requests)
            tasks.cancel_scope.cancel()

    run(serve)  # and does not wait for Flagsmith
    assert len(calls_in_threads()) == 1
    server.may_answer.set()
    join_threads()
    assert client.flush()
    assert client.stats() == DELIVERED
    assert caplog.record_tuples == []


def test_async_flush_lets_other_tasks_go_on_while_mixpanel_hangs(
    run: Run, flagsync: Build, mixpanel: MixpanelServer, offline: Noting
) -> None:
    client, flushed = flagsync(offline), list[bool]()
    mixpanel.fail(status=500)

    async def flush() -> None:
        flushed.append(await client.aflush(60))

    async def serve() -> None:
        await client.aget_identity_flags("user_1")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(flush)
            await until(lambda: mixpanel.requests)
            await client.aget_identity_flags("user_2")
            assert flushed == []
            mixpanel.recover()

    run(serve)
    assert flushed == [True]


def test_async_flush_is_false_after_its_timeout(
    run: Run, flagsync: Build, mixpanel: MixpanelServer, offline: Noting
) -> None:
    client = flagsync(offline)
    mixpanel.fail(status=500)

    async def serve() -> None:
        await client.aget_identity_flags("user_1")
        assert await client.aflush(0.01) is False

    run(serve)


def test_cancelled_flush_ends_at_once_and_the_next_one_works(
    run: Run, flagsync: Build, mixpanel: MixpanelServer, offline: Noting
) -> None:
    client = flagsync(offline)
    mixpanel.fail(status=500)

    async def serve() -> None:
        await client.aget_identity_flags("user_1")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.aflush, inf)
            await until(lambda: mixpanel.requests)
            tasks.cancel_scope.cancel()
        assert client.stats().pending == 1
        mixpanel.recover()
        assert await client.aflush(60)

    run(serve)
    assert client.stats().delivered == 1


def test_async_close_delivers_and_stops_mirroring(
    run: Run, flagsync: Build, mixpanel: MixpanelServer, offline: Noting
) -> None:
    client = flagsync(offline, flush_interval_seconds=60)

    async def serve() -> None:
        await client.aget_identity_flags("user_1")
        assert await client.aclose()
        assert (await client.aget_identity_flags("user_2")).is_feature_enabled("bool_on")

    run(serve)
    assert {*mixpanel.profiles} == {"user_1"}


def test_async_close_is_false_after_its_timeout(
    run: Run, flagsync: Build, mixpanel: MixpanelServer, offline: Noting
) -> None:
    client = flagsync(offline)
    mixpanel.fail(status=500)

    async def serve() -> None:
        await client.aget_identity_flags("user_1")
        assert await client.aclose(0.01) is False

    run(serve)


def test_cancelled_close_goes_on(run: Run, flagsync: Build, mixpanel: MixpanelServer, offline: Noting) -> None:
    client = flagsync(offline)
    mixpanel.fail(status=500)

    async def serve() -> None:
        await client.aget_identity_flags("user_1")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.aclose, 60)
            await until(lambda: mixpanel.requests)
            tasks.cancel_scope.cancel()
        mixpanel.recover()
        await until(lambda: not calls_in_threads())

    run(serve)
    assert client.stats().delivered == 1
    assert client._pipelines is not None
    assert client._pipelines.get().is_closed


def test_async_with_closes_the_client(run: Run, mixpanel: MixpanelServer, offline: Noting) -> None:
    async def serve() -> None:
        async with FlagSync(offline, "token", mixpanel_url=mixpanel.url, flush_interval_seconds=60) as client:
            await client.aget_identity_flags("user_1")
        assert client.stats() == DELIVERED

    run(serve)


def test_async_with_closes_the_client_of_a_cancelled_task(
    run: Run, flagsync: Build, mixpanel: MixpanelServer, offline: Noting
) -> None:
    client = flagsync(offline, flush_interval_seconds=60)

    async def work() -> None:
        async with client:
            await client.aget_identity_flags("user_1")
            await anyio.sleep_forever()

    async def serve() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(work)
            await until(lambda: client.stats().accepted)
            tasks.cancel_scope.cancel()
        await until(lambda: not calls_in_threads())

    run(serve)
    assert client.stats() == DELIVERED


def test_async_calls_without_a_token_mirror_nothing(run: Run, flagsync: Build, offline: Noting) -> None:
    client = flagsync(offline, None)

    async def serve() -> None:
        await client.aget_identity_flags("user_1")
        assert await client.aflush()
        assert await client.aclose()

    run(serve)
    assert client.stats() == Stats()


def test_async_call_that_waits_for_room_lets_other_tasks_go_on(
    run: Run, flagsync: Build, mixpanel: MixpanelServer, offline: Noting
) -> None:
    client = flagsync(offline, when_full="wait", max_pending=1)
    mixpanel.fail(status=500)

    async def serve() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.aget_identity_flags, "user_1")
            await until(lambda: mixpanel.requests)
            mixpanel.recover()

    run(serve)
    assert client.stats().delivered == 1


def test_async_experiment_flag_waits_for_room_in_a_thread_only(
    run: Run, flagsync: Build, offline: Noting, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, waiting = flagsync(offline, when_full="wait"), list[str]()
    monkeypatch.setattr(Pipeline, "wait_for_room", lambda _: waiting.append(threading.current_thread().name))

    async def serve() -> None:
        await client.aget_experiment_flag("mv_keyed", "user_3")
        assert await client.aflush()

    run(serve)
    assert waiting == ["flagsync-async"]
    assert client.stats().exposures.delivered == 1


def test_async_lookup_of_cohorts_lets_other_tasks_go_on_while_the_store_hangs(
    run: Run, flagsync: Build, offline: Noting, slow: SlowStore
) -> None:
    client = flagsync(offline, cohorts=slow)
    become_patient(client, slow)

    async def serve() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.aget_identity_flags, "ann", {"plan": "pro"})
            await until(lambda: slow.looked_up)
            slow.may_answer.set()

    run(serve)
    [traits] = offline.traits
    assert (traits[VIPS]["value"], traits["plan"]) == (True, "pro")
    assert offline.threads == ["MainThread"]
    client._evaluator.stop()


def test_async_lookup_of_cached_cohorts_needs_no_thread(
    run: Run, flagsync: Build, offline: Noting, slow: SlowStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow.may_answer.set()
    client = flagsync(offline, cohorts=slow)
    become_patient(client, slow, Freshness(wait_seconds=60, fresh_seconds=inf))
    client.get_identity_flags("ann")
    monkeypatch.setattr(CallThreads, "run", None)

    async def serve() -> None:
        await client.aget_identity_flags("ann")

    run(serve)
    assert [traits[VIPS]["value"] for traits in offline.traits] == [True, True]
    client._evaluator.stop()


def test_async_lookup_never_asks_in_the_event_loop_if_cached_cohorts_expire_meanwhile(
    run: Run, flagsync: Build, offline: Noting, slow: SlowStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = flagsync(offline, cohorts=slow)
    monkeypatch.setattr(client._evaluator, "must_ask_store", lambda _: False)

    async def serve() -> None:
        await client.aget_identity_flags("ann")

    run(serve)
    assert (slow.looked_up, offline.traits) == (0, [{}])


def test_async_lookup_of_a_store_that_is_left_alone_needs_no_thread(
    run: Run, flagsync: Build, offline: Noting, slow: SlowStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = flagsync(offline, cohorts=slow)
    become_patient(client, slow, Freshness(wait_seconds=0.01, rest_seconds=inf))
    client.get_identity_flags("ann")
    monkeypatch.setattr(CallThreads, "run", None)

    async def serve() -> None:
        await client.aget_identity_flags("ann")

    run(serve)
    assert offline.traits == [{}, {}]
    client._evaluator.stop()


def test_merge_that_may_not_ask_takes_cached_cohorts_however_old(slow: SlowStore) -> None:
    slow.may_answer.set()
    cohorts = CohortTraits(slow, Reporter(None), Freshness(wait_seconds=60, fresh_seconds=0))
    merged = cohorts.merge("ann", None)
    assert cohorts.must_ask_store("ann")
    assert cohorts.merge("ann", None, may_ask=False) == merged
    assert cohorts.merge("bob", None, may_ask=False) == {}
    assert slow.looked_up == 1
    cohorts.stop()


def test_store_need_not_be_asked_about_an_identifier_that_has_no_text(slow: SlowStore) -> None:
    assert CohortTraits(slow, Reporter(None)).must_ask_store(Unspeakable()) is False


def test_async_remote_call_looks_up_cohorts_in_its_thread(
    run: Run, flagsync: Build, remote: Noting, slow: SlowStore
) -> None:
    client = flagsync(remote, cohorts=slow)
    become_patient(client, slow)

    async def serve() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.aget_identity_flags, "ann")
            await until(lambda: slow.looked_up)
            slow.may_answer.set()

    run(serve)
    [traits] = remote.traits
    assert traits[VIPS]["value"] is True
    client._evaluator.stop()
