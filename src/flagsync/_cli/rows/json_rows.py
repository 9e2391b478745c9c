"""Rows of JSON Lines: an object a line, in UTF-8.

Guarantee: a line that cannot be read does not stop the others.
"""

import json
from codecs import BOM_UTF8
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from flagsync._cli.failure import Failure
from flagsync._cli.rows.columns import Values
from flagsync.bulk.rows import Unreadable

MAX_LINE = 10_000_000  # bytes


class JsonRows:
    """The rows of a file.

    Args:
        file: Where they are read.
        name: The name of the file, in messages.

    Attributes:
        columns: Empty: each line has its own.
        count: None: it is not known.
    """

    columns: Sequence[str] = ()
    count: int | None = None

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file, self._name = file, name

    def __iter__(self) -> Iterator[Values | Unreadable]:
        is_first = True
        while line := self._file.readline(MAX_LINE):
            if len(line) == MAX_LINE:
                raise Failure(
                    f"{self._name} has a line of more than {MAX_LINE:,} bytes, so it is not JSON Lines"
                )
            line = line.removeprefix(BOM_UTF8) if is_first else line
            is_first = False
            if not line.isspace():
                yield _row(line)


def _row(line: bytes) -> Values | Unreadable:
    try:
        value = json.loads(line.decode())
    except UnicodeDecodeError:
        return Unreadable("the line is not UTF-8")
    except (ValueError, RecursionError):  # not JSON, a number of too many digits, or nested without end
        return Unreadable("the line is not valid JSON")
    return value if isinstance(value, dict) else Unreadable("the line is not a JSON object")
