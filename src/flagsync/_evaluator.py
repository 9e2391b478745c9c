"""Evaluates flags with a Flagsmith client, and hands the result on.

Guarantee: the caller gets, value or exception, what the Flagsmith client gives; mirroring neither changes nor delays
it. Boundary: what happens behind ``submit`` and ``expose`` is the pipeline's.
"""

from flagsmith import Flagsmith
from flagsmith.exceptions import FlagsmithAPIError
from flagsmith.models import DefaultFlag, Flag, Flags
from flagsmith.types import TraitMapping

from flagsync._experiments import experiment_flag
from flagsync._messages import NO_FLAGS, no_answer
from flagsync._observation import Evaluation, observed
from flagsync._options import Options
from flagsync._pipeline import Pipeline
from flagsync._process import PerProcess
from flagsync._report import Reporter
from flagsync._rules import shown
from flagsync.cohorts.environment import ignored_traits
from flagsync.cohorts.lookup import CohortTraits


class Evaluator:
    """Evaluates for one client.

    Args:
        flagsmith: Decides about the flags.
        pipelines: Mirror them; None: nothing is mirrored.
        options: Those of the client.

    Attributes:
        has_cohorts: Whether ``merge`` may add traits.
        is_observed: Whether evaluations are shown to observers. Each call would pay for asking whether there is one.
    """

    def __init__(self, flagsmith: Flagsmith, pipelines: PerProcess[Pipeline] | None, options: Options) -> None:
        self._flagsmith, self._pipelines, self._waits = flagsmith, pipelines, options.when_full == "wait"
        self.is_observed = False
        self._cohorts, self.has_cohorts = None, options.cohorts is not None
        if options.cohorts is not None:
            report = Reporter(None)
            self._cohorts = CohortTraits(options.cohorts, report)
            if warning := ignored_traits(flagsmith):
                report.warn_once(warning)

    def may_wait(self) -> bool:
        """Return whether an evaluation may wait for Flagsmith, or for room in the outbox (flagsmith 6.3)."""
        flagsmith = self._flagsmith
        is_local = getattr(flagsmith, "offline_mode", False) or getattr(
            flagsmith, "enable_local_evaluation", False
        )
        return self._waits or not (is_local and getattr(flagsmith, "_evaluation_context", None))

    def must_ask_store(self, identifier: str) -> bool:
        """Return whether ``merge`` would wait for the store of cohorts."""
        return self._cohorts is not None and self._cohorts.must_ask_store(identifier)

    def merge(
        self, identifier: str, traits: TraitMapping | None, *, may_ask: bool = True
    ) -> TraitMapping | None:
        """Return the traits of a call with the cohorts of its identity; only cached ones, unless it may ask."""
        return traits if self._cohorts is None else self._cohorts.merge(identifier, traits, may_ask=may_ask)

    def identity_flags(self, identifier: str, merged: TraitMapping | None, *, transient: bool) -> Flags:
        """Evaluate the flags of an identity with merged traits, and mirror them unless it is transient."""
        try:
            flags = self._flagsmith.get_identity_flags(identifier, merged, transient=transient)
        except FlagsmithAPIError as error:
            if self._pipelines is not None and (explanation := no_answer(error)):
                self._pipelines.get().report.warn_once(explanation)
            raise
        if self._pipelines is not None:
            pipeline = self._pipelines.get()
            pipeline.encoder.skip() if transient else pipeline.encoder.submit(identifier, flags)
            if self._waits:
                pipeline.wait_for_room()
        if self.is_observed:
            return observed(Evaluation(self._flagsmith, identifier, flags, transient))
        return flags

    def environment_flags(self) -> Flags:
        """Return the environment's own flags, as the Flagsmith client gives them."""
        return observed(Evaluation(self._flagsmith, None, self._flagsmith.get_environment_flags()))

    def experiment_flag(
        self, feature_name: str, identifier: str, traits: TraitMapping | None, merged: TraitMapping | None
    ) -> Flag | DefaultFlag:
        """Evaluate a flag with merged traits, mirror the flags and record the exposure with the traits of the call."""
        flags = self.identity_flags(identifier, merged, transient=False)
        return self.met_flag(flags, feature_name, identifier, traits)

    def met_flag(
        self,
        flags: Flags,
        feature_name: str,
        identifier: str,
        traits: TraitMapping | None,
        *,
        may_wait: bool = True,
    ) -> Flag | DefaultFlag:
        """Return a flag of an identity that meets its experiment now, and record the exposure."""
        flag = experiment_flag(self._flagsmith, flags, feature_name, identifier, traits)
        self.expose(identifier, flag, may_wait=may_wait)
        return flag

    def stop(self) -> None:
        """End the thread that asks the store of cohorts, until it is needed again."""
        if self._cohorts is not None:
            self._cohorts.stop()

    def mirror(self, identifier: str, flags: Flags) -> None:
        """Mirror flags that were evaluated elsewhere."""
        if self._pipelines is not None:
            pipeline = self._pipelines.get()
            kind = type(flags)  # it asks nothing of an object that may raise
            if kind is not Flags and not issubclass(kind, Flags):
                pipeline.report.warn_once(NO_FLAGS.format(shown(flags)))
                pipeline.encoder.skip()
                return
            pipeline.encoder.submit(identifier, flags)
            if self._waits:
                pipeline.wait_for_room()

    def expose(self, identifier: str, flag: Flag | DefaultFlag, *, may_wait: bool = True) -> None:
        """Record that an identity meets an experiment now; wait for room in the outbox only if that is allowed."""
        if self._pipelines is not None:
            pipeline = self._pipelines.get()
            pipeline.encoder.expose(identifier, flag)
            if self._waits and may_wait:
                pipeline.wait_for_room()
