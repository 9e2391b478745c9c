"""Flags of every kind, and an encoder with real parts around it."""

import copy
import threading
from collections.abc import Callable
from contextlib import suppress
from math import inf
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any

from flagsmith.mappers import map_environment_document_to_context
from flagsmith.models import Flag, Flags

from flagsync._encoding.calls import KEPT_SECONDS, Call, Calls
from flagsync._encoding.encoder import Encoder
from flagsync._encoding.exposure import ExposureEncoder, ExposureNames
from flagsync._encoding.inbox import Inbox
from flagsync._encoding.pacer import Pacer
from flagsync._encoding.profile import Mapping, ProfileEncoder
from flagsync._encoding.properties import PropertyValue, served_value
from flagsync._encoding.variant import served_variant
from flagsync._outbox.contract import Destination, Limits, Message
from flagsync._outbox.memory import MemoryOutbox
from flagsync._report import Reporter
from flagsync._stats import Ledger, Stats, exposure_stats_of, stats_of
from flagsync.exceptions import DeliveryError
from tests.support.outboxes import waiting

DESTINATION = Destination("http://127.0.0.1:9/engage", "project")
TRACK = Destination("http://127.0.0.1:9/track", "project")
WAIT_SECONDS = 10.0  # until a test fails whose event does not come
NEVER_SECONDS = 3600.0


def nothing() -> None:
    """Do nothing, as a callback."""


def flag(name: str, value: Any = None, *, enabled: bool = True) -> Flag:
    return Flag(enabled=enabled, value=value, feature_id=1, feature_name=name)


def evaluated(flag: Flag, **more: Any) -> Flag:
    """Return a flag with what only newer versions of Flagsmith's SDK say of it, such as ``reason``."""
    vars(flag).update(more)
    return flag


def remote(**values: Any) -> Flags:
    """Return flags as the API answers them: complete, and without an evaluation context."""
    return Flags({name: flag(name, value) for name, value in values.items()})


def lazy(document: Any, identifier: str = "user_1", traits: dict[str, Any] | None = None) -> Flags:
    """Return flags as local evaluation gives them, from a freshly built document."""
    context = map_environment_document_to_context(copy.deepcopy(document))
    context["identity"] = {"identifier": identifier, "traits": traits or {}}
    return Flags.from_evaluation_context(context, {}, None, None)


def call(identifier: object, flags: Flags | None = None, at: float | None = None) -> Call:
    """Return a call with flags that the API has answered."""
    return identifier, 0, flags or remote(on=True), monotonic() if at is None else at


class Encoding:
    """An encoder with its inbox, a memory outbox, a ledger and a reporter.

    Args:
        with_thread: Whether the first call starts the encoder's thread. Without it, ``run`` encodes by hand.
        max_pending: Of the inbox; the outbox has room for everything.
        enough: Calls that wake the thread while calls gather.
        gather_seconds: How long calls gather.
        max_batch_messages: Messages in a full batch.
        distinct_id: Identifier -> distinct id.
        property_name: Feature name -> property name.
        property_value: Flag -> property value.
        on_put: Called whenever messages were put.
        on_error: Called with each error.
        inbox_type: Builds the inbox.
        kept_seconds: How long documents are kept after their last use.
    """

    def __init__(
        self,
        *,
        with_thread: bool = False,
        max_pending: float = 1000,
        enough: int = 500,
        gather_seconds: float = 0.0,
        max_batch_messages: int = 2000,
        distinct_id: Callable[[str], str | None] = str,
        property_name: Callable[[str], str | None] = str,
        property_value: Callable[[Flag], PropertyValue] = served_value,
        on_put: Callable[[], None] = nothing,
        on_error: Callable[[DeliveryError], None] | None = None,
        inbox_type: type[Inbox] = Inbox,
        kept_seconds: float = KEPT_SECONDS,
    ) -> None:
        self.ledger, self.errors = Ledger(), list[DeliveryError]()
        self.puts, self.has_ended = SimpleQueue[int](), threading.Event()
        self.report = Reporter(on_error or self.errors.append)
        self.calls = Calls(kept_seconds)
        self.inbox = inbox_type(max_pending, enough, self.ledger, self.report)
        limits = Limits(max_batch_messages=max_batch_messages, flush_interval_seconds=inf)
        self.outbox, self.pacer = MemoryOutbox(limits, self.ledger, self.report), Pacer()

        def put() -> None:
            self.puts.put(len(self.outbox))
            on_put()

        profile = ProfileEncoder(
            "project-token",
            self.calls,
            Mapping(distinct_id=distinct_id, property_name=property_name, property_value=property_value),
            DESTINATION,
            resend_after_seconds=300.0,
            pacer=self.pacer,
            report=self.report,
        )
        names = ExposureNames(
            experiment_name=str, variant_name=served_variant, exposure_properties=lambda *_: {}
        )
        self.encoder = Encoder(
            self.inbox,
            profile,
            ExposureEncoder("project-token", profile.calls, names, TRACK, self.report),
            self.outbox,
            self.pacer,
            start=lambda: with_thread and self.encoder.worker.start(),
            on_put=put,
            on_end=self.has_ended.set,
            ledger=self.ledger,
            report=self.report,
            gather_seconds=gather_seconds,
        )

    def submit(self, identifier: object, **values: Any) -> None:
        """Submit a remote answer of an identity."""
        self.encoder.submit(identifier, remote(**values or {"on": True}))

    def encode(self) -> None:
        """Encode by hand what was submitted, and go on."""
        self.encoder._encode_all()

    def run(self) -> None:
        """Stop the encoder, and encode by hand what was submitted."""
        self.encoder.stop()
        self.encoder.worker.run()

    def flush(self, seconds: float = WAIT_SECONDS) -> bool:
        return self.encoder.flush(monotonic() + seconds)

    def end(self) -> bool:
        """Stop the encoder and wait for its thread."""
        self.encoder.stop()
        return self.encoder.worker.join(monotonic() + WAIT_SECONDS)

    def put_count(self) -> int:
        """Wait until messages were put; return how many wait then."""
        return self.puts.get(timeout=WAIT_SECONDS)

    def forget_puts(self) -> None:
        """Forget which messages were put before."""
        with suppress(Empty):
            while True:
                self.puts.get_nowait()

    def messages(self) -> list[Message]:
        """Return the messages that wait in the outbox."""
        return waiting(self.outbox)

    def profiles(self) -> list[str]:
        """Return the keys of the messages that wait."""
        return [message.key for message in self.messages()]

    def stats(self) -> Stats:
        calls, exposures = self.inbox.submitted_apart()
        of_exposures = exposure_stats_of(self.ledger.events(), exposures)
        return stats_of(self.ledger.counts(), calls, exposures=of_exposures)
