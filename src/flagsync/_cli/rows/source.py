"""A file or stdin as rows: what it is, by its name and its first bytes.

Guarantee: a file that cannot be used ends in a sentence that says what to do.
"""

import sys
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterator, Sequence
from hashlib import file_digest
from importlib import import_module
from io import BufferedReader
from pathlib import Path
from typing import Protocol, Self

from flagsync._cli.failure import MISUSED, WRONG, Failure, failing_if, failing_on
from flagsync._cli.rows.columns import Types, Values, check
from flagsync._cli.rows.csv_rows import CsvRows
from flagsync._cli.rows.json_rows import JsonRows
from flagsync.bulk.rows import Unreadable

STDIN = Path("-")
PARQUET = b"PAR1"
GZIP = b"\x1f\x8b"
CSV_SUFFIXES, JSON_SUFFIXES = (".csv", ".tsv", ".txt"), (".jsonl", ".ndjson", ".json")
HEAD_BYTES = 4096


class Rows(Protocol):
    """The rows of a file of one kind.

    Attributes:
        columns: The names of its columns; empty if each row has its own.
        count: How many there are; None if that is not known before the end.
    """

    columns: Sequence[str]
    count: int | None

    def __iter__(self) -> Iterator[Values | Unreadable]:
        """Read the rows, once."""


class Source:
    """The rows of a file or of stdin, with the types that the user declares.

    Args:
        path: The file; ``-`` is stdin.
        types: The types.
        identifier: The column with the identifier.

    Attributes:
        name: Its name in messages.
        is_text: Whether values are text until a type is declared.

    Raises:
        Failure: It cannot be used.
    """

    def __init__(self, path: Path, types: Types, identifier: str) -> None:
        self._path, self._types = path, types
        self.name = "stdin" if path == STDIN else f"{path}"
        with failing_if(f"{self.name} cannot be read", MISUSED):
            self._file = _stdin() if path == STDIN else path.open("rb")
            self._bytes = 0 if path == STDIN else path.stat().st_size
        try:
            with failing_if(f"{self.name} cannot be read", MISUSED):
                self._rows = _rows(path, self.name, self._file, identifier)
            if self._rows.columns:
                check(self._rows.columns, identifier, types.declared, self.name)
        except Failure:
            self.close()
            raise
        self.is_text, self._read = isinstance(self._rows, CsvRows), 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file, but not stdin."""
        if self._path != STDIN:
            self._file.close()

    def __iter__(self) -> Iterator[Values | Unreadable]:
        with failing_if(f"{self.name} cannot be read", WRONG):
            for number, row in enumerate(self._rows, 1):
                self._read = number
                yield self._types.applied(row)

    @property
    def share(self) -> float | None:
        """How much of it is read, from 0 to 1; None for stdin."""
        if self._rows.count:
            return self._read / self._rows.count
        return self._file.tell() / self._bytes if self._bytes else None

    def digest(self) -> str:
        """Return what tells whether the file has changed."""
        with failing_on(OSError), self._path.open("rb") as file:
            return file_digest(file, "blake2b").hexdigest()


def _stdin() -> BufferedReader:
    if sys.stdin is None:
        raise Failure("stdin is closed: pass a file, or rows through a pipe")
    stdin = sys.stdin.buffer
    return stdin if isinstance(stdin, BufferedReader) else BufferedReader(stdin)  # type: ignore[arg-type] # in tests


def _head(file: BufferedReader) -> bytes:
    """Return the first bytes behind empty lines, which a pipe may give alone; empty at the end of the file."""
    while (head := file.peek(HEAD_BYTES)).isspace():
        file.read(len(head))
    return head


def _rows(path: Path, name: str, file: BufferedReader, identifier: str) -> Rows:
    """Return the rows of a file of the kind that its name and its first bytes say."""
    head, suffix = _head(file), path.suffix.lower()
    text = head.removeprefix(BOM_UTF8).lstrip()
    if not text:
        raise Failure(f"{name} is empty")
    if head.startswith(PARQUET) or suffix == ".parquet":
        if path == STDIN:
            raise Failure("Parquet cannot be read from stdin, since its index is at its end: pass the file")
        rows: Rows = import_module("flagsync._cli.rows.parquet_rows").ParquetRows(file, name)
        return rows
    if head.startswith(GZIP):
        raise Failure(
            f"{name} is compressed: decompress it, or pass - and pipe gunzip --stdout FILE into the command"
        )
    if head.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) or b"\0" in head:
        raise Failure(f"{name} is not text in UTF-8: convert it, for example with iconv -f utf-16 -t utf-8")
    if text.startswith(b"[") and suffix not in CSV_SUFFIXES:
        raise Failure(f"{name} is a JSON array: write an object a line instead, such as with jq -c '.[]'")
    is_json = suffix in JSON_SUFFIXES or (text.startswith(b"{") and suffix not in CSV_SUFFIXES)
    return JsonRows(file, name) if is_json else CsvRows(file, name, identifier)
