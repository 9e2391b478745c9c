"""What the loopback Mixpanel refuses of events, and what its experiment report shows."""

import json
from time import time
from typing import Any

import pytest
import requests
from mixpanel import Consumer, Mixpanel, MixpanelException

from flagsync.testing import MixpanelServer

TOKEN = ("project-token", "")


def event(name: Any = "$experiment_started", **properties: Any) -> dict[str, Any]:
    given = {"token": "t", "distinct_id": "ann", "time": int(time()), "$insert_id": "abc-1", **properties}
    return {"event": name, "properties": given}


def met(experiment: Any, variant: Any, distinct_id: str = "ann") -> dict[str, Any]:
    return event(**{"Experiment name": experiment, "Variant name": variant, "distinct_id": distinct_id})


def track(server: MixpanelServer, *events: Any) -> requests.Response:
    return requests.post(f"{server.url}/track", params={"verbose": "1"}, json=[*events], timeout=10)


def import_(server: MixpanelServer, *events: Any, **options: Any) -> requests.Response:
    options = {"params": {"strict": "1"}, "auth": TOKEN, "timeout": 10, **options}
    return requests.post(f"{server.url}/import", json=[*events], **options)


def test_events_hold_what_track_has_accepted(mixpanel_server: MixpanelServer) -> None:
    sent = [event("bought"), event("seen")]
    assert track(mixpanel_server, *sent).json() == {"status": 1, "error": None}
    assert (mixpanel_server.events, mixpanel_server.profiles) == (sent, {})


def test_experiments_hold_who_has_met_which_variant(mixpanel_server: MixpanelServer) -> None:
    exposures = [met("a", "control"), met("a", "blue", "bob"), met("a", "control", "cid"), met("b", "x")]
    others = [met("a", 1), met(True, "x"), met("", "x"), event("bought"), event(**{"Experiment name": "a"})]
    assert track(mixpanel_server, *exposures, *others).json()["status"] == 1
    assert mixpanel_server.experiments == {
        "a": {"control": {"ann", "cid"}, "blue": {"bob"}},
        "b": {"x": {"ann"}},
    }


def test_experiments_hold_distinct_ids_as_text(mixpanel_server: MixpanelServer) -> None:
    track(mixpanel_server, met("a", "x", 7), met("a", "x", ["ann"]))  # type: ignore[arg-type]
    assert mixpanel_server.experiments == {"a": {"x": {"7", "['ann']"}}}


@pytest.mark.parametrize("endpoint", ["track", "import", "engage"])
@pytest.mark.parametrize("constant", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_no_json_are_refused(
    endpoint: str, constant: float, mixpanel_server: MixpanelServer
) -> None:
    update = {**event(score=constant), "$token": "t", "$distinct_id": "ann", "$set": {"score": constant}}
    url, body = f"{mixpanel_server.url}/{endpoint}", json.dumps([update])
    assert requests.post(url, data=body, auth=TOKEN, timeout=10).status_code == 400
    assert (mixpanel_server.events, mixpanel_server.profiles) == ([], {})


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        ("event", "data, must be objects"),
        (event(""), "event, missing or empty"),
        (event(7), "event, missing or empty"),
        ({"event": "x"}, "properties, must be an object"),
        (event(token=""), "token, missing or empty"),
        (event(time="now"), "properties.time, must be a number"),
        (event(time=time() - 5 * 86400 - 10), "properties.time, more than 5 days ago"),
        (event(**{"$insert_id": "x" * 37}), "properties.$insert_id, at most 36 letters, digits and dashes"),
        (event(**{"$insert_id": "a:b"}), "properties.$insert_id, at most 36 letters, digits and dashes"),
        (event(x="x" * 1_000_000), "event, more than 1 MB"),
    ],
)
def test_track_refuses_a_batch_with_a_bad_event(mixpanel_server: MixpanelServer, bad: Any, error: str) -> None:
    assert track(mixpanel_server, event(), bad).json() == {"status": 0, "error": error}
    assert mixpanel_server.events == []


def test_import_takes_events_of_any_age(mixpanel_server: MixpanelServer) -> None:
    old = event(time=1_000_000_000)
    answer = import_(mixpanel_server, old)
    assert (answer.status_code, answer.json()) == (
        200,
        {"code": 200, "status": "OK", "num_records_imported": 1},
    )
    assert mixpanel_server.events == [old]


@pytest.mark.parametrize(("params", "status"), [({"strict": "1"}, 400), ({}, 200)])
def test_import_keeps_the_good_events_and_tells_of_the_others_if_it_is_strict(
    mixpanel_server: MixpanelServer, params: dict[str, str], status: int
) -> None:
    good, without_id, without_time = event(), event(), event()
    del without_id["properties"]["$insert_id"]
    del without_time["properties"]["time"]
    answer = import_(mixpanel_server, without_id, good, without_time, event(""), params=params)
    assert (answer.status_code, answer.json()["num_records_imported"]) == (status, 1)
    failed = [(record["index"], record["message"]) for record in answer.json().get("failed_records", ())]
    told = [
        (0, "properties.$insert_id, missing"),
        (2, "properties.time, missing"),
        (3, "event, missing or empty"),
    ]
    assert failed == (told if params else [])
    assert mixpanel_server.events == [good]


@pytest.mark.parametrize(
    "headers",
    [{}, {"Authorization": "Basic !"}, {"Authorization": "Basic gA=="}, {"Authorization": "Basic Og=="}],
)
def test_import_without_a_token_is_unauthorized(
    mixpanel_server: MixpanelServer, headers: dict[str, str]
) -> None:
    answer = import_(mixpanel_server, event(), auth=lambda request: request, headers=headers)
    assert (answer.status_code, answer.json()["code"], mixpanel_server.events) == (401, 401, [])


@pytest.mark.parametrize("count", [0, 2001])
def test_import_of_too_many_events_or_none_is_refused(mixpanel_server: MixpanelServer, count: int) -> None:
    answer = import_(mixpanel_server, *[event()] * count)
    assert (answer.status_code, mixpanel_server.events) == (400, [])
    assert answer.json()["error"] == "between 1 and 2000 events are accepted"


def test_fault_of_a_profile_is_met_by_its_events(mixpanel_server: MixpanelServer) -> None:
    mixpanel_server.fail(distinct_id="ann", status=503)
    answers = [track(mixpanel_server, one).status_code for one in (event(distinct_id="bob"), event(), 7)]
    assert answers == [200, 503, 200]


@pytest.fixture
def sdk(mixpanel_server: MixpanelServer) -> Mixpanel:
    """Mixpanel's own SDK, which sends each event at once, as the form that it makes of it."""
    url = mixpanel_server.url
    return Mixpanel("t", consumer=Consumer(events_url=f"{url}/track", people_url=f"{url}/engage"))


def test_form_of_mixpanels_sdk_holds_one_event(mixpanel_server: MixpanelServer, sdk: Mixpanel) -> None:
    sdk.track("ann", "Order & pay", {"total": 7, "name": "Zoë +%"})
    [found] = mixpanel_server.events
    assert (found["event"], found["properties"]["total"], found["properties"]["name"]) == (
        "Order & pay",
        7,
        "Zoë +%",
    )
    assert mixpanel_server.requests[0].updates == [found]


def test_form_of_mixpanels_sdk_holds_an_update_of_a_profile(
    mixpanel_server: MixpanelServer, sdk: Mixpanel
) -> None:
    sdk.people_set("ann", {"plan": "pro"})
    assert mixpanel_server.profiles == {"ann": {"plan": "pro"}}


def test_form_is_answered_with_the_error_that_the_sdk_raises(
    mixpanel_server: MixpanelServer, sdk: Mixpanel
) -> None:
    with pytest.raises(MixpanelException, match="event, missing or empty"):
        sdk.track("ann", "")
    assert mixpanel_server.events == []


def test_form_may_hold_an_array_and_is_answered_in_short_if_nothing_asks_for_more(
    mixpanel_server: MixpanelServer,
) -> None:
    answer = requests.post(
        f"{mixpanel_server.url}/track", {"data": json.dumps([event("a"), event("b")])}, timeout=10
    )
    assert (answer.status_code, answer.text, len(mixpanel_server.events)) == (200, "1", 2)


@pytest.mark.parametrize("form", [{"data": "no JSON"}, {"data": "7"}, {"other": "[]"}, {"data": ""}])
def test_form_without_events_is_refused(mixpanel_server: MixpanelServer, form: dict[str, str]) -> None:
    answer = requests.post(f"{mixpanel_server.url}/track", form, timeout=10)
    assert (answer.status_code, mixpanel_server.events) == (400, [])


def test_form_meets_the_fault_of_its_profile(mixpanel_server: MixpanelServer) -> None:
    mixpanel_server.fail(distinct_id="ann", status=503)
    form = {"data": json.dumps(event())}
    assert requests.post(f"{mixpanel_server.url}/track", form, timeout=10).status_code == 503
