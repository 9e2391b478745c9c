"""The encoder, run by hand and in its thread: which calls become messages, when, and who waits for them."""

import gc
import json
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from time import monotonic
from types import FrameType
from typing import Any

import pytest
from flagsmith import Flagsmith
from flagsmith.models import Flag, Flags

from flagsync._encoding.calls import Call, Exposure
from flagsync._encoding.encoder import CALLS_AT_ONCE, Encoder
from flagsync._encoding.inbox import Inbox
from flagsync._encoding.pacer import AS_A_RULE, WHILE_SOMEBODY_WAITS
from flagsync._stats import ExposureStats, Stats
from flagsync._worker import Worker
from flagsync.exceptions import DeliveryError
from tests.support.encoding import (
    DESTINATION,
    NEVER_SECONDS,
    TRACK,
    WAIT_SECONDS,
    Encoding,
    call,
    flag,
    lazy,
    remote,
)

Build = Callable[..., Encoding]
CLOSED = "An identity is not mirrored: the client is closed"


@pytest.fixture
def threaded() -> Iterator[Build]:
    """Builds encoders whose first call starts a thread; ends them."""
    built = list[Encoding]()

    def build(**options: Any) -> Encoding:
        built.append(Encoding(with_thread=True, **options))
        return built[-1]

    yield build
    for encoding in built:
        assert encoding.end()


class Gate:
    """A callback of the application that holds the encoder's thread up in the midst of its work."""

    def __init__(self) -> None:
        self._arrived, self._open = threading.Event(), threading.Event()

    def __call__(self, text: str) -> str:
        self._arrived.set()
        self._open.wait(WAIT_SECONDS)
        return text

    def wait_for_arrival(self) -> None:
        assert self._arrived.wait(WAIT_SECONDS)

    def open(self) -> None:
        self._open.set()


def properties(encoding: Encoding) -> dict[str, Any]:
    """Return the properties that wait, by profile."""
    return {message.key: json.loads(message.record)["$set"] for message in encoding.messages()}


# By hand: stopped first, and run in this thread.


def test_stopped_encoder_encodes_the_calls_that_wait_and_ends() -> None:
    encoding = Encoding()
    encoding.submit("user_1", a=1)
    encoding.submit("user_2", a=2)
    encoding.run()
    assert properties(encoding) == {"user_1": {"a": 1}, "user_2": {"a": 2}}
    assert encoding.stats() == Stats(accepted=2, pending=2)
    assert (encoding.encoder.worker.is_ended, encoding.has_ended.is_set()) == (True, True)
    assert encoding.put_count() == 2


def test_stopped_encoder_without_calls_ends() -> None:
    encoding = Encoding()
    encoding.run()
    assert (encoding.messages(), encoding.has_ended.is_set()) == ([], True)


def test_encoder_encodes_the_latest_call_of_an_identity_only() -> None:
    encoding = Encoding()
    for value in (1, 2, 3):
        encoding.submit("user_1", a=value)
    encoding.run()
    assert properties(encoding) == {"user_1": {"a": 3}}
    assert encoding.stats() == Stats(accepted=3, superseded=2, pending=1)


def test_encoder_encodes_an_identity_even_if_it_is_called_again_while_others_are_encoded() -> None:
    encoding: Encoding
    evaluated = list[object]()

    def value(one: Flag) -> str:
        if not evaluated:
            encoding.inbox.calls.append(call("user_2", remote(a="new")))  # as in another thread
        evaluated.append(one.value)
        return str(one.value)

    encoding = Encoding(property_value=value)
    encoding.submit("user_1", a="first")
    encoding.submit("user_2", a="old")
    encoding.run()
    assert evaluated == ["first", "old", "new"]
    assert encoding.stats() == Stats(accepted=3, superseded=1, pending=2)


def test_encoder_takes_one_and_true_for_different_identifiers() -> None:
    encoding = Encoding(distinct_id="id {}".format)
    encoding.submit(1, a="one")
    encoding.submit(True, a="true")
    encoding.run()
    assert properties(encoding) == {"id 1": {"a": "one"}, "id True": {"a": "true"}}


def test_encoder_lets_the_latest_call_of_a_profile_win_though_identifiers_differ() -> None:
    encoding = Encoding()
    for identifier, value in (("user ", 1), ("user", 2), ("user ", 3)):
        encoding.submit(identifier, a=value)
    encoding.run()
    assert properties(encoding) == {"user": {"a": 3}}
    assert encoding.stats() == Stats(accepted=3, superseded=2, pending=1)


def test_encoder_puts_no_message_for_unchanged_flags() -> None:
    encoding = Encoding()
    for _ in range(2):
        encoding.submit("user", a=1)
        encoding.encode()
    assert encoding.stats() == Stats(accepted=2, unchanged=1, pending=1)


def test_encoder_takes_the_latest_of_two_identifiers_with_one_profile() -> None:
    encoding = Encoding()
    for identifier, value in (("user ", 1), ("user", 2)):
        encoding.submit(identifier, a=value)
    encoding.encode()
    assert properties(encoding) == {"user": {"a": 2}}
    assert encoding.stats() == Stats(accepted=2, superseded=1, pending=1)


def test_document_is_known_while_calls_wait_however_many_documents_came_after_it(document: Any) -> None:
    encoding = Encoding(kept_seconds=0.0)
    for number in range(30):
        encoding.encoder.submit(f"user_{number}", lazy(document, f"user_{number}"))
    encoding.encode()
    assert encoding.stats() == Stats(accepted=30, pending=30)


def test_document_that_retires_while_calls_wait_is_forgotten_when_they_are_encoded(document: Any) -> None:
    encoding: Encoding
    retired = list[int]()

    def distinct_id(identifier: str) -> str:
        retired[:] = encoding.calls.retire()
        return identifier

    encoding = Encoding(kept_seconds=0.0, distinct_id=distinct_id)
    for number in range(3):
        encoding.encoder.submit(f"user_{number}", lazy(document, f"user_{number}"))
    encoding.encode()
    assert retired == [1, 2]
    assert [encoding.calls.has_document(number) for number in (1, 2, 3)] == [False, False, True]


def test_document_that_retires_while_others_are_encoded_is_known_to_the_calls_that_came_meanwhile(
    document: Any,
) -> None:
    encoding: Encoding

    def distinct_id(identifier: str) -> str:
        if identifier == "first":
            for name in ("second", "third"):  # as in another thread
                encoding.encoder.submit(name, lazy(document, name))
        return identifier

    encoding = Encoding(kept_seconds=0.0, distinct_id=distinct_id)
    encoding.encoder.submit("first", lazy(document, "first"))
    encoding.encode()
    encoding.encode()
    assert encoding.profiles() == ["first", "second", "third"]


def test_encoder_does_not_evaluate_the_same_traits_again(offline: Flagsmith) -> None:
    read = list[str]()

    def value(one: Flag) -> bool:
        read.append(one.feature_name)
        return one.enabled

    encoding, times = Encoding(property_value=value), list[int]()
    for plan in ("pro", "pro", "free", "pro"):
        encoding.encoder.submit("user", offline.get_identity_flags("user", {"plan": plan}))
        encoding.encode()
        times.append(read.count("mv_split"))
    assert times == [1, 1, 2, 3]
    assert read.count("int_on") == 1
    assert encoding.stats() == Stats(accepted=4, unchanged=3, pending=1)


def test_messages_keep_the_time_of_their_evaluation() -> None:
    encoding = Encoding()
    before = monotonic()
    encoding.submit("user_1")
    after = monotonic()
    encoding.run()
    [message] = encoding.messages()
    assert before <= message.evaluated_at <= after


def test_full_batch_is_announced_before_all_is_encoded() -> None:
    encoding = Encoding(max_batch_messages=2)
    for number in range(100):
        encoding.submit(f"user_{number}")
    encoding.run()
    assert [encoding.put_count() for _ in range(2)] == [65, 100]


def test_calls_after_the_end_are_skipped(logged: Callable[[], list[str]]) -> None:
    encoding = Encoding()
    encoding.submit("user_1")
    encoding.run()
    for _ in range(2):
        encoding.submit("late")
    assert encoding.stats() == Stats(accepted=1, pending=1, skipped=2)
    assert not encoding.inbox.calls
    assert logged() == [CLOSED]


def test_calls_after_stop_are_skipped_and_earlier_ones_are_encoded() -> None:
    encoding = Encoding()
    encoding.submit("user_1")
    encoding.encoder.stop()
    encoding.submit("late")
    encoding.encoder.worker.run()
    assert encoding.profiles() == ["user_1"]
    assert encoding.stats() == Stats(accepted=1, pending=1, skipped=1)


def test_late_call_that_the_thread_has_collected_is_encoded() -> None:
    encoding: Encoding

    def name(feature: str) -> str:
        if feature == "first":
            # Past submit's own check, as a call of another thread that was interrupted there.
            encoding.inbox.calls.append(call("second", remote(second=True)))
        return feature

    encoding = Encoding(property_name=name)
    encoding.submit("first", first=True)
    encoding.run()
    assert encoding.profiles() == ["first", "second"]
    assert encoding.stats() == Stats(accepted=2, pending=2)


class RacingInbox(Inbox):
    """An inbox to which another thread adds a call just before the encoder's thread would sleep or end."""

    late: list[Call]

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.late = [call("late", remote(a=1))]

    def wait_for_first(self) -> None:
        while self.late:
            self.calls.append(self.late.pop())
        super().wait_for_first()


def test_call_that_comes_just_before_the_encoder_ends_is_encoded() -> None:
    encoding = Encoding(inbox_type=RacingInbox)
    encoding.submit("first")
    encoding.run()
    assert encoding.profiles() == ["first", "late"]
    assert encoding.has_ended.is_set()


def test_call_that_comes_just_before_the_encoder_sleeps_is_encoded(threaded: Build) -> None:
    encoding = threaded(inbox_type=RacingInbox)
    encoding.submit("first")
    while encoding.put_count() < 2:
        pass
    assert encoding.profiles() == ["first", "late"]


class RacingCalls(deque[Call | Exposure]):
    """Calls of which another thread takes one first."""

    def pop(self, *_: Any) -> Call | Exposure:
        self.popleft()
        return super().pop()


def test_call_to_a_closed_encoder_that_the_thread_has_taken_is_not_counted_twice() -> None:
    encoding = Encoding()
    encoding.inbox.calls = RacingCalls()
    encoding.encoder.stop()
    encoding.submit("late")
    assert encoding.stats().skipped == 0


def test_skipped_call_is_counted_and_not_encoded() -> None:
    encoding = Encoding()
    encoding.encoder.skip()
    encoding.run()
    assert (encoding.stats(), encoding.messages()) == (Stats(skipped=1), [])


@pytest.mark.parametrize(
    ("identifier", "reason"),
    [
        ("", "the identifier is empty"),
        ("NULL", "Mixpanel blocks the identifier as a placeholder"),
        (b"user", "the identifier is bytes; decode it"),
        (["user"], "TypeError"),
    ],
)
def test_unusable_identifier_is_skipped_and_reported_once(
    identifier: object, reason: str, logged: Callable[[], list[str]]
) -> None:
    encoding = Encoding()
    encoding.submit(identifier, a=1)
    encoding.submit(identifier, a=2)
    encoding.submit("user_1")
    encoding.run()
    assert encoding.profiles() == ["user_1"]
    assert logged() == [f"An identity is not mirrored: {reason}"]


def test_identity_without_any_property_is_skipped_and_reported(logged: Callable[[], list[str]]) -> None:
    encoding = Encoding(property_name=lambda _: None)
    encoding.submit("user_1", a=1)
    encoding.run()
    assert (encoding.stats(), encoding.messages()) == (Stats(skipped=1), [])
    assert logged() == ["An identity is not mirrored: no flag has a property name"]


class Odd:
    """An object that raises whatever is asked of it, even its class."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)


def test_object_whose_attributes_raise_is_skipped(logged: Callable[[], list[str]]) -> None:
    encoding = Encoding()
    odd: Any = Odd()
    encoding.encoder.submit("odd", odd)
    encoding.submit("user_1")
    encoding.run()
    assert encoding.profiles() == ["user_1"]
    assert encoding.stats() == Stats(accepted=1, pending=1, skipped=1)
    assert logged() == ["An identity is not mirrored: RuntimeError"]


@pytest.mark.parametrize("broken", ["no flags", {"features": {"a": {}}}, 7, object()])
def test_object_that_is_no_flags_is_rejected_and_reported(broken: Any) -> None:
    encoding = Encoding()
    encoding.encoder.submit("broken", broken)
    encoding.submit("user_1")
    encoding.run()
    assert encoding.profiles() == ["user_1"]
    assert encoding.stats() == Stats(accepted=2, rejected=1, pending=1)
    assert [error.count for error in encoding.errors] == [1]


class Exits(Flags):
    """Flags whose evaluation raises."""

    def __init__(self, error: BaseException, times_read: int = 0) -> None:
        super().__init__()
        self._error, self._times_read = error, times_read

    def __getattribute__(self, name: str) -> Any:
        if name != "flags":
            return super().__getattribute__(name)
        self._times_read -= 1
        if self._times_read < 0:
            raise self._error
        return {"a": flag("a")}


@pytest.mark.parametrize("error", [ValueError, IndexError, SystemExit, GeneratorExit, KeyboardInterrupt])
def test_evaluation_that_raises_costs_its_own_update_only(
    error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("threading.main_thread", lambda: None)  # as in the encoder's thread
    encoding = Encoding()
    encoding.encoder.submit("odd", Exits(error(), times_read=1))
    encoding.submit("user_1")
    encoding.run()
    assert encoding.profiles() == ["user_1"]
    assert encoding.stats() == Stats(accepted=2, rejected=1, pending=1)
    assert [str(lost) for lost in encoding.errors] == [
        f"Flags cannot be mirrored ({error.__name__}): 1 update lost"
    ]


def test_interrupt_of_the_main_thread_comes_through_when_it_encodes_by_hand() -> None:
    encoding = Encoding()
    encoding.encoder.submit("user_1", Exits(KeyboardInterrupt(), times_read=1))
    with pytest.raises(KeyboardInterrupt):
        encoding.run()
    assert encoding.encoder.worker.is_ended


def test_update_beyond_mixpanels_size_is_rejected_and_reported() -> None:
    encoding = Encoding()
    encoding.submit("large", a="x" * 1_000_000)
    encoding.submit("user_1")
    encoding.run()
    assert encoding.profiles() == ["user_1"]
    assert encoding.stats() == Stats(accepted=2, rejected=1, pending=1)
    assert [str(error) for error in encoding.errors] == [
        "Flags cannot be mirrored (OverflowError): 1 update lost"
    ]


def test_calls_beyond_the_bound_drop_the_oldest_and_are_reported_once() -> None:
    encoding = Encoding(max_pending=3)
    for number in range(11):
        encoding.submit(f"user_{number}")
    assert encoding.stats() == Stats(accepted=11, dropped=8, pending=3)
    encoding.run()
    assert encoding.profiles() == ["user_8", "user_9", "user_10"]
    assert [str(error) for error in encoding.errors] == [
        "max_pending is reached, and the oldest pending updates are dropped: 8 updates lost"
    ]


def test_losses_since_the_last_report_are_reported_at_the_end(threaded: Build) -> None:
    encoding = threaded()
    for _ in range(3):
        encoding.submit("large", a="x" * 1_000_000)
        assert encoding.flush()
    assert [error.count for error in encoding.errors] == [1]
    assert encoding.end()
    assert [error.count for error in encoding.errors] == [1, 2]


def test_encoder_ends_although_on_error_raises() -> None:
    def on_error(_: DeliveryError) -> None:
        raise SystemExit

    encoding = Encoding(on_error=on_error)
    encoding.encoder.submit("odd", Exits(ValueError(), times_read=1))
    encoding.run()
    assert (encoding.has_ended.is_set(), encoding.stats().rejected) == (True, 1)


def test_waiting_calls_cost_the_garbage_collector_nothing_but_their_contexts(offline: Flagsmith) -> None:
    encoding = Encoding()
    encoding.encoder.submit("user_1", offline.get_identity_flags("user_1"))
    kept = [thing for call in encoding.inbox.calls for thing in gc.get_referents(call)]
    assert not any(isinstance(thing, Flags) for thing in kept)


def test_callers_who_wait_let_the_encoder_rest_less() -> None:
    encoding: Encoding
    rhythms = list[object]()

    def name(feature: str) -> str:
        rhythms.append(encoding.pacer.rhythm)
        return feature

    encoding = Encoding(property_name=name)
    encoding.submit("user_1")
    encoding.run()
    assert rhythms == [WHILE_SOMEBODY_WAITS]


# In a thread of its own.


def test_encoder_rests_as_a_rule_while_nobody_waits(threaded: Build) -> None:
    encoding: Encoding
    rhythms = list[object]()

    def name(feature: str) -> str:
        rhythms.append(encoding.pacer.rhythm)
        return feature

    encoding = threaded(property_name=name)
    encoding.submit("user_1")
    assert encoding.put_count() == 1
    assert rhythms == [AS_A_RULE]


def test_encoder_rests_as_a_rule_again_after_a_flush(threaded: Build) -> None:
    encoding: Encoding
    rhythms = list[object]()

    def value(one: Flag) -> bool:
        rhythms.append(encoding.pacer.rhythm)
        return one.enabled

    encoding = threaded(property_value=value, gather_seconds=NEVER_SECONDS, enough=1)
    encoding.submit("user_1")
    assert encoding.flush()
    encoding.pacer.rhythm = WHILE_SOMEBODY_WAITS  # as flush leaves it at the latest
    encoding.submit("user_2")
    while encoding.put_count() < 2:
        pass
    assert rhythms[-1] == AS_A_RULE


def test_first_call_starts_the_thread_and_is_encoded(threaded: Build) -> None:
    encoding = threaded()
    encoding.submit("user_1")
    assert encoding.put_count() == 1
    assert encoding.profiles() == ["user_1"]


def test_call_to_an_idle_encoder_wakes_its_thread(threaded: Build) -> None:
    encoding = threaded()
    for number in range(1, 4):
        encoding.submit(f"user_{number}")
        while encoding.put_count() < number:
            pass
        assert encoding.flush()
    assert encoding.profiles() == ["user_1", "user_2", "user_3"]


class TimeLimitError(Exception):
    """What a signal handler raises."""


def raise_at_line(number: int) -> None:
    """Have this thread interrupted, once, at one of the lines where it adds a call and wakes the encoder."""
    left, functions = [number], (Encoder.submit, Encoder._attend, Worker.wake, Inbox.spare_callers)
    codes = [function.__code__ for function in (*functions, Inbox.has_enough, Inbox.keep_bound)]

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code not in codes:
            return None
        if event == "line" and left:
            left[0] -= 1
            if left[0] < 0:
                left.clear()
                raise TimeLimitError
        return trace

    sys.settrace(trace)


def test_caller_who_is_interrupted_anywhere_costs_no_other_update(threaded: Build) -> None:
    encoding, before, lines = threaded(), sys.gettrace(), 0
    encoding.submit("first")
    assert encoding.flush()
    while True:
        while not encoding.inbox.is_idle:
            encoding.flush()
        encoding.forget_puts()
        raise_at_line(lines)
        try:
            encoding.submit(f"interrupted_{lines}")
            break
        except TimeLimitError:
            pass
        finally:
            sys.settrace(before)
        encoding.submit(f"next_{lines}")
        encoding.put_count()
        lines += 1
    assert lines > 8
    assert encoding.flush()
    assert {f"next_{line}" for line in range(lines)} <= {*encoding.profiles()}


def test_calls_gather_until_somebody_waits_for_them(threaded: Build) -> None:
    encoding = threaded(gather_seconds=NEVER_SECONDS)
    encoding.submit("first")
    assert encoding.flush()
    encoding.put_count()
    encoding.forget_puts()
    for number in range(3):
        encoding.submit(f"user_{number}")
    assert encoding.flush()
    assert encoding.put_count() == 4  # all three at once


def test_flush_of_an_idle_encoder_is_true_at_once() -> None:
    assert Encoding().flush(0.0)


def test_flush_does_not_take_an_encoder_for_idle_that_begins_to_encode_meanwhile() -> None:
    class Racing(Inbox):
        is_taken = False

        @property
        def is_idle(self) -> bool:
            self.is_taken = True  # what the thread does behind the caller's back
            return True

        @is_idle.setter
        def is_idle(self, _: bool) -> None:
            pass

        def has_calls(self) -> bool:
            return not self.is_taken

    assert not Encoding(inbox_type=Racing).flush(0.0)


def test_flush_waits_for_the_calls_that_were_submitted_before(threaded: Build) -> None:
    gate = Gate()
    encoding = threaded(distinct_id=gate)
    for number in range(3):
        encoding.submit(f"user_{number}")
    gate.wait_for_arrival()
    assert not encoding.flush(0.0)
    gate.open()
    assert encoding.flush()
    assert encoding.profiles() == ["user_0", "user_1", "user_2"]


def test_flush_in_the_midst_of_encoding_waits_for_the_calls_that_came_meanwhile(threaded: Build) -> None:
    gates, flushed = {"user_1": Gate(), "user_2": Gate()}, list[list[str]]()
    encoding = threaded(distinct_id=lambda text: gates[text](text), gather_seconds=NEVER_SECONDS)
    encoding.submit("user_1")
    gates["user_1"].wait_for_arrival()
    encoding.submit("user_2")

    def flush() -> None:
        assert encoding.flush()
        flushed.append(encoding.profiles())

    callers = [threading.Thread(target=flush) for _ in range(3)]
    for caller in callers:
        encoding.pacer.rhythm = AS_A_RULE
        caller.start()
        while encoding.pacer.rhythm is AS_A_RULE:  # until the caller is about to wait
            caller.join(0.001)
    gates["user_1"].open()
    gates["user_2"].wait_for_arrival()
    callers[0].join(0.05)
    assert flushed == []
    gates["user_2"].open()
    for caller in callers:
        caller.join(WAIT_SECONDS)
    assert flushed == [["user_1", "user_2"]] * 3


def test_flush_is_false_at_its_deadline_while_the_encoder_works(threaded: Build) -> None:
    gate = Gate()
    encoding = threaded(distinct_id=gate)
    encoding.submit("user_1")
    gate.wait_for_arrival()
    assert not encoding.flush(0.01)
    gate.open()


def test_flush_after_the_end_is_true() -> None:
    encoding = Encoding()
    encoding.submit("user_1")
    encoding.run()
    assert encoding.flush(0.0)


def test_flush_is_true_once_the_encoder_has_ended_meanwhile(threaded: Build) -> None:
    gate = Gate()
    encoding = threaded(distinct_id=gate)
    encoding.submit("user_1")
    gate.wait_for_arrival()
    encoding.encoder.stop()
    gate.open()
    assert encoding.flush()
    assert encoding.profiles() == ["user_1"]


def test_stop_encodes_what_waits_in_the_thread_although_calls_gather(threaded: Build) -> None:
    encoding = threaded(gather_seconds=NEVER_SECONDS)
    encoding.submit("first")
    assert encoding.flush()
    encoding.submit("user_1")
    assert encoding.end()
    assert encoding.profiles() == ["first", "user_1"]
    encoding.submit("late")
    assert encoding.stats() == Stats(accepted=2, pending=2, skipped=1)


def test_stop_ends_an_idle_thread(threaded: Build) -> None:
    encoding = threaded()
    encoding.submit("user_1")
    assert encoding.flush()
    assert encoding.end()
    assert encoding.has_ended.is_set()


def test_burst_wakes_the_thread_while_calls_gather(threaded: Build) -> None:
    encoding = threaded(max_pending=20, enough=3, gather_seconds=NEVER_SECONDS)
    encoding.submit("first")
    assert encoding.flush()
    encoding.put_count()
    encoding.forget_puts()
    for number in range(20):
        encoding.submit(f"user_{number}")
    assert encoding.put_count() > 1
    assert encoding.stats().dropped == 0


def test_burst_of_a_slow_caller_is_not_dropped_although_calls_gather(threaded: Build) -> None:
    encoding = threaded(max_pending=4, enough=2, gather_seconds=NEVER_SECONDS)
    for number in range(1, 101):
        encoding.submit(f"user_{2 * number}")
        encoding.submit(f"user_{2 * number + 1}")
        while encoding.put_count() < 2 * number:
            pass
    assert encoding.stats() == Stats(accepted=200, pending=200)


def test_burst_that_came_during_a_round_does_not_gather(threaded: Build) -> None:
    gate = Gate()
    encoding = threaded(distinct_id=gate, max_pending=10, enough=5, gather_seconds=NEVER_SECONDS)
    encoding.submit("first")
    gate.wait_for_arrival()
    for number in range(5):
        encoding.submit(f"user_{number}")
    gate.open()
    while encoding.put_count() < 6:
        pass


def test_burst_that_came_at_the_end_of_a_round_does_not_gather(threaded: Build) -> None:
    gate = Gate()
    encoding = threaded(
        on_put=lambda: gate("") and None, max_pending=10, enough=5, gather_seconds=NEVER_SECONDS
    )
    encoding.submit("first")
    gate.wait_for_arrival()
    for number in range(5):
        encoding.submit(f"user_{number}")
    gate.open()
    while encoding.put_count() < 6:
        pass


def test_burst_after_a_round_is_not_dropped_for_what_that_round_left(threaded: Build) -> None:
    gate = Gate()
    encoding = threaded(distinct_id=gate, max_pending=4, enough=2, gather_seconds=NEVER_SECONDS)
    encoding.submit("first")
    gate.wait_for_arrival()
    for number in range(4):
        encoding.submit(f"user_{number}")
    gate.open()
    while encoding.put_count() < 5:
        pass
    for number in range(4, 6):
        encoding.submit(f"user_{number}")
    while encoding.put_count() < 7:
        pass
    assert encoding.stats().dropped == 0


def test_calls_beyond_the_bound_are_dropped_while_the_thread_works(threaded: Build) -> None:
    gate = Gate()
    encoding = threaded(distinct_id=gate, max_pending=3, enough=1)
    encoding.submit("first")
    gate.wait_for_arrival()
    for number in range(10):
        encoding.submit(f"user_{number}")
    assert encoding.stats() == Stats(accepted=11, dropped=7, pending=4)
    gate.open()
    assert encoding.flush()
    assert encoding.profiles() == ["first", "user_7", "user_8", "user_9"]


class OddIdentifier:
    """An identifier that ends the thread which looks at it, if nothing stops the exception."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __hash__(self) -> int:
        if self._name == "hash":
            raise SystemExit
        return 7

    def __eq__(self, other: object) -> bool:
        raise SystemExit

    def __str__(self) -> str:
        raise SystemExit


@pytest.mark.parametrize("name", ["hash", "comparison"])
def test_odd_identifier_does_not_end_the_thread(threaded: Build, name: str) -> None:
    encoding = threaded(gather_seconds=NEVER_SECONDS)
    for _ in range(2):
        encoding.submit(OddIdentifier(name))
    assert encoding.flush()
    encoding.submit("after")
    assert encoding.flush()
    assert encoding.profiles() == ["after"]
    assert encoding.stats() == Stats(accepted=1, pending=1, skipped=2)


def test_odd_flags_do_not_end_the_thread(threaded: Build) -> None:
    encoding = threaded()
    encoding.encoder.submit("odd", Exits(SystemExit(), times_read=1))
    assert encoding.flush()
    encoding.submit("after")
    assert encoding.flush()
    assert encoding.stats() == Stats(accepted=2, rejected=1, pending=1)


def test_thread_goes_on_after_an_unexpected_error_and_reports_it_once(
    threaded: Build, logged: Callable[[], list[str]]
) -> None:
    failures = iter([SystemExit, ValueError, ValueError])

    def put() -> None:
        if (error := next(failures, None)) is not None:
            raise error

    encoding = threaded(on_put=put)
    for number in range(4):
        encoding.submit(f"user_{number}")
        assert encoding.flush()  # which wakes the thread out of its pause
    assert encoding.profiles() == ["user_0", "user_1", "user_2", "user_3"]
    assert logged() == [
        "The thread flagsync-encoder continues after an unexpected SystemExit",
        "The thread flagsync-encoder continues after an unexpected ValueError",
    ]


def test_calls_of_many_threads_are_all_counted(threaded: Build) -> None:
    encoding = threaded(max_pending=100_000, enough=50)

    def call(caller: int) -> None:
        for number in range(500):
            encoding.submit(f"user_{caller}_{number % 100}", a=number)

    callers = [threading.Thread(target=call, args=(caller,)) for caller in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(WAIT_SECONDS)
    assert encoding.flush()
    stats = encoding.stats()
    assert stats == Stats(accepted=2000, superseded=1600, pending=400)
    assert {value["a"] for value in properties(encoding).values()} == {*range(400, 500)}


def test_encoder_starts_no_thread_for_a_call_to_a_closed_one() -> None:
    encoding = Encoding(with_thread=True)
    encoding.encoder.stop()
    encoding.submit("late")
    assert not encoding.encoder.worker.is_started


def test_call_whose_document_is_forgotten_is_rejected_and_costs_no_other_call() -> None:
    encoding = Encoding()
    encoding.inbox.calls.append(("forgotten", 99, b"", monotonic()))
    encoding.submit("user_1")
    encoding.run()
    assert encoding.profiles() == ["user_1"]
    assert encoding.stats() == Stats(accepted=2, rejected=1, pending=1)
    assert [str(error) for error in encoding.errors] == ["Flags cannot be mirrored (KeyError): 1 update lost"]


def test_flags_with_a_broken_context_are_rejected_and_not_mirrored_in_part() -> None:
    encoding = Encoding()
    context: Any = {"features": {}}
    encoding.encoder.submit("user_1", Flags({"read": flag("read")}, _context=context))
    encoding.run()
    assert encoding.messages() == []
    assert encoding.stats() == Stats(accepted=1, rejected=1)


def test_exposure_is_put_beside_the_profile_of_its_identity() -> None:
    encoding = Encoding()
    for value in ("A", "B"):
        encoding.encoder.expose("ann", flag("checkout", value))
        encoding.submit("ann", checkout=value)
    encoding.run()
    kinds = [(message.key, message.destination, message.replaces) for message in encoding.messages()]
    assert sorted(kinds) == [
        ("ann", DESTINATION, True),
        ("ann\0checkout", TRACK, False),
        ("ann\0checkout", TRACK, False),
    ]
    assert encoding.stats() == Stats(
        accepted=2, superseded=1, pending=1, exposures=ExposureStats(accepted=2, pending=2)
    )


def test_exposures_wake_the_sender_while_more_are_encoded() -> None:
    encoding = Encoding(max_pending=CALLS_AT_ONCE * 3, max_batch_messages=10)
    for number in range(CALLS_AT_ONCE * 2):
        encoding.encoder.expose(f"user_{number}", flag("checkout"))
    encoding.encode()
    assert encoding.put_count() < CALLS_AT_ONCE * 2


def test_exposure_of_an_identity_without_a_profile_is_skipped_and_costs_no_other_one(
    logged: Callable[[], list[str]],
) -> None:
    encoding = Encoding(distinct_id=lambda name: None if name == "ann" else name)
    encoding.encoder.expose("ann", flag("checkout"))
    encoding.encoder.expose("bob", flag("checkout"))
    encoding.run()
    assert [message.distinct_id for message in encoding.messages()] == ["bob"]
    assert encoding.stats().exposures == ExposureStats(accepted=1, pending=1, skipped=1)
    assert logged() == []
