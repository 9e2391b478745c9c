"""Rows of an outbox file that are written together."""

import sqlite3
from functools import cache
from itertools import chain

from flagsync._outbox import schema as sql
from flagsync._outbox.contract import Message, Repeat
from flagsync._outbox.judge import Known

# With one statement per row, another thread may get the interpreter after each, and keep it for milliseconds.
ROWS_AT_ONCE = 50


class Rows:
    """Rows that are written together."""

    def __init__(self) -> None:
        self.older: list[tuple[object, ...]] = []
        self.touched: list[tuple[object, ...]] = []
        self.new: list[tuple[object, ...]] = []

    def touch(self, row: Known, message: Message | Repeat, boot: int) -> None:
        """Note the time of a later evaluation with the same result."""
        self.touched.append((boot, message.evaluated_at, message.evaluation, row.version))

    def write(self, file: sqlite3.Cursor) -> None:
        """Write the rows, in an order that leaves each key only one latest row."""
        file.executemany(sql.NOT_LATEST, self.older)
        file.executemany(sql.TOUCH, self.touched)
        for start in range(0, len(self.new), ROWS_AT_ONCE):
            rows = self.new[start : start + ROWS_AT_ONCE]
            file.execute(_new_messages(len(rows)), [*chain.from_iterable(rows)])
        for rows in (self.older, self.touched, self.new):
            rows.clear()


def escaped(key: str) -> str:
    """Return a key with NUL escaped, since SQLite's JSON functions end a text there."""
    return key.replace("\\", "\\\\").replace("\0", "\\0") if "\0" in key or "\\" in key else key


def unescaped(text: str) -> str:
    """Undo ``escaped``."""
    return "\\".join(part.replace("\\0", "\0") for part in text.split("\\\\")) if "\\" in text else text


@cache
def _new_messages(rows: int) -> str:
    """Return the statement that inserts this many rows."""
    row = f"({', '.join('?' * sql.MESSAGE_COLUMNS)})"
    return sql.NEW_MESSAGES.format(", ".join([row] * rows))
