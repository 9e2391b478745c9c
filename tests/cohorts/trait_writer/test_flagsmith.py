"""Flagsmith's API for traits: what its answers mean, and how it is called."""

import threading
from collections.abc import Iterator

import pytest

from flagsync._delivery.answers import Outcome, Reply, judge
from flagsync.cohorts import TraitChange
from flagsync.cohorts.trait_writer.flagsmith import FLAGSMITH, Batches, FlagsmithTraits, as_json
from tests.support.flagsmith_server import KEY, FlagsmithServer

SECONDS = 30.0
ANN, BOB = (as_json(TraitChange(who, "vip", value=True)) for who in ("ann", "bob"))


@pytest.fixture
def server() -> Iterator[FlagsmithServer]:
    with FlagsmithServer() as server:
        yield server


@pytest.fixture
def traits() -> Iterator[FlagsmithTraits]:
    traits = FlagsmithTraits({"X-Environment-Key": KEY}, {}, Batches(max_bulk=2))
    yield traits
    traits.close()


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (200, Outcome.ACCEPTED),
        (204, Outcome.ACCEPTED),
        (302, Outcome.MISCONFIGURED),
        (400, Outcome.REFUSED),
        (401, Outcome.MISCONFIGURED),
        (403, Outcome.MISCONFIGURED),
        (404, Outcome.MISCONFIGURED),
        (408, Outcome.UNAVAILABLE),
        (413, Outcome.REFUSED),
        (422, Outcome.REFUSED),
        (425, Outcome.UNAVAILABLE),
        (429, Outcome.UNAVAILABLE),
        (500, Outcome.REFUSED),
        (502, Outcome.UNAVAILABLE),
        (504, Outcome.UNAVAILABLE),
    ],
)
def test_answer_of_flagsmith_has_an_outcome(status: int, outcome: Outcome) -> None:
    assert judge(FLAGSMITH, Reply(status, b"")).outcome is outcome


def test_answer_that_is_a_page_for_people_is_a_wrong_configuration() -> None:
    answer = judge(FLAGSMITH, Reply(200, b" <!doctype html>"))
    assert answer.outcome is Outcome.MISCONFIGURED
    expected = "HTTP 200, not an answer of Flagsmith; check the environment key and api_url"
    assert answer.reason == f"Flagsmith does not accept traits ({expected})"


def test_post_sends_too_many_changes_back_without_a_request(
    traits: FlagsmithTraits, server: FlagsmithServer
) -> None:
    assert traits.post(server.api_url, [ANN, BOB, ANN], SECONDS).outcome is Outcome.REFUSED
    assert server.requests == []


def test_post_needs_no_further_thread_where_none_starts(
    traits: FlagsmithTraits, server: FlagsmithServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.bulk = False
    assert traits.post(server.api_url, [ANN], SECONDS).outcome is Outcome.ACCEPTED

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as out_of_threads:
        out_of_threads.setattr(threading.Thread, "start", refuse)
        answer = traits.post(server.api_url, [ANN, BOB], 5)
    assert answer.outcome is Outcome.ACCEPTED
    assert {who for who, _ in server.traits} == {"ann", "bob"}


def test_post_is_unsure_after_a_request_without_an_answer(
    traits: FlagsmithTraits, server: FlagsmithServer
) -> None:
    seen = list[bool]()
    for status in (200, 502, 400, 504, 503, 500):
        server.fail(times=1, status=status, body="{}")
        traits.post(server.api_url, [ANN], SECONDS)
        seen.append(traits.is_unsure)
    server.fail(times=1, drop=True)
    traits.post(server.api_url, [ANN], SECONDS)
    assert [*seen, traits.is_unsure] == [False, True, False, True, False, False, True]


def test_change_is_refused_if_it_fails_alone_twice_and_another_one_does_not(
    traits: FlagsmithTraits, server: FlagsmithServer
) -> None:
    server.refused = {"ann": 500}
    outcomes = [traits.post(server.api_url, [ANN], SECONDS).outcome for _ in range(3)]
    assert outcomes == [Outcome.UNAVAILABLE] * 3
    assert traits.suspects == {ANN}
    traits.post(server.api_url, [BOB], SECONDS)
    assert traits.post(server.api_url, [ANN], SECONDS).outcome is Outcome.REFUSED
    assert traits.suspects == set()


def test_suspect_that_is_accepted_is_none_any_more(traits: FlagsmithTraits, server: FlagsmithServer) -> None:
    server.fail(times=1, status=500)
    traits.post(server.api_url, [ANN], SECONDS)
    assert traits.suspects == {ANN}
    traits.post(server.api_url, [ANN, BOB], SECONDS)
    assert traits.suspects == set()
