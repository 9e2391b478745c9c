"""What the answers of Mixpanel and of Flagsmith mean, as tables."""

import pytest

from flagsync._delivery.answers import MAX_TEXT, Answer, Misconfiguration, Outcome, Reply, Service, judge
from flagsync._delivery.mixpanel import MIXPANEL
from flagsync.cohorts.trait_writer.service import FLAGSMITH

ACCEPTED, REFUSED = Outcome.ACCEPTED, Outcome.REFUSED
UNAVAILABLE, MISCONFIGURED = Outcome.UNAVAILABLE, Outcome.MISCONFIGURED
SERVICES = {"Mixpanel": MIXPANEL, "Flagsmith": FLAGSMITH}


@pytest.mark.parametrize(
    ("status", "body", "outcome"),
    [
        (200, b'{"status": 1, "error": null}', ACCEPTED),
        (200, b"1", ACCEPTED),
        (200, b"0", REFUSED),
        (200, b'{"status": 0, "error": "$distinct_id, missing or empty"}', REFUSED),
        (200, b"", UNAVAILABLE),
        (201, b'{"status": 1}', MISCONFIGURED),
        (204, b"", MISCONFIGURED),
        (301, b"", MISCONFIGURED),
        (400, b'{"status": 0, "error": "bad"}', REFUSED),
        (401, b'{"error": "no", "status": "error"}', MISCONFIGURED),
        (402, b"", MISCONFIGURED),
        (403, b"", MISCONFIGURED),
        (404, b"Not found", MISCONFIGURED),
        (408, b"", UNAVAILABLE),
        (413, b"", REFUSED),
        (422, b"", MISCONFIGURED),
        (425, b"", UNAVAILABLE),
        (429, b'{"code": 429}', UNAVAILABLE),
        (500, b"<html>", UNAVAILABLE),
        (502, b"", UNAVAILABLE),
        (503, b'{"status": 1}', UNAVAILABLE),
        (504, b"1", UNAVAILABLE),
        (599, b"", UNAVAILABLE),
    ],
)
def test_answer_of_mixpanel_has_an_outcome(status: int, body: bytes, outcome: Outcome) -> None:
    answer = judge(MIXPANEL, Reply(status, body))
    assert answer.outcome is outcome
    if outcome is not ACCEPTED:
        assert answer.reason.startswith(f"Mixpanel does not accept updates (HTTP {status}")
        assert answer.text == body.decode()


@pytest.mark.parametrize("name", SERVICES)
def test_misconfiguration_says_itself_what_to_check(name: str) -> None:
    answer = judge(SERVICES[name], Misconfiguration("it is wrong; check it"))
    reason = f"{name} cannot be reached (it is wrong; check it)"
    assert answer == Answer(MISCONFIGURED, reason, error_type="configuration")


@pytest.mark.parametrize("name", SERVICES)
def test_proxy_that_wants_credentials_is_named_as_the_one(name: str) -> None:
    answer = judge(SERVICES[name], Reply(407, b""))
    assert answer.outcome is MISCONFIGURED
    assert answer.reason.endswith("(HTTP 407; check the credentials of the proxy)")


@pytest.mark.parametrize(
    ("status", "body", "outcome"),
    [
        (200, b"{}", ACCEPTED),
        (200, b"", ACCEPTED),
        (201, b"[]", ACCEPTED),
        (204, b"", ACCEPTED),
        (200, b" \n<!doctype html>", MISCONFIGURED),
        (302, b"", MISCONFIGURED),
        (400, b"", REFUSED),
        (401, b"", MISCONFIGURED),
        (403, b"", MISCONFIGURED),
        (404, b"", MISCONFIGURED),
        (408, b"", UNAVAILABLE),
        (413, b"", REFUSED),
        (422, b"", REFUSED),
        (429, b"", UNAVAILABLE),
        (500, b"", REFUSED),
        (502, b"", UNAVAILABLE),
        (503, b"", UNAVAILABLE),
    ],
)
def test_answer_of_flagsmith_has_an_outcome(status: int, body: bytes, outcome: Outcome) -> None:
    answer = judge(FLAGSMITH, Reply(status, body))
    assert answer.outcome is outcome
    if outcome is not ACCEPTED:
        assert answer.reason.startswith(f"Flagsmith does not accept traits (HTTP {status}")


@pytest.mark.parametrize("service", SERVICES.values(), ids=[*SERVICES])
@pytest.mark.parametrize("status", [100, 101, 199, 300, 418, 600])
def test_every_status_has_an_outcome_and_is_no_success(service: Service, status: int) -> None:
    assert judge(service, Reply(status, b"1")).outcome is not ACCEPTED


@pytest.mark.parametrize(
    ("service", "reason"),
    [
        (
            MIXPANEL,
            "Mixpanel does not accept updates (HTTP 403; check mixpanel_token, region and mixpanel_url)",
        ),
        (FLAGSMITH, "Flagsmith does not accept traits (HTTP 403; check the environment key and api_url)"),
    ],
)
def test_misconfigured_answer_says_what_to_check(service: Service, reason: str) -> None:
    assert judge(service, Reply(403, b"")).reason == reason


@pytest.mark.parametrize("service", SERVICES.values(), ids=[*SERVICES])
def test_missing_reply_is_unavailable_and_says_why(service: Service) -> None:
    answer = judge(service, "ReadTimeout")
    reason = f"{service.name} cannot be reached (ReadTimeout)"
    assert answer == Answer(UNAVAILABLE, reason, error_type="no_answer")


def test_accepted_answer_says_nothing_more() -> None:
    assert judge(MIXPANEL, Reply(200, b"1", 7.0)) == Answer(ACCEPTED)


def test_answer_keeps_the_time_that_the_server_asks_for() -> None:
    assert judge(MIXPANEL, Reply(429, b"", 7.0)).retry_after_seconds == 7.0


def test_answer_keeps_only_the_beginning_of_its_text() -> None:
    assert judge(MIXPANEL, Reply(400, b"x" * 10_000)).text == "x" * MAX_TEXT


def test_answer_in_no_known_encoding_is_kept_as_far_as_it_can_be_read() -> None:
    assert judge(MIXPANEL, Reply(400, b"caf\xe9")).text == "caf\ufffd"


def test_reason_of_an_answer_does_not_quote_its_text() -> None:
    answer = judge(MIXPANEL, Reply(400, b'{"status": 0, "error": "ann@example.com"}'))
    assert "ann" not in answer.reason


@pytest.mark.parametrize(
    ("reply", "error_type"),
    [
        (Reply(503, b""), "503"),
        (Reply(401, b""), "401"),
        (Reply(200, b"<html>"), "200"),
        ("ReadTimeout", "no_answer"),
        (Misconfiguration("it is wrong; check it"), "configuration"),
    ],
)
@pytest.mark.parametrize("service", SERVICES.values(), ids=[*SERVICES])
def test_failure_has_a_type_of_few_values(service: Service, reply: Reply | str, error_type: str) -> None:
    assert judge(service, reply).error_type == error_type
