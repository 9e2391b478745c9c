"""Which variant a flag served, and whether the user who met it belongs to the sample.

Guarantee: two users whom Flagsmith serves differently have different variants, unless these have the same text (a
value ``"control"`` without a key, or ``"false"``), with the same names under remote and local evaluation. Boundary: a
remote answer has no reason, so users with an identity override and users outside a rollout cannot be told from others.
"""

import json
import re
from typing import Final, NamedTuple

from flagsmith.models import Flag

from flagsync._encoding.evaluation import Context

OVERRIDE: Final = "TARGETING_MATCH; segment=identity_overrides"
SPLIT: Final = "SPLIT"  # "SPLIT; weight=30.0": an option of a multivariate flag (flagsmith-flag-engine 11.1)
OUTSIDE: Final = "DEFAULT"  # the feature is targeted, and no segment matched
# The segment with which Flagsmith's server (2.265) enrols users in an experiment with a rollout below 100 %.
ROLLOUT = re.compile(r"experiment-\d+-rollout")

NO_FLAG = "it needs a Flag that Flagsmith has evaluated; a default flag does not count"
DISABLED = "the multivariate flag is disabled, so nobody is served a variant"
HAND_PICKED = "the flag is overridden for this identity, which is therefore not part of a random sample"
NOT_ENROLLED = "the identity is outside the rollout of the running experiment"


def served_variant(flag: Flag) -> str:
    """Return the key of the variant; without one, the served value as text, or whether the flag is enabled.

    The control group is a variant as well, whatever the reason says.
    """
    if flag.variant:
        return flag.variant
    if not flag.enabled or flag.value is None:
        return "true" if flag.enabled else "false"
    text = flag.value if isinstance(flag.value, str) else json.dumps(flag.value)
    return text if text.strip() else "true"


class Experiments(NamedTuple):
    """What an environment document says of experiments.

    Attributes:
        multivariate: The features that have variants.
        with_rollout: The features whose running experiment has a rollout below 100 %.
    """

    multivariate: frozenset[str] = frozenset()
    with_rollout: frozenset[str] = frozenset()


NOTHING_KNOWN: Final = Experiments()


def experiments_of(context: Context) -> Experiments:
    """Return what a document says of experiments."""
    features, segments = ((context.get(name) or {}).values() for name in ("features", "segments"))
    running = (segment for segment in segments if ROLLOUT.fullmatch(str(segment.get("name"))))
    return Experiments(
        frozenset(feature["name"] for feature in features if feature.get("variants")),
        frozenset(override["name"] for segment in running for override in segment.get("overrides") or ()),
    )


def no_sample(flag: object, experiments: Experiments = NOTHING_KNOWN) -> str | None:
    """Return why an exposure to a flag is not recorded; None if it is.

    Args:
        flag: What ``get_flag()`` of an identity's flags returned.
        experiments: What the document says from which it was evaluated.
    """
    if not isinstance(flag, Flag) or flag.is_default:
        return NO_FLAG
    reason = getattr(flag, "reason", None) or ""  # flagsmith 6.1 has none
    if reason == OVERRIDE:
        return HAND_PICKED
    # If a segment switches a flag off, neither its variant nor its reason tells that it has variants.
    if not flag.enabled and (
        flag.variant or reason.startswith(SPLIT) or flag.feature_name in experiments.multivariate
    ):
        return DISABLED
    experiment = getattr(flag, "experiment", None)  # flagsmith 6.3; remote answers of newer servers have it
    is_outside = reason == OUTSIDE and flag.feature_name in experiments.with_rollout
    if is_outside or (experiment and not experiment.in_experiment):
        return NOT_ENROLLED
    return None
