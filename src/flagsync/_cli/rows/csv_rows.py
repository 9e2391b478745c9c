"""Rows of CSV: in UTF-8, with or without a mark for it, and with commas, semicolons, tabs or bars.

Guarantee: a row that cannot be read does not stop the others. An empty field is no value.
"""

import csv
from collections.abc import Iterable, Iterator, Sequence
from io import TextIOWrapper
from typing import BinaryIO

from flagsync._cli.failure import Failure
from flagsync._cli.rows.columns import Values
from flagsync.bulk.rows import Unreadable

DELIMITERS = ",;\t|"
MAX_LINE = 10_000_000  # characters
NOT_UTF_8 = "it is not UTF-8; convert the file, such as with iconv -f latin1 -t utf-8"


class CsvRows:
    """The rows of a file.

    Args:
        file: Where they are read.
        name: The name of the file, in messages.
        identifier: The column with the identifier.

    Attributes:
        columns: The names in the header.
        count: None: it is not known.

    Raises:
        Failure: There is no header that can be read.
    """

    count: int | None = None

    def __init__(self, file: BinaryIO, name: str, identifier: str) -> None:
        self._text = TextIOWrapper(file, "utf-8-sig", errors="surrogateescape", newline="")
        self._name, self._identifier = name, identifier
        lines = self._lines()
        first = next((line for line in lines if line.strip()), "")
        self._reader = csv.reader(_joined(first, lines), delimiter=_delimiter(first), strict=True)
        try:
            self.columns: Sequence[str] = [column.strip() for column in next(self._reader, ())]
        except csv.Error as error:
            raise Failure(f"The header of {name} cannot be read as CSV ({error})") from error
        if not any(self.columns):
            raise Failure(f"{name} is empty: it needs a header with the names of its columns")
        if not _is_unicode(self.columns):
            raise Failure(f"The header of {name} cannot be read: {NOT_UTF_8}")

    def __iter__(self) -> Iterator[Values | Unreadable]:
        while True:
            try:
                fields = next(self._reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield Unreadable(f"it cannot be read as CSV ({error})")
                continue
            if fields:
                yield self._row(fields)

    def _row(self, fields: Sequence[str]) -> Values | Unreadable:
        if len(fields) != len(self.columns):
            who = self._identifier_of(fields)
            return Unreadable(f"it has {len(fields)} fields, but the header has {len(self.columns)}", who)
        if not _is_unicode(fields):
            return Unreadable(NOT_UTF_8, self._identifier_of(fields))
        row = {column: field for column, field in zip(self.columns, fields, strict=True) if column and field}
        row.setdefault(self._identifier, "")
        return row

    def _identifier_of(self, fields: Sequence[str]) -> str | None:
        place = self.columns.index(self._identifier)
        found = fields[place : place + 1]
        return found[0] if found and _is_unicode(found) else None

    def _lines(self) -> Iterator[str]:
        while line := self._text.readline(MAX_LINE):
            if len(line) == MAX_LINE:
                raise Failure(f"{self._name} has a line of more than {MAX_LINE:,} characters, so it is not CSV")
            yield line


def _joined(first: str, lines: Iterable[str]) -> Iterator[str]:
    yield first
    yield from lines


def _delimiter(header: str) -> str:
    """Return the delimiter that divides a header into the most columns."""

    def count(delimiter: str) -> int:
        return len(next(csv.reader([header], delimiter=delimiter), ()))

    return max(DELIMITERS, key=count)


def _is_unicode(fields: Sequence[str]) -> bool:
    """Return whether all bytes of some fields were UTF-8."""
    text = "".join(fields)
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:
        return False
