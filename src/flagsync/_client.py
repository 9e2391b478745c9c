"""FlagSync, the client: checks its options, and gives each call to the part that does it.

Boundary: the evaluator evaluates and hands on; the pipelines deliver; ``AsyncCalls`` does both for asynchronous code.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, ClassVar, Literal, Never, Self, Unpack

from flagsmith import Flagsmith
from flagsmith.models import DefaultFlag, Flag, Flags
from flagsmith.types import TraitMapping

from flagsync._async_calls import AsyncCalls
from flagsync._client_rules import client_rules
from flagsync._clock import monotonic
from flagsync._delegation import delegated, names
from flagsync._encoding.properties import PropertyValue
from flagsync._environment import EnvironmentOptions, read_environment
from flagsync._evaluator import Evaluator
from flagsync._health import ClientHealth, HealthCheck
from flagsync._messages import UNPICKLABLE
from flagsync._options import SAME_IDENTIFIER, SAME_NAME, SERVED_VALUE, SERVED_VARIANT, Options, Tuning
from flagsync._outbox.place import Place, absolute, check
from flagsync._pipelines import pipelines_of
from flagsync._rules import require
from flagsync._stats import Stats
from flagsync.cohorts.store import MembershipReader
from flagsync.exceptions import DeliveryError


class FlagSync:
    """A Flagsmith client whose evaluations appear on Mixpanel profiles.

    Safe to call from threads, asyncio, signal handlers and forked children. As a context manager it closes itself on
    exit. The asynchronous methods work under asyncio and trio, and never block the event loop.

    Args:
        flagsmith: A configured client, in any mode; or an environment key, for a remote client.
        mixpanel_token: The project token; with None, flags are evaluated, but not mirrored.
        region: Where the Mixpanel project's data lives. The US host **drops** the data of other regions.
        mixpanel_url: A proxy or a test server, in place of the region's host; without ``/engage``.
        distinct_id: Identifier -> ``distinct_id`` of the profile; None: not mirrored.
        property_name: Feature name -> property name; None leaves the flag out. Pure; called once for each name.
        property_value: Flag -> property value; by default what Flagsmith's own server sends. Pure. Under local
            evaluation it is called once for a flag that is the same for everybody, and once per identity otherwise.
        experiment_name: Feature name -> name of its experiment; None: the feature has none. Another name starts a new
            experiment.
        variant_name: Flag -> name of the variant; None: not recorded. By default its key, ``control`` included; without
            a key, the served value, or ``"true"`` or ``"false"``.
        exposure_properties: Identifier and flag -> further properties of the event, such as group keys.
        flush_interval_seconds: How long an update may wait for others to share its request.
        resend_after_seconds: A profile that has not changed is not sent again before this; 0: always sent.
        unset_deleted: Whether an update also removes the properties of features that Flagsmith has deleted 1 to 90 days
            ago. Needs local evaluation.
        max_pending: How many profiles may be pending in memory, about 1.2 KB each at 50 flags.
        when_full: ``"drop"`` drops the oldest, counted and reported. ``"wait"`` is for batch jobs: the caller waits
            until Mixpanel has accepted what is pending, but not while a configuration error lasts: then the oldest are
            dropped.
        outbox: A file on a local disk, created if there is none; the URL of a Redis, Valkey or PostgreSQL server; or a
            backend of ``flagsync.outboxes``. Updates in it survive crashes and outages. Processes may share it: one
            sends at a time, and the latest state of each profile wins.
        cohorts: A store of Mixpanel cohorts. Each evaluation gets one boolean, transient trait for every cohort,
            unless the call passes a trait of that name. A caller waits at most 0.2 seconds for the store.
        on_error: Called for each incident, in a background thread; must not block.

    Raises:
        ValueError: An option is invalid. The message names the option and what is accepted.
    """

    _tuning: ClassVar[Tuning] = Tuning()  # a subclass may have another one

    def __init__(
        self,
        flagsmith: Flagsmith | str,
        mixpanel_token: str | None,
        *,
        region: Literal["us", "eu", "in"] = "us",
        mixpanel_url: str | None = None,
        distinct_id: Callable[[str], str | None] = SAME_IDENTIFIER,
        property_name: Callable[[str], str | None] = SAME_NAME,
        property_value: Callable[[Flag], PropertyValue] = SERVED_VALUE,
        experiment_name: Callable[[str], str | None] = SAME_NAME,
        variant_name: Callable[[Flag], str | None] = SERVED_VARIANT,
        exposure_properties: Callable[[str, Flag], Mapping[str, PropertyValue]] | None = None,
        flush_interval_seconds: float = 1.0,
        resend_after_seconds: float = 300.0,
        unset_deleted: bool = False,
        max_pending: int = 50_000,
        when_full: Literal["drop", "wait"] = "drop",
        outbox: Place | None = None,
        cohorts: MembershipReader | None = None,
        on_error: Callable[[DeliveryError], None] | None = None,
    ) -> None:
        self._options = Options(
            token=mixpanel_token.strip() if isinstance(mixpanel_token, str) else mixpanel_token,
            region=region,
            mixpanel_url=mixpanel_url,
            distinct_id=distinct_id,
            property_name=property_name,
            property_value=property_value,
            experiment_name=experiment_name,
            variant_name=variant_name,
            exposure_properties=exposure_properties,
            flush_interval_seconds=flush_interval_seconds,
            resend_after_seconds=resend_after_seconds,
            unset_deleted=unset_deleted,
            max_pending=max_pending,
            when_full=when_full,
            outbox=absolute(outbox),
            cohorts=cohorts,
            on_error=on_error,
            tuning=self._tuning,
        )
        flagsmith = flagsmith.strip() if isinstance(flagsmith, str) else flagsmith
        rules = client_rules(flagsmith, FlagSync, unset_deleted=unset_deleted)
        require({**rules, **self._options.rules()})
        check(self._options.outbox)
        self.flagsmith = Flagsmith(environment_key=flagsmith) if isinstance(flagsmith, str) else flagsmith
        """The wrapped client. Its public names work on this client, too, but type checkers know them only here."""
        self._pipelines = pipelines_of(self, self.flagsmith, self._options)
        self._evaluator = Evaluator(self.flagsmith, self._pipelines, self._options)
        self._async = AsyncCalls(self._evaluator)
        self._health = HealthCheck(self.flagsmith, self._pipelines, self._options)

    @classmethod
    def from_env(cls, **options: Unpack[EnvironmentOptions]) -> Self:
        """Build both clients from ``FLAGSMITH_ENVIRONMENT_KEY`` and ``MIXPANEL_TOKEN``.

        Optional are ``FLAGSMITH_API_URL``, ``FLAGSMITH_LOCAL_EVALUATION`` (true or false), ``MIXPANEL_REGION`` (us, eu
        or in), ``MIXPANEL_URL``, which replaces any region, and ``FLAGSYNC_OUTBOX``. ``FLAGSYNC_ENABLED=false``
        switches mirroring off: flags are evaluated, and neither a token nor the outbox is needed.

        Args:
            options: Those of ``FlagSync`` and of ``Flagsmith``, which win over the environment.

        Raises:
            ValueError: A variable is missing or wrong, or an option is invalid; the message names each.
            TypeError: There is no such option.
        """
        environment = read_environment(options)
        arguments = {**(FlagSync.__init__.__kwdefaults__ or {}), **environment.flagsync}
        checked = Options(token=arguments.pop("mixpanel_token"), tuning=cls._tuning, **arguments)
        require({**environment.rules, **checked.rules()})
        return cls(Flagsmith(**environment.flagsmith), **environment.flagsync)

    def get_identity_flags(
        self, identifier: str, traits: TraitMapping | None = None, *, transient: bool = False
    ) -> Flags:
        """Evaluate the flags of an identity and mirror them.

        Arguments, result and exceptions are those of ``Flagsmith.get_identity_flags``. A transient identity is
        evaluated, but not mirrored.
        """
        evaluator = self._evaluator  # without cohorts, the caller is spared the call that would add them
        merged = evaluator.merge(identifier, traits) if evaluator.has_cohorts else traits
        return evaluator.identity_flags(identifier, merged, transient=transient)

    async def aget_identity_flags(
        self, identifier: str, traits: TraitMapping | None = None, *, transient: bool = False
    ) -> Flags:
        """Evaluate as ``get_identity_flags`` does; in a thread, if that has to wait for Flagsmith or for a store."""
        return await self._async.identity_flags(identifier, traits, transient=transient)

    def get_environment_flags(self) -> Flags:
        """Return Flagsmith's answer, unchanged. Nothing is mirrored, since no identity is evaluated."""
        return self._evaluator.environment_flags()

    def mirror(self, identifier: str, flags: Flags) -> None:
        """Mirror flags that were evaluated elsewhere: on an async path, by another client. Never raises."""
        self._evaluator.mirror(identifier, flags)

    def get_experiment_flag(
        self, feature_name: str, identifier: str, traits: TraitMapping | None = None
    ) -> Flag | DefaultFlag:
        """Evaluate a flag for an identity that meets its experiment now; mirror the flags and record the exposure.

        If the Flagsmith client has events enabled, it records its own exposure, too.
        """
        merged = self._evaluator.merge(identifier, traits)
        return self._evaluator.experiment_flag(feature_name, identifier, traits, merged)

    async def aget_experiment_flag(
        self, feature_name: str, identifier: str, traits: TraitMapping | None = None
    ) -> Flag | DefaultFlag:
        """Evaluate and record as ``get_experiment_flag`` does; in a thread, if that has to wait.

        If the task is cancelled meanwhile, such as by a timeout, no exposure is recorded.
        """
        return await self._async.experiment_flag(feature_name, identifier, traits)

    def track_exposure(self, identifier: str, flag: Flag | DefaultFlag) -> None:
        """Record that an identity meets an experiment now, and that this flag decided what it sees. Never raises.

        Mixpanel gets one event for each user and experiment, and another one if the variant differs or after 25 days.
        Users outside the sample, such as those with an identity override, count as ``stats().exposures.skipped``.
        """
        self._evaluator.expose(identifier, flag)

    def flush(self, timeout_seconds: float = 10.0) -> bool:
        """Wait until all that was accepted before the call is settled; False after the timeout.

        Settled means delivered, unchanged, superseded, dropped or rejected: ``stats()`` tells which. A callback such as
        ``on_error``, which runs in a thread of the client, gets False at once.
        """
        return self._pipelines is None or self._pipelines.get().flush(monotonic() + timeout_seconds)

    async def aflush(self, timeout_seconds: float = 10.0) -> bool:
        """Wait as ``flush`` does, without blocking the event loop."""
        return await self._async.wait(lambda: self.flush(timeout_seconds))

    def close(self, timeout_seconds: float = 5.0) -> bool:
        """Flush and stop the threads; False if something was given up after the timeout. Idempotent.

        The client can still evaluate flags, but no longer mirrors them.
        """
        self._evaluator.stop()
        return self._pipelines is None or self._pipelines.get().close(monotonic() + timeout_seconds)

    async def aclose(self, timeout_seconds: float = 5.0) -> bool:
        """Close as ``close`` does, without blocking the event loop. If the task is cancelled, closing goes on."""
        return await self._async.wait(lambda: self.close(timeout_seconds))

    def stats(self) -> Stats:
        """Return what became of the calls of this process. Waits for no I/O."""
        return Stats() if self._pipelines is None else self._pipelines.get().stats()

    def health(self) -> ClientHealth:
        """Return whether mirroring works and, if not, why. Waits for no I/O. Evaluating does not depend on it."""
        return self._health.check()

    if not TYPE_CHECKING:  # pragma: no branch - with it, type checkers would accept any name
        __getattr__, __dir__ = delegated, names

    def __reduce__(self) -> Never:
        """Refuse to be pickled or copied."""
        raise TypeError(UNPICKLABLE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()
