"""What an identity was served, read without a trace."""

import copy
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from flagsmith import Flagsmith
from flagsmith.analytics import AnalyticsProcessor
from flagsmith.mappers import map_environment_document_to_context
from flagsmith.models import Flag, Flags

from flagsync._snapshot import EvaluationKeys, essence, flags_of


def nothing() -> None:
    """Do not pause."""


def lazy(document: Any, identifier: str = "user_1", traits: dict[str, Any] | None = None) -> Flags:
    """Flags as local evaluation returns them, from a freshly built document."""
    context = map_environment_document_to_context(copy.deepcopy(document))
    context["identity"] = {"identifier": identifier, "traits": traits or {}}
    return Flags.from_evaluation_context(context, {}, None, None)


def test_all_flags_of_a_lazy_answer_are_read_and_none_of_them_is_memoised(offline: Flagsmith) -> None:
    flags = offline.get_identity_flags("user_1")
    names = [flag.feature_name for flag in flags_of(essence(flags))]
    assert len(names) == 24
    assert flags.flags == {}


def test_what_the_caller_read_before_does_not_matter(offline: Flagsmith) -> None:
    flags = offline.get_identity_flags("user_1")
    flags.flags["str_on"] = Flag(enabled=True, value="memoised", feature_id=3, feature_name="str_on")
    assert {flag.feature_name: flag.value for flag in flags_of(essence(flags))}["str_on"] == "blue"


def test_flags_of_a_remote_answer_are_those_that_came() -> None:
    flag = Flag(enabled=True, value="x", feature_id=1, feature_name="one")
    assert [*flags_of(essence(Flags({"one": flag})))] == [flag]


def test_reading_does_not_count_as_usage(offline: Flagsmith) -> None:
    counted: list[str] = []

    class Analytics(AnalyticsProcessor):
        def track_feature(self, name: str) -> None:
            counted.append(name)

    flags = replace(
        offline.get_identity_flags("user_1"),
        _analytics_processor=Analytics("key", "https://flagsmith.example.com/"),
    )
    flags_of(essence(flags))
    assert counted == []
    flags.get_flag("str_on")
    assert counted == ["str_on"]


def test_a_caller_that_reads_meanwhile_is_not_raced_with(offline: Flagsmith) -> None:
    flags = offline.get_identity_flags("user_1")
    expected = flags_of(essence(flags))
    ended = threading.Event()

    def read() -> None:
        while not ended.is_set():
            flags.flags.clear()
            for flag in expected:
                flags.get_flag(flag.feature_name)

    reader = threading.Thread(target=read)
    reader.start()
    seen = [flags_of(essence(flags)) for _ in range(200)]
    ended.set()
    reader.join()
    assert seen == [expected] * 200


def test_a_refreshed_document_with_the_same_content_has_the_same_key(document: dict[str, Any]) -> None:
    keys = EvaluationKeys(nothing)
    assert keys.of(essence(lazy(document))) == keys.of(essence(lazy(document)))


def change_value(document: dict[str, Any]) -> None:
    document["feature_states"][7]["feature_state_value"] = 1  # it was True, which is equal


def change_segment(document: dict[str, Any]) -> None:
    document["project"]["segments"][0]["rules"][0]["rules"][0]["conditions"][0]["value"] = "gold"


def change_environment(document: dict[str, Any]) -> None:
    document["api_key"] = "another"  # part of the hash that decides on variants


@pytest.mark.parametrize("change", [change_value, change_segment, change_environment])
def test_a_changed_document_has_another_key(
    document: dict[str, Any], change: Callable[[dict[str, Any]], None]
) -> None:
    keys = EvaluationKeys(nothing)
    before = keys.of(essence(lazy(document)))
    change(document)
    assert keys.of(essence(lazy(document))) != before


def test_documents_that_alternate_are_each_read_once(document: dict[str, Any]) -> None:
    pauses: list[None] = []
    keys = EvaluationKeys(lambda: pauses.append(None))
    old, new = lazy(document), lazy(document)
    for flags in (old, new, old, new):
        keys.of(essence(flags))
    assert len(pauses) == 2 * (24 + 2)


@pytest.mark.parametrize(
    ("one", "other"),
    [({"a": True}, {"a": 1}), ({"a": -1}, {"a": -2}), ({"a": 1}, {"b": 1}), ({"a": [1]}, {"a": [2]})],
)
def test_traits_count_by_name_value_and_type(
    document: dict[str, Any], one: dict[str, Any], other: dict[str, Any]
) -> None:
    keys = EvaluationKeys(nothing)
    assert keys.of(essence(lazy(document, traits=one))) != keys.of(essence(lazy(document, traits=other)))


def test_identities_have_keys_of_their_own(document: dict[str, Any]) -> None:
    keys = EvaluationKeys(nothing)
    assert keys.of(essence(lazy(document, "user_1"))) != keys.of(essence(lazy(document, "user_2")))


def test_a_trait_of_the_applications_own_type_is_evaluated_each_time(document: dict[str, Any]) -> None:
    assert EvaluationKeys(nothing).of(essence(lazy(document, traits={"a": object()}))) is None


def test_a_remote_answer_has_no_key() -> None:
    assert EvaluationKeys(nothing).of(essence(Flags())) is None
