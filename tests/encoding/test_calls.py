"""Calls under local evaluation, as text, bytes and numbers; and the documents that they refer to."""

import gc
import sys
import threading
from typing import Any
from uuid import UUID

import pytest
from flagsmith import Flagsmith
from flagsmith.models import Flags

from flagsync._encoding import calls as module
from flagsync._encoding.calls import Calls, identity_of
from tests.support.encoding import lazy, remote


def test_call_under_local_evaluation_holds_the_traits_as_bytes_and_the_document_as_a_number(
    offline: Flagsmith,
) -> None:
    calls = Calls()
    traits: Any = {"plan": "pro", "age": 42, "ratio": 0.5, "beta": True, "tags": ["a", 1]}
    identifier, number, evaluated, _ = calls.make("user_1", offline.get_identity_flags("user_1", traits))
    assert isinstance(evaluated, bytes)
    assert identity_of(identifier, evaluated) == {"identifier": "user_1", "traits": traits}
    assert set(calls.document(number)) == {"environment", "features", "segments"}


@pytest.mark.parametrize("identifier", ["user_1", 7, True, 1.5])
def test_call_that_waits_is_not_tracked_by_the_garbage_collector(document: Any, identifier: Any) -> None:
    call = Calls().make(identifier, lazy(document, identifier, {"plan": "pro"}))
    gc.collect()
    assert not gc.is_tracked(call)


def test_calls_under_one_document_have_one_number(offline: Flagsmith) -> None:
    calls = Calls()
    numbers = {calls.make(name, offline.get_identity_flags(name))[1] for name in ("a", "b", "c")}
    assert len(numbers) == 1


def test_call_keeps_the_identity_if_a_trait_is_of_the_applications_own_type(offline: Flagsmith) -> None:
    calls = Calls()
    trait: Any = UUID(int=1)
    _, number, evaluated, _ = calls.make("user_1", offline.get_identity_flags("user_1", {"id": trait}))
    assert evaluated == {"identifier": "user_1", "traits": {"id": trait}}
    assert calls.document(number)


def test_call_for_an_equal_text_holds_the_traits_as_bytes(offline: Flagsmith) -> None:
    flags = offline.get_identity_flags("user_1", {"plan": "pro"})
    assert isinstance(Calls().make(f"user_{int(1.0)}", flags)[2], bytes)


@pytest.mark.parametrize(("evaluated", "passed"), [(1, True), (1, 1.0), ("1", 1)])
def test_call_for_an_equal_identifier_of_another_type_keeps_the_identity(
    document: Any, evaluated: Any, passed: Any
) -> None:
    assert isinstance(Calls().make(passed, lazy(document, evaluated))[2], dict)


def test_call_for_another_identifier_than_the_evaluated_one_keeps_the_identity(offline: Flagsmith) -> None:
    call = Calls().make("account_7", offline.get_identity_flags("user_1", {"plan": "pro"}))
    assert (call[0], call[2]) == ("account_7", {"identifier": "user_1", "traits": {"plan": "pro"}})


def test_call_with_a_key_in_its_identity_keeps_the_identity(document: Any) -> None:
    flags = lazy(document)
    identity: Any = flags._context["identity"]  # type: ignore[index]
    identity["key"] = "another key"
    assert Calls().make(identity["identifier"], flags)[2] is identity


class Raising:
    """What is asked raises."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __getitem__(self, name: str) -> Any:
        raise self._error


class OddDict(dict[str, Any]):
    """What is asked raises."""

    def __getitem__(self, name: str) -> Any:
        raise SystemExit


@pytest.mark.parametrize(
    "context",
    [
        {},
        {"features": {}},
        {"identity": {}, "features": {}},
        {"identity": {}, "features": {}, "segments": {}},
        {"identity": OddDict(), "features": {}, "segments": {}},
        {"identity": 7, "features": {}, "segments": {}},
        [1],
        "text",
        OddDict(),
        *(Raising(error()) for error in (ValueError, SystemExit, GeneratorExit, BaseException)),
    ],
)
def test_call_of_what_is_no_context_does_not_read_the_memo_of_the_flags(context: Any) -> None:
    assert Calls().make("user_1", Flags(_context=context))[1:3] == (0, context)


def test_call_lets_an_interrupt_of_the_application_through() -> None:
    context: Any = Raising(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        Calls().make("user_1", Flags(_context=context))


@pytest.mark.parametrize("error", [SystemExit, TimeoutError])
def test_call_lets_through_what_a_signal_handler_raises(offline: Flagsmith, error: type[Exception]) -> None:
    flags, was_raised = offline.get_identity_flags("user_1"), list[bool]()

    def profile(_: object, event: str, function: Any) -> None:
        if event == "c_call" and function.__name__ == "dumps":
            raise error

    def make() -> None:
        sys.setprofile(profile)
        try:
            Calls().make("user_1", flags)
        except error:
            was_raised.append(True)
        finally:
            sys.setprofile(None)

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    assert was_raised == [True]


def test_call_of_a_remote_answer_keeps_the_flags() -> None:
    flags = remote(a=1)
    assert Calls().make("user_1", flags)[1:3] == (0, flags)


def test_documents_that_alternate_keep_their_numbers(document: Any) -> None:
    calls, one, other = Calls(), lazy(document), lazy(document)
    numbers = [calls.make("user_1", flags)[1] for flags in (one, other, one, other)]
    assert numbers == [1, 2, 1, 2]


def test_document_with_the_features_of_another_and_other_segments_has_its_own_number(document: Any) -> None:
    calls, flags = Calls(), lazy(document)
    context: Any = flags._context
    context = {**context, "segments": {}}
    other = Flags(_context=context)
    numbers = [calls.make("user_1", one)[1] for one in (flags, other)]
    assert numbers == [1, 2]
    assert [len(calls.document(number)["segments"]) > 0 for number in numbers] == [True, False]


def test_document_that_is_not_used_any_more_retires_and_gets_another_number_when_it_comes_again(
    document: Any,
) -> None:
    calls, old, new = Calls(kept_seconds=0.0), lazy(document), lazy(document)
    assert [calls.make("user_1", flags)[1] for flags in (old, new)] == [1, 2]
    assert calls.retire() == [1]
    assert calls.make("user_1", old)[1] == 3
    assert calls.retire() == [1, 2]


def test_document_that_has_retired_is_kept_until_it_is_forgotten(document: Any) -> None:
    calls = Calls(kept_seconds=0.0)
    for _ in range(2):
        calls.make("user_1", lazy(document))
    retired = calls.retire()
    assert calls.document(1)
    calls.forget(retired)
    assert [calls.has_document(number) for number in (1, 2)] == [False, True]
    with pytest.raises(KeyError):
        calls.document(1)
    assert calls.retire() == []


def test_document_of_the_last_call_does_not_retire_however_long_it_is_not_used(document: Any) -> None:
    calls, flags = Calls(kept_seconds=0.0), lazy(document)
    calls.make("user_1", flags)
    assert calls.retire() == []
    assert calls.make("user_1", flags)[1] == 1


def test_documents_in_use_do_not_retire_however_many_they_are(document: Any) -> None:
    calls, in_use = Calls(), [lazy(document) for _ in range(100)]
    for _ in range(2):
        assert [calls.make("user_1", flags)[1] for flags in in_use] == [*range(1, 101)]
        assert calls.retire() == []


def test_document_counts_as_used_until_another_one_takes_its_place(
    document: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, calls, old, new = [100.0], Calls(kept_seconds=5.0), lazy(document), lazy(document)
    monkeypatch.setattr(module, "monotonic", lambda: clock[0])
    for flags, at in ((old, 100.0), (old, 200.0), (new, 200.0)):
        clock[0] = at
        calls.make("user_1", flags)
    clock[0] = 204.0
    assert calls.retire() == []
    clock[0] = 205.0
    assert calls.retire() == [1]


def test_threads_that_meet_a_new_document_together_get_one_number(document: Any) -> None:
    calls, flags, start = Calls(), lazy(document), threading.Barrier(8)
    numbers = list[int]()

    def make() -> None:
        start.wait()
        numbers.append(calls.make("user_1", flags)[1])

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(numbers) == {1}
