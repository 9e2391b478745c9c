"""What an identity was served: read without a trace, and compared without being evaluated."""

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from flagsmith import Flagsmith
from flagsmith.analytics import AnalyticsProcessor
from flagsmith.models import DefaultFlag, Flag, Flags

from flagsync._encoding.evaluation import EvaluationKeys, evaluation_of, is_evaluated, read_flags
from tests.support.encoding import flag, lazy, nothing, remote


def test_read_flags_reads_all_of_a_lazy_answer_and_fills_no_memo_of_it(offline: Flagsmith) -> None:
    flags = offline.get_identity_flags("user_1")
    names = [one.feature_name for one in read_flags(evaluation_of(flags))]
    assert len(names) == 24
    assert flags.flags == {}


def test_read_flags_ignores_the_memo_of_the_caller(offline: Flagsmith) -> None:
    flags = offline.get_identity_flags("user_1")
    flags.flags["str_on"] = Flag(enabled=True, value="memoised", feature_id=3, feature_name="str_on")
    assert {one.feature_name: one.value for one in read_flags(evaluation_of(flags))}["str_on"] == "blue"


def test_read_flags_of_a_remote_answer_returns_those_that_came() -> None:
    assert [*read_flags(evaluation_of(remote(one="x")))] == [flag("one", "x")]


def test_read_flags_does_not_count_as_usage(offline: Flagsmith) -> None:
    counted: list[str] = []

    class Analytics(AnalyticsProcessor):
        def track_feature(self, name: str) -> None:
            counted.append(name)

    flags = replace(
        offline.get_identity_flags("user_1"),
        _analytics_processor=Analytics("key", "https://flagsmith.example.com/"),
    )
    read_flags(evaluation_of(flags))
    assert counted == []
    flags.get_flag("str_on")
    assert counted == ["str_on"]


def test_read_flags_does_not_race_with_a_caller_who_reads_meanwhile(offline: Flagsmith) -> None:
    flags = offline.get_identity_flags("user_1")
    expected = read_flags(evaluation_of(flags))
    ended = threading.Event()

    def read() -> None:
        while not ended.is_set():
            flags.flags.clear()
            for one in expected:
                flags.get_flag(one.feature_name)

    reader = threading.Thread(target=read)
    reader.start()
    seen = [read_flags(evaluation_of(flags)) for _ in range(200)]
    ended.set()
    reader.join()
    assert seen == [expected] * 200


def test_evaluation_key_is_the_same_for_a_refreshed_document_with_the_same_content(
    document: dict[str, Any],
) -> None:
    keys = EvaluationKeys(nothing)
    assert keys.of(evaluation_of(lazy(document))) == keys.of(evaluation_of(lazy(document)))


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
    keys = EvaluationKeys(nothing)
    before = keys.of(evaluation_of(lazy(document)))
    change(document)
    assert keys.of(evaluation_of(lazy(document))) != before


def test_evaluation_keys_read_documents_that_alternate_once_each(document: dict[str, Any]) -> None:
    pauses: list[None] = []
    keys = EvaluationKeys(lambda: pauses.append(None))
    old, new = lazy(document), lazy(document)
    for flags in (old, new, old, new):
        keys.of(evaluation_of(flags))
    assert len(pauses) == 2 * (24 + 2)


@pytest.mark.parametrize(
    ("one", "other"),
    [({"a": True}, {"a": 1}), ({"a": -1}, {"a": -2}), ({"a": 1}, {"b": 1}), ({"a": [1]}, {"a": [2]})],
)
def test_evaluation_key_depends_on_traits_by_name_value_and_type(
    document: dict[str, Any], one: dict[str, Any], other: dict[str, Any]
) -> None:
    keys = EvaluationKeys(nothing)
    assert keys.of(evaluation_of(lazy(document, traits=one))) != keys.of(
        evaluation_of(lazy(document, traits=other))
    )


def test_evaluation_key_is_the_same_for_equal_traits_in_other_objects(document: dict[str, Any]) -> None:
    keys, shared = EvaluationKeys(nothing), "gold member"
    one = lazy(document, traits={"a": shared, "b": shared, "gold member": 1})
    other = lazy(document, traits={"a": "".join([*shared]), "b": "".join([*shared]), "".join([*shared]): 1})
    assert keys.of(evaluation_of(one)) == keys.of(evaluation_of(other))


def test_evaluation_key_is_another_for_each_identity(document: dict[str, Any]) -> None:
    keys = EvaluationKeys(nothing)
    assert keys.of(evaluation_of(lazy(document, "user_1"))) != keys.of(evaluation_of(lazy(document, "user_2")))


def test_evaluation_key_is_unknown_for_a_trait_of_the_applications_own_type(document: dict[str, Any]) -> None:
    assert EvaluationKeys(nothing).of(evaluation_of(lazy(document, traits={"a": object()}))) is None


def test_evaluation_key_is_unknown_for_a_remote_answer() -> None:
    assert EvaluationKeys(nothing).of(evaluation_of(Flags())) is None


def test_evaluation_of_a_lazy_answer_is_its_context(offline: Flagsmith) -> None:
    context = evaluation_of(offline.get_identity_flags("user_1"))
    assert isinstance(context, dict)
    assert context["identity"]["identifier"] == "user_1"


def test_evaluation_of_flags_of_a_derived_type_is_read_like_others(document: dict[str, Any]) -> None:
    class Derived(Flags):
        pass

    flags = lazy(document)
    derived = Derived(_context=flags._context)
    assert read_flags(evaluation_of(derived)) == read_flags(evaluation_of(flags))


class Odd:
    """An object that raises whatever is asked of it, even its class."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)


class OddFlags(Flags):
    """Flags whose context raises."""

    def __getattribute__(self, name: str) -> Any:
        if name == "_context":
            raise SystemExit
        return super().__getattribute__(name)


@pytest.mark.parametrize("made", [Odd, Flags, None, "no flags", {"a": True}])
def test_evaluation_of_any_object_is_returned_without_asking_the_object(made: Any) -> None:
    odd = object.__new__(made) if isinstance(made, type) else made
    assert evaluation_of(odd) is odd


def test_evaluation_of_flags_whose_attributes_raise_does_not_raise() -> None:
    odd = object.__new__(OddFlags)
    assert evaluation_of(odd) is odd


def test_evaluation_of_flags_lets_an_interrupt_of_the_main_thread_through() -> None:
    class Interrupted(Flags):
        def __getattribute__(self, name: str) -> Any:
            if name == "_context":
                raise KeyboardInterrupt
            return super().__getattribute__(name)

    with pytest.raises(KeyboardInterrupt):
        evaluation_of(object.__new__(Interrupted))


def test_is_evaluated_is_false_only_for_the_empty_flags_of_a_default_handler(offline: Flagsmith) -> None:
    assert not is_evaluated(
        evaluation_of(Flags(default_flag_handler=lambda _: DefaultFlag(enabled=True, value=1)))
    )
    assert is_evaluated(evaluation_of(offline.get_identity_flags("user_1")))
    assert is_evaluated(evaluation_of(remote(one="x")))
