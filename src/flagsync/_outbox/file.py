"""Opens an outbox file for a client or an operator; needs ``sqlite3``.

Guarantee: a file that cannot be used raises a ``ValueError`` that says why.
"""

from contextlib import closing
from pathlib import Path

from flagsync._files.place import check_name
from flagsync._files.sqlite import prepare
from flagsync._outbox import schema as sql
from flagsync._outbox.backend import Backend, StoreTotals
from flagsync._outbox.options import StoreBounds
from flagsync._outbox.sqlite import SQLiteBackend, read_totals


def check(path: str) -> None:
    """Create a file, or check the one that is there."""
    prepare(path, sql.OUTBOX).close()


def open_backend(path: str, bounds: StoreBounds) -> Backend:
    """Return the backend in a file."""
    return SQLiteBackend(path, bounds)


def totals(path: str) -> StoreTotals:
    """Return what became of all messages ever stored in a file.

    Raises:
        FileNotFoundError: There is no file.
        ValueError: The path does not lead to an outbox file.
    """
    check_name(path, sql.OUTBOX.name)
    where = Path(path).resolve(strict=True)
    if where.is_file() and not where.stat().st_size:  # preparing it would make it an outbox
        raise ValueError(f"outbox: {where} is an empty file; a client makes it an outbox on first use")
    with closing(prepare(f"{where}", sql.OUTBOX)) as file:
        return read_totals(file)
