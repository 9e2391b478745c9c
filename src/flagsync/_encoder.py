"""Latest-wins inbox and the thread that turns ``Flags`` into the JSON of updates.

Guarantee: ``submit`` appends to a queue, whatever the number of flags, and waits for nothing. Of each identity
the latest call counts. Boundary: knows nothing of HTTP.
"""

import sys
import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from contextlib import suppress
from time import perf_counter, sleep, time
from typing import Any, TypeAlias

from flagsmith.models import Flags

from flagsync._config import Config
from flagsync._distinct_id import NotMirroredError, distinct_id_of
from flagsync._mixpanel import UpdateWriter
from flagsync._outbox import MAX_BATCH_UPDATES, MAX_UPDATE_BYTES, MemoryOutbox
from flagsync._properties import Properties
from flagsync._report import FULL, Reporter
from flagsync._sender import Sender, time_left
from flagsync._snapshot import EvaluationKeys, essence, flags_of, is_evaluated

# Calls gather for a moment, so that the thread wakes up for all of them and not for each.
GATHER_SECONDS = 0.05
# All threads share one interpreter: without a pause, callers wait up to 5 ms for their turn; after a short one
# the encoder may be back before they are awake. Seconds of work and of rest: as a rule, and if somebody waits.
RHYTHM, HURRIED_RHYTHM = (0.0003, 0.0005), (0.002, 0.00005)
Call: TypeAlias = tuple[object, Any, float]
"""An identifier, the essence of its flags, and when they were evaluated, in seconds since 1970."""
NOT_MIRRORED = "An identity is not mirrored: {}"


class Encoder:
    """Takes what was evaluated; puts what has changed into the outbox."""

    def __init__(
        self,
        config: Config,
        token: str,
        outbox: MemoryOutbox,
        sender: Sender,
        report: Reporter,
        *,
        start: Callable[[], bool],
    ) -> None:
        self._distinct_id, self._bound = config.distinct_id, config.bound
        self._outbox, self._sender, self._report, self._start = outbox, sender, report, start
        self._keys = EvaluationKeys(self._pause)
        self._properties = Properties(config.property_name, config.property_value, report.once)
        self._writer = UpdateWriter(token)
        self._gather_seconds = min(GATHER_SECONDS, config.flush_interval_seconds / 2)
        # Re-entrant: a signal handler may evaluate flags while its thread is in here.
        self._changed = threading.Condition(threading.RLock())
        self._calls: deque[Call] = deque()
        self._resting = True  # the next call has to wake the thread
        self._inbox: OrderedDict[object, Call] = OrderedDict()  # the thread's own
        self._rounds_begun = self._rounds_ended = self._rounds_awaited = 0
        self._once = threading.Lock()
        self._aside = Counter(dropped=0, skipped=0)  # calls that the thread never sees; under the lock
        # Of what was collected, written by the thread only. "put" is no fate: the outbox goes on counting.
        self._collected = 0
        self._fates = Counter(unchanged=0, superseded=0, dropped=0, skipped=0, rejected=0, put=0)
        self._works_until = 0.0
        self._evaluation_seconds = 0.0  # that the last one took, in one piece

    @property
    def submitted(self) -> int:
        """Calls so far."""
        return self._aside.total() + self._collected + len(self._calls)

    def submit(self, identifier: object, flags: Flags) -> None:
        """Let the flags of an identity be mirrored. Never raises, never waits."""
        # append() needs no lock, neither between threads nor in a signal handler.
        calls = self._calls
        calls.append((identifier, essence(flags), time()))
        if self._resting or len(calls) > self._bound:
            self._attend()

    def _attend(self) -> None:
        with self._changed:
            if self._resting and self._start():
                self._resting = False
                self._changed.notify_all()
            while len(self._calls) > self._bound:
                with suppress(IndexError):  # the thread has been faster
                    self._calls.popleft()
                    self._aside["dropped"] += 1
                    self._report.lose(FULL)

    def refuse(self, *_: object) -> None:
        """Take the place of ``submit`` once the client is closed."""
        self.skip()
        self._report.once(NOT_MIRRORED.format("the client is closed"))

    def skip(self) -> None:
        """Count a call that is not to be mirrored."""
        with self._changed:
            self._aside["skipped"] += 1

    def flush(self, deadline: float) -> bool:
        """Wait until what was submitted before the call is encoded; False at the deadline."""
        with self._changed:
            if self._resting and not self._calls:
                return True
            # A round takes what waits when it begins.
            target = self._rounds_begun + 1
            self._rounds_awaited = max(self._rounds_awaited, target)
            self._changed.notify_all()
            return self._changed.wait_for(lambda: self._rounds_ended >= target, time_left(deadline))

    def join(self, deadline: float) -> bool:
        """Wait until ``run`` has returned; False at the deadline."""
        with self._changed:  # which waiting releases, even for a signal handler that has interrupted another
            return self._changed.wait_for(lambda: self._rounds_ended == sys.maxsize, time_left(deadline))

    def stop(self) -> None:
        """Take no more; ``run`` encodes what is there and returns. Never blocks."""
        with self._changed:
            self._rounds_awaited = sys.maxsize
            self._changed.notify_all()

    def counts(self) -> Counter[str]:
        """What became of the calls here."""
        return self._fates + self._aside

    def run(self) -> None:
        """Encode round by round until stopped: the body of the thread, which does nothing a second time."""
        if not self._once.acquire(blocking=False):
            return
        while self._next_round():
            self._collect()
            for _ in range(len(self._inbox)):
                self._fates[self._encode(*self._inbox.popitem(last=False)[1])] += 1
                self._pause()
                if self._calls:
                    self._collect()
            self._outbox.save()
            self._report.losses()
            self._end_round(self._rounds_begun)
            self._sender.wake()
        self._report.losses(now=True)
        self._end_round(sys.maxsize)  # there is nothing more to wait for
        self._sender.finish()

    def _next_round(self) -> bool:
        """Wait for calls to gather; False to end."""
        with self._changed:
            self._resting = not self._inbox
            self._changed.wait_for(
                lambda: self._inbox or self._calls or self._rounds_begun < self._rounds_awaited
            )
            self._resting = False
            self._changed.wait_for(
                lambda: self._rounds_begun < self._rounds_awaited or len(self._inbox) >= MAX_BATCH_UPDATES,
                self._gather_seconds,
            )
            self._rounds_begun += 1
            return bool(self._inbox or self._calls or self._rounds_awaited < sys.maxsize)

    def _end_round(self, number: int) -> None:
        with self._changed:
            self._rounds_ended = number
            self._changed.notify_all()

    def _collect(self) -> None:
        """Let the calls into the inbox."""
        with suppress(IndexError):  # a caller has made room meanwhile
            for _ in range(len(self._calls)):  # without a pause: callers in a tight loop have none
                call = self._calls.popleft()
                self._collected += 1
                self._receive(call)
        while len(self._inbox) > self._bound:
            self._inbox.popitem(last=False)
            self._fates["dropped"] += 1
            self._report.lose(FULL)

    def _receive(self, call: Call) -> None:
        """Let a call into the inbox, where the latest of an identity wins."""
        identifier, flags, _ = call
        try:
            if not is_evaluated(flags):
                raise NotMirroredError("Flagsmith evaluated no flags")
            # 1 and True are equal, and no one identifier.
            key = identifier if type(identifier) is str else (type(identifier), identifier)
            if self._inbox.pop(key, None) is not None:
                self._fates["superseded"] += 1
            self._inbox[key] = call  # last in line: another identifier may have the same profile
        except Exception as error:  # noqa: BLE001 - it has no hash, or a broken one
            self._fates["skipped"] += 1
            reason = error if isinstance(error, NotMirroredError) else type(error).__name__
            self._report.once(NOT_MIRRORED.format(reason))

    def _encode(self, identifier: object, flags: Any, evaluated_at: float) -> str:  # noqa: ANN401 - the essence
        """Put the identity's state into the outbox; otherwise the name of what became of it."""
        try:
            distinct_id = distinct_id_of(identifier, self._distinct_id)
            key = self._keys.of(flags)
            if key is not None and self._outbox.unchanged(distinct_id, key):
                return "unchanged"
            self._pause(self._evaluation_seconds)
            began = perf_counter()
            served = flags_of(flags)
            self._evaluation_seconds = perf_counter() - began
            self._pause()
            if not (properties := self._properties.of(served)):
                raise NotMirroredError("no flag has a property name")
            json, fingerprint = self._writer.people_set(distinct_id, properties)
            if len(json) > MAX_UPDATE_BYTES:
                raise OverflowError
            if not self._outbox.put(distinct_id, key, fingerprint, json, evaluated_at):
                return "unchanged"
            if self._outbox.full():
                self._sender.wake()
        except NotMirroredError as reason:
            self._report.once(NOT_MIRRORED.format(reason))
            return "skipped"
        except Exception as error:  # noqa: BLE001 - one identity's failure must not cost another's update
            self._report.lose(f"Flags cannot be mirrored ({type(error).__name__})")
            return "rejected"
        return "put"

    def _pause(self, ahead: float = 0.0) -> None:
        """Rest, if the time to work is over, or would be before what is ahead."""
        if perf_counter() + ahead > self._works_until:
            work, rest = HURRIED_RHYTHM if self._rounds_ended < self._rounds_awaited else RHYTHM
            sleep(rest)
            self._works_until = perf_counter() + work
