"""Finds what decides on each flag of an environment document: nothing, some traits, a variant, or the identity.

Guarantee: a flag for which that is not certain counts as different for each identity. Where even that is not enough,
the whole document is one part.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from typing import Any, TypeAlias

from flagsmith.models import Flag

from flagsync._encoding.document import Document
from flagsync._encoding.evaluation import Context, evaluate
from flagsync._encoding.split import Split

# JSONPath that reads only the identity and the environment, which are the same in every part of a document. A second $
# could start again from the root.
HARMLESS_PATH = re.compile(r"\$\.(identity|environment)\b[^$]*")
HARMLESS_PROPERTIES = ("$.identity.identifier", "$.identity.key", "$.environment.key", "$.environment.name")
# Operators that never raise, whatever they compare (flagsmith-flag-engine 11.1). The others may: a regular expression
# may be invalid, a divisor may be 0, and invalid Unicode has no percentage.
HARMLESS_OPERATORS = frozenset(
    "IN EQUAL NOT_EQUAL GREATER_THAN GREATER_THAN_INCLUSIVE LESS_THAN LESS_THAN_INCLUSIVE CONTAINS NOT_CONTAINS "
    "IS_SET IS_NOT_SET".split()
)
RULE_TYPES = ("ALL", "ANY", "NONE")
FEATURES_AT_ONCE = 50  # evaluated without a pause
# The hash of these identifiers is compared with the engine's, for so many variants that another hash would differ.
SAMPLES, SAMPLE_VARIANTS = [f"user_{number}" for number in range(10)], 16

Item: TypeAlias = Mapping[str, Any]
"""A feature, segment, rule or condition, as Flagsmith's engine takes it."""


def divide(context: Context, digest: bytes, pause: Callable[[], None], *, may_share: bool = True) -> Document:
    """Divide a document.

    Args:
        context: The document: a context without an identity.
        digest: The digest of the document.
        pause: Called between pieces of work.
        may_share: Whether one evaluation of a flag may serve several identities, if it is not the same for all.
    """
    features: dict[str, Item] = context.get("features") or {}
    nothing = {**context, "features": {}, "segments": {}}
    whole = Document(
        digest=digest,
        features=tuple(features),
        constant=(),
        traits=(),
        by_traits=nothing,
        splits=(),
        by_identity=context,
        whole=context,
    )
    with suppress(Exception):  # the engine will raise it for the identities it affects
        segments: dict[str, Item] = context.get("segments") or {}
        if _reads_flags(segments.values(), pause) or any(name != one["name"] for name, one in features.items()):
            return whole
        return _divide(whole, features, segments, pause, may_share=may_share)
    return whole


def _divide(
    whole: Document,
    features: dict[str, Item],
    segments: dict[str, Item],
    pause: Callable[[], None],
    *,
    may_share: bool,
) -> Document:
    overridden = set[str]()
    of_identity = {name for name, feature in features.items() if feature.get("variants")}
    for segment in segments.values():
        pause()
        names = _overridden_by(segment)
        overridden |= names
        if may_share and _traits_of(segment) is not None:
            names = {
                override["name"] for override in segment.get("overrides") or () if override.get("variants")
            }
        of_identity |= names
    _add_neighbours(of_identity, segments.values())
    of_traits = {name for name in features if name in overridden and name not in of_identity}
    constant = {name: one for name, one in features.items() if name not in of_traits | of_identity}
    for_traits = {key: one for key, one in segments.items() if _overridden_by(one) & of_traits}
    for_identity = {
        key: one
        for key, one in segments.items()
        if key not in for_traits and (_overridden_by(one) or not _is_harmless(one))
    }
    traits = {name for segment in for_traits.values() for name in _traits_of(segment) or ()}
    splits = _splits(whole, of_identity - overridden, pause) if may_share else ()
    return replace(
        whole,
        constant=tuple(_evaluated(whole.whole, constant, pause)),
        traits=tuple(sorted(traits)),
        by_traits=_part(whole.whole, of_traits, for_traits),
        splits=splits,
        by_identity=_part(whole.whole, of_identity - {split.name for split in splits}, for_identity),
    )


def _splits(whole: Document, names: set[str], pause: Callable[[], None]) -> tuple[Split, ...]:
    """Return the features with these names, if ``Split`` selects the same variants as the engine; else none."""
    with suppress(Exception):  # the engine will raise it for the identities it affects
        splits = []
        for name, feature in whole.whole["features"].items():
            if name in names:
                splits.append(Split(feature))
                if not _is_split_alike(whole, feature):
                    return ()
                pause()
        return tuple(splits)
    return ()


def _is_split_alike(whole: Document, feature: Item) -> bool:
    """Whether ``Split`` selects the same variants as the engine, if the feature is given many."""
    weight = 100 / SAMPLE_VARIANTS
    variants = [{"value": number, "weight": weight, "priority": number} for number in range(SAMPLE_VARIANTS)]
    sample = Split({**feature, "variants": variants})
    return all(
        whole.evaluate_split(sample, {"identifier": identifier, "traits": {}})[0].value
        == sample.variant_of(whole.identity_key(identifier).encode())
        for identifier in SAMPLES
    )


def _overridden_by(segment: Item) -> set[str]:
    """Return the names of the features that a segment overrides."""
    return {override["name"] for override in segment.get("overrides") or ()}


def _add_neighbours(names: set[str], segments: Iterable[Item]) -> None:
    """Add the flags that share a segment with one of the names, so that no segment is matched for two parts."""
    groups = [_overridden_by(segment) for segment in segments]
    while any(names & group and not group <= names for group in groups):
        names.update(*(group for group in groups if names & group))


def _part(context: Context, names: set[str], segments: dict[str, Item]) -> Context:
    features = {name: feature for name, feature in context["features"].items() if name in names}
    return {**context, "features": features, "segments": segments}


def _evaluated(context: Context, features: dict[str, Item], pause: Callable[[], None]) -> Iterator[Flag]:
    """Evaluate flags that are the same for every identity."""
    names = iter(features)
    while part := {name: features[name] for name in islice(names, FEATURES_AT_ONCE)}:
        yield from evaluate({**context, "features": part, "segments": {}})
        pause()


def _conditions(rules: Iterable[Item]) -> Iterator[Item]:
    """Return the conditions of rules, at every depth."""
    for rule in rules:
        yield from rule.get("conditions") or ()
        yield from _conditions(rule.get("rules") or ())


def _reads_flags(segments: Iterable[Item], pause: Callable[[], None]) -> bool:
    """Whether conditions may read more than what is the same in every part of a document."""
    for segment in segments:
        pause()
        for condition in _conditions(segment["rules"]):
            name = condition["property"]
            if name.startswith("$.") and HARMLESS_PATH.fullmatch(name) is None:
                return True
    return False


def _traits_of(segment: Item) -> set[str] | None:
    """Return the traits that decide who is in a segment; None if anything else decides, too."""
    traits = set[str]()
    for condition in _conditions(segment["rules"]):
        name = condition["property"]
        if name.startswith("$.") or not name:  # no property: it is a percentage of identities
            return None
        traits.add(name)
    return traits


def _is_harmless(segment: Item) -> bool:
    """Whether a segment raises nothing, whatever the identity."""
    return (
        all(type(segment[name]) is str for name in ("name", "key"))
        and all(rule["type"] in RULE_TYPES for rule in _rules(segment["rules"]))
        and all(map(_is_harmless_condition, _conditions(segment["rules"])))
    )


def _rules(rules: Iterable[Item]) -> Iterator[Item]:
    """Return rules, at every depth."""
    for rule in rules:
        yield rule
        yield from _rules(rule.get("rules") or ())


def _is_harmless_condition(condition: Item) -> bool:
    name, operator, value = condition["property"], condition["operator"], condition.get("value")
    return (
        (not name.startswith("$.") or name in HARMLESS_PROPERTIES)
        and operator in HARMLESS_OPERATORS
        and (type(value) is str or (operator == "IN" and type(value) is list))
    )
