"""Records exposures of flags that an application evaluates through OpenFeature; needs ``flagsync[openfeature]``.

Guarantee: the flag that decides is the one that was evaluated, with its reason; nothing is evaluated again, and an
evaluation never fails because of the hook. Boundary: evaluations of Flagsmith's own provider, with a ``FlagSync``.
"""

from collections.abc import Collection
from typing import Any, Final

from flagsmith.models import Flag

from flagsync._client import FlagSync
from flagsync._encoding.distinct_id import NotMirrored
from flagsync._observation import CURRENT, Evaluation, Observation
from flagsync._rules import require, shown

try:
    from openfeature.flag_evaluation import FlagEvaluationDetails
    from openfeature.hook import Hook, HookContext, HookHints
    from openfeature_flagsmith.exceptions import FlagsmithProviderError
except ImportError as error:
    raise ImportError(
        f"flagsync.openfeature needs OpenFeature's SDK and Flagsmith's provider ({error}): "
        "pip install 'flagsync[openfeature]'",
        name=error.name,
    ) from error

__all__ = ["MixpanelExposureHook"]

NO_KEY: Final = NotMirrored("OpenFeature evaluated the flag without a targeting key")
OTHER_CLIENT: Final = NotMirrored(
    "OpenFeature did not evaluate the flag with the FlagSync of the hook: pass the same one to "
    "FlagsmithProvider(client=…) and to MixpanelExposureHook"
)
TRANSIENT: Final = NotMirrored("the identity is transient")
CODE_DEFAULT: Final = NotMirrored("the evaluation failed, so OpenFeature returned the default of the call")


class MixpanelExposureHook(Hook):
    """Records that an identity meets an experiment when OpenFeature evaluates its flag.

    Add it where the user meets the experiment, to the options of the evaluation, or with ``experiments`` to the client
    or the API of OpenFeature. Exposures are recorded as by ``FlagSync.track_exposure``, the control group included. A
    flag that is off is met as well, even though the provider reports an error for it. Evaluations without a targeting
    key, of a transient identity, or that end in the default of the call for another reason, count as
    ``stats().exposures.skipped``.

    Args:
        client: The one that was passed to ``FlagsmithProvider(client=…)``.
        experiments: Names of the features that are experiments; None: each feature for which the hook is called.

    Raises:
        ValueError: An argument is invalid.
    """

    def __init__(self, client: FlagSync, *, experiments: Collection[str] | None = None) -> None:
        are_names = (
            isinstance(experiments, Collection)
            and not isinstance(experiments, str)
            and all(isinstance(name, str) for name in experiments)
        )
        require(
            {
                "client must be the FlagSync that FlagsmithProvider evaluates with, not "
                f"{shown(client)}": isinstance(client, FlagSync),
                "experiments must be a collection of feature names, such as {'checkout'}, or None for every flag, not "
                f"{shown(experiments)}": experiments is None or are_names,
            }
        )
        self._client = client
        client._evaluator.is_observed = True  # noqa: SLF001 - what only hooks need is no option of the client
        self._experiments = None if experiments is None else frozenset(experiments)

    def before(self, hook_context: HookContext, hints: HookHints) -> None:  # noqa: ARG002 - the SDK names them
        """Begin to observe what the provider evaluates."""
        # All hooks of an evaluation get the same context, and each evaluation has one of its own (openfeature-sdk 0.9).
        subject, outer = hook_context.evaluation_context, CURRENT.get()
        observation = outer if outer is not None and outer.subject is subject else Observation(subject)
        hook_context.hook_data.update(outer=outer, observation=observation)
        CURRENT.set(observation)

    def error(self, hook_context: HookContext, exception: Exception, hints: HookHints) -> None:  # noqa: ARG002
        """Note whether the provider has refused to return a value."""
        hook_context.hook_data["is_refused"] = isinstance(exception, FlagsmithProviderError)

    def finally_after(
        self,
        hook_context: HookContext,
        details: FlagEvaluationDetails[Any],
        hints: HookHints,  # noqa: ARG002
    ) -> None:
        """Record the exposure. Unlike ``after``, this method knows how the evaluation ended and cannot change it."""
        data, evaluation = hook_context.hook_data, None
        identifier = hook_context.evaluation_context.targeting_key
        if "observation" in data:  # it is not if the hook of somebody else has failed before
            CURRENT.set(data["outer"])
            evaluation = data["observation"].evaluation(self._client.flagsmith, identifier)
        if self._experiments is None or hook_context.flag_key in self._experiments:
            identifier = identifier if evaluation is None else evaluation.identifier
            flag = _met(evaluation, details, is_refused=data.get("is_refused", False)) if identifier else NO_KEY
            self._client.track_exposure(identifier, flag)  # type: ignore[arg-type] # it takes reasons, too


def _met(
    evaluation: Evaluation | None, details: FlagEvaluationDetails[Any], *, is_refused: bool
) -> Flag | NotMirrored | None:
    """Return the flag that decided what the application got; None or a reason if none did."""
    if evaluation is None:
        return None if details.error_code else OTHER_CLIENT
    if evaluation.transient:
        return TRANSIENT
    # The provider has read it; get_flag() would count it in Flagsmith's analytics once more.
    flag = evaluation.flags.flags.get(details.flag_key)
    is_off = is_refused and flag is not None and not flag.enabled
    return CODE_DEFAULT if flag is not None and details.error_code and not is_off else flag
