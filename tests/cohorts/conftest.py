"""What the tests of cohorts share."""

from pathlib import Path

import pytest

from tests.support.postgres import PostgresServer, schema_of


@pytest.fixture(params=["file", "server"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """What names the store of a test: a path, or a URL and a schema."""
    if request.param == "file":
        return str(tmp_path / "cohorts.db")
    server: PostgresServer = request.getfixturevalue("postgres")
    return f"{server.url()}#{schema_of(tmp_path)}"
