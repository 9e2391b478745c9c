"""MixpanelApi: where events go, and what /import answers."""

import json
from base64 import b64decode
from collections.abc import Iterator

import pytest

from flagsync._clock import time
from flagsync._delivery.answers import Answer, Outcome
from flagsync._delivery.mixpanel import MixpanelApi, read_import_body, refused_records
from flagsync.testing import MixpanelServer

DAY = 86400
LATE = int(4.5 * DAY) + 60


@pytest.fixture
def api() -> Iterator[MixpanelApi]:
    made = MixpanelApi()
    yield made
    made.close()


def event(
    ago: float = 0, token: str = "project-token", insert_id: str = "abc", distinct_id: str = "ann"
) -> bytes:
    properties = {
        "token": token,
        "distinct_id": distinct_id,
        "time": int(time() - ago),
        "$insert_id": insert_id,
    }
    return json.dumps(
        {"event": "$experiment_started", "properties": properties}, separators=(",", ":")
    ).encode()


def test_events_go_to_track(mixpanel: MixpanelServer, api: MixpanelApi) -> None:
    assert api.post(f"{mixpanel.url}/track", [event(), event(LATE - 120)], 10) == Answer(Outcome.ACCEPTED)
    assert [request.path for request in mixpanel.requests] == ["/track?verbose=1"]
    assert len(mixpanel.events) == 2


@pytest.mark.parametrize("token", ["project-token", "a/b:c@d"])
def test_events_that_have_waited_long_go_to_import_with_the_token_as_user(
    mixpanel: MixpanelServer, api: MixpanelApi, token: str
) -> None:
    url = mixpanel.url.replace("://", "://user:password@") + "/proxy"
    events = [event(token=token), event(LATE, token), event(40 * DAY, token)]
    api.post(f"{url}/track", events, 10)
    assert api.post(f"{mixpanel.url}/track", events, 10) == Answer(Outcome.ACCEPTED)
    assert [request.path for request in mixpanel.requests] == ["/proxy/import?strict=1", "/import?strict=1"]
    for request in mixpanel.requests:
        credentials = b64decode(request.headers["Authorization"].removeprefix("Basic ")).decode()
        assert credentials == f"{token}:"
    assert len(mixpanel.events) == 3


def test_time_in_an_identifier_is_not_that_of_the_event(mixpanel: MixpanelServer, api: MixpanelApi) -> None:
    api.post(f"{mixpanel.url}/track", [event(distinct_id='"time":1,')], 10)
    assert [request.path for request in mixpanel.requests] == ["/track?verbose=1"]


def test_old_looking_profile_stays_with_engage(mixpanel: MixpanelServer, api: MixpanelApi) -> None:
    api.post(f"{mixpanel.url}/engage", [b'{"$token":"t","$distinct_id":"a","$set":{"time":1}}'], 10)
    assert mixpanel.profiles == {"a": {"time": 1}}


def test_event_without_a_time_stays_with_track(mixpanel: MixpanelServer, api: MixpanelApi) -> None:
    api.post(f"{mixpanel.url}/track", [b'{"event":"x","properties":{"token":"t"}}'], 10)
    assert [request.path for request in mixpanel.requests] == ["/track?verbose=1"]


def test_import_names_the_records_that_it_refuses(mixpanel: MixpanelServer, api: MixpanelApi) -> None:
    events = [event(LATE), event(LATE, insert_id="a:b"), event(LATE)]
    answer = api.post(f"{mixpanel.url}/track", events, 10)
    assert (answer.outcome, answer.refused) == (Outcome.REFUSED, frozenset({1}))
    assert len(mixpanel.events) == 2


def test_import_that_is_down_is_unavailable(mixpanel: MixpanelServer, api: MixpanelApi) -> None:
    mixpanel.fail(times=1, drop=True)
    mixpanel.fail(times=1, status=503)
    outcomes = [api.post(f"{mixpanel.url}/track", [event(LATE)], 10).outcome for _ in range(2)]
    assert outcomes == [Outcome.UNAVAILABLE] * 2


@pytest.mark.parametrize("body", [b"", b"1", b"[]", b"{}", b'{"code": 400}', b"<html>"])
def test_body_of_import_that_is_not_mixpanels_is_unavailable(body: bytes) -> None:
    assert read_import_body(body) == (Outcome.UNAVAILABLE, ", not an answer from Mixpanel")


@pytest.mark.parametrize(
    ("body", "places"),
    [
        (b'{"failed_records": [{"index": 0}, {"index": 2}]}', {0, 2}),
        (b'{"failed_records": [{"index": 3}, {"index": -1}, {"index": true}, {"index": "1"}, {}, 7]}', set()),
        (b'{"failed_records": null}', set()),
        (b'{"error": "no"}', set()),
        (b"[]", set()),
        (b"no", set()),
    ],
)
def test_refused_records_are_those_of_the_batch(body: bytes, places: set[int]) -> None:
    assert refused_records(body, 3) == places
