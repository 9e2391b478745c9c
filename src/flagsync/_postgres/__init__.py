"""PostgreSQL, which hosts share. Importing this package needs ``flagsync[postgres]``.

places        where a database is: a connection string or a pool, checked
connections   how a connection is opened or borrowed, and how long a call may take
database      Database: transactions on tables that are made on first use
tables        Tables: SQL that makes them, for the library and for an administrator
errors        what an error of the driver says in plain words, without a password
"""

from flagsync.exceptions import MissingPackageError

try:
    import psycopg  # noqa: F401 - here, so that every user gets the same error
except ImportError as error:
    raise MissingPackageError(
        f"a PostgreSQL server needs psycopg 3, which cannot be imported ({error}): pip install 'flagsync[postgres]'",
        name="psycopg",
    ) from error
