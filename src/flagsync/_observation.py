"""Shows an observer, such as a hook of OpenFeature, what clients evaluate meanwhile in the same thread or task.

Guarantee: nothing is kept beyond the observation, and threads and tasks do not see each other's evaluations.
"""

from collections import deque
from contextvars import ContextVar
from typing import Final, NamedTuple

from flagsmith import Flagsmith
from flagsmith.models import Flags

# An exception that ends a program, such as KeyboardInterrupt, can leave an observation behind, which must not grow.
MAX_EVALUATIONS = 100


class Evaluation(NamedTuple):
    """What a Flagsmith client has evaluated.

    Attributes:
        flagsmith: The client.
        identifier: The identity; None: the environment's own flags.
        flags: The result.
        transient: Whether the identity is transient.
    """

    flagsmith: Flagsmith
    identifier: str | None
    flags: Flags
    transient: bool = False


class Observation:
    """The evaluations since an observer began.

    Args:
        subject: Whatever is observed; observers of the same object share the observation.
    """

    def __init__(self, subject: object) -> None:
        self.subject = subject
        self._evaluations = deque[Evaluation](maxlen=MAX_EVALUATIONS)

    def add(self, evaluation: Evaluation) -> None:
        """Add what was just evaluated."""
        self._evaluations.append(evaluation)

    def evaluation(self, flagsmith: Flagsmith, identifier: str | None) -> Evaluation | None:
        """Return what a client evaluated last for an identity; None if that cannot be told.

        If it evaluated nothing for this identity but something for a single other one, that is returned: the
        identifier may have been replaced meanwhile.
        """
        found = [evaluation for evaluation in self._evaluations if evaluation.flagsmith is flagsmith]
        found = [evaluation for evaluation in found if evaluation.identifier == identifier] or found
        is_clear = all(evaluation.identifier == found[0].identifier for evaluation in found)
        return found[-1] if found and is_clear and len(self._evaluations) < MAX_EVALUATIONS else None


CURRENT: Final = ContextVar[Observation | None]("flagsync_observation", default=None)


def observed(evaluation: Evaluation) -> Flags:
    """Return the flags of an evaluation, and show it to who observes."""
    if (observation := CURRENT.get()) is not None:
        observation.add(evaluation)
    return evaluation.flags
