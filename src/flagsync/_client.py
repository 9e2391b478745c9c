"""FlagSync: configuration, evaluation, life cycle.

Guarantee: the caller gets, value or exception, what the wrapped Flagsmith client gives; mirroring neither
changes nor delays it. Boundary: what happens behind ``submit`` is the pipeline's.
"""

import os
import weakref
from collections.abc import Callable
from os import PathLike, getpid
from threading import Thread
from time import monotonic
from typing import Any, Literal, Self

from flagsmith import Flagsmith
from flagsmith.models import Flag, Flags
from flagsmith.types import TraitMapping

from flagsync._config import Config, read_environment, require
from flagsync._database import prepare
from flagsync._fork import unset_mark
from flagsync._pipeline import Pipeline, Stats
from flagsync._properties import PropertyValue, served_value
from flagsync._report import Reporter
from flagsync._schema import OUTBOX
from flagsync.cohorts._lookup import CohortTraits
from flagsync.cohorts._store import MembershipStore
from flagsync.exceptions import DeliveryError

CLIENT = "flagsmith is a configured client, such as Flagsmith(environment_key='ser.…'), or an environment key"
STALE = (
    "The Flagsmith client was built before this process was forked, and the thread that refreshes its flags is "
    "not in this process: they are stale from now on. Build Flagsmith and FlagSync after the fork (gunicorn: "
    "post_fork, or no --preload; Celery: worker_process_init; uWSGI: postfork)"
)


class FlagSync:
    """A Flagsmith client whose evaluations appear on Mixpanel profiles.

    For threads, ``asyncio``, signal handlers and forked children. A context manager that closes itself.

    Args:
        flagsmith: A configured client, in any mode; or an environment key, for a remote one.
        mixpanel_token: The project token; None evaluates and mirrors nothing.
        region: Where the Mixpanel project's data lives. The US host **drops** the data of other regions.
        mixpanel_url: A proxy or a test server, in place of the region's host.
        distinct_id: Identifier -> ``distinct_id`` of the profile; None: not mirrored.
        property_name: Feature name -> property name; None leaves the flag out. Pure, called once a name.
        property_value: Flag -> property value; by default what Flagsmith's own server sends. Pure.
        flush_interval_seconds: How long an update may wait for others to share its request.
        resend_after_seconds: A profile that has not changed is not sent again before this; 0: always sent.
        max_pending: Profiles that may wait, about 1.2 KB each at 50 flags.
        when_full: ``"drop"`` the oldest, counted and reported; or ``"wait"``, for batch jobs: the caller
            waits until Mixpanel has taken what is pending.
        outbox: A file on a local disk, made if it is not there: what waits in it survives crashes and outages,
            and the processes of a host that share it send one after the other, each profile's latest state.
        cohorts: A store of Mixpanel cohorts: each evaluation has one boolean, transient trait for every cohort,
            where the call has none of that name. A caller waits 0.2 seconds for the store at most.
        on_error: Called for each incident, in a background thread; must not block.

    Raises:
        ValueError: Options cannot be right; the message says how they can.
    """

    def __init__(
        self,
        flagsmith: Flagsmith | str,
        mixpanel_token: str | None,
        *,
        region: Literal["us", "eu", "in"] = "us",
        mixpanel_url: str | None = None,
        distinct_id: Callable[[str], str | None] = str,
        property_name: Callable[[str], str | None] = str,
        property_value: Callable[[Flag], PropertyValue] = served_value,
        flush_interval_seconds: float = 1.0,
        resend_after_seconds: float = 300.0,
        max_pending: int = 50_000,
        when_full: Literal["drop", "wait"] = "drop",
        outbox: str | PathLike[str] | None = None,
        cohorts: MembershipStore | None = None,
        on_error: Callable[[DeliveryError], None] | None = None,
    ) -> None:
        client = isinstance(flagsmith, str) or callable(getattr(flagsmith, "get_identity_flags", None))
        require({CLIENT: client and not isinstance(flagsmith, type)})
        if isinstance(outbox, str | PathLike):
            outbox = os.path.realpath(os.fsdecode(outbox))  # wherever the process goes from here
        self._config = Config(
            token=mixpanel_token.strip() if isinstance(mixpanel_token, str) else mixpanel_token,
            region=region,
            mixpanel_url=mixpanel_url,
            distinct_id=distinct_id,
            property_name=property_name,
            property_value=property_value,
            flush_interval_seconds=flush_interval_seconds,
            resend_after_seconds=resend_after_seconds,
            max_pending=max_pending,
            when_full=when_full,
            outbox=outbox,
            cohorts=cohorts,
            on_error=on_error,
        )
        if outbox is not None:
            prepare(str(outbox), OUTBOX).close()
        self.flagsmith = Flagsmith(environment_key=flagsmith) if isinstance(flagsmith, str) else flagsmith
        """The wrapped client, for everything else that Flagsmith offers."""
        self._built_with = _refresher(self.flagsmith)
        self._cohorts = CohortTraits(cohorts, Reporter(None)) if cohorts is not None else None
        self._pipelines: dict[int, Pipeline] = {}  # by process
        self._own: Pipeline | None = None  # of the process that the mark is of
        self._mark = unset_mark()
        self._pipeline()

    @classmethod
    def from_env(cls, **options: Any) -> Self:  # noqa: ANN401 - the constructor checks them
        """A client from ``FLAGSMITH_ENVIRONMENT_KEY`` and ``MIXPANEL_TOKEN``, with the constructor's options.

        Optional are ``FLAGSMITH_API_URL``, ``FLAGSMITH_LOCAL_EVALUATION`` (true or false), ``MIXPANEL_REGION``
        (us, eu or in) and ``MIXPANEL_URL``. Raises ``ValueError`` with the name of each that is wrong.
        """
        flagsmith, options = read_environment(options)
        return cls(Flagsmith(**flagsmith), **options)

    def get_identity_flags(
        self, identifier: str, traits: TraitMapping | None = None, *, transient: bool = False
    ) -> Flags:
        """Evaluate the flags of an identity and mirror them.

        Arguments, result and exceptions are those of ``Flagsmith.get_identity_flags``. A transient identity
        is evaluated, not mirrored.
        """
        if self._cohorts:
            traits = self._cohorts.merge(identifier, traits)
        flags = self.flagsmith.get_identity_flags(identifier, traits, transient=transient)
        if pipeline := self._own if self._mark[0] else self._pipeline():
            if transient:
                pipeline.skip()
            else:
                pipeline.submit(identifier, flags)
        return flags

    def get_environment_flags(self) -> Flags:
        """Flagsmith's answer, unchanged; nothing is mirrored, since it is about no identity."""
        return self.flagsmith.get_environment_flags()

    def mirror(self, identifier: str, flags: Flags) -> None:
        """Mirror flags that were evaluated elsewhere: on an async path, by another client. Never raises."""
        if pipeline := self._own if self._mark[0] else self._pipeline():
            pipeline.submit(identifier, flags)

    def flush(self, timeout_seconds: float = 10.0) -> bool:
        """Wait until all that was accepted before the call is settled; False at the deadline.

        Settled means delivered, unchanged, superseded, dropped or rejected: ``stats()`` tells which.
        """
        pipeline = self._pipeline()
        return pipeline is None or pipeline.flush(monotonic() + timeout_seconds)

    def close(self, timeout_seconds: float = 5.0) -> bool:
        """Flush and stop the threads; False if something was given up at the deadline. Idempotent.

        The client goes on evaluating; what it evaluates is not mirrored any more.
        """
        if self._cohorts:
            self._cohorts.stop()
        pipeline = self._pipeline()
        return pipeline is None or pipeline.close(monotonic() + timeout_seconds)

    def stats(self) -> Stats:
        """What became of the calls of this process."""
        pipeline = self._pipeline()
        return Stats() if pipeline is None else pipeline.stats()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _pipeline(self) -> Pipeline | None:
        """The pipeline of this process: a forked child gets its own, empty one."""
        if self._config.token is None:
            return None
        pid = getpid()
        if pid not in self._pipelines:
            inherited = self._pipelines.copy()
            pipeline = Pipeline(self._config, self._config.token)
            if any(parent.closed for parent in inherited.values()):
                pipeline.stop()
            # No lock, which a fork might catch locked: of the threads that come first, setdefault lets one win.
            if self._pipelines.setdefault(pid, pipeline) is pipeline:
                weakref.finalize(self, pipeline.stop).atexit = False
                for parent in inherited:
                    del self._pipelines[parent]
                refresher = _refresher(self.flagsmith)
                if refresher and (not refresher.is_alive() or (inherited and refresher is self._built_with)):
                    pipeline.warn(STALE)
        self._own, self._mark[0] = self._pipelines[pid], 1
        return self._own


def _refresher(flagsmith: Flagsmith) -> Thread | None:
    """The thread that keeps a client's environment fresh, if it has one (flagsmith 6.3)."""
    names = ("environment_data_polling_manager_thread", "event_stream_thread")
    return next((thread for name in names if (thread := getattr(flagsmith, name, None))), None)
