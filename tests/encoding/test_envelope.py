"""The records that the Mixpanel SDK writes around properties."""

import json

import pytest
from mixpanel import Mixpanel

from flagsync._encoding import envelope
from flagsync._encoding.envelope import ENVELOPE_SECONDS, Envelope


def test_envelope_says_that_an_update_is_neither_a_place_nor_an_activity_of_the_user() -> None:
    made = Envelope("project-token")
    record = made.people_set("user_1", '"checkout": true, ') + made.end(r'"colour": "\u65e5\u672c"')
    update = json.loads(record)
    assert isinstance(update.pop("$time"), float)
    assert update == {
        "$token": "project-token",
        "$distinct_id": "user_1",
        "$set": {"checkout": True, "colour": "日本"},
        "$ip": "0",
        "$ignore_time": True,
    }
    assert record.isascii()


@pytest.mark.parametrize(
    "text", ['"$set":{}', '"$distinct_id":""', "%s 100% %(id)b %%", 'a "quoted" 日本 \\ name']
)
def test_envelope_takes_no_text_for_one_of_its_places(text: str) -> None:
    made = Envelope(text)
    for _ in range(2):  # the second record uses the envelope of the first
        found = json.loads(made.people_set(text, json.dumps({text: text})[1:-1]) + made.end(""))
        assert (found["$token"], found["$distinct_id"], found["$set"]) == (text, text, {text: text})


def test_envelope_is_used_again_for_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(envelope, "monotonic", lambda: now)
    monkeypatch.setattr(Mixpanel, "_now", lambda _: now)
    made, times = Envelope("project-token"), list[float]()
    for now in (100.0, 100.0 + 0.9 * ENVELOPE_SECONDS, 100.0 + ENVELOPE_SECONDS):  # noqa: B007
        times.append(json.loads(made.people_set("user_1", "") + made.end(""))["$time"])
    assert times == [100.0, 100.0, 101.0]


def test_envelope_removes_properties_by_a_record_of_its_own() -> None:
    made, name = Envelope("project-token"), 'a "$set":{ name'
    for unset in (["old", name], ["old"], ["old"], []):
        record = made.people_set("user_1", '"new":1', unset) + made.end("")
        *before, update = json.loads(b"[%b]" % record)
        assert (update["$set"], update["$distinct_id"]) == ({"new": 1}, "user_1")
        expected = {"$token": "project-token", "$distinct_id": "user_1", "$ip": "0", "$ignore_time": True}
        for one in before:
            assert isinstance(one.pop("$time"), float)
        assert before == ([{**expected, "$unset": unset}] if unset else [])


def test_end_of_an_envelope_does_not_change_with_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(envelope, "monotonic", lambda: now)
    made = Envelope("project-token")
    before = made.end('"a":1')
    now += ENVELOPE_SECONDS
    made.people_set("user_1", "")
    assert made.end('"a":1') == before
