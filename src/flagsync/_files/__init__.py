"""SQLite files that the processes of a host share. Whoever imports this package needs Python's ``sqlite3``.

sqlite   how a file is made, checked and opened
place    where it can be, and to whom it belongs
shared   SharedFile: one connection of one process, closed before a fork
lease    FileLease: which process sends
"""


class SQLiteMissingError(ImportError, ValueError):
    """Python has no SQLite: a wrong option for whoever names a file, a failed import for whoever imports a store."""


try:
    import sqlite3  # noqa: F401 - here, so that all that needs it says the same
except ImportError as error:
    raise SQLiteMissingError(
        f"outbox, outbox_stats and SQLiteStore keep files of SQLite, and this Python has no module sqlite3 ({error}); "
        "use a Python that was built with SQLite, or leave outbox out, so that updates wait in memory",
        name="sqlite3",
    ) from error
