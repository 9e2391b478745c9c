"""Opens an outbox file for a client or an operator; needs ``sqlite3``.

Guarantee: a file that cannot be used raises a ``ValueError`` that says why.
"""

import os
from contextlib import closing
from pathlib import Path

from flagsync._files.place import check_name
from flagsync._files.sqlite import prepare
from flagsync._outbox import schema as sql
from flagsync._outbox.backend import Backend, Totals
from flagsync._outbox.options import FileBounds
from flagsync._outbox.sqlite import SQLiteBackend


def check(path: str) -> None:
    """Create a file, or check the one that is there."""
    prepare(path, sql.OUTBOX).close()


def open_backend(path: str, bounds: FileBounds) -> Backend:
    """Return the backend in a file."""
    return SQLiteBackend(path, bounds)


def totals(path: str | os.PathLike[str]) -> tuple[Totals, Totals]:
    """Return what became of all messages ever stored in a file, and of the events among them.

    Raises:
        FileNotFoundError: There is no file.
        ValueError: The path does not lead to an outbox file.
    """
    check_name(os.fsdecode(path), sql.OUTBOX.name)
    where = str(Path(os.fsdecode(path)).resolve(strict=True))
    with closing(prepare(where, sql.OUTBOX)) as file:
        return Totals(*file.execute(sql.TOTALS).fetchone()), Totals(*file.execute(sql.EVENT_TOTALS).fetchone())
