"""Flagsmith's API for traits: what its answers mean, and how it is called."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flagsmith import Flagsmith

from flagsync._delivery.answers import Outcome, Reply, judge
from flagsync._report import Reporter
from flagsync.cohorts import TraitChange
from flagsync.cohorts.environment import Environment
from flagsync.cohorts.trait_writer.batch_size import Batches
from flagsync.cohorts.trait_writer.flagsmith import FlagsmithTraits
from flagsync.cohorts.trait_writer.service import CANNOT_TELL, FLAGSMITH, as_json
from tests.support.flagsmith_server import KEY, FlagsmithServer

SECONDS = 30.0
NESTED = "[" * 60_000  # JSON without end
ANN, BOB = (as_json(TraitChange(who, "vip", value=True)) for who in ("ann", "bob"))


@pytest.fixture
def server() -> Iterator[FlagsmithServer]:
    with FlagsmithServer() as server:
        yield server


class Build:
    """Builds the requests of a client."""

    def __init__(self, server: FlagsmithServer) -> None:
        self.server, self.report = server, Reporter(None)
        self._built: list[FlagsmithTraits] = []

    def __call__(self, client: Flagsmith | None = None, **options: Any) -> FlagsmithTraits:
        environment = Environment.of(client or Flagsmith(KEY, self.server.api_url))
        self._built.append(FlagsmithTraits(environment, self.report, Batches(**options), self.server.clock))
        return self._built[-1]

    def close(self) -> None:
        for traits in self._built:
            traits.close()


@pytest.fixture
def build(server: FlagsmithServer) -> Iterator[Build]:
    build = Build(server)
    yield build
    build.close()


@pytest.fixture
def traits(build: Build) -> FlagsmithTraits:
    return build()


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
    expected = "HTTP 200, not an answer from Flagsmith; check the environment key and api_url"
    assert answer.reason == f"Flagsmith does not accept traits ({expected})"


def test_refused_key_is_explained_in_the_words_of_flagsmith(build: Build, server: FlagsmithServer) -> None:
    traits = build(Flagsmith("ser.wrong", server.api_url))
    answer = traits.post(server.api_url, [ANN], SECONDS)
    hint = "Flagsmith does not accept traits (HTTP 403; check the environment key and api_url)"
    assert answer.outcome is Outcome.MISCONFIGURED
    assert answer.reason == f"{hint}: Invalid or missing Environment Key"


@pytest.mark.parametrize("body", ["<html>", "[]", "{}", "17"])
def test_refused_key_without_words_is_not_explained(
    traits: FlagsmithTraits, server: FlagsmithServer, body: str
) -> None:
    server.fail(status=403, body=body)
    assert traits.post(server.api_url, [ANN], SECONDS).reason.endswith("api_url)")


# Identity by identity


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


def test_post_has_several_identities_in_flight_and_all_of_one_in_one_request(
    build: Build, server: FlagsmithServer
) -> None:
    server.bulk = False
    traits = build(concurrent_singles=3)
    arrived = threading.Barrier(3)
    server.fails = lambda: arrived.wait(5) < 0  # three are there at the same time, or this raises
    bodies = [as_json(TraitChange(who, key, value=True)) for who in "abcdef" for key in ("one", "two")]
    assert traits.post(server.api_url, bodies, SECONDS).outcome is Outcome.ACCEPTED
    assert len(server.traits) == 12
    assert len([request for request in server.requests if request.method == "POST"]) == 6


def test_trait_that_is_accepted_and_not_stored_is_a_wrong_configuration(
    traits: FlagsmithTraits, server: FlagsmithServer
) -> None:
    server.bulk = server.environments[KEY].persists_traits = False
    for _ in range(2):
        answer = traits.post(server.api_url, [ANN, BOB], SECONDS)
        assert (answer.outcome, server.traits) == (Outcome.MISCONFIGURED, {})
    assert "persist_trait_data" in answer.reason
    server.environments[KEY].persists_traits = True
    assert traits.post(server.api_url, [ANN, BOB], SECONDS).outcome is Outcome.ACCEPTED


def test_trait_is_read_back_once(traits: FlagsmithTraits, server: FlagsmithServer) -> None:
    server.bulk = False
    odd = as_json(TraitChange("ann & bob", "vip", value=False))
    for _ in range(3):
        traits.post(server.api_url, [odd], SECONDS)
    assert [request.path for request in server.requests if request.method == "GET"] == [
        "/api/v1/identities/?identifier=ann+%26+bob"
    ]
    assert traits.requests == 5  # with one that looked for the bulk endpoint


@pytest.mark.parametrize("body", ["oops", "[]", "{}", '{"traits": 7}', '{"traits": [7]}', NESTED], ids=range(6))
def test_trait_that_cannot_be_read_back_is_warned_of_once(
    traits: FlagsmithTraits, server: FlagsmithServer, logged: Callable[[], list[str]], body: str
) -> None:
    server.bulk = False
    traits.post(server.api_url, [ANN], SECONDS)
    server.requests.clear()
    traits._is_verified = False
    server.fail(times=1, status=200, body="{}")
    server.fail(times=1, status=200, body=body)
    assert traits.post(server.api_url, [ANN], SECONDS).outcome is Outcome.ACCEPTED
    traits.post(server.api_url, [ANN], SECONDS)
    assert logged() == [CANNOT_TELL]


def test_organisation_that_stores_no_traits_says_so(traits: FlagsmithTraits, server: FlagsmithServer) -> None:
    server.environments[KEY].persists_traits = False
    answer = traits.post(server.api_url, [ANN], SECONDS)
    assert answer.outcome is Outcome.MISCONFIGURED
    assert answer.reason.endswith("api_url): Organisation is not authorised to store traits.")


@pytest.mark.parametrize("body", ["oops", "[]", "{}", NESTED], ids=range(4))
def test_refused_key_without_an_explanation_is_judged_by_the_status(
    traits: FlagsmithTraits, server: FlagsmithServer, body: str
) -> None:
    server.fail(times=1, status=403, body=body)
    answer = traits.post(server.api_url, [ANN], SECONDS)
    assert answer.outcome is Outcome.MISCONFIGURED
    assert answer.reason.endswith("check the environment key and api_url)")


# What is unsure, and what fails alone


def test_post_is_unsure_after_a_request_without_an_answer(
    traits: FlagsmithTraits, server: FlagsmithServer
) -> None:
    seen = list[bool]()
    for status in (200, 502, 400, 504, 503, 524, 500):
        server.fail(times=1, status=status, body="{}")
        traits.post(server.api_url, [ANN], SECONDS)
        seen.append(traits.is_unsure)
    server.fail(times=2, drop=True)  # the first one may be about the connection, which was kept
    traits.post(server.api_url, [ANN], SECONDS)
    assert [*seen, traits.is_unsure] == [False, True, False, True, False, True, False, True]


def test_slowest_of_the_last_requests_is_remembered(traits: FlagsmithTraits, server: FlagsmithServer) -> None:
    assert traits.slowest_seconds == 0
    seen = list[float]()
    for seconds in (1.0, 40.0, *[2.0] * 20):
        server.trait_seconds = seconds
        traits.post(server.api_url, [ANN], SECONDS)
        seen.append(traits.slowest_seconds)
    assert seen == [1.0, *[30.0] * 20, 2.0]


def test_change_that_fails_alone_is_told_and_others_go_on(
    traits: FlagsmithTraits, server: FlagsmithServer
) -> None:
    server.refused = {"ann": 500}
    assert traits.post(server.api_url, [ANN, BOB], SECONDS).outcome is Outcome.REFUSED
    assert traits.take_failures() == {}
    assert traits.post(server.api_url, [ANN], SECONDS).outcome is Outcome.ACCEPTED
    assert [(body, answer.reason) for body, answer in traits.take_failures().items()] == [
        (ANN, "Flagsmith does not accept traits (HTTP 500)")
    ]
    assert traits.take_failures() == {}


def test_changes_that_all_fail_alone_are_a_failure_of_the_server(build: Build, server: FlagsmithServer) -> None:
    traits = build(max_alone=2)
    bodies = [as_json(TraitChange(who, "vip", value=True)) for who in "abcabc"]
    server.refused = dict.fromkeys("abc", 500)
    outcomes = [traits.post(server.api_url, [body], SECONDS).outcome for body in bodies]
    assert outcomes == [Outcome.ACCEPTED] * 2 + [Outcome.UNAVAILABLE] * 4
    failures = [answer.outcome for answer in traits.take_failures().values()]
    assert failures == [Outcome.UNAVAILABLE] * 3  # each has failed once more since the server is failing
    traits.post(server.api_url, [BOB], SECONDS)
    assert traits.post(server.api_url, bodies[:1], SECONDS).outcome is Outcome.ACCEPTED


def test_change_that_fails_alone_again_and_again_is_no_failure_of_the_server(
    build: Build, server: FlagsmithServer
) -> None:
    traits, server.refused = build(max_alone=1), {"ann": 500}
    outcomes = [traits.post(server.api_url, [ANN], SECONDS).outcome for _ in range(4)]
    assert outcomes == [Outcome.ACCEPTED] * 4


# How many at once, and how


def test_batches_are_small_on_a_slow_server_and_large_on_a_fast_one(
    build: Build, server: FlagsmithServer
) -> None:
    sizes = list[int]()
    for seconds in (0.002, 0.0625, 0.6):
        traits, server.trait_seconds = build(), seconds
        for _ in range(10):
            traits.post(server.api_url, [ANN] * traits.max_batch, SECONDS)
        sizes.append(traits.max_batch)
    assert sizes == [500, 48, 10]


def test_bulk_and_single_requests_have_sizes_of_their_own(
    traits: FlagsmithTraits, server: FlagsmithServer
) -> None:
    for _ in range(10):
        traits.post(server.api_url, [ANN] * traits.max_batch, SECONDS)
    assert traits.max_batch == 500
    server.bulk = False
    traits.post(server.api_url, [ANN], SECONDS)
    assert traits.max_batch == 50
    server.clock.sleep(600)
    assert traits.max_batch == 500


def test_headers_and_proxies_of_the_client_are_used(build: Build, server: FlagsmithServer) -> None:
    url, proxies = "http://flagsmith.invalid/api/v1/", {"http": server.url}
    traits = build(Flagsmith(KEY, url, custom_headers={"X-Own": "yes"}, proxies=proxies))
    assert traits.post(url, [ANN], SECONDS).outcome is Outcome.ACCEPTED
    assert server.requests[0].headers["X-Own"] == "yes"


def test_certificates_of_the_client_are_used(build: Build, server: FlagsmithServer) -> None:
    client = Flagsmith(KEY, server.api_url)
    client.session.verify, client.session.cert = "/ca.pem", ("/cert.pem", "/key.pem")
    sessions = [connection._session for connection in build(client)._connections]
    assert {(session.verify, session.cert) for session in sessions} == {("/ca.pem", ("/cert.pem", "/key.pem"))}
