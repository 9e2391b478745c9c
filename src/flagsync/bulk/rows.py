"""A row of any source -> an identifier and traits, or why it cannot be evaluated.

Guarantee: nothing that a row holds raises. A trait keeps its type, since ``"42"`` and ``42`` match different segments.
"""

from collections.abc import Callable, Mapping
from datetime import date
from decimal import Decimal
from math import inf
from operator import methodcaller
from typing import NamedTuple, TypeAlias
from uuid import UUID

from flagsync._identifiers import text_of

TraitValue: TypeAlias = str | int | float | bool
TRAIT_TYPES = (str, int, float, bool)
EXACT_TYPES = (str, int, bool)  # a float may be none
INFINITE = (inf, -inf)  # JSON, and so Flagsmith's API, has none of them
# Types that databases and data frames have besides those of traits.
CONVERTED: Mapping[type, Callable[..., TraitValue]] = {
    Decimal: float,
    UUID: str,
    date: methodcaller("isoformat"),
}


class Unreadable(NamedTuple):
    """A row that cannot be read, in the place of the row.

    Attributes:
        reason: Why; without what the row holds.
        identifier: Whose row it is, if that can be read.
    """

    reason: str
    identifier: str | None = None


class Row(NamedTuple):
    """A row that can be evaluated.

    Attributes:
        identifier: Without white space around it.
        traits: Those with a value.
    """

    identifier: str
    traits: dict[str, TraitValue]


def read(row: object, column: str) -> Row | Unreadable:
    """Return what to evaluate.

    Args:
        row: A mapping of column names to values. A value that is None or not a number is a missing one.
        column: The column with the identifier. Every other column is a trait.
    """
    if isinstance(row, Unreadable):
        return row
    try:
        return _read(row, column)
    except Exception as error:  # noqa: BLE001 - a mapping and its values may be objects of the application
        return Unreadable(f"reading the row raised {type(error).__name__}")


def _read(row: object, column: str) -> Row | Unreadable:
    if not isinstance(row, (dict, Mapping)):  # a dictionary is found faster than a mapping
        return Unreadable(f"a row must be a mapping of column names to values, not {type(row).__name__}")
    if column not in row:
        return Unreadable(f"there is no column {column!r}")
    identifier = plain(row[column])
    if identifier is None:
        return Unreadable("the identifier is empty")
    # A column of whole numbers with gaps may have become one of floats, and 42.0 would be another profile.
    if type(identifier) not in (str, int):
        kind = type(row[column]).__name__
        return Unreadable(f"the identifier has the type {kind}; it must be text or a whole number")
    text = text_of(identifier)
    traits: dict[str, TraitValue] = {}  # dict[…]() would take a third of the time
    for name, value in row.items():
        if type(value) in EXACT_TYPES and type(name) is str:  # almost always
            traits[name] = value
        elif (found := plain(value)) is not None and name != column:
            if fault := _fault(name, value, found):
                return Unreadable(fault, text)
            traits[name] = found  # type: ignore[assignment] # its type is one of these
    traits.pop(column, None)
    return Row(text, traits)


def _fault(name: object, value: object, found: object) -> str:
    """Return why a value is no trait, or nothing; ``found`` is what ``plain`` returns for it."""
    if not isinstance(name, str):
        return f"the name of a column must be text, not {type(name).__name__}"
    if type(found) not in TRAIT_TYPES:
        return f"column {name!r}: a trait is text, a number or a boolean, not {type(value).__name__}"
    return f"column {name!r}: a number must be finite" if found in INFINITE else ""


def plain(value: object) -> object:
    """Return a value as one of Python's own types, where there is one; None if it is missing."""
    if type(value) in EXACT_TYPES:
        return value
    if hasattr(value, "dtype") and hasattr(value, "item"):  # a number of NumPy
        value = value.item()
    if value is None or value != value:  # noqa: PLR0124 - NaN, and what pandas has instead of a time
        return None
    for kind, convert in CONVERTED.items():
        if isinstance(value, kind):
            return convert(value)
    return f"{value}" if isinstance(value, str) else value
