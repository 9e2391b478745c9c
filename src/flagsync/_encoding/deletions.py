"""Properties of features that were deleted in Flagsmith, which are removed from profiles.

Guarantee: a property is removed only if this library wrote it, and if the document of the environment has lacked its
feature for a day, as far as all processes of the outbox know. An archived feature is still in the document. Boundary:
what an outbox in memory knows ends with its process.
"""

import json
from collections.abc import Collection, Mapping
from hashlib import blake2b
from typing import NamedTuple

from flagsync._clock import time
from flagsync._encoding.evaluation import Context
from flagsync._encoding.properties import MAX_NAME_CHARACTERS
from flagsync._outbox.contract import Destination, Intake

ABSENT_SECONDS = 86_400.0  # from the first document without a feature until its properties are removed
# Later than this after that document, they are left alone, so that records do not grow with each deleted feature.
REMOVED_SECONDS = 90 * 86_400.0
LOOK_SECONDS = 3600.0


class Deletions:
    """Knows which properties of deleted features profiles may still have.

    Args:
        outbox: Where it is noted which properties were written, and since when they are absent.
        destination: The Mixpanel project.
    """

    def __init__(self, outbox: Intake, destination: Destination) -> None:
        self._outbox, self._destination = outbox, destination
        self._looked_at = 0.0  # seconds since 1970; 0.0: not yet
        # By environment, for the time that the outbox cannot be used.
        self._found: dict[str, tuple[str, ...]] = {}

    def is_due(self) -> bool:
        """Return whether it is time to look again: a feature may have been absent for long enough."""
        return self._looked_at > 0 and abs(time() - self._looked_at) >= LOOK_SECONDS

    def of(self, document: Context, properties: Mapping[str, str]) -> tuple[str, ...]:
        """Return the names of the properties to remove under an environment document, and note those it writes.

        Args:
            document: The document.
            properties: Feature name -> property name, of the features that have one.
        """
        self._looked_at = time()
        environment = _digest_of(document.get("environment"))
        stored = {feature: name[:MAX_NAME_CHARACTERS] for feature, name in properties.items()}
        written = [Written(environment, *one) for one in stored.items()]
        if (kept := self._noted({})) is not None:
            kept |= self._noted(_changes(kept, written, environment, document["features"])) or {}
            self._found[environment] = _removable(kept, environment)
        return self._found.get(environment, ())

    def _noted(self, since: Mapping["Written", float]) -> "dict[Written, float] | None":
        """Note since when properties are absent; return what is known of all."""
        texts = {json.dumps(one): time for one, time in since.items()}
        kept = self._outbox.note_absences(self._destination, texts)
        return None if kept is None else {Written(*json.loads(text)): time for text, time in kept.items()}


def _digest_of(environment: object) -> str:
    """Return a text that tells environments apart, whatever their names are."""
    key = environment.get("key") if isinstance(environment, Mapping) else None
    return blake2b(f"{key}".encode(errors="surrogatepass"), digest_size=8).hexdigest()


class Written(NamedTuple):
    """A property that was written.

    Attributes:
        environment: Tells environments of Flagsmith apart.
        feature: The name of the feature.
        name: The name of the property, as Mixpanel stores it.
    """

    environment: str
    feature: str
    name: str


def _changes(
    kept: Mapping[Written, float], written: Collection[Written], environment: str, features: Collection[str]
) -> dict[Written, float]:
    """Return what changes with a document: properties that are written again, and those of features that it lacks."""
    now = time()
    lacking = [one for one in kept if one.environment == environment and one.feature not in features]
    return {one: 0.0 for one in written if kept.get(one, now)} | {one: now for one in lacking if not kept[one]}


def _removable(kept: Mapping[Written, float], environment: str) -> tuple[str, ...]:
    """Return the names of properties that an environment has lacked for long enough, and that none writes."""
    now = time()
    present = {one.name for one, since in kept.items() if not since}
    absent = {
        one.name
        for one, since in kept.items()
        if one.environment == environment and since and ABSENT_SECONDS <= now - since < REMOVED_SECONDS
    }
    return tuple(sorted(absent - present))
