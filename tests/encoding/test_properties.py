"""Names and values of profile properties."""

import enum
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from flagsmith.models import Flag
from hypothesis import given
from hypothesis import strategies as st

from flagsync._encoding.properties import MAX_CACHED_VALUES, Properties, PropertyValue, served_value
from tests.support.encoding import flag


class Colour(enum.StrEnum):
    BLUE = "blue"


def build(
    flags: list[Flag],
    *,
    name: Callable[[str], str | None] = str,
    value: Callable[[Flag], Any] = served_value,
) -> tuple[dict[str, PropertyValue], list[str]]:
    """Return the properties of two evaluations in a row, which must be equal, and the warnings."""
    warnings: dict[str, None] = {}
    properties = Properties(name, value, lambda message: warnings.update({message: None}))
    first = properties.members(flags)
    assert properties.members(flags) == first
    properties.check_count(len(first))
    return json.loads(f"{{{','.join(first)}}}"), list(warnings)


@pytest.mark.parametrize("value", ["blue", "0", "false", 42, -7, True, 1.5])
def test_property_of_an_enabled_flag_is_its_value(value: object) -> None:
    assert build([flag("a", value)]) == ({"a": value}, [])


@pytest.mark.parametrize("value", [None, 0, "", False])
def test_property_of_an_enabled_flag_without_a_value_is_true(value: object) -> None:
    properties, _ = build([flag("a", value)])
    assert properties["a"] is True


def test_property_of_a_disabled_flag_is_false() -> None:
    properties, _ = build([flag("a", "blue", enabled=False)])
    assert properties["a"] is False


@given(
    st.booleans(),
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
)
def test_property_value_is_what_flagsmiths_own_server_sends(enabled: bool, value: Any) -> None:
    properties, _ = build([flag("a", value, enabled=enabled)])
    expected = value if enabled and value else enabled
    assert (properties["a"], type(properties["a"])) == (expected, type(expected))


def test_property_name_renames_and_leaves_out_and_is_called_once_for_each_feature() -> None:
    asked: list[str] = []

    def name(feature: str) -> str | None:
        asked.append(feature)
        return None if feature == "internal" else f"flag: {feature}"

    assert build([flag("a"), flag("internal")], name=name) == ({"flag: a": True}, [])
    assert asked == ["a", "internal"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("$email", "reserves"),
        ("mp_country_code", "reserves"),
        ("", "neither a name nor None"),
        (7, "neither a name nor None"),
    ],
)
def test_property_name_that_would_overwrite_the_users_data_is_left_out_and_reported(
    name: Any, reason: str
) -> None:
    properties, [warning] = build(
        [flag("a"), flag("b")], name=lambda feature: name if feature == "a" else feature
    )
    assert properties == {"b": True}
    assert warning.startswith("Flag 'a' is left out: ")
    assert reason in warning


@pytest.mark.parametrize("error", [KeyError("tier"), SystemExit("tier")])
def test_property_name_that_raises_leaves_one_flag_out(error: BaseException) -> None:
    def name(feature: str) -> str:
        if feature == "a":
            raise error
        return feature.upper()

    warning = f"property_name raised {type(error).__name__}: {error}. Flags for which it raises are left out"
    assert build([flag("a"), flag("b")], name=name) == ({"B": True}, [warning])


@pytest.mark.parametrize("callback", ["name", "value"])
def test_callback_that_raises_for_many_flags_is_reported_once(callback: str) -> None:
    def raising(given: object) -> Any:
        raise LookupError(f"no {given}")

    callbacks: dict[str, Any] = {callback: raising}
    properties, [warning] = build([flag("a"), flag("b"), flag("c")], **callbacks)
    assert properties == {}
    assert warning.startswith(f"property_{callback} raised LookupError: no ")


def test_property_value_that_exits_leaves_one_flag_out() -> None:
    properties, [warning] = build(
        [flag("a", ""), flag("b", "B")], value=lambda one: one.value or sys.exit("now")
    )
    assert properties == {"b": "B"}
    assert warning == "property_value raised SystemExit: now. Flags for which it raises are left out"


def test_property_names_that_mixpanel_cuts_are_sent_and_reported_with_their_collisions() -> None:
    one, other = "x" * 255 + "1", "x" * 255 + "2"
    properties, warnings = build([flag(one), flag(other)])
    assert list(properties) == [one, other]
    assert [warning.partition(": ")[2] for warning in warnings] == [
        "Mixpanel truncates names to 255 characters",
        "Mixpanel truncates names to 255 characters",
        "another flag has the same property name in Mixpanel",
    ]


def test_ever_new_values_of_a_flag_are_each_sent() -> None:
    properties = Properties(str, served_value, lambda _: None)
    written = [properties.members([flag("a", str(number))]) for number in range(1000)]
    assert written == [[f'"a":"{number}"'] for number in range(1000)]


def test_cached_values_of_a_flag_are_bounded() -> None:
    warnings = list[str]()  # one for each value that is encoded, and none for one that is cached
    properties = Properties(str, served_value, warnings.append)
    values = [f"{number:0256}" for number in range(MAX_CACHED_VALUES + 1)]
    for value in (*values, values[-1]):
        properties.members([flag("a", value)])
    assert len(warnings) == len(values)
    properties.members([flag("a", values[0])])
    assert len(warnings) == len(values) + 1


@pytest.mark.parametrize("values", [(1, True, 1.0), (1.0, True, 1), (True, 1), (0, False, 0.0, -0.0, "")])
def test_cached_values_that_are_equal_are_told_apart(values: tuple[PropertyValue, ...]) -> None:
    properties = Properties(str, lambda one: values[one.feature_id], lambda _: None)
    flags = [replace(flag("a"), feature_id=number) for number, _ in enumerate(values)]
    assert [properties.members([one]) for one in flags] == [[f'"a":{json.dumps(value)}'] for value in values]


def test_property_name_of_another_flag_is_left_out_and_reported() -> None:
    properties, [warning] = build([flag("a"), flag("b", "B")], name=lambda _: "same")
    assert properties == {"same": True}
    assert warning.startswith("Flag 'b' is left out: ")


@pytest.mark.parametrize("value", ["x" * 256, "日" * 86])
def test_string_value_that_mixpanel_cuts_is_sent_and_reported(value: str) -> None:
    assert build([flag("a", value)]) == ({"a": value}, ["Flag 'a': Mixpanel truncates its value to 255 bytes"])


@pytest.mark.parametrize("value", ["x" * 255, "日" * 85])
def test_string_value_within_the_limit_is_not_reported(value: str) -> None:
    assert build([flag("a", value)]) == ({"a": value}, [])


def test_object_value_that_mixpanel_cuts_is_sent_and_reported() -> None:
    value = {"k": ["x" * 1000] * 300}
    assert build([flag("a")], value=lambda _: value) == (
        {"a": value},
        ["Flag 'a': Mixpanel stores no more than 256000 bytes of its value"],
    )


def test_more_properties_than_a_profile_holds_are_sent_and_reported() -> None:
    properties, [warning] = build([flag(str(number)) for number in range(2001)])
    assert len(properties) == 2001
    assert warning == "Mixpanel refuses properties beyond the first 2000: leave some out with property_name"


def test_as_many_properties_as_a_profile_holds_are_not_reported() -> None:
    _, warnings = build([flag(str(number)) for number in range(2000)])
    assert warnings == []


@pytest.mark.parametrize("value", [0, "", False, 1.5, [1, "two"], {"k": [None]}, "\ud800"])
def test_property_value_may_be_anything_that_json_holds(value: object) -> None:
    assert build([flag("a")], value=lambda _: value) == ({"a": value}, [])


def test_property_value_of_a_derived_type_is_sent_as_plain_json() -> None:
    properties, _ = build([flag("a")], value=lambda _: Colour.BLUE)
    assert (properties["a"], type(properties["a"])) == ("blue", str)


def test_list_value_is_encoded_at_once_so_that_later_changes_do_not_count() -> None:
    shared = [1]
    properties, _ = build([flag("a")], value=lambda _: shared)
    shared.append(2)
    assert properties == {"a": [1]}


cycle: list[Any] = []
cycle.append(cycle)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [float("-inf")], b"x", object(), None, cycle])
def test_property_value_that_json_cannot_hold_leaves_one_flag_out(value: object) -> None:
    properties, [warning] = build(
        [flag("a"), flag("b")], value=lambda one: value if one.feature_name == "a" else True
    )
    assert properties == {"b": True}
    assert warning.startswith("Flag 'a' is left out: Mixpanel cannot store its value")


def test_property_value_that_raises_leaves_one_flag_out() -> None:
    properties, [warning] = build(
        [flag("a", "{"), flag("b", "{}")], value=lambda one: json.loads(str(one.value))
    )
    assert properties == {"b": {}}
    assert warning.startswith("property_value raised JSONDecodeError: Expecting property name")


@pytest.mark.parametrize("callback", ["property_name", "property_value"])
def test_interrupt_of_the_main_thread_gets_through_properties(callback: str) -> None:
    def interrupt(_: object) -> Any:
        raise KeyboardInterrupt

    name, value = (interrupt, served_value) if callback == "property_name" else (str, interrupt)
    properties = Properties(name, value, print)
    with pytest.raises(KeyboardInterrupt):
        properties.members([Flag(enabled=True, value="blue", feature_id=1, feature_name="colour")])


def test_interrupt_of_the_main_thread_gets_through_the_encoding_of_a_value() -> None:
    class Interrupting(dict[str, int]):
        def items(self) -> Any:
            raise KeyboardInterrupt

    properties = Properties(str, lambda _: Interrupting(a=1), print)
    with pytest.raises(KeyboardInterrupt):
        properties.members([flag("a")])
