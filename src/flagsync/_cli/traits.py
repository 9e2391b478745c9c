"""Traits of a command line: ``name=value`` is text, and ``name:type=value`` has a type.

A type matters, since ``"42"`` and ``42`` match different segments.
"""

from collections.abc import Callable, Iterable, Mapping
from math import isfinite

from flagsync._cli.failure import Failure
from flagsync._environment import BOOLEANS

Trait = str | int | float | bool


def _int(text: str) -> int:
    return int(_digits(text))


def _float(text: str) -> float:
    if not isfinite(number := float(_digits(text))):
        raise ValueError
    return number


def _digits(text: str) -> str:
    """Refuse what only Python takes for a number, such as ``1_000``."""
    if "_" in text or not text.isascii():
        raise ValueError
    return text


TYPES: Mapping[str, Callable[[str], Trait]] = {
    "str": str,
    "int": _int,
    "float": _float,
    "bool": lambda text: BOOLEANS[text.strip().lower()],
}


def typed(text: str, kind: str) -> Trait:
    """Return the value that a text stands for.

    Args:
        text: The text.
        kind: One of ``TYPES``.

    Raises:
        ValueError: It is no value of this type.
    """
    try:
        return TYPES[kind](text)
    except (ValueError, LookupError):
        accepted = "true or false" if kind == "bool" else f"a value of type {kind}"
        raise ValueError(f"{text!r:.40} is not {accepted}") from None


def traits_of(texts: Iterable[str]) -> dict[str, Trait]:
    """Return the traits that texts such as ``plan=pro`` and ``age:int=30`` stand for.

    Raises:
        Failure: A text has another form, or a name occurs twice.
    """
    traits = dict[str, Trait]()
    for text in texts:
        left, equals, value = text.partition("=")
        name, colon, kind = left.rpartition(":")
        name, kind = (name, kind) if colon else (left, "str")
        if not equals or not name or kind not in TYPES:
            raise Failure(
                f"--trait takes name=value or name:type=value, where type is {', '.join(TYPES)}, not {text!r}; "
                "a name that has a colon needs a type"
            )
        if name in traits:
            raise Failure(f"--trait: {name!r} is given twice")
        try:
            traits[name] = typed(value, kind)
        except ValueError as error:
            raise Failure(f"--trait {left}: {error}") from error
    return traits
