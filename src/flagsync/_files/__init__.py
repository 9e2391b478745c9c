"""SQLite files that the processes of a host share. Importing this package needs Python's ``sqlite3``.

sqlite   how a file is made, checked and opened
place    which paths are accepted, and who owns and can read a file
shared   SharedFile: one connection of one process, closed before a fork
lease    FileLease: which process sends
"""

from flagsync.exceptions import MissingPackageError

try:
    import sqlite3  # noqa: F401 - here, so that every user gets the same error
except ImportError as error:
    raise MissingPackageError(
        f"outbox, outbox_stats and SQLiteStore use SQLite files, but this Python has no sqlite3 module ({error}); "
        "use a Python that was built with SQLite, or leave outbox out, so that updates wait in memory",
        name="sqlite3",
    ) from error
