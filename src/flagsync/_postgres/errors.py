"""What an error of the driver says in plain words.

Guarantee: no password. The driver's own text about a connection may contain parts of the URL, so only the server's
words and the system's reason are kept.
"""

import psycopg
from psycopg import errors

# Errors of the server -> what to do, or what it means.
ADVICE: tuple[tuple[type[psycopg.Error], str], ...] = (
    (errors.ReadOnlySqlTransaction, "the server is read-only, as a replica is: name the primary"),
    (errors.LockNotAvailable, "another process kept its lock for too long"),
    (errors.QueryCanceled, "the statement was cancelled, or took too long"),
    (
        errors.InsufficientPrivilege,
        "grant the role this right, or have an administrator make the tables; see the documentation",
    ),
)


class ConnectionTimeoutError(psycopg.OperationalError):
    """The server did not answer in time, and the connection was closed."""


def explained(error: psycopg.Error) -> OSError:
    """Return the error to raise instead of one of the driver."""
    kind = TimeoutError if isinstance(error, ConnectionTimeoutError) else OSError
    return kind(f"PostgreSQL: {_words(error)}")


def _words(error: psycopg.Error) -> str:
    words = error.diag.message_primary or _reason(error)
    advice = [advice for kind, advice in ADVICE if isinstance(error, kind)]
    return "; ".join([words, *advice])


def _reason(error: psycopg.Error) -> str:
    """Return the end of the first line, such as "Connection refused"; what comes before may name what a URL says.

    So may a value in quotation marks at the end: of ``invalid sslmode value: "x"`` the beginning is returned.
    """
    first = (str(error).splitlines() or [""])[0]
    parts = [part.strip() for part in first.split(": ")]
    return next(
        (part for part in reversed(parts) if part and not part.startswith('"')), "it failed without a reason"
    )
