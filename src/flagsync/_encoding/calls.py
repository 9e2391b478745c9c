"""Calls that wait to be encoded, as text, bytes and numbers.

Guarantee: under local evaluation a waiting call holds nothing that the garbage collector must look at: the traits are
bytes, and a number stands for the environment document that all calls share. A document is not forgotten while a call
waits that refers to it. Only a call under another document than the one before takes a lock.
"""

import threading
from collections.abc import Iterable
from itertools import count
from marshal import dumps, loads
from typing import NamedTuple, TypeAlias

from flagsmith.models import Flags

from flagsync._clock import monotonic
from flagsync._encoding.evaluation import Context, Identity, context_of
from flagsync._report import is_interrupt_of_application

# The version of marshal that tells True, 1 and 1.0 apart, and gives equal values equal bytes in every process.
EXACT_FORMAT = 0
# Several environments may be used in turn. It is also far longer than a thread takes from making a call to adding it.
KEPT_SECONDS = 5.0

Call: TypeAlias = tuple[object, int, bytes | Identity | Flags, float]
"""An identifier, the number of a document, what to evaluate, and the time of the call (``time.monotonic()``).

What to evaluate is the identity's traits, marshalled; the whole identity, where they are not enough; or the flags
themselves, with the number 0, where they did not come from a document.
"""


class Exposure(NamedTuple):
    """A call of an identity that meets an experiment.

    Attributes:
        identifier: The identifier as the application passed it.
        document: The number of the document that was used last; 0 if there is none.
        flag: The flag that decided, why none did (``NotMirrored``), or whatever the application passed.
        met_at: ``time.monotonic()``.
    """

    identifier: object
    document: int
    flag: object
    met_at: float


class Calls:
    """Makes calls, and keeps the documents that they refer to.

    Args:
        kept_seconds: How long a document is kept after its last use, even if no call waits that refers to it.
    """

    def __init__(self, kept_seconds: float = KEPT_SECONDS) -> None:
        self._kept_seconds = kept_seconds
        self._lock = threading.RLock()  # held while documents are added and forgotten
        self._next = count(1)
        self._documents: dict[int, Context] = {}
        self._kept_until: dict[int, float] = {}  # when a document retires
        # By the id() of their features and segments, since each refresh makes new ones.
        self._found: dict[tuple[int, int], _Found] = {}
        self._last = _NONE

    def make(self, identifier: object, flags: Flags) -> Call:
        """Return a call. Raises nothing but what a signal handler of the application raises meanwhile."""
        if (context := context_of(flags)) is None:
            return identifier, 0, flags, monotonic()
        # Written for speed: the caller pays for it.
        features, segments, number = self._last
        try:
            identity = context["identity"]
            if context["features"] is not features or context["segments"] is not segments:
                number = self._number(context)
            if (identity["identifier"] is identifier or _is_same(identity["identifier"], identifier)) and (
                "key" not in identity
            ):
                try:
                    return identifier, number, dumps(identity["traits"], EXACT_FORMAT), monotonic()
                except ValueError:  # a trait of the application's own type
                    pass
        except BaseException as error:
            if is_interrupt_of_application(error) or _was_raised_elsewhere(error, context):
                raise
            # It is no context of Flagsmith's, and is rejected where it would be evaluated.
            return identifier, 0, context, monotonic()
        return identifier, number, identity, monotonic()

    def expose(self, identifier: object, flag: object) -> Exposure:
        """Return an exposure. Never raises, whatever the objects are."""
        return Exposure(identifier, self._last.number, flag, monotonic())

    def document(self, number: int) -> Context:
        """Return a document: a context without an identity.

        Raises:
            KeyError: The document was forgotten.
        """
        return self._documents[number]

    def has_document(self, number: int) -> bool:
        """Whether a document is not forgotten."""
        return number in self._documents

    def retire(self) -> list[int]:
        """Return the documents that no call made from now on refers to, since they have not been used for a while."""
        with self._lock:
            now = monotonic()
            used = {number for number, until in self._kept_until.items() if until > now} | {self._last.number}
            self._found = {key: found for key, found in self._found.items() if found.number in used}
            self._kept_until = {number: until for number, until in self._kept_until.items() if number in used}
            return [number for number in self._documents if number not in used]

    def forget(self, numbers: Iterable[int]) -> None:
        """Forget retired documents, once all calls that were waiting when they retired are encoded."""
        for number in numbers:
            del self._documents[number]

    def _number(self, context: Context) -> int:
        features, segments = context["features"], context["segments"]
        key = id(features), id(segments)
        with self._lock:
            if (found := self._found.get(key)) is None:
                found = self._found[key] = _Found(features, segments, next(self._next))
                self._documents[found.number] = {k: v for k, v in context.items() if k != "identity"}
            # The last one was in use until now, too: its other calls did not come here.
            self._kept_until[self._last.number] = self._kept_until[found.number] = (
                monotonic() + self._kept_seconds
            )
            self._last = found
            return found.number


class _Found(NamedTuple):
    """A document in use. It keeps the features and segments, so that no other object gets their ``id()``."""

    features: object
    segments: object
    number: int


_NONE = _Found(object(), object(), 0)


def _was_raised_elsewhere(error: BaseException, context: Context) -> bool:
    """Whether a signal handler has raised an error, and not the context: plain dictionaries raise little."""
    is_plain = _is_plain(context) and _is_plain(context.get("identity"))
    return is_plain and not isinstance(error, KeyError | MemoryError)


def _is_same(one: object, other: object) -> bool:
    return type(one) is type(other) is str and one == other


def _is_plain(value: object) -> bool:
    return type(value) is dict and all(type(key) is str for key in value)


def identity_of(identifier: object, traits: bytes) -> Identity:
    """Return the identity of a call whose traits are marshalled, as Flagsmith's engine takes it."""
    return {"identifier": identifier, "traits": loads(traits)}  # noqa: S302 - bytes of this process
