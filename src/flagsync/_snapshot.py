"""Flags -> what one identity was served; the only module that knows the insides of ``Flags``.

Guarantee: the caller's ``Flags`` is read, never changed and never raced with, and nothing counts as usage
in Flagsmith's analytics.
"""

import hashlib
import marshal
from collections import deque
from collections.abc import Callable, Collection
from typing import Any

from flagsmith.models import Flag, Flags

# The format that tells True from 1 from 1.0, and writes equal values equally (no interning, no references).
_FAITHFUL = 0


def essence(flags: Flags) -> Any:  # noqa: ANN401 - Flagsmith's context is a dict of its own
    """What is worth keeping until the flags are read: of a lazy ``Flags``, less than it is itself.

    Objects kept are objects for the garbage collector to look at, in the caller's time.
    """
    return getattr(flags, "_context", None) or flags  # nothing public tells a lazy Flags (flagsmith 6.3)


def is_evaluated(kept: Any) -> bool:  # noqa: ANN401
    """False of the empty ``Flags`` that a ``default_flag_handler`` fills (flagsmith 6.3)."""
    return isinstance(kept, dict) or bool(getattr(kept, "flags", True))


def flags_of(kept: Any) -> Collection[Flag]:  # noqa: ANN401
    """Every flag of the identity.

    A lazy ``Flags`` is evaluated as a private twin: the caller's own memo fills up while it reads, and can
    disagree with a fresh evaluation where features depend on each other (flagsmith 6.3).
    """
    if isinstance(kept, dict):
        context: Any = kept
        return Flags.from_evaluation_context(context, {}, None, None).all_flags()
    return kept.flags.values()  # type: ignore[no-any-return]


class EvaluationKeys:
    """Tells the evaluations that must have the same result."""

    def __init__(self, pause: Callable[[], None]) -> None:
        self._pause = pause
        # Two: calls from before and after a refresh of the document may alternate.
        self._documents: deque[tuple[object, object, bytes]] = deque(maxlen=2)

    def of(self, kept: Any) -> int | None:  # noqa: ANN401
        """A number for (document, identifier, traits); None where only evaluating can tell.

        Traits count by name, value and type: ``True`` and ``1`` match different segments.
        """
        if not isinstance(kept, dict):
            return None
        try:
            # The hash of bytes is a keyed siphash: 64 bits that collide by accident only.
            return hash(self._document(kept) + marshal.dumps(kept["identity"], _FAITHFUL))
        except (KeyError, TypeError, ValueError):
            return None  # a trait of the application's own type

    def _document(self, context: dict[str, Any]) -> bytes:
        """A digest of the document's content: each refresh builds new objects, changed or not."""
        features, segments = context.get("features"), context.get("segments")
        for known_features, known_segments, digest in self._documents:
            if known_features is features and known_segments is segments:
                return digest
        content = hashlib.blake2b(repr(context.get("environment")).encode(), digest_size=16)
        for item in [*(features or {}).items(), *(segments or {}).items()]:
            content.update(repr(item).encode(errors="surrogatepass"))
            self._pause()
        self._documents.append((features, segments, content.digest()))
        return content.digest()
