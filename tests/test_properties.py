"""Names and values of profile properties."""

import enum
import json
import sys
from collections.abc import Callable
from typing import Any

import pytest
from flagsmith.models import Flag
from hypothesis import given
from hypothesis import strategies as st

from flagsync._properties import MAX_KNOWN_VALUES, Properties, PropertyValue, served_value


class Colour(enum.StrEnum):
    BLUE = "blue"


def flag(name: str, value: Any = None, *, enabled: bool = True) -> Flag:
    return Flag(enabled=enabled, value=value, feature_id=1, feature_name=name)


def build(
    flags: list[Flag],
    *,
    name: Callable[[str], str | None] = str,
    value: Callable[[Flag], Any] = served_value,
) -> tuple[dict[str, PropertyValue], list[str]]:
    """The properties of two evaluations in a row, which must be equal, and the warnings."""
    warnings: dict[str, None] = {}
    properties = Properties(name, value, lambda message: warnings.update({message: None}))
    first = properties.of(flags)
    assert properties.of(flags) == first
    return json.loads(first or "{}"), list(warnings)


@pytest.mark.parametrize("value", ["blue", "0", "false", 42, -7, True, 1.5])
def test_an_enabled_flag_sends_its_value(value: object) -> None:
    assert build([flag("a", value)]) == ({"a": value}, [])


@pytest.mark.parametrize("value", [None, 0, "", False])
def test_an_enabled_flag_without_a_value_sends_true(value: object) -> None:
    properties, _ = build([flag("a", value)])
    assert properties["a"] is True


def test_a_disabled_flag_sends_false() -> None:
    properties, _ = build([flag("a", "blue", enabled=False)])
    assert properties["a"] is False


@given(
    st.booleans(),
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
)
def test_whatever_a_flag_holds_the_value_is_flagsmiths_own(enabled: bool, value: Any) -> None:
    properties, _ = build([flag("a", value, enabled=enabled)])
    expected = value if enabled and value else enabled
    assert (properties["a"], type(properties["a"])) == (expected, type(expected))


def test_property_name_renames_and_leaves_out_and_is_asked_once_a_name() -> None:
    asked: list[str] = []

    def name(feature: str) -> str | None:
        asked.append(feature)
        return None if feature == "internal" else f"flag: {feature}"

    assert build([flag("a"), flag("internal")], name=name) == ({"flag: a": True}, [])
    assert asked == ["a", "internal"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [("$email", "reserves"), ("mp_country_code", "reserves"), ("", "no text"), (7, "no text")],
)
def test_a_name_that_would_overwrite_the_users_data_is_left_out_and_reported(name: Any, reason: str) -> None:
    properties, [warning] = build(
        [flag("a"), flag("b")], name=lambda feature: name if feature == "a" else feature
    )
    assert properties == {"b": True}
    assert warning.startswith("Flag 'a' is left out: ")
    assert reason in warning


@pytest.mark.parametrize("error", [KeyError("secret"), SystemExit("secret")])
def test_a_name_function_that_raises_leaves_one_flag_out(error: BaseException) -> None:
    def name(feature: str) -> str:
        if feature == "a":
            raise error
        return feature.upper()

    reason = f"property_name raised {type(error).__name__}"
    assert build([flag("a"), flag("b")], name=name) == ({"B": True}, [f"Flag 'a' is left out: {reason}"])


def test_a_value_function_that_exits_leaves_one_flag_out() -> None:
    properties, [warning] = build(
        [flag("a", ""), flag("b", "B")], value=lambda one: one.value or sys.exit("secret")
    )
    assert properties == {"b": "B"}
    assert warning == "Flag 'a' is left out: no property value (SystemExit)"


def test_long_names_are_sent_and_reported_with_their_collisions() -> None:
    one, other = "x" * 255 + "1", "x" * 255 + "2"
    properties, warnings = build([flag(one), flag(other)])
    assert list(properties) == [one, other]
    assert [warning.partition(": ")[2] for warning in warnings] == [
        "Mixpanel cuts names to 255 characters",
        "Mixpanel cuts names to 255 characters",
        "another flag has the same property name in Mixpanel",
    ]


def test_a_flag_with_ever_new_values_is_not_learned_by_heart_for_ever() -> None:
    properties = Properties(str, served_value, lambda _: None)
    written = [properties.of([flag("a", str(number))]) for number in range(1000)]
    assert written == [f'{{"a":"{number}"}}' for number in range(1000)]
    known = properties._learned["a"]
    assert known is not None
    assert known.known.cache_info().currsize <= MAX_KNOWN_VALUES


def test_two_features_with_one_property_name_are_reported() -> None:
    properties, [warning] = build([flag("a"), flag("b", "B")], name=lambda _: "same")
    assert properties == {"same": True}
    assert warning.startswith("Flag 'b' is left out: ")


@pytest.mark.parametrize("value", ["x" * 256, "日" * 86])
def test_a_long_string_is_sent_and_reported_by_its_bytes(value: str) -> None:
    assert build([flag("a", value)]) == ({"a": value}, ["Flag 'a': Mixpanel cuts its value to 255 bytes"])


@pytest.mark.parametrize("value", ["x" * 255, "日" * 85])
def test_a_string_within_the_limit_is_not_reported(value: str) -> None:
    assert build([flag("a", value)]) == ({"a": value}, [])


def test_a_large_object_is_sent_and_reported() -> None:
    value = {"k": ["x" * 1000] * 300}
    assert build([flag("a")], value=lambda _: value) == (
        {"a": value},
        ["Flag 'a': Mixpanel holds no more than 256000 bytes of its value"],
    )


def test_more_properties_than_a_profile_holds_are_sent_and_reported() -> None:
    properties, [warning] = build([flag(str(number)) for number in range(2001)])
    assert len(properties) == 2001
    assert warning == "Mixpanel fails what is past 2000 properties: let property_name leave out some"


def test_as_many_properties_as_a_profile_holds_are_not_reported() -> None:
    _, warnings = build([flag(str(number)) for number in range(2000)])
    assert warnings == []


@pytest.mark.parametrize("value", [0, "", False, 1.5, [1, "two"], {"k": [None]}, "\ud800"])
def test_property_value_may_send_anything_that_json_holds(value: object) -> None:
    assert build([flag("a")], value=lambda _: value) == ({"a": value}, [])


def test_a_value_of_a_derived_type_is_sent_as_plain_json() -> None:
    properties, _ = build([flag("a")], value=lambda _: Colour.BLUE)
    assert (properties["a"], type(properties["a"])) == ("blue", str)


def test_a_list_is_sent_as_it_was_when_the_flag_was_evaluated() -> None:
    shared = [1]
    properties, _ = build([flag("a")], value=lambda _: shared)
    shared.append(2)
    assert properties == {"a": [1]}


cycle: list[Any] = []
cycle.append(cycle)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [float("-inf")], b"x", object(), None, cycle])
def test_a_value_that_json_does_not_hold_leaves_one_flag_out(value: object) -> None:
    properties, [warning] = build(
        [flag("a"), flag("b")], value=lambda one: value if one.feature_name == "a" else True
    )
    assert properties == {"b": True}
    assert warning.startswith("Flag 'a' is left out: no property value")


def test_a_value_function_that_raises_leaves_one_flag_out() -> None:
    properties, [warning] = build(
        [flag("a", "{"), flag("b", "{}")], value=lambda one: json.loads(str(one.value))
    )
    assert properties == {"b": {}}
    assert warning == "Flag 'a' is left out: no property value (JSONDecodeError)"
