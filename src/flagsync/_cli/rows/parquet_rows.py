"""Rows of Parquet; needs ``flagsync[parquet]``.

Guarantee: a row that cannot be read costs itself; what is wrong with the file ends in a sentence.
"""

from collections.abc import Iterator, Sequence
from typing import BinaryIO

from flagsync._cli.failure import WRONG, Failure
from flagsync._cli.rows.columns import Values
from flagsync.bulk.rows import Unreadable

try:
    from pyarrow import ArrowException, RecordBatch
    from pyarrow.parquet import ParquetFile
except ImportError as error:
    raise Failure(f"Reading Parquet needs pyarrow ({error}): pip install 'flagsync[parquet]'") from error

ROWS_AT_ONCE = 1000


class ParquetRows:
    """The rows of a file.

    Args:
        file: Where they are read.
        name: The name of the file, in messages.

    Attributes:
        columns: The names of its columns.
        count: The number of its rows.

    Raises:
        Failure: It is not a complete Parquet file.
    """

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._name = name
        try:
            self._file = ParquetFile(file)
        except (ArrowException, OSError) as error:
            raise Failure(f"{name} is not a complete Parquet file ({_first_line(error)})") from error
        self.columns: Sequence[str] = self._file.schema_arrow.names
        self.count: int | None = self._file.metadata.num_rows

    def __iter__(self) -> Iterator[Values | Unreadable]:
        try:
            for batch in self._file.iter_batches(ROWS_AT_ONCE):
                yield from _rows(batch)
        except (ArrowException, OSError) as error:
            raise Failure(f"{self._name} cannot be read to its end ({_first_line(error)})", WRONG) from error


def _rows(batch: RecordBatch) -> list[Values | Unreadable]:
    """Return the rows of a batch; one by one if they have values that Python cannot have."""
    try:
        rows: list[Values | Unreadable] = batch.to_pylist()
    except Exception as error:  # noqa: BLE001 - whatever pyarrow raises for text that is not UTF-8, a year 40000, …
        if len(batch) == 1:
            return [Unreadable(f"a value cannot be read ({_first_line(error)})")]
        return [row for number in range(len(batch)) for row in _rows(batch.slice(number, 1))]
    return rows


def _first_line(error: Exception) -> str:
    return f"{error}".partition("\n")[0]
