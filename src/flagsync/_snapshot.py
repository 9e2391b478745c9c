"""Flags -> what one identity was served; the only module that knows the insides of ``Flags``.

Guarantee: the caller's ``Flags`` is read, never changed and never raced with, and nothing counts as usage
in Flagsmith's analytics.
"""

import hashlib
import marshal
from collections import deque
from collections.abc import Callable
from typing import Any

from flagsmith.models import Flag, Flags

# The format that tells True from 1 from 1.0, and writes equal values equally (no interning, no references).
_FAITHFUL = 0


def flags_of(flags: Flags) -> list[Flag]:
    """Every flag of the identity; empty if Flagsmith evaluated nothing.

    A lazy ``Flags`` is evaluated as a private twin: the caller's own memo fills up while it reads, and can
    disagree with a fresh evaluation where features depend on each other (flagsmith 6.3).
    """
    if (context := flags._context) is None:  # noqa: SLF001 - nothing public tells a lazy Flags (flagsmith 6.3)
        return list(flags.flags.values())
    return Flags.from_evaluation_context(context, {}, None, None).all_flags()


class EvaluationKeys:
    """Tells the evaluations that must have the same result."""

    def __init__(self, pause: Callable[[], None]) -> None:
        self._pause = pause
        # Two: calls from before and after a refresh of the document may alternate.
        self._documents: deque[tuple[object, object, bytes]] = deque(maxlen=2)

    def of(self, flags: Flags) -> int | None:
        """A number for (document, identifier, traits); None where only evaluating can tell.

        Traits count by name, value and type: ``True`` and ``1`` match different segments.
        """
        context: Any = flags._context  # noqa: SLF001
        try:
            # The hash of bytes is a keyed siphash: 64 bits that collide by accident only.
            return context and hash(self._document(context) + marshal.dumps(context["identity"], _FAITHFUL))
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
