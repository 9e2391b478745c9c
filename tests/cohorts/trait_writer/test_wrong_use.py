"""What the constructor of a TraitWriter refuses."""

from pathlib import Path
from typing import Any

import pytest
from flagsmith import Flagsmith

from flagsync.cohorts import SQLiteStore, TraitWriter
from tests.support.flagsmith_server import KEY


@pytest.mark.parametrize("key", ["ser.…", "<your key>", "ser.a b"])
def test_writer_refuses_a_placeholder_for_a_key(key: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="environment key, not a placeholder"):
        TraitWriter(SQLiteStore(tmp_path / "cohorts.db"), key)


def test_writer_refuses_a_class_in_place_of_a_store() -> None:
    store: Any = SQLiteStore
    with pytest.raises(ValueError, match="store must keep a change log"):
        TraitWriter(store, Flagsmith(KEY))
