"""An environment document in parts, by what decides on a flag: nothing, some traits, a variant, or the identity.

Guarantee: the parts together give the flags that Flagsmith's engine returns for the whole document, or raise what it
raises. Boundary: ``division`` decides which part a flag is in.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from marshal import dumps

from flagsmith.models import Flag

from flagsync._encoding.calls import EXACT_FORMAT
from flagsync._encoding.evaluation import Context, Identity, evaluate
from flagsync._encoding.split import Split

# The engine tries to convert each trait to a number, and Python refuses more digits (sys.get_int_max_str_digits).
MAX_TRAITS_BYTES = 4000


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """An environment document, divided into parts.

    Attributes:
        digest: Equal for equal content, in every process: 16 bytes.
        features: The names of all features, in their order.
        constant: The flags that are the same for every identity.
        traits: The names of the traits that ``by_traits`` depends on.
        by_traits: The part whose flags are the same for equal ``traits``; a context without an identity.
        splits: The features whose flag is the same for all identities with the same variant.
        by_identity: The part with the other flags.
        whole: The document.
    """

    digest: bytes
    features: tuple[str, ...]
    constant: tuple[Flag, ...]
    traits: tuple[str, ...]
    by_traits: Context
    splits: tuple[Split, ...]
    by_identity: Context
    whole: Context

    def traits_key(self, identity: Identity) -> bytes:
        """Return what ``by_traits`` depends on; equal for equal values of equal types."""
        traits = identity["traits"]
        return dumps([traits.get(name) for name in self.traits], EXACT_FORMAT)

    def evaluate_by_traits(self, identity: Identity) -> list[Flag]:
        """Return the flags that depend on ``traits``. Raises what the engine raises."""
        return evaluate({**self.by_traits, "identity": identity})

    def identity_key(self, identifier: object) -> str:
        """Return the key from which the engine computes an identity's variants. Raises what the engine raises."""
        return f"{self.whole['environment']['key']}_{identifier}"

    def evaluate_split(self, split: Split, identity: Identity) -> list[Flag]:
        """Return the flag of a split. Raises what the engine raises."""
        features = {split.name: split.feature}
        return evaluate({**self.whole, "features": features, "segments": {}, "identity": identity})

    def evaluate_by_identity(self, identity: Identity) -> list[Flag]:
        """Return the flags that are in none of the other parts. Raises what the engine raises."""
        part = self.by_identity
        if self.by_identity is not self.whole and not (part["features"] or part["segments"]):
            self.identity_key(identity["identifier"])
            return []
        return evaluate({**part, "identity": identity})

    def evaluate_whole(self, identity: Identity) -> list[Flag]:
        """Return all flags but the constant ones, in the order of the parts. Raises what the engine raises.

        It is for identities whose traits may make the engine raise in any segment: those of types other than Python's
        own, or longer than ``MAX_TRAITS_BYTES``.
        """
        if self.by_identity is self.whole:
            return self.evaluate_by_identity(identity)
        flags = {flag.feature_name: flag for flag in evaluate({**self.whole, "identity": identity})}
        splits = [split.name for split in self.splits]
        return [flags[name] for name in (*self.by_traits["features"], *splits, *self.by_identity["features"])]


def digest_of(context: Context, pause: Callable[[], None]) -> bytes:
    """Return a digest of a document's content, since each refresh builds new objects, changed or not."""
    content = blake2b(repr(context.get("environment")).encode(errors="surrogatepass"), digest_size=16)
    for name in ("features", "segments"):
        part = context.get(name)
        for item in part.items() if isinstance(part, Mapping) else ():
            content.update(repr(_without_random_key(*item)).encode(errors="surrogatepass"))
            pause()
        content.update(b"\0")
    return content.digest()


def _without_random_key(key: object, item: object) -> object:
    """Leave out the key of a segment that holds the overrides of identities.

    It is the result of ``hash()``, which differs in each process, and nothing depends on it (flagsmith 6.3).
    """
    if isinstance(item, Mapping) and item.get("metadata") == {"source": "identity_overrides"}:
        return {name: value for name, value in item.items() if name != "key"}
    return key, item
