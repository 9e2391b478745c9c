"""MixpanelApi: what is posted, and what the bodies of answers mean."""

import json
from collections.abc import Callable, Iterator

import pytest

from flagsync._delivery.answers import Answer, Outcome
from flagsync._delivery.mixpanel import MixpanelApi, read_body
from flagsync.testing import MixpanelServer
from tests.support.sockets import free_port

UPDATE = json.dumps({"$token": "project-token", "$distinct_id": "user_1", "$set": {"checkout": True}}).encode()
ACCEPTED, REFUSED = Outcome.ACCEPTED, Outcome.REFUSED
UNAVAILABLE, MISCONFIGURED = Outcome.UNAVAILABLE, Outcome.MISCONFIGURED


@pytest.fixture
def post(mixpanel: MixpanelServer) -> Iterator[Callable[..., Answer]]:
    """Posts updates to the loopback Mixpanel."""
    api = MixpanelApi()
    yield lambda updates=(UPDATE,), seconds=10.0: api.post(f"{mixpanel.url}/engage", updates, seconds)
    api.close()


def test_post_sends_one_json_array(mixpanel: MixpanelServer, post: Callable[..., Answer]) -> None:
    assert post([UPDATE, UPDATE]) == Answer(ACCEPTED)
    [request] = mixpanel.requests
    assert (request.method, request.path) == ("POST", "/engage?verbose=1")
    assert request.headers["Content-Type"] == "application/json"
    assert request.headers["X-Mixpanel-Integration-ID"] == "flagsync"
    assert json.loads(request.body) == [json.loads(UPDATE)] * 2


def test_post_is_accepted_by_mixpanel(mixpanel: MixpanelServer, post: Callable[..., Answer]) -> None:
    assert post().outcome is ACCEPTED
    assert mixpanel.profiles == {"user_1": {"checkout": True}}


def test_post_of_a_bad_update_is_refused(mixpanel: MixpanelServer, post: Callable[..., Answer]) -> None:
    answer = post([UPDATE, b'{"$token": "", "$distinct_id": "user_2"}'])
    assert answer.outcome is REFUSED
    assert answer.reason == "Mixpanel does not accept updates (HTTP 200, status 0)"
    assert "$token, missing or empty" in answer.text
    assert mixpanel.profiles == {}


def test_posts_share_one_connection(mixpanel: MixpanelServer, post: Callable[..., Answer]) -> None:
    mixpanel.fail(times=1, status=400)
    for _ in range(3):
        post()
    assert len({request.connection for request in mixpanel.requests}) == 1


@pytest.mark.parametrize(
    ("body", "outcome", "note"),
    [
        (b'{"status": 1, "error": null}', ACCEPTED, ""),
        (b"1", ACCEPTED, ""),
        (b" 1\n", ACCEPTED, ""),
        (b"0", REFUSED, ", status 0"),
        (b'{"status": 0, "error": "$distinct_id, missing or empty"}', REFUSED, ", status 0"),
        (b"2", UNAVAILABLE, ", status 2"),
        (b'{"status": -1}', UNAVAILABLE, ", status -1"),
        (b"{}", UNAVAILABLE, ", not an answer from Mixpanel"),
        (b"[]", UNAVAILABLE, ", not an answer from Mixpanel"),
        (b"[1]", UNAVAILABLE, ", not an answer from Mixpanel"),
        (b"true", UNAVAILABLE, ", not an answer from Mixpanel"),
        (b"1.0", UNAVAILABLE, ", not an answer from Mixpanel"),
        (b'{"status": true}', UNAVAILABLE, ", not an answer from Mixpanel"),
        (b'{"status": "ok"}', UNAVAILABLE, ", not an answer from Mixpanel"),
        (b"null", UNAVAILABLE, ", not an answer from Mixpanel"),
        (b"", UNAVAILABLE, ", not an answer from Mixpanel"),
        (b"\xff\xfe\xfa", UNAVAILABLE, ", not an answer from Mixpanel"),
        (b"<html>Sign in to the hotel</html>", UNAVAILABLE, ", not an answer from Mixpanel"),
        (b"[" * 100_000, UNAVAILABLE, ", not an answer from Mixpanel"),
        (b'{"a":' * 100_000, UNAVAILABLE, ", not an answer from Mixpanel"),
    ],
)
def test_body_of_an_answer_has_an_outcome(
    mixpanel: MixpanelServer, post: Callable[..., Answer], body: bytes, outcome: Outcome, note: str
) -> None:
    assert read_body(body) == (outcome, note)
    mixpanel.fail(times=1, status=200, body=body)
    assert post().outcome is outcome


@pytest.mark.parametrize(
    ("status", "outcome"), [(301, MISCONFIGURED), (401, MISCONFIGURED), (413, REFUSED), (503, UNAVAILABLE)]
)
def test_status_of_an_answer_has_an_outcome(
    mixpanel: MixpanelServer, post: Callable[..., Answer], status: int, outcome: Outcome
) -> None:
    mixpanel.fail(times=1, status=status, body="café", headers={"Retry-After": "7"})
    answer = post()
    assert (answer.outcome, answer.text, answer.retry_after_seconds) == (outcome, "café", 7.0)
    assert f"HTTP {status}" in answer.reason


def test_answer_with_a_false_content_encoding_is_unavailable(
    mixpanel: MixpanelServer, post: Callable[..., Answer]
) -> None:
    mixpanel.fail(times=1, status=200, body="1", headers={"Content-Encoding": "gzip"})
    assert post().outcome is UNAVAILABLE


def test_post_without_an_answer_is_unavailable(mixpanel: MixpanelServer, post: Callable[..., Answer]) -> None:
    mixpanel.fail(times=1, drop=True)
    reason = "Mixpanel cannot be reached (ConnectionError)"
    assert post() == Answer(UNAVAILABLE, reason, error_type="no_answer")


def test_post_to_a_server_that_is_not_there_is_unavailable() -> None:
    api, url = MixpanelApi(), f"http://127.0.0.1:{free_port()}/engage"
    reason = "Mixpanel cannot be reached (ConnectionError: Connection refused)"
    assert api.post(url, [UPDATE], 5) == Answer(UNAVAILABLE, reason, error_type="no_answer")


def test_post_ends_in_time(mixpanel: MixpanelServer, post: Callable[..., Answer]) -> None:
    mixpanel.fail(times=1, delay_seconds=3600)
    answer = post(seconds=0.1)
    reason = "Mixpanel cannot be reached (ReadTimeout)"
    assert answer == Answer(UNAVAILABLE, reason, error_type="no_answer")
