"""Rows of CSV: in UTF-8, with or without a mark for it, and with commas, semicolons, tabs or bars.

Guarantee: a row that cannot be read does not stop the others. An empty field is no value.
"""

import csv
from collections import deque
from collections.abc import Iterator, Sequence
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
        self._identifier = identifier
        self._lines = _Lines(TextIOWrapper(file, "utf-8-sig", errors="surrogateescape", newline=""), name)
        first = next(filter(str.strip, self._lines), "")
        self._lines.begin_record()
        self._lines.put_back(first)
        try:
            self._reader = csv.reader(self._lines, delimiter=_delimiter(first, identifier), strict=True)
            self.columns: Sequence[str] = _stripped(next(self._reader, ()))
        except csv.Error as error:
            raise Failure(f"The header of {name} cannot be read as CSV ({error})") from error
        if not any(self.columns):
            raise Failure(f"{name} is empty: it needs a header with the names of its columns")
        if not _is_unicode(self.columns):
            raise Failure(f"The header of {name} cannot be read: {NOT_UTF_8}")

    def __iter__(self) -> Iterator[Values | Unreadable]:
        while True:
            self._lines.begin_record()
            try:
                fields = next(self._reader)
            except StopIteration:
                return
            except csv.Error as error:
                self._lines.put_back(*self._lines.record[1:])
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


class _Lines:
    """The lines of a file. Those that a quotation mark without an end has taken are put back, and read again.

    Args:
        text: The file.
        name: The name of the file, in messages.

    Attributes:
        record: The lines of the current record so far.
    """

    def __init__(self, text: TextIOWrapper, name: str) -> None:
        self._text, self._name = text, name
        self._again = deque[str]()
        self.record: list[str] = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else self._text.readline(MAX_LINE)
        if len(line) == MAX_LINE:
            raise Failure(f"{self._name} has a line of more than {MAX_LINE:,} characters, so it is not CSV")
        if not line:
            raise StopIteration
        self.record.append(line)
        return line

    def begin_record(self) -> None:
        """Note that the next line is the first one of a record."""
        self.record.clear()

    def put_back(self, *lines: str) -> None:
        """Let lines be the next ones."""
        self._again.extendleft(reversed(lines))


def _delimiter(header: str, identifier: str) -> str:
    """Return the delimiter that makes the identifier a column; of several, the one that makes the most columns."""

    def rank(delimiter: str) -> tuple[bool, int]:
        columns = _stripped(next(csv.reader([header], delimiter=delimiter), ()))
        return identifier in columns, len(columns)

    return max(DELIMITERS, key=rank)


def _stripped(fields: Sequence[str]) -> list[str]:
    return [field.strip() for field in fields]


def _is_unicode(fields: Sequence[str]) -> bool:
    """Return whether all bytes of some fields were UTF-8."""
    text = "".join(fields)
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:
        return False
