"""How old the environment document of a Flagsmith client is."""

from collections.abc import Iterator
from typing import Any

import pytest
from flagsmith import Flagsmith

from flagsync import _refresh
from flagsync._refresh import NO_DOCUMENT, NO_THREAD, STALE_DOCUMENT, Refresh
from flagsync._thresholds import Thresholds
from tests.support.evaluating_flagsmith import EvaluatingFlagsmith, Polling
from tests.support.flagsmith_server import KEY
from tests.support.forks import in_child

THRESHOLDS = Thresholds(stale_seconds=300.0, missing_refreshes=3)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(_refresh, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def server(document: dict[str, Any]) -> Iterator[EvaluatingFlagsmith]:
    with EvaluatingFlagsmith(document) as started:
        yield started


@pytest.fixture
def local(server: EvaluatingFlagsmith) -> Iterator[Polling]:
    client = Polling(server)
    yield client
    client.close()


def test_document_ages_until_it_is_refreshed_though_its_content_is_the_same(
    local: Polling, clock: list[float]
) -> None:
    refresh = Refresh(local, THRESHOLDS)
    assert refresh.age_seconds() == 0.0
    clock[0] += 50
    assert refresh.age_seconds() == 50.0
    local.update_environment()
    assert refresh.age_seconds() == 0.0


def test_document_that_cannot_be_refreshed_gets_stale(
    local: Polling, server: EvaluatingFlagsmith, clock: list[float]
) -> None:
    local.environment_data_polling_manager_thread.refresh_interval_seconds = 120.0
    refresh = Refresh(local, THRESHOLDS)
    server.fail(status=503)
    clock[0] += 360
    local.update_environment()
    assert refresh.trouble() is None
    clock[0] += 1
    assert refresh.trouble() == STALE_DOCUMENT.format(361)


def test_document_that_is_refreshed_often_is_not_stale_before_some_minutes(
    local: Polling, clock: list[float]
) -> None:
    local.environment_data_polling_manager_thread.refresh_interval_seconds = 1.0
    refresh = Refresh(local, THRESHOLDS)
    clock[0] += 300
    assert refresh.trouble() is None
    clock[0] += 1
    assert refresh.trouble() == STALE_DOCUMENT.format(301)


def test_thread_that_does_not_run_in_a_forked_child_is_a_trouble(local: Polling) -> None:
    refresh = Refresh(local, THRESHOLDS)
    assert refresh.trouble() is None
    assert in_child(lambda: refresh.trouble() == NO_THREAD)


def test_thread_that_has_ended_is_a_trouble(local: Polling) -> None:
    refresh = Refresh(local, THRESHOLDS)
    local.close()
    assert refresh.trouble() == NO_THREAD


def test_document_that_never_came_is_a_trouble(server: EvaluatingFlagsmith) -> None:
    server.fail(status=503)
    client = Polling(server)
    refresh = Refresh(client, THRESHOLDS)
    assert (refresh.age_seconds(), refresh.trouble()) == (None, NO_DOCUMENT)
    client.close()


def test_stream_refreshes_when_something_has_changed_so_that_its_document_is_not_stale(
    offline: Flagsmith, clock: list[float]
) -> None:
    offline.enable_local_evaluation = True  # as a client with real-time updates, but without the stream itself
    refresh = Refresh(offline, THRESHOLDS)
    clock[0] += 1e6
    assert (refresh.age_seconds(), refresh.trouble()) == (1e6, None)


def test_clients_without_local_evaluation_have_no_age_and_no_trouble(offline: Flagsmith) -> None:
    for client in (offline, Flagsmith(KEY)):
        refresh = Refresh(client, THRESHOLDS)
        assert (refresh.age_seconds(), refresh.trouble()) == (None, None)


def test_old_document_is_not_kept(local: Polling) -> None:
    refresh = Refresh(local, THRESHOLDS)
    context = local._evaluation_context
    assert context is not None
    assert refresh._seen[0] is context["environment"]


def test_client_of_another_kind_is_looked_at_as_a_whole() -> None:
    class Other:
        enable_local_evaluation, _evaluation_context = True, "a document"

    assert Refresh(Other(), THRESHOLDS).age_seconds() is not None  # type: ignore[arg-type]
