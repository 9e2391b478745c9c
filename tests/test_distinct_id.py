"""Which profile an identifier belongs to."""

import sys
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flagsync._distinct_id import BLOCKED, NotMirroredError, distinct_id_of


def same(identifier: str) -> str:
    return identifier


@pytest.mark.parametrize(
    ("identifier", "distinct_id"),
    [
        ("user_1", "user_1"),
        (" user_1\n", "user_1"),
        ("日本語", "日本語"),
        (42, "42"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        ("x" * 255, "x" * 255),
    ],
)
def test_an_identifier_is_the_distinct_id_of_its_profile(identifier: object, distinct_id: str) -> None:
    assert distinct_id_of(identifier, same) == distinct_id


@pytest.mark.parametrize(
    ("identifier", "reason"),
    [
        ("", "empty"),
        (" \t", "empty"),
        (None, "placeholder"),
        ("Anonymous", "placeholder"),
        (0, "placeholder"),
        ("x" * 256, "longer"),
        ("日" * 86, "longer"),
        ("\ud800", "Unicode"),
        (b"user_1", "decode"),
    ],
)
def test_an_identifier_that_mixpanel_would_not_keep_is_not_mirrored(identifier: object, reason: str) -> None:
    with pytest.raises(NotMirroredError, match=reason):
        distinct_id_of(identifier, same)


def test_a_mapping_decides_on_the_profile() -> None:
    assert distinct_id_of("7", lambda identifier: f"account-{identifier} ") == "account-7"


@pytest.mark.parametrize(("mapped", "kind"), [(None, "NoneType"), (b"robot", "bytes"), (7, "int")])
def test_a_mapping_to_what_is_no_text_leaves_an_identity_out(mapped: Any, kind: str) -> None:
    with pytest.raises(NotMirroredError, match=rf"^distinct_id returned {kind}, no str$"):
        distinct_id_of("robot", lambda _: mapped)


def test_a_mapping_that_exits_ends_no_thread() -> None:
    with pytest.raises(NotMirroredError, match=r"^distinct_id raised SystemExit$"):
        distinct_id_of("secret", sys.exit)


def test_a_mapping_that_raises_is_named_by_the_kind_of_its_error_only() -> None:
    with pytest.raises(NotMirroredError, match=r"^distinct_id raised KeyError$"):
        distinct_id_of("secret", lambda identifier: {"known": "1"}[identifier])


@given(st.text() | st.integers() | st.none() | st.sampled_from(sorted(BLOCKED)))
def test_whatever_comes_mixpanel_gets_a_clean_distinct_id_or_none(identifier: object) -> None:
    try:
        text = distinct_id_of(identifier, same)
    except NotMirroredError:
        return
    assert text == text.strip()
    assert text.lower() not in {"", *BLOCKED}
    assert len(text.encode()) <= 255
