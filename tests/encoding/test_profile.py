"""One identity and its flags, as the message about its profile."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from flagsmith import Flagsmith
from flagsmith.models import Flag, Flags
from mixpanel import Mixpanel

from flagsync._encoding import pacer as pacer_module
from flagsync._encoding import profile as profile_module
from flagsync._encoding.distinct_id import NotMirrored
from flagsync._encoding.evaluation import evaluation_of
from flagsync._encoding.pacer import AS_A_RULE, Pacer
from flagsync._encoding.profile import Mapping, ProfileEncoder
from flagsync._encoding.properties import PropertyValue, served_value
from flagsync._outbox.contract import MAX_MESSAGE_BYTES, Message
from flagsync._report import Reporter
from tests.support.encoding import DESTINATION, flag, remote


def encoder(
    *,
    token: str = "project-token",
    distinct_id: Callable[[str], str | None] = str,
    property_name: Callable[[str], str | None] = str,
    property_value: Callable[[Flag], PropertyValue] = served_value,
) -> ProfileEncoder:
    return ProfileEncoder(
        token,
        Mapping(distinct_id=distinct_id, property_name=property_name, property_value=property_value),
        DESTINATION,
        resend_after_seconds=300.0,
        pacer=Pacer(),
        report=Reporter(None),
    )


def encoded(flags: Flags, profiles: ProfileEncoder | None = None, distinct_id: str = "user_1") -> Message:
    """Return the message of flags, which must be mirrored."""
    message = (profiles or encoder()).encode(distinct_id, evaluation_of(flags), None, 0.0)
    assert isinstance(message, Message)
    return message


def test_profile_message_sets_all_flags_of_the_identity(offline: Flagsmith) -> None:
    message = encoded(offline.get_identity_flags("user_1"))
    update = json.loads(message.body)
    assert (update["$token"], update["$distinct_id"]) == ("project-token", "user_1")
    assert len(update["$set"]) == 24
    assert update["$set"]["str_on"] == "blue"


def test_profile_message_says_what_it_is_about() -> None:
    message = encoder().encode("user_1", remote(a=1), 42, 1234.5)
    assert isinstance(message, Message)
    assert message._replace(body=b"", fingerprint=b"") == Message(
        "user_1", b"", b"", 1234.5, DESTINATION, 300.0, 42
    )
    assert (message.replaces, message.distinct_id) == (True, "user_1")


def test_profile_fingerprint_is_of_the_properties_alone() -> None:
    one = encoded(remote(a=1), encoder(token="other"), "user_2").fingerprint
    assert encoded(remote(a=1)).fingerprint == one
    assert encoded(remote(a=True)).fingerprint != one
    assert encoded(remote(b=1)).fingerprint != one
    assert len(one) == 16


def test_profile_names_and_values_follow_the_mapping() -> None:
    profiles = encoder(
        distinct_id="account-{}".format,
        property_name=lambda name: name.upper() if name != "internal" else None,
        property_value=lambda one: one.enabled,
    )
    assert profiles.distinct_id(" 7 ") == "account-7"
    message = encoded(Flags({name: flag(name, "x") for name in ("a", "internal")}), profiles)
    assert json.loads(message.body)["$set"] == {"A": True}


def test_profile_of_an_unusable_identifier_has_a_reason() -> None:
    assert encoder().distinct_id("") == NotMirrored("the identifier is empty")


def test_profile_without_any_property_is_not_mirrored() -> None:
    message = encoder(property_name=lambda _: None).encode("user_1", remote(a=1), None, 0.0)
    assert message == NotMirrored("no flag has a property name")


def test_profile_message_of_the_largest_size_is_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Mixpanel, "_now", lambda _: 1.5)  # which is always written with as many digits
    rest = len(encoded(remote(a="x")).body) - 1
    assert len(encoded(remote(a="x" * (MAX_MESSAGE_BYTES - rest))).body) == MAX_MESSAGE_BYTES
    with pytest.raises(OverflowError):
        encoded(remote(a="x" * (MAX_MESSAGE_BYTES - rest + 1)))


def test_profile_evaluation_key_is_known_for_local_evaluation_only(offline: Flagsmith) -> None:
    profiles = encoder()
    one, again, other = (
        profiles.evaluation_key(evaluation_of(offline.get_identity_flags("user_1", {"plan": plan})))
        for plan in ("free", "free", "premium")
    )
    assert None is not one == again != other
    assert profiles.evaluation_key(evaluation_of(remote(a=1))) is None


def test_profile_encoder_passes_the_exceptions_of_flagsmiths_engine_on() -> None:
    with pytest.raises(KeyError):
        encoder().encode("user_1", {"features": {"a": {}}}, None, 0.0)


class Slow(Flags):
    """Flags whose evaluation takes as long as a clock is told."""

    def __init__(self, clock: list[float], seconds: float) -> None:
        super().__init__()
        self._clock, self._seconds = clock, seconds

    def __getattribute__(self, name: str) -> Any:
        if name == "flags":
            self._clock[0] += self._seconds
            return {"a": flag("a")}
        return super().__getattribute__(name)


def test_profile_encoder_rests_before_an_evaluation_as_long_as_the_last_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, rests = [100.0], list[float]()
    for module in (pacer_module, profile_module):
        monkeypatch.setattr(module, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(pacer_module, "sleep", lambda _: rests.append(clock[0]))
    profiles, work = encoder(), AS_A_RULE.work_seconds
    encoded(Slow(clock, 0.75 * work), profiles)  # within the time to work after the first rest
    assert rests == [100.0]
    encoded(Slow(clock, 0.75 * work), profiles)  # beyond it, which is known before
    assert rests == [100.0, 100.0 + 0.75 * work]
