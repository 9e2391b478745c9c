"""Schemas of the tests in the PostgreSQL server that they share."""

from hashlib import blake2b
from pathlib import Path


def schema_of(path: Path) -> str:
    """Return the name of a schema that belongs to the directory or file of a test."""
    return f"t_{blake2b(str(path).encode(), digest_size=8).hexdigest()}"
