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
from flagsync._encoding.calls import Call, Calls
from flagsync._encoding.deletions import Deletions
from flagsync._encoding.distinct_id import NotMirrored
from flagsync._encoding.document import Document
from flagsync._encoding.pacer import AS_A_RULE, Pacer
from flagsync._encoding.profile import Mapping, ProfileEncoder
from flagsync._encoding.properties import PropertyValue, served_value
from flagsync._encoding.split import Split
from flagsync._outbox.contract import MAX_MESSAGE_BYTES, Message
from flagsync._report import Reporter
from tests.support.encoding import DESTINATION, call, flag, lazy, remote

CALLS = Calls()
REFRESHES = 20


def encoder(
    *,
    calls: Calls = CALLS,
    token: str = "project-token",
    distinct_id: Callable[[str], str | None] = str,
    property_name: Callable[[str], str | None] = str,
    property_value: Callable[[Flag], PropertyValue] = served_value,
    deletions: Deletions | None = None,
) -> ProfileEncoder:
    return ProfileEncoder(
        token,
        calls,
        Mapping(distinct_id=distinct_id, property_name=property_name, property_value=property_value),
        DESTINATION,
        resend_after_seconds=300.0,
        pacer=Pacer(),
        report=Reporter(None),
        deletions=deletions,
    )


def encoded(flags: Flags, profiles: ProfileEncoder | None = None, distinct_id: str = "user_1") -> Message:
    """Return the message of flags, which must be mirrored."""
    context: Any = flags._context
    identifier = context["identity"]["identifier"] if context else "user_1"
    message = (profiles or encoder()).encode(distinct_id, CALLS.make(identifier, flags), None)
    assert isinstance(message, Message)
    return message


def test_profile_message_sets_all_flags_of_the_identity(offline: Flagsmith) -> None:
    message = encoded(offline.get_identity_flags("user_1"))
    update = json.loads(message.record)
    assert (update["$token"], update["$distinct_id"]) == ("project-token", "user_1")
    assert len(update["$set"]) == 24
    assert update["$set"]["str_on"] == "blue"


def test_profile_message_says_what_it_is_about() -> None:
    message = encoder().encode("user_1", call("user_1", remote(a=1), 1234.5), 42)
    assert isinstance(message, Message)
    assert message._replace(body=b"", fingerprint=b"", tail=b"") == Message(
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
    assert json.loads(message.record)["$set"] == {"A": True}


def test_profile_of_an_unusable_identifier_has_a_reason() -> None:
    assert encoder().distinct_id("") == NotMirrored("the identifier is empty")


def test_profile_without_any_property_is_not_mirrored() -> None:
    message = encoder(property_name=lambda _: None).encode("user_1", call("user_1"), None)
    assert message == NotMirrored("no flag has a property name")


def test_profile_message_of_the_largest_size_is_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Mixpanel, "_now", lambda _: 1.5)  # which is always written with as many digits
    rest = len(encoded(remote(a="x")).record) - 1
    assert len(encoded(remote(a="x" * (MAX_MESSAGE_BYTES - rest))).record) == MAX_MESSAGE_BYTES
    with pytest.raises(OverflowError):
        encoded(remote(a="x" * (MAX_MESSAGE_BYTES - rest + 1)))


class Found(Deletions):
    """Finds what a test says.

    Attributes:
        names: Of the properties to remove.
        was_given: The properties of each document.
    """

    def __init__(self) -> None:
        self.names, self.was_given, self.has_news = tuple[str, ...](), list[dict[str, str]](), False

    def is_due(self) -> bool:
        return self.has_news

    def of(self, document: Any, properties: Any) -> tuple[str, ...]:
        assert {*properties} <= {*document["features"]}
        self.was_given.append(properties)
        return self.names


def test_profile_loses_the_properties_of_deleted_features(document: Any) -> None:
    found = Found()
    profiles = encoder(property_name=lambda name: None if name == "str_on" else name.upper(), deletions=found)
    before = encoded(lazy(document), profiles)
    [properties] = found.was_given
    assert len(properties) == 23
    assert properties["int_on"] == "INT_ON"
    found.names = ("OLD", "OLDER")
    assert encoded(lazy(document), profiles).fingerprint == before.fingerprint
    profiles.look_for_deletions()
    assert encoded(lazy(document), profiles).fingerprint == before.fingerprint
    found.has_news = True
    profiles.look_for_deletions()
    after = encoded(lazy(document), profiles)
    unset, update = json.loads(b"[%b]" % after.record)
    assert (unset["$unset"], unset["$distinct_id"]) == (["OLD", "OLDER"], "user_1")
    assert update["$set"] == json.loads(before.record)["$set"]
    assert after.fingerprint != before.fingerprint
    assert after.tail == before.tail  # of which a store has one copy


def test_deleted_features_make_another_evaluation(document: Any) -> None:
    found = Found()
    profiles, one = encoder(deletions=found), CALLS.make("user_1", lazy(document))
    before = profiles.evaluation_key(one)
    found.names, found.has_news = ("old",), True
    assert profiles.evaluation_key(one) == before
    profiles.look_for_deletions()
    assert profiles.evaluation_key(one) not in (before, None)


def test_remote_answers_and_empty_documents_tell_nothing_of_deletions() -> None:
    found = Found()
    found.names = ("old",)
    profiles = encoder(deletions=found)
    assert "$unset" not in encoded(remote(a=1), profiles).record.decode()
    empty: Any = {"environment": {"key": "key", "name": "name"}, "features": {}, "segments": {}}
    context = {**empty, "identity": {"identifier": "user_1", "traits": {}}}
    flags = Flags.from_evaluation_context(context, {}, None, None)  # type: ignore[arg-type]
    assert isinstance(profiles.encode("user_1", CALLS.make("user_1", flags), None), NotMirrored)
    assert found.was_given == []


BROKEN: Any = {
    "environment": {"key": "key", "name": "name"},
    "features": {"a": {}},
    "segments": {},
    "identity": {"identifier": "user_1", "traits": {}},
}


def key_of(
    document: Any,
    identifier: str = "user_1",
    traits: dict[str, Any] | None = None,
    profiles: ProfileEncoder | None = None,
) -> int | None:
    """Return the evaluation key of an identity, by default in a new encoder as of another process."""
    return (profiles or encoder()).evaluation_key(CALLS.make(identifier, lazy(document, identifier, traits)))


def test_evaluation_key_is_the_same_for_a_refreshed_document_with_the_same_content(document: Any) -> None:
    profiles = encoder()
    assert key_of(document, profiles=profiles) == key_of(document, profiles=profiles)


def test_evaluation_key_is_the_same_in_every_process_and_fits_into_64_bits(document: Any) -> None:
    key = key_of(document)
    assert key is not None
    assert key == key_of(document)
    assert -(2**63) <= key < 2**63


def change_value(document: dict[str, Any]) -> None:
    document["feature_states"][7]["feature_state_value"] = 1  # it was True, which is equal


def change_segment(document: dict[str, Any]) -> None:
    document["project"]["segments"][0]["rules"][0]["rules"][0]["conditions"][0]["value"] = "gold"


def change_environment(document: dict[str, Any]) -> None:
    document["api_key"] = "another"  # part of the hash that decides on variants


@pytest.mark.parametrize("change", [change_value, change_segment, change_environment])
def test_evaluation_key_is_another_for_a_changed_document(
    document: dict[str, Any], change: Callable[[dict[str, Any]], None]
) -> None:
    profiles = encoder()
    before = key_of(document, profiles=profiles)
    change(document)
    assert key_of(document, profiles=profiles) != before


def test_evaluation_key_is_another_for_other_names_or_values_of_properties(document: Any) -> None:
    keys = {
        key_of(document, profiles=profiles)
        for profiles in (
            encoder(),
            encoder(property_name=str.upper),
            encoder(property_name=lambda name: None if name == "mv_split" else name),
            encoder(property_value=lambda one: one.enabled),
        )
    }
    assert len(keys) == 4


@pytest.mark.parametrize(
    ("one", "other"),
    [({"a": True}, {"a": 1}), ({"a": -1}, {"a": -2}), ({"a": 1}, {"b": 1}), ({"a": [1]}, {"a": [2]})],
)
def test_evaluation_key_depends_on_traits_by_name_value_and_type(
    document: Any, one: dict[str, Any], other: dict[str, Any]
) -> None:
    assert key_of(document, traits=one) != key_of(document, traits=other)


def test_evaluation_key_is_the_same_for_equal_traits_in_other_objects(document: Any) -> None:
    shared = "gold member"
    one = {"a": shared, "b": shared, "gold member": 1}
    other = {"a": "".join([*shared]), "b": "".join([*shared]), "".join([*shared]): 1}
    assert key_of(document, traits=one) == key_of(document, traits=other)


def test_evaluation_key_is_another_for_each_identity(document: Any) -> None:
    assert key_of(document, "user_1") != key_of(document, "user_2")


class Name(str):
    """An identifier of the application's own type."""

    __slots__ = ()


def test_evaluation_key_is_unknown_where_only_evaluating_can_tell(document: Any) -> None:
    assert key_of(document, traits={"a": object()}) is None
    assert key_of(document, Name("user_1")) is None
    assert encoder().evaluation_key(call("user_1", remote(a=1))) is None


def counted(names: list[str]) -> Callable[[Flag], PropertyValue]:
    """Return the default property_value, which notes the name of each flag that it is called with."""

    def value(one: Flag) -> PropertyValue:
        names.append(one.feature_name)
        return served_value(one)

    return value


def test_constant_flags_are_evaluated_and_encoded_once_a_document(document: Any) -> None:
    names = list[str]()
    profiles = encoder(property_value=counted(names))
    messages = [
        encoded(lazy(document, "user_1", {"plan": plan}), profiles, f"user_{number}")
        for number, plan in enumerate(("premium", "free", "free"))
    ]
    assert (names.count("int_on"), names.count("mv_split"), names.count("seg_override")) == (1, 3, 3)
    assert messages[0].tail is messages[1].tail
    assert b"int_on" in messages[0].tail
    first, second, _ = (json.loads(message.record)["$set"] for message in messages)
    assert (len(first), first["seg_override"], second["seg_override"]) == (24, "gold", False)


def test_flags_that_traits_decide_on_are_evaluated_once_for_equal_traits(
    document: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluated, evaluate = list[str](), Document.evaluate_by_traits

    def counting(self: Document, identity: Any) -> list[Flag]:
        evaluated.append(identity["identifier"])
        return evaluate(self, identity)

    monkeypatch.setattr(Document, "evaluate_by_traits", counting)
    profiles, found = encoder(), dict[str, Any]()
    for number, plan in enumerate(("free", "premium", "free", "premium", True, 1)):
        flags = lazy(document, f"user_{number}", {"plan": plan, "other": number})
        found[f"user_{number}"] = json.loads(encoded(flags, profiles).record)["$set"]["seg_override"]
    assert evaluated == ["user_0", "user_1", "user_4", "user_5"]
    # Flagsmith takes True for equal to every text but "false".
    assert [*found.values()] == [False, "gold", False, "gold", "gold", False]


def test_split_flag_is_evaluated_once_for_each_variant(document: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluated, evaluate = list[str](), Document.evaluate_split

    def counting(self: Document, split: Split, identity: Any) -> list[Flag]:
        evaluated.append(identity["identifier"])
        return evaluate(self, split, identity)

    profiles = encoder()
    encoded(lazy(document), profiles)
    monkeypatch.setattr(Document, "evaluate_split", counting)
    for number in range(50):
        flags = lazy(document, f"user_{number}")
        record = json.loads(encoded(flags, profiles, f"user_{number}").record)
        assert record["$set"]["mv_split"] == served_value(flags.get_flag("mv_split"))  # type: ignore[arg-type]
    assert 0 < len(evaluated) < 10


def test_flags_of_a_segment_that_everybody_is_in_are_on_the_profile(document: Any) -> None:
    document["project"]["segments"][0]["rules"] = [{"type": "ALL", "rules": [], "conditions": []}]
    assert json.loads(encoded(lazy(document)).record)["$set"]["seg_override"] == "gold"


def test_refreshed_document_with_the_same_content_keeps_what_was_evaluated(document: Any) -> None:
    names = list[str]()
    profiles = encoder(property_value=counted(names))
    for _ in range(REFRESHES):
        message = encoded(lazy(document), profiles)
    assert (names.count("int_on"), names.count("mv_split")) == (1, REFRESHES)
    state = next(one for one in document["feature_states"] if one["feature"]["name"] == "int_on")
    state["enabled"] = False
    assert encoded(lazy(document), profiles).fingerprint != message.fingerprint
    assert names.count("int_on") == 2


def test_fingerprint_does_not_depend_on_how_an_identity_was_kept(document: Any) -> None:
    profiles = encoder()
    flags = lazy(document, traits={"plan": "premium"})
    identity: Any = flags._context["identity"]  # type: ignore[index]
    as_bytes = CALLS.make(identity["identifier"], flags)
    whole: Call = (*as_bytes[:2], identity, 0.0)
    one, other = (profiles.encode("user_1", made, None) for made in (as_bytes, whole))
    assert isinstance(one, Message)
    assert isinstance(other, Message)
    assert (one.fingerprint, one.tail, one.body) == (other.fingerprint, other.tail, other.body)


def test_property_names_go_to_features_in_the_order_of_the_document(document: Any) -> None:
    order = [state["feature"]["name"] for state in document["feature_states"]]
    assert order.index("mv_split") < order.index("seg_override")
    same = {"mv_split", order[-1]}  # the first is evaluated for each identity, the other once a document
    profiles = encoder(property_name=lambda name: "same" if name in same else name)
    found, plain = (json.loads(encoded(lazy(document), one).record)["$set"] for one in (profiles, encoder()))
    assert (found["same"], len(found)) == (plain["mv_split"], 23)


def test_trait_that_flagsmiths_engine_refuses_is_refused_though_no_flag_depends_on_it(document: Any) -> None:
    segments = document["project"]["segments"]
    segments[0] = {**segments[0], "feature_states": []}
    assert encoded(lazy(document, traits={"plan": "7" * 1000}))
    with pytest.raises(ValueError, match="int"):
        encoded(lazy(document, traits={"plan": "7" * 5000}))


def test_templates_of_environments_that_are_used_in_turn_are_made_once(document: Any) -> None:
    names = list[str]()
    profiles, environments = encoder(property_value=counted(names)), list[Flags]()
    for number in range(20):
        document["feature_states"][0]["feature_state_value"] = f"value {number}"
        environments.append(lazy(document))
    for _ in range(3):
        for flags in environments:
            encoded(flags, profiles)
    assert names.count("int_on") == len(environments)


def test_template_of_a_document_that_was_forgotten_is_dropped(document: Any) -> None:
    calls = Calls(kept_seconds=0.0)
    profiles = encoder(calls=calls)
    for user in ("user_1", "user_2"):
        document["feature_states"][0]["feature_state_value"] = user
        profiles.evaluation_key(calls.make(user, lazy(document, user)))
        calls.forget(calls.retire())
    assert [*profiles._templates] == [1, 2]
    profiles.evaluation_key(calls.make("user_3", lazy(document, "user_3")))
    assert [*profiles._templates] == [2, 3]


def test_profile_encoder_passes_the_exceptions_of_flagsmiths_engine_on() -> None:
    with pytest.raises(KeyError):
        encoded(Flags(_context=BROKEN))


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
