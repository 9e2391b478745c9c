"""``Flags`` -> what one identity was served; the only module that knows the insides of ``Flags``.

Guarantee: the caller's ``Flags`` is read, never changed and never raced with, and nothing counts as usage in
Flagsmith's analytics.
"""

import hashlib
import marshal
from collections import deque
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeAlias

from flagsmith.models import Flag, Flags

from flagsync._report import is_interrupt_of_application

# The format that tells True from 1 from 1.0, and writes equal values equally: no interning, no references.
_EXACT_FORMAT = 0

Evaluation: TypeAlias = Flags | dict[str, Any]
"""What flags can be read from: Flagsmith's evaluation context, or ``Flags`` that are complete."""


def evaluation_of(flags: Flags) -> Evaluation:
    """Return what is worth keeping until the flags are read. Never raises, whatever the object is.

    Of a lazy ``Flags`` that is less than it is itself, and objects that are kept cost garbage collections.
    """
    # type() asks nothing of an object that may raise, as isinstance() does.
    try:
        if type(flags) is Flags or issubclass(type(flags), Flags):
            return (
                getattr(flags, "_context", None) or flags
            )  # nothing public tells a lazy Flags (flagsmith 6.3)
    except BaseException as error:
        if is_interrupt_of_application(error):
            raise
    return flags


def is_evaluated(evaluation: Evaluation) -> bool:
    """Return False for the empty ``Flags`` that a ``default_flag_handler`` fills (flagsmith 6.3)."""
    return isinstance(evaluation, dict) or bool(getattr(evaluation, "flags", True))


def read_flags(evaluation: Evaluation) -> Collection[Flag]:
    """Return every flag of the identity.

    A lazy ``Flags`` is evaluated as a private twin: the caller's own memo fills up while the caller reads, and can
    disagree with a fresh evaluation where features depend on each other (flagsmith 6.3).
    """
    if isinstance(evaluation, dict):
        return Flags.from_evaluation_context(evaluation, {}, None, None).all_flags()  # type: ignore[arg-type]
    return evaluation.flags.values()


class EvaluationKeys:
    """Numbers that are equal for evaluations which must have the same result.

    Args:
        pause: Called between pieces of work.
    """

    def __init__(self, pause: Callable[[], None]) -> None:
        self._pause = pause
        # Two: calls from before and after a refresh of the document may alternate.
        self._documents: deque[tuple[object, object, bytes]] = deque(maxlen=2)

    def of(self, evaluation: Evaluation) -> int | None:
        """Return a number for (document, identifier, traits); None where only evaluating can tell.

        Traits count by name, value and type: ``True`` and ``1`` match different segments.
        """
        if not isinstance(evaluation, dict):
            return None
        try:
            # The hash of bytes is a keyed siphash: 64 bits, which only collide by accident.
            return hash(self._document(evaluation) + marshal.dumps(evaluation["identity"], _EXACT_FORMAT))
        except (KeyError, TypeError, ValueError):
            return None  # a trait of the application's own type

    def _document(self, context: Mapping[str, object]) -> bytes:
        """Return a digest of the document's content: each refresh builds new objects, changed or not."""
        features, segments = context.get("features"), context.get("segments")
        for known_features, known_segments, digest in self._documents:
            if known_features is features and known_segments is segments:
                return digest
        content = hashlib.blake2b(repr(context.get("environment")).encode(), digest_size=16)
        for part in (features, segments):
            for item in part.items() if isinstance(part, Mapping) else ():
                content.update(repr(item).encode(errors="surrogatepass"))
                self._pause()
        self._documents.append((features, segments, content.digest()))
        return content.digest()
