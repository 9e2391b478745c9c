"""What an identity was served: found in ``Flags`` without asking them, and read without a trace."""

import threading
from dataclasses import replace
from typing import Any

import pytest
from flagsmith import Flagsmith
from flagsmith.analytics import AnalyticsProcessor
from flagsmith.models import DefaultFlag, Flag, Flags

from flagsync._encoding.evaluation import context_of, evaluate, is_evaluated
from tests.support.encoding import lazy, remote


def evaluated(flags: Flags) -> list[Flag]:
    context = context_of(flags)
    assert context is not None
    return evaluate(context)


def test_evaluating_reads_all_of_a_lazy_answer_and_fills_no_memo_of_it(offline: Flagsmith) -> None:
    flags = offline.get_identity_flags("user_1")
    names = [one.feature_name for one in evaluated(flags)]
    assert len(names) == 24
    assert flags.flags == {}


def test_evaluating_ignores_the_memo_of_the_caller(offline: Flagsmith) -> None:
    flags = offline.get_identity_flags("user_1")
    flags.flags["str_on"] = Flag(enabled=True, value="memoised", feature_id=3, feature_name="str_on")
    assert {one.feature_name: one.value for one in evaluated(flags)}["str_on"] == "blue"


def test_evaluating_does_not_count_as_usage(offline: Flagsmith) -> None:
    counted: list[str] = []

    class Analytics(AnalyticsProcessor):
        def track_feature(self, name: str) -> None:
            counted.append(name)

    flags = replace(
        offline.get_identity_flags("user_1"),
        _analytics_processor=Analytics("key", "https://flagsmith.example.com/"),
    )
    evaluated(flags)
    assert counted == []
    flags.get_flag("str_on")
    assert counted == ["str_on"]


def test_evaluating_does_not_race_with_a_caller_who_reads_meanwhile(offline: Flagsmith) -> None:
    flags = offline.get_identity_flags("user_1")
    expected = evaluated(flags)
    ended = threading.Event()

    def read() -> None:
        while not ended.is_set():
            flags.flags.clear()
            for one in expected:
                flags.get_flag(one.feature_name)

    reader = threading.Thread(target=read)
    reader.start()
    seen = [evaluated(flags) for _ in range(200)]
    ended.set()
    reader.join()
    assert seen == [expected] * 200


def test_context_of_a_lazy_answer_has_its_identity(offline: Flagsmith) -> None:
    context = context_of(offline.get_identity_flags("user_1"))
    assert context is not None
    assert context["identity"]["identifier"] == "user_1"


def test_context_of_flags_of_a_derived_type_is_found_like_others(document: dict[str, Any]) -> None:
    class Derived(Flags):
        pass

    context = lazy(document)._context
    assert context_of(Derived(_context=context)) is context


def test_context_of_a_remote_answer_is_none() -> None:
    assert context_of(remote(one="x")) is None


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
def test_context_of_any_object_is_looked_for_without_asking_the_object(made: Any) -> None:
    odd = object.__new__(made) if isinstance(made, type) else made
    assert context_of(odd) is None


def test_context_of_flags_whose_attributes_raise_does_not_raise() -> None:
    assert context_of(object.__new__(OddFlags)) is None


def test_context_of_flags_lets_an_interrupt_of_the_main_thread_through() -> None:
    class Interrupted(Flags):
        def __getattribute__(self, name: str) -> Any:
            if name == "_context":
                raise KeyboardInterrupt
            return super().__getattribute__(name)

    with pytest.raises(KeyboardInterrupt):
        context_of(object.__new__(Interrupted))


def test_is_evaluated_is_false_only_for_the_empty_flags_of_a_default_handler() -> None:
    assert not is_evaluated(Flags(default_flag_handler=lambda _: DefaultFlag(enabled=True, value=1)))
    assert is_evaluated(remote(one="x"))
