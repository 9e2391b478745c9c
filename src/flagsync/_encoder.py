"""Latest-wins inbox and the thread that turns ``Flags`` into the JSON of updates.

Guarantee: ``submit`` takes a lock and writes a dict, whatever the number of flags, and waits for nothing. Of
each identity the latest call counts. Boundary: knows nothing of HTTP.
"""

import sys
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable
from time import perf_counter, sleep

from flagsmith.models import Flags

from flagsync._config import Config
from flagsync._distinct_id import NotMirroredError, distinct_id_of
from flagsync._mixpanel import UpdateWriter
from flagsync._outbox import MAX_BATCH_UPDATES, MAX_UPDATE_BYTES, REMEMBERED_PROFILES, Outbox
from flagsync._properties import Properties
from flagsync._recent import Recent
from flagsync._report import FULL, Reporter
from flagsync._sender import time_left
from flagsync._snapshot import EvaluationKeys, flags_of

# Calls gather for a moment, so that the thread wakes up for all of them and not for each.
GATHER_SECONDS = 0.05
# All threads share one interpreter: without a pause, callers wait up to 5 ms for their turn.
WORK_SECONDS, PAUSE_SECONDS = 0.0005, 0.00005


class Encoder:
    """Takes what was evaluated; puts what has changed into the outbox."""

    def __init__(
        self,
        config: Config,
        token: str,
        outbox: Outbox,
        report: Reporter,
        *,
        start: Callable[[], None],
        wake_sender: Callable[[], None],
        wait_for_room: Callable[[], object],
        finish_sender: Callable[[], None],
    ) -> None:
        self._distinct_id, self._max_pending = config.distinct_id, config.max_pending
        self._outbox, self._report = outbox, report
        self._start, self._wait_for_room = start, wait_for_room
        self._wake_sender, self._finish_sender = wake_sender, finish_sender
        self._wait_at = config.max_pending if config.when_full == "wait" else sys.maxsize
        self._keys = EvaluationKeys(self._pause)
        self._properties = Properties(config.property_name, config.property_value, report.once)
        self._writer = UpdateWriter(token)
        # distinct_id -> the key of the last evaluation, and the fingerprint that came of it
        self._evaluated: Recent[tuple[int, bytes]] = Recent(REMEMBERED_PROFILES)
        self._gather_seconds = min(GATHER_SECONDS, config.flush_interval_seconds / 2)
        # Re-entrant: a signal handler may evaluate flags while its thread is in submit().
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        # Sizes of the inbox at which there is more to do than to write into it.
        self._marks = {1, MAX_BATCH_UPDATES}
        self._inbox: OrderedDict[object, Flags] = OrderedDict()
        self._rounds_begun = self._rounds_ended = 0
        self._once = threading.Lock()
        self._urgent = self.stopping = False
        self.submitted = self.skipped = 0  # calls, under the lock
        self._superseded = self._dropped = 0
        # Of what left the inbox, written by the thread only. "put" is no fate: the outbox goes on counting.
        self._fates = Counter(unchanged=0, skipped=0, rejected=0, put=0)
        self._work_began = 0.0

    def submit(self, identifier: object, flags: Flags) -> None:
        """Let the flags of an identity be mirrored. Never raises; waits only if ``when_full`` says so."""
        try:
            # Not acquire() and release(): an exception of a signal handler would leave the lock behind.
            with self._lock:
                inbox = self._inbox
                if closed := self.stopping:
                    pass  # said below: nothing is logged under the lock
                elif identifier in inbox:
                    self.submitted += 1
                    self._superseded += 1
                    inbox[identifier] = flags
                    inbox.move_to_end(identifier)
                else:
                    self.submitted += 1
                    inbox[identifier] = flags
                    if (size := len(inbox)) > self._max_pending or size in self._marks:
                        self._attend()
        except Exception as error:  # noqa: BLE001 - nothing of the mirror gets through to the caller
            self._refuse(type(error).__name__)
            return
        if closed:
            self._refuse("the client is closed")
        elif self.submitted >= self._wait_at:
            self._make_room()

    def _attend(self) -> None:
        while len(self._inbox) > self._max_pending:
            self._dropped += 1
            self._inbox.popitem(last=False)
            self._report.lose(FULL)
        self._start()
        self._changed.notify_all()

    def _refuse(self, reason: str) -> None:
        self.skip()
        self._report.once(f"An identity is not mirrored: {reason}")

    def _make_room(self) -> None:
        # A callback of the application, run by a thread of ours, would wait for itself.
        if not threading.current_thread().name.startswith("flagsync-"):
            submitted = self.submitted
            self._wait_for_room()
            self._wait_at = submitted + self._max_pending

    def skip(self) -> None:
        """Count a call that is not to be mirrored."""
        with self._lock:
            self.skipped += 1

    def flush(self, deadline: float) -> bool:
        """Wait until what was submitted before the call is encoded; False at the deadline."""
        with self._lock:
            # A round takes what waits when it begins.
            target = self._rounds_begun + bool(self._inbox)
            self._urgent = self._rounds_ended < target
            self._changed.notify_all()
            return self._changed.wait_for(lambda: self._rounds_ended >= target, time_left(deadline))

    def join(self, deadline: float) -> bool:
        """Wait until ``run`` has returned; False at the deadline."""
        with self._lock:  # which waiting releases, even for a signal handler that has interrupted submit()
            return self._changed.wait_for(lambda: self._rounds_ended == sys.maxsize, time_left(deadline))

    def stop(self) -> None:
        """Take no more; ``run`` encodes what is there and returns. Never blocks."""
        with self._lock:
            self.stopping = True
            self._changed.notify_all()

    def give_up(self) -> None:
        """Drop what is not encoded."""
        with self._lock:
            self._dropped += len(self._inbox)
            self._inbox.clear()

    def counts(self) -> Counter[str]:
        """What became of the calls here; those that are ``skipped`` were submitted, too."""
        return self._fates + Counter(superseded=self._superseded, dropped=self._dropped)

    def run(self) -> None:
        """Encode round by round until stopped: the body of the thread, which does nothing a second time."""
        if not self._once.acquire(blocking=False):
            return
        while (size := self._next_round()) is not None:
            for _ in range(size):
                with self._lock:
                    if not self._inbox:
                        break
                    identifier, flags = self._inbox.popitem(last=False)
                self._fates[self._encode(identifier, flags)] += 1
                self._pause()
            self._report.losses()
            with self._lock:
                self._rounds_ended = self._rounds_begun
                self._changed.notify_all()
            self._wake_sender()
        self._report.losses(now=True)
        with self._lock:
            self._rounds_ended = sys.maxsize  # there is nothing more to wait for
            self._changed.notify_all()
        self._finish_sender()

    def _next_round(self) -> int | None:
        """Wait for calls to gather; how many identities are in the round, None to end."""
        with self._lock:
            self._changed.wait_for(lambda: self._inbox or self._urgent or self.stopping)
            self._changed.wait_for(
                lambda: self._urgent or self.stopping or len(self._inbox) >= MAX_BATCH_UPDATES,
                self._gather_seconds,
            )
            if self.stopping and not self._inbox:
                return None
            self._urgent = False
            self._rounds_begun += 1
            return len(self._inbox)

    def _encode(self, identifier: object, flags: Flags) -> str:
        """Put the identity's state into the outbox; otherwise the name of what became of it."""
        try:
            distinct_id = distinct_id_of(identifier, self._distinct_id)
            key = self._keys.of(flags)
            known, state = self._evaluated.get(distinct_id) or (None, b"")
            if key is not None and key == known and self._outbox.unchanged(distinct_id, state):
                return "unchanged"
            if not (served := flags_of(flags)):
                raise NotMirroredError("Flagsmith evaluated no flags")
            if not (properties := self._properties.of(served)):
                raise NotMirroredError("no flag has a property name")
            json, state = self._writer.people_set(distinct_id, properties)
            if key is not None:
                self._evaluated[distinct_id] = key, state
            if self._outbox.unchanged(distinct_id, state):
                return "unchanged"
            if len(json) > MAX_UPDATE_BYTES:
                raise OverflowError
            self._outbox.put(distinct_id, state, json)
            if self._outbox.full():
                self._wake_sender()
        except NotMirroredError as reason:
            self._report.once(f"An identity is not mirrored: {reason}")
            return "skipped"
        except Exception as error:  # noqa: BLE001 - one identity's failure must not cost another's update
            self._report.lose(f"Flags cannot be mirrored ({type(error).__name__})")
            return "rejected"
        return "put"

    def _pause(self) -> None:
        if perf_counter() - self._work_began > WORK_SECONDS:
            sleep(PAUSE_SECONDS)
            self._work_began = perf_counter()
