"""The store of cohorts that an argument names: a file, or a URL and a schema."""

from flagsync.cohorts import PostgresStore, SQLiteStore


def open_store(place: str) -> SQLiteStore | PostgresStore:
    """Open the store of a file, or of ``postgresql://…#schema``."""
    url, _, schema = place.partition("#")
    return PostgresStore(url, schema=schema) if schema else SQLiteStore(place)
