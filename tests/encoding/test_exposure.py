"""An exposure becomes the event that Mixpanel's experiment report reads."""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from flagsmith.mappers import map_environment_document_to_context
from flagsmith.models import Flag, Flags
from hypothesis import given
from hypothesis import strategies as st

from flagsync._clock import monotonic, time
from flagsync._encoding import variant as rules
from flagsync._encoding.calls import Calls, Exposure
from flagsync._encoding.distinct_id import NotMirrored
from flagsync._encoding.exposure import NO_NAME, NO_VARIANT, ExposureEncoder, ExposureNames
from flagsync._encoding.variant import served_variant
from flagsync._outbox.contract import Destination, Message
from flagsync._report import Reporter
from tests.support.encoding import evaluated
from tests.support.identifiers import Unspeakable

TRACK = Destination("http://127.0.0.1:9/track", "project")
LONG_TEXT = 300


def met(value: Any = "blue", *, name: str = "checkout", **more: Any) -> Flag:
    return evaluated(Flag(enabled=True, value=value, feature_id=1, feature_name=name), **more)


def nothing(_: str, __: Flag) -> Mapping[str, Any]:
    return {}


def encoder(
    calls: Calls | None = None,
    *,
    experiment_name: Callable[[str], Any] = str,
    variant_name: Callable[[Flag], Any] = served_variant,
    exposure_properties: Callable[[str, Flag], Any] = nothing,
) -> ExposureEncoder:
    names = ExposureNames(
        experiment_name=experiment_name, variant_name=variant_name, exposure_properties=exposure_properties
    )
    return ExposureEncoder("project-token", calls or Calls(), names, TRACK, Reporter(None))


def message(flag: Flag | None = None, distinct_id: str = "ann", ago: float = 0.0, **options: Any) -> Message:
    exposure = Exposure(distinct_id, 0, flag or met(), monotonic() - ago)
    found = encoder(**options).encode(distinct_id, exposure)
    assert isinstance(found, Message)
    return found


def properties(*arguments: Any, **options: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(message(*arguments, **options).record)["properties"]
    return found


def reason(flag: Any = None, **options: Any) -> NotMirrored:
    found = encoder(**options).encode("ann", Exposure("ann", 0, flag or met(), monotonic()))
    assert isinstance(found, NotMirrored)
    return found


def test_exposure_is_the_event_of_mixpanels_experiment_report() -> None:
    before = int(time())
    event = json.loads(message(met(variant="treatment")).record)
    assert event["event"] == "$experiment_started"
    found = event["properties"]
    assert before <= found.pop("time") <= time()
    assert re.fullmatch("[a-z0-9-]{1,36}", found.pop("$insert_id"))
    del found["$lib_version"]
    assert found == {
        "token": "project-token",
        "distinct_id": "ann",
        "Experiment name": "checkout",
        "Variant name": "treatment",
        "$source": "flagsync",
        "ip": 0,
        "mp_lib": "python",
    }


def test_exposure_is_a_message_of_its_own_destination_for_25_days() -> None:
    found = message()
    assert (found.key, found.distinct_id, found.destination) == ("ann\0checkout", "ann", TRACK)
    assert (found.replaces, found.resend_after_seconds) == (False, 25 * 86400)


def test_time_of_an_exposure_is_that_of_the_call() -> None:
    assert time() - 1001 <= properties(ago=1000)["time"] <= time() - 999


@given(st.text(), st.text(min_size=1), st.text(min_size=1))
def test_insert_id_is_made_of_letters_digits_and_dashes(
    distinct_id: str, experiment: str, variant: str
) -> None:
    found = encoder(experiment_name=lambda _: experiment, variant_name=lambda _: variant).encode(
        distinct_id, Exposure(distinct_id, 0, met(), monotonic())
    )
    if isinstance(found, Message):
        assert re.fullmatch("[A-Za-z0-9-]{1,36}", json.loads(found.record)["properties"]["$insert_id"])


def test_insert_id_is_equal_for_one_variant_on_one_day_only() -> None:
    day = 86400.0
    into_the_day = time() % day  # an hour before and after noon are on one day, whenever the test runs
    noon = into_the_day - day / 2
    first = properties(ago=noon)["$insert_id"]
    assert properties(ago=noon + 3600)["$insert_id"] == first
    others = [
        properties(ago=noon + day),
        properties(met("red"), ago=noon),
        properties(met(name="banner"), ago=noon),
        properties(distinct_id="bob", ago=noon),
    ]
    assert len({first, *(found["$insert_id"] for found in others)}) == 5


def test_fingerprint_is_that_of_the_variant() -> None:
    assert message(ago=1).fingerprint == message(ago=90_000).fingerprint
    different = [message(), message(met("red")), message(met(name="banner")), message(distinct_id="bob")]
    assert len({found.fingerprint for found in different}) == 4


def test_experiment_and_variant_have_the_names_that_the_application_gives() -> None:
    found = properties(experiment_name=lambda name: f"{name} 2", variant_name=lambda flag: f"{flag.value}!")
    assert (found["Experiment name"], found["Variant name"]) == ("checkout 2", "blue!")


@pytest.mark.parametrize(
    ("option", "returned", "why"),
    [
        ("experiment_name", None, NO_NAME),
        ("experiment_name", " ", NO_NAME),
        ("experiment_name", 7, "experiment_name returned int, not text or None"),
        ("variant_name", None, NO_VARIANT),
        ("variant_name", "", NO_VARIANT),
        ("variant_name", True, "variant_name returned bool, not text or None"),
        ("variant_name", "\ud800", "variant_name returned text that is not valid Unicode"),
    ],
)
def test_exposure_without_a_name_is_not_recorded(option: str, returned: object, why: str) -> None:
    options: dict[str, Any] = {option: lambda _: returned}
    assert reason(**options).reason == why


@pytest.mark.parametrize("option", ["experiment_name", "variant_name"])
def test_naming_that_raises_is_told_with_its_text(option: str) -> None:
    def fail(_: object) -> Any:
        raise LookupError("no such experiment")

    options: dict[str, Any] = {option: fail}
    assert reason(**options) == NotMirrored(
        f"{option} raised LookupError", f"{option} raised LookupError: no such experiment"
    )


@pytest.mark.parametrize("option", ["experiment_name", "variant_name", "exposure_properties"])
def test_interrupt_of_the_application_in_a_naming_callback_reaches_it(option: str) -> None:
    def interrupt(*_: object) -> Any:
        raise KeyboardInterrupt

    options: dict[str, Any] = {option: interrupt}
    with pytest.raises(KeyboardInterrupt):
        message(**options)


def test_long_variants_stay_apart_where_mixpanel_would_cut_them() -> None:
    one, other = "日" * LONG_TEXT, "日" * LONG_TEXT + "!"
    found = [properties(met(value))["Variant name"] for value in (one, other, one)]
    assert found[0] == found[2] != found[1]
    assert all(len(name.encode()) <= 255 and name.startswith("日日日") for name in found)
    assert properties(met("x" * 255))["Variant name"] == "x" * 255


def test_further_properties_stand_beside_those_of_the_experiment() -> None:
    found = properties(
        exposure_properties=lambda identifier, flag: {"company": identifier, "f": flag.feature_name}
    )
    assert (found["company"], found["f"]) == ("ann", "checkout")


def test_further_properties_change_nothing_of_the_event(logged: Callable[[], list[str]]) -> None:
    own = ("token", "distinct_id", "time", "ip", "Experiment name", "Variant name")
    taken = dict.fromkeys((*own, "$insert_id", "$experiment_id", "mp_lib"), "x")
    given_none, found = properties(), properties(exposure_properties=lambda *_: taken)
    given_none.pop("time"), found.pop("time")
    assert found == given_none
    assert logged() == [
        f"exposure_properties: {name!r} is left out: Mixpanel or flagsync uses its name; choose another one"
        for name in taken
    ]


@pytest.mark.parametrize(
    ("name", "value", "fault"),
    [
        ("x", object(), "'x' is left out: Mixpanel cannot store its value (TypeError)"),
        ("x", float("nan"), "'x' is left out: Mixpanel cannot store its value (ValueError)"),
        ("x", Unspeakable(), "'x' is left out: Mixpanel cannot store its value (TypeError)"),
        (7, "x", "7 is left out: its name is not text"),
        (("x",), "x", "a value of type tuple is left out: its name is not text"),
        ("$" + "x" * 300, "x", f"'${'x' * 98} is left out: Mixpanel or flagsync uses its name;"),
    ],
)
def test_further_property_that_mixpanel_cannot_store_costs_no_other_one(
    name: object, value: object, fault: str, logged: Callable[[], list[str]]
) -> None:
    found = properties(exposure_properties=lambda *_: {name: value, "company": "acme"})
    assert found["company"] == "acme"
    assert {*found} == {*properties(), "company"}
    [message] = logged()
    assert message.startswith(f"exposure_properties: {fault}")


@pytest.mark.parametrize("returned", [None, 3, [("x", 1)]])
def test_further_properties_that_are_no_mapping_are_left_out(
    returned: object, logged: Callable[[], list[str]]
) -> None:
    assert "x" not in properties(exposure_properties=lambda *_: returned)
    [message] = logged()
    assert message == (
        f"exposure_properties returned {type(returned).__name__}, not a mapping. Such exposures are sent without "
        "its properties"
    )


def test_exposure_whose_further_properties_raise_is_sent_without_them(
    logged: Callable[[], list[str]],
) -> None:
    def fail(identifier: str, _: Flag) -> Any:
        raise LookupError(f"no company of {identifier}")

    assert {*properties(exposure_properties=fail)} == {*properties()}
    [logged_once] = logged()
    assert logged_once.startswith(
        "exposure_properties raised LookupError: no company of …. Exposures for which"
    )


def test_interrupt_of_the_application_in_a_value_of_a_property_reaches_it() -> None:
    class Interrupting(dict[str, str]):
        def items(self) -> Any:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        message(exposure_properties=lambda *_: {"x": Interrupting(y="z")})


def test_exposure_of_more_than_a_megabyte_is_refused() -> None:
    with pytest.raises(OverflowError):
        message(exposure_properties=lambda *_: {"x": "x" * 1_000_000})


def test_exposure_outside_a_sample_has_no_message() -> None:
    assert reason("no flag").reason == rules.NO_FLAG


def with_experiment(document: Any) -> Flags:
    """Return flags of a document in which an experiment on ``mv_keyed`` is for a part of the users."""
    context: Any = map_environment_document_to_context(document)
    context["segments"] = {"x": {"name": "experiment-1-rollout", "overrides": [{"name": "mv_keyed"}]}}
    context["identity"] = {"identifier": "ann", "traits": {}}
    return Flags.from_evaluation_context(context, {}, None, None)


def test_rollout_is_known_from_the_document_of_the_calls_before(document: Any) -> None:
    calls = Calls()
    outside = met(name="mv_keyed", variant="control", reason="DEFAULT")
    exposures = encoder(calls)
    assert isinstance(exposures.encode("ann", calls.expose("ann", outside)), Message)
    calls.make("ann", with_experiment(document))
    for _ in range(2):
        assert exposures.encode("ann", calls.expose("ann", outside)) == NotMirrored(rules.NOT_ENROLLED)


def test_rollout_of_a_forgotten_document_is_not_known(document: Any) -> None:
    calls = Calls(kept_seconds=0.0)
    outside = met(name="mv_keyed", variant="control", reason="DEFAULT")
    calls.make("ann", with_experiment(document))
    exposure = calls.expose("ann", outside)
    calls.make("ann", with_experiment(document))
    calls.forget(calls.retire())
    assert isinstance(encoder(calls).encode("ann", exposure), Message)
