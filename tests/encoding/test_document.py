"""Documents in parts, by what decides on a flag: together they are the whole."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from flag_engine.segments import evaluator
from flagsmith import Flagsmith
from flagsmith.mappers import map_environment_document_to_context
from flagsmith.models import Flag
from hypothesis import given, settings
from hypothesis import strategies as st

from flagsync._encoding.division import divide
from flagsync._encoding.document import MAX_TRAITS_BYTES, Document, digest_of
from flagsync._encoding.evaluation import evaluate
from tests.support.encoding import nothing

# The engine compares versions by a function that semver deprecates; as an error, the warning would be an outcome.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

ENVIRONMENT = {"key": "environment-key", "name": "Production"}
NAMES = st.sampled_from(["a", "b", "c", "d", "e", "f"])
VALUES = (
    st.none() | st.booleans() | st.integers(-2, 2) | st.floats(-2, 2) | st.sampled_from(["", "x", "1", "true"])
)
TRAITS = st.dictionaries(
    st.sampled_from(["t", "u", "v", "$.flags.a"]), VALUES | st.sampled_from(["1.2.3", "2.0.0"])
)
PROPERTIES = st.sampled_from(
    [
        *("t", "u", "v", "", "$", "$.flags"),
        *(
            "$.identity.identifier",
            "$.identity.key",
            "$.identity.traits.t",
            "$.identity.traits['u']",
            "$.identity",
        ),
        *("$.environment.name", "$.environment.key", "$.identityx", "$.segments", "$.[", "$..identifier"),
    ]
)
FLAG_PROPERTIES = st.sampled_from(
    [
        "$.flags.a.enabled",
        "$.flags.b.value",
        "$.features.a.value",
        "$.identity[?$.flags.a.enabled]",
        "$['flags']",
    ]
)
OPERATORS = st.sampled_from(
    "EQUAL GREATER_THAN LESS_THAN LESS_THAN_INCLUSIVE CONTAINS GREATER_THAN_INCLUSIVE NOT_CONTAINS NOT_EQUAL REGEX "
    "PERCENTAGE_SPLIT MODULO IS_SET IS_NOT_SET IN SOMETHING_NEW".split()
)
OPERANDS = st.sampled_from(
    [
        "",
        "x",
        "1",
        "50",
        "99.9",
        "true",
        "2|1",
        "0|1",
        "[",
        "(",
        "^x",
        "1.2.3:semver",
        '["x", "user_1"]',
        "x,user_1",
    ]
)


@st.composite
def conditions(draw: Any, properties: Any = PROPERTIES) -> dict[str, Any]:
    operator = draw(OPERATORS)
    value: Any = draw(OPERANDS)
    if operator == "IN" and draw(st.booleans()):
        value = draw(st.lists(st.sampled_from(["x", "user_1", "1"])))
    condition = {"property": draw(properties), "operator": operator, "value": value}
    if operator in ("IS_SET", "IS_NOT_SET") and draw(st.booleans()):
        condition["value"] = None
    return condition


@st.composite
def rules(draw: Any, depth: int = 2, properties: Any = PROPERTIES) -> dict[str, Any]:
    rule = {"type": draw(st.sampled_from(["ALL", "ANY", "NONE"]))}
    if draw(st.booleans()):
        rule["conditions"] = draw(st.lists(conditions(properties), max_size=2))
    if depth and draw(st.booleans()):
        rule["rules"] = draw(st.lists(rules(depth - 1, properties), max_size=2))
    return rule


@st.composite
def features(draw: Any, name: str) -> dict[str, Any]:
    feature = {"key": draw(st.sampled_from(["1", "2", "3"])), "name": name, "enabled": draw(st.booleans())}
    feature |= {"value": draw(VALUES), "metadata": {"id": 1}}
    if draw(st.integers(0, 3)) == 0:
        weights = st.sampled_from([0.0, 10.0, 50.0, 100.0])
        variant = st.fixed_dictionaries(
            {"value": VALUES, "weight": weights, "priority": st.integers(0, 3)}, optional={"key": NAMES}
        )
        feature["variants"] = draw(st.lists(variant, max_size=3))
    if draw(st.integers(0, 40)) == 0:
        del feature["metadata"]
    return feature


@st.composite
def contexts(draw: Any, *, with_flags: bool = False) -> dict[str, Any]:
    properties = PROPERTIES | FLAG_PROPERTIES if with_flags else PROPERTIES
    names = draw(st.lists(NAMES, unique=True))
    segments = {}
    for number in range(draw(st.integers(0, 3))):
        overrides = [draw(features(name)) for name in draw(st.lists(NAMES, max_size=2))]
        for override in overrides:
            if draw(st.booleans()):
                override["priority"] = draw(st.sampled_from([0, 1, float("-inf")]))
        segments[str(number)] = {
            "key": str(number),
            "name": f"segment {number}",
            "rules": draw(st.lists(rules(properties=properties), max_size=2)),
            "overrides": overrides,
        }
    return {
        "environment": ENVIRONMENT,
        "features": {name: draw(features(name)) for name in names},
        "segments": segments,
    }


def divided(context: Any) -> Document:
    return divide(context, digest_of(context, nothing), nothing)


def outcome(work: Any) -> object:
    """Return the flags by name, values with their types; or what was raised."""
    try:
        flags: list[Flag] = work()
    except Exception as error:
        return type(error)
    return {flag.feature_name: (flag, type(flag.value), type(flag.enabled)) for flag in flags}


def whole(context: Any, identity: Any) -> object:
    return outcome(lambda: evaluate({**context, "identity": identity}))


class Parts:
    """Evaluates a document in parts; what depends on traits once for equal traits, what is split once for a variant."""

    def __init__(self, document: Document) -> None:
        self._document, self._known = document, dict[bytes, list[Flag]]()
        self._of_splits = dict[tuple[str, int], list[Flag]]()

    def outcome(self, identity: Any) -> object:
        return outcome(lambda: [*self._document.constant, *self.differing(identity)])

    def differing(self, identity: Any) -> list[Flag]:
        return [*self._by_traits(identity), *self._split(identity), *self._by_identity(identity)]

    def outcome_of_odd_traits(self, identity: Any) -> object:
        return outcome(lambda: [*self._document.constant, *self._document.evaluate_whole(identity)])

    def _by_traits(self, identity: Any) -> list[Flag]:
        if not self._document.by_traits["features"]:
            return []
        key = self._document.traits_key(identity)
        if key not in self._known:
            self._known[key] = self._document.evaluate_by_traits(identity)
        return self._known[key]

    def _split(self, identity: Any) -> Iterator[Flag]:
        for split in self._document.splits:
            slot = split.name, split.variant_of(self._document.identity_key(identity["identifier"]).encode())
            if slot not in self._of_splits:
                self._of_splits[slot] = self._document.evaluate_split(split, identity)
            yield from self._of_splits[slot]

    def _by_identity(self, identity: Any) -> list[Flag]:
        return self._document.evaluate_by_identity(identity)


def in_parts(document: Document, identity: Any) -> object:
    return Parts(document).outcome(identity)


IDENTITIES = st.fixed_dictionaries(
    {
        "identifier": st.sampled_from(["user_1", "user_2", "1", 1, "", "é"]) | st.text(max_size=5),
        "traits": TRAITS,
    }
)
SEVERAL = st.lists(IDENTITIES, min_size=1, max_size=3)


def check(context: Any, identities: list[Any]) -> None:
    """Evaluate identities, and others that differ in one thing each."""
    parts = Parts(divided(context))
    for one in identities:
        for identifier in (one["identifier"], "user_3"):
            for traits in (one["traits"], identities[0]["traits"] | one["traits"]):
                identity = {"identifier": identifier, "traits": traits}
                expected = whole(context, identity)
                assert parts.outcome(identity) == expected
                assert parts.outcome_of_odd_traits(identity) == expected


@given(contexts(), SEVERAL)
@settings(max_examples=400, deadline=None)
def test_divided_document_evaluates_to_what_the_whole_does(context: Any, identities: list[Any]) -> None:
    check(context, identities)


@given(contexts(with_flags=True), SEVERAL)
@settings(max_examples=300, deadline=None)
def test_document_whose_segments_read_flags_evaluates_to_what_the_whole_does(
    context: Any, identities: list[Any]
) -> None:
    check(context, identities)


def context_with(segment: dict[str, Any], **names: dict[str, Any]) -> dict[str, Any]:
    """Return a context with a segment and three features: a variant, an overridden one, a constant one."""
    one = {"enabled": True, "value": 1, "metadata": {"id": 1}}
    variants = [{"value": 2, "weight": 50.0, "priority": 1}]
    context_features = {
        "split": {"key": "1", "name": "split", **one, "variants": variants},
        "overridden": {"key": "2", "name": "overridden", **one},
        "same": {"key": "3", "name": "same", **one},
    }
    override = {"key": "4", "name": "overridden", "enabled": False, "value": 3, "metadata": {"id": 2}}
    other = {"key": "1", "name": "other", "rules": [rule("plan", "EQUAL", "pro")], "overrides": [override]}
    return {
        "environment": ENVIRONMENT,
        "features": {**context_features, **names},
        "segments": {"1": other, "2": {"key": "2", "name": "segment", **segment}},
    }


def rule(name: Any, operator: str, value: Any) -> dict[str, Any]:
    return {"type": "ALL", "conditions": [{"property": name, "operator": operator, "value": value}]}


def constant(document: Document) -> list[str]:
    return [flag.feature_name for flag in document.constant]


def test_constant_flags_are_those_without_variants_and_overrides() -> None:
    context = context_with({"rules": [rule("plan", "EQUAL", "pro")]})
    document = divided(context)
    assert constant(document) == ["same"]
    assert document.features == ("split", "overridden", "same")
    identity = {"identifier": "user_1", "traits": {"plan": "pro"}}
    varying = Parts(document).differing(identity)
    assert [flag.feature_name for flag in varying] == ["overridden", "split"]
    assert document.evaluate_whole(identity) == varying


@pytest.mark.parametrize(
    "name",
    [
        "$.flags.same.enabled",
        "$.features.same.value",
        "$.identity[?$.flags.same.enabled == true]",
        "$.identityx",
        "$..value",
        "$.*",
    ],
)
def test_document_with_a_condition_that_may_read_more_than_the_identity_is_not_divided(name: str) -> None:
    nested = {"type": "ANY", "rules": [{"type": "NONE", "rules": [rule(name, "EQUAL", "1")]}]}
    document = divided(context_with({"rules": [nested]}))
    assert constant(document) == []


@pytest.mark.parametrize(
    "name", ["plan", "$", "$.identity.traits.plan", "$.identity['traits']", "$.environment.name"]
)
def test_document_whose_conditions_read_the_identity_is_divided(name: str) -> None:
    assert constant(divided(context_with({"rules": [rule(name, "EQUAL", "1")]}))) == ["same"]


@pytest.mark.parametrize(
    "broken",
    [
        {"key": "5", "name": "broken", "enabled": True, "value": 1},  # without metadata
        {"key": "5", "name": "another", "enabled": True, "value": 1, "metadata": {"id": 1}},
        {"key": "5", "enabled": True, "value": 1, "metadata": {"id": 1}},
        None,
    ],
)
def test_document_that_the_engine_refuses_is_not_divided(broken: Any) -> None:
    document = divided(context_with({"rules": []}, broken=broken))
    assert constant(document) == []
    with pytest.raises(Exception):  # noqa: B017 - whatever the engine raises
        document.evaluate_by_identity({"identifier": "user_1", "traits": {}})


def test_document_with_a_feature_under_another_name_evaluates_to_what_the_whole_does() -> None:
    context = context_with({"rules": []})
    context["features"] = {"other": {**context["features"]["split"], "name": "same"}, **context["features"]}
    identity = {"identifier": "user_1", "traits": {}}
    assert in_parts(divided(context), identity) == whole(context, identity)


class CountingConditions(list[Any]):
    """Conditions that count how often they are looked at."""

    looks = 0

    def __iter__(self) -> Any:
        type(self).looks += 1
        return super().__iter__()


@pytest.mark.parametrize(
    ("operator", "value", "is_matched"),
    [
        ("EQUAL", "1", False),
        ("IN", ["1"], False),
        ("REGEX", "(", True),
        ("MODULO", "0|1", True),
        ("NEW", "1", True),
    ],
)
def test_segment_that_no_flag_needs_is_matched_only_if_it_may_raise(
    operator: str, value: Any, is_matched: bool
) -> None:
    conditions_ = CountingConditions([{"property": "plan", "operator": operator, "value": value}])
    nested = {"type": "ALL", "rules": [{"type": "ANY", "rules": [{"type": "NONE", "conditions": conditions_}]}]}
    document = divided(context_with({"rules": [nested]}))
    assert constant(document) == ["same"]
    CountingConditions.looks = 0
    in_parts(document, {"identifier": "user_1", "traits": {}})
    assert (CountingConditions.looks > 0) is is_matched


@pytest.mark.parametrize("names", [("overridden", "same"), ("overridden", "same", "split"), ("same", "split")])
def test_segment_that_several_flags_need_is_matched_once_an_identity(names: tuple[str, ...]) -> None:
    conditions_ = CountingConditions([{"property": "plan", "operator": "EQUAL", "value": "pro"}])
    overrides = [
        {"key": "4", "name": name, "enabled": False, "value": 3, "metadata": {"id": 2}} for name in names
    ]
    context = context_with({"rules": [{"type": "ALL", "conditions": conditions_}], "overrides": overrides})
    document = divided(context)
    assert constant(document) == []
    CountingConditions.looks = 0
    in_parts(document, {"identifier": "user_1", "traits": {}})
    assert CountingConditions.looks == 1


def test_number_that_python_refuses_is_refused_as_by_the_whole_document() -> None:
    context = context_with({"rules": [rule("plan", "EQUAL", "1")]})
    del context["segments"]["1"]
    identity = {"identifier": "user_1", "traits": {"plan": "7" * 5000}}
    assert len(json.dumps(identity)) > MAX_TRAITS_BYTES
    raised = whole(context, identity)
    assert raised is ValueError
    assert Parts(divided(context)).outcome_of_odd_traits(identity) is raised


def test_recorded_document_has_constant_flags_and_evaluates_to_what_the_whole_does(offline: Flagsmith) -> None:
    context: Any = offline.get_identity_flags("user_1")._context
    document = divided({name: part for name, part in context.items() if name != "identity"})
    assert (len(document.constant), len(document.features)) == (19, 24)
    for plan in ("premium", "free"):
        identity = {"identifier": "user_1", "traits": {"plan": plan}}
        assert in_parts(document, identity) == whole(context, identity)


def test_empty_document_is_divided() -> None:
    document = divided({"environment": ENVIRONMENT})
    assert (document.constant, document.features) == ((), ())
    assert document.evaluate_by_identity({"identifier": "user_1", "traits": {}}) == []


def test_dividing_rests_between_pieces_of_work() -> None:
    pauses = list[None]()
    context = context_with({"rules": []})
    one = context["features"]["same"]
    context["features"] |= {f"same {number}": {**one, "name": f"same {number}"} for number in range(100)}
    divide(context, digest_of(context, nothing), lambda: pauses.append(None))
    assert len(pauses) == 2 * 2 + 3 + 1  # each segment twice, constant features 50 at a time, and each split


def test_digest_does_not_depend_on_the_random_key_of_identity_overrides(document: Any) -> None:
    context: Any = map_environment_document_to_context(document)
    override = {"key": "1", "name": "a", "rules": [], "metadata": {"source": "identity_overrides"}}
    one, other, changed = (
        {**context, "segments": {key: {**override, "key": key, "name": name}}}
        for key, name in (("1", "a"), ("2", "a"), ("1", "b"))
    )
    assert digest_of(one, nothing) == digest_of(other, nothing) != digest_of(changed, nothing)


def test_digest_tells_a_feature_from_a_segment_and_values_by_type(document: Any) -> None:
    context: Any = map_environment_document_to_context(document)
    digests = {
        digest_of({**context, **change}, nothing)
        for change in (
            {},
            {"features": {}, "segments": context["features"]},
            {"features": {"a": 1}, "segments": {}},
            {"features": {"a": True}, "segments": {}},
            {"features": {}, "segments": {"a": 1}},
            {"environment": {"key": "another"}},
            {"segments": None},
        )
    }
    assert len(digests) == 7


def parts_of(document: Document) -> tuple[list[str], list[str], list[str], list[str]]:
    """Return the names of the flags of each part: constant, by traits, split, by identity."""
    by_traits, by_identity = ([*part["features"]] for part in (document.by_traits, document.by_identity))
    return constant(document), by_traits, [split.name for split in document.splits], by_identity


@pytest.mark.parametrize(
    ("segment", "by_traits", "by_identity", "traits"),
    [
        ({"rules": [rule("plan", "EQUAL", "pro")]}, ["overridden", "same"], [], ("plan",)),
        ({"rules": [rule("age", "MODULO", "2|1")]}, ["overridden", "same"], [], ("age", "plan")),
        (
            {"rules": [rule("age", "PERCENTAGE_SPLIT", "50")]},
            ["overridden", "same"],
            [],
            ("age", "plan"),
        ),
        ({"rules": []}, ["overridden", "same"], [], ("plan",)),
        ({"rules": [rule("", "PERCENTAGE_SPLIT", "50")]}, ["overridden"], ["same"], ("plan",)),
        ({"rules": [rule("$.identity.key", "EQUAL", "x")]}, ["overridden"], ["same"], ("plan",)),
        ({"rules": [rule("$.environment.name", "EQUAL", "x")]}, ["overridden"], ["same"], ("plan",)),
        (
            {"rules": [{"type": "ALL", "rules": [rule("plan", "EQUAL", "x"), rule("", "EQUAL", "x")]}]},
            ["overridden"],
            ["same"],
            ("plan",),
        ),
    ],
)
def test_flags_are_told_apart_by_what_decides_on_them(
    segment: Any, by_traits: list[str], by_identity: list[str], traits: tuple[str, ...]
) -> None:
    override = {"key": "4", "name": "same", "enabled": False, "value": 3, "metadata": {"id": 2}}
    document = divided(context_with({**segment, "overrides": [override]}))
    assert parts_of(document) == ([], by_traits, ["split"], by_identity)
    assert document.traits == traits


def test_flag_whose_override_has_variants_depends_on_the_identity() -> None:
    variants = [{"value": 2, "weight": 50.0, "priority": 1}]
    override = {"key": "4", "name": "same", "enabled": False, "value": 3, "variants": variants}
    document = divided(context_with({"rules": [rule("plan", "EQUAL", "pro")], "overrides": [override]}))
    assert parts_of(document)[1:] == (["overridden"], ["split"], ["same"])


def test_flags_that_share_a_segment_with_one_by_identity_are_in_its_part() -> None:
    overrides = [
        {"key": "4", "name": name, "enabled": False, "value": 3, "metadata": {"id": 2}}
        for name in ("split", "same")
    ]
    document = divided(context_with({"rules": [rule("plan", "EQUAL", "pro")], "overrides": overrides}))
    assert parts_of(document) == ([], ["overridden"], [], ["split", "same"])


def test_no_flag_counts_as_the_same_for_equal_traits_or_a_variant_if_that_is_not_wanted() -> None:
    context = context_with({"rules": [rule("plan", "EQUAL", "pro")]})
    document = divide(context, b"digest", nothing, may_share=False)
    assert parts_of(document) == (["same"], [], [], ["split", "overridden"])


def test_document_whose_variants_the_engine_decides_in_another_way_has_no_splits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(evaluator, "get_hashed_percentage_for_object_ids", lambda ids: len(ids[1]) % 2 * 99.9)
    context = context_with({"rules": []})
    context["features"]["split"]["variants"] = [{"value": 2, "weight": 99.5, "priority": 1}]
    document = divided(context)
    assert parts_of(document) == (["same"], ["overridden"], [], ["split"])
    for identifier in ("1", "22"):
        identity: Any = {"identifier": identifier, "traits": {}}
        assert in_parts(document, identity) == whole(context, identity)


@pytest.mark.parametrize(
    "wrong", [{"weight": "half"}, {"weight": None}, {"priority": None}, {"priority": ...}, {"weight": ...}]
)
def test_variants_that_the_engine_refuses_are_refused_for_each_identity(wrong: dict[str, Any]) -> None:
    context = context_with({"rules": []})
    variants = context["features"]["split"]["variants"]
    for name, value in wrong.items():
        variants[0][name] = value
        if value is ...:
            del variants[0][name]
    variants.append({"value": 3, "weight": 10.0, "priority": 2})
    identity = {"identifier": "user_1", "traits": {}}
    document = divided(context)
    assert document.splits == ()
    raised = whole(context, identity)
    assert isinstance(raised, type)
    assert in_parts(document, identity) is raised


def test_identifier_that_cannot_be_hashed_is_refused_as_by_the_whole_document() -> None:
    context = context_with({"rules": []})
    identity = {"identifier": "\ud800", "traits": {}}
    raised = whole(context, identity)
    assert raised is UnicodeEncodeError
    assert in_parts(divided(context), identity) is raised


def test_document_without_an_environment_is_refused_as_by_the_engine() -> None:
    context = context_with({"rules": []})
    del context["environment"], context["features"]["split"]
    identity = {"identifier": "user_1", "traits": {}}
    raised = whole(context, identity)
    assert raised is KeyError
    assert in_parts(divided(context), identity) is raised


def test_engine_is_asked_for_nobody_if_no_flag_is_left_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    document = divided(context_with({"rules": []}))
    monkeypatch.delattr("flagsync._encoding.document.evaluate")
    assert document.evaluate_by_identity({"identifier": "user_1", "traits": {}}) == []


@pytest.mark.parametrize("depth", [0, 1])
def test_rule_of_an_unknown_type_is_refused_though_no_flag_needs_its_segment(depth: int) -> None:
    unknown: Any = {**rule("plan", "EQUAL", "pro"), "type": "SOME"}
    context = context_with({"rules": [{"type": "ALL", "rules": [unknown]} if depth else unknown]})
    identity = {"identifier": "user_1", "traits": {"plan": "pro"}}
    raised = whole(context, identity)
    assert raised is KeyError
    assert in_parts(divided(context), identity) is raised


def test_traits_key_holds_each_trait_that_decides() -> None:
    override = {"key": "4", "name": "same", "enabled": False, "value": 3, "metadata": {"id": 2}}
    document = divided(context_with({"rules": [rule("age", "EQUAL", "1")], "overrides": [override]}))
    assert document.traits == ("age", "plan")
    keys = {
        document.traits_key({"identifier": "user_1", "traits": traits})
        for traits in ({"age": 1, "plan": "pro"}, {"age": 2, "plan": "pro"}, {"age": 1, "plan": "free"})
    }
    assert len(keys) == 3


def test_undivided_document_evaluates_identities_with_odd_traits_like_others() -> None:
    context = context_with({"rules": []})
    context["features"]["other"] = context["features"]["same"]
    identity = {"identifier": "user_1", "traits": {}}
    assert Parts(divided(context)).outcome_of_odd_traits(identity) == whole(context, identity)


def test_traits_key_tells_values_and_types_apart_and_takes_no_notice_of_other_traits() -> None:
    document = divided(context_with({"rules": []}))
    keys = [
        document.traits_key({"identifier": "user_1", "traits": traits})
        for traits in (
            {"plan": 1},
            {"plan": 1, "age": 3},
            {"plan": True},
            {"plan": 1.0},
            {"plan": "1"},
            {},
            {"age": 1},
        )
    ]
    assert keys[0] == keys[1]
    assert keys[5] == keys[6]
    assert len(set(keys)) == 5
