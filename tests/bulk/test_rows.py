"""What a row of any source is read as."""

from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import StrEnum
from math import nan
from typing import Any
from uuid import UUID

import pytest

from flagsync.bulk.rows import Row, Unreadable, read


class Plan(StrEnum):
    PRO = "pro"


class Number:
    """A number as NumPy has it."""

    dtype = "int64"

    def __init__(self, value: float) -> None:
        self._value = value

    def item(self) -> float:
        return self._value


class Broken(Mapping[str, object]):
    def __getitem__(self, key: str) -> object:
        raise OSError

    def __iter__(self) -> Iterator[str]:
        return iter(("identifier",))

    def __len__(self) -> int:
        return 1

    def __contains__(self, key: object) -> bool:
        return True


def test_row_keeps_the_types_of_its_traits() -> None:
    row = {"identifier": "user_42", "a": "1", "b": 1, "c": 1.5, "d": True}
    found = read(row, "identifier")
    assert isinstance(found, Row)
    assert repr(found.traits) == "{'a': '1', 'b': 1, 'c': 1.5, 'd': True}"


@pytest.mark.parametrize(
    ("value", "trait"),
    [
        (Decimal("1.5"), 1.5),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (date(2026, 1, 2), "2026-01-02"),
        (datetime(2026, 1, 2, 3, tzinfo=UTC), "2026-01-02T03:00:00+00:00"),
        (Number(7), 7),
        (Plan.PRO, "pro"),
    ],
)
def test_row_converts_what_databases_and_data_frames_have(value: object, trait: object) -> None:
    found = read({"identifier": "user_42", "trait": value}, "identifier")
    assert found == Row("user_42", {"trait": trait})  # type: ignore[dict-item]
    assert type(found[1]["trait"]) is type(trait)


@pytest.mark.parametrize("value", [None, nan, Decimal("nan"), Number(nan)])
def test_row_leaves_out_a_trait_without_a_value(value: object) -> None:
    assert read({"identifier": "user_42", "trait": value}, "identifier") == Row("user_42", {})


@pytest.mark.parametrize(
    ("value", "identifier"),
    [("  user_42 ", "user_42"), (42, "42"), (UUID(int=1), str(UUID(int=1))), (Number(42), "42")],
)
def test_row_has_the_text_of_its_identifier(value: object, identifier: str) -> None:
    assert read({"id": value, "plan": "pro"}, "id") == Row(identifier, {"plan": "pro"})


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (["user_42"], "a row must be a mapping of column names to values, not list"),
        ({"id": "user_42"}, "there is no column 'identifier'"),
        ({"identifier": None}, "the identifier is empty"),
        ({"identifier": nan}, "the identifier is empty"),
        ({"identifier": 42.0}, "the identifier has the type float; it must be text or a whole number"),
        ({"identifier": True}, "the identifier has the type bool; it must be text or a whole number"),
        ({"identifier": b"u"}, "the identifier has the type bytes; it must be text or a whole number"),
        (Broken(), "reading the row raised OSError"),
        (Unreadable("the line is cut"), "the line is cut"),
    ],
)
def test_row_that_cannot_be_read_has_a_reason(row: object, reason: str) -> None:
    assert read(row, "identifier") == Unreadable(reason)


@pytest.mark.parametrize(
    ("further", "reason"),
    [
        ({"tags": ["a"]}, "column 'tags': a trait is text, a number or a boolean, not list"),
        ({None: ["too", "many"]}, "the name of a column must be text, not NoneType"),
    ],
)
def test_row_whose_traits_are_none_has_its_identifier_all_the_same(
    further: dict[Any, Any], reason: str
) -> None:
    assert read({"identifier": "user_42", **further}, "identifier") == Unreadable(reason, "user_42")
