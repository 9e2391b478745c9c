"""Names of columns, and the types that the user declares for them.

Guarantee: a type is never guessed, since ``"42"`` and ``42`` match different segments.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

from flagsync._cli.failure import Failure
from flagsync._cli.traits import TYPES
from flagsync.bulk.rows import TRAIT_TYPES, Unreadable, plain

SHOWN_COLUMNS = 20
# A number with a leading zero is rather a postcode or a key.
APPARENT = {
    "int": re.compile(r"-?(0|[1-9]\d{0,17})"),
    "float": re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?"),
    "bool": re.compile(r"true|false", re.IGNORECASE),
}
Values = Mapping[str, object]


def check(columns: Sequence[str], identifier: str, types: Collection[str], name: str) -> None:
    """Check the columns of a file.

    Raises:
        Failure: Two have the same name, or a column that an option names is missing.
    """
    shown = ", ".join(columns[:SHOWN_COLUMNS]) + ", …" * (len(columns) > SHOWN_COLUMNS)
    if twice := sorted(column for column, times in Counter(columns).items() if column and times > 1):
        raise Failure(f"{name} has several columns named {', '.join(twice)}: rename or remove them")
    if identifier not in columns:
        raise Failure(
            f"{name} has no column {identifier!r}: choose one with --identifier; its columns are {shown}"
        )
    if unknown := sorted({*types}.difference(columns)):
        raise Failure(f"--type: {name} has no column {', '.join(unknown)}; its columns are {shown}")


class Types:
    """The types that the user declares.

    Args:
        declared: Texts such as ``age=int``.
        identifier: The column with the identifier, which is text.

    Raises:
        Failure: A text has another form.
    """

    def __init__(self, declared: Iterable[str], identifier: str) -> None:
        if not identifier:
            raise Failure("--identifier takes the name of a column, not an empty text")
        self.declared = dict[str, str]()
        self._identifier = identifier
        for text in declared:
            column, equals, kind = text.rpartition("=")
            if not (equals and column and kind in TYPES):
                raise Failure(f"--type takes column=type, where type is {', '.join(TYPES)}, not {text!r}")
            if column in self.declared or column == identifier:
                what = "is the identifier, which is text" if column == identifier else "is given twice"
                raise Failure(f"--type: {column!r} {what}")
            self.declared[column] = kind

    def applied(self, row: Values | Unreadable) -> Values | Unreadable:
        """Return a row whose values have the declared types."""
        if isinstance(row, Unreadable) or not self.declared:
            return row
        values = dict(row)
        for column, kind in self.declared.items():
            if type(value := plain(values.get(column))) not in TRAIT_TYPES:
                continue  # it is missing, or no trait at all, which is found later
            try:
                values[column] = TYPES[kind](f"{value}")
            except (ValueError, LookupError):
                who = values.get(self._identifier)
                return Unreadable(
                    f"column {column!r} cannot be read as {kind}", who if isinstance(who, str) else None
                )
        return values

    def apparent(self, rows: Iterable[Values | Unreadable]) -> dict[str, str]:
        """Return the types that columns of text seem to have in some rows, where none is declared."""
        seen = dict[str, list[str]]()
        for row in rows:
            for column, value in row.items() if isinstance(row, Mapping) else ():
                if isinstance(value, str) and column != self._identifier and column not in self.declared:
                    seen.setdefault(column, []).append(value)
        found = {column: _apparent(values) for column, values in seen.items()}
        return {column: kind for column, kind in found.items() if kind}


def _apparent(values: Collection[str]) -> str:
    return next(
        (kind for kind, form in APPARENT.items() if all(map(form.fullmatch, values))),
        "",
    )
