"""Which profile an identifier belongs to."""

import sys
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flagsync._encoding.distinct_id import BLOCKED, WHITE_SPACE, NotMirrored, distinct_id_of
from tests.support.identifiers import Masked, Unspeakable, User


@pytest.mark.parametrize(
    ("identifier", "distinct_id"),
    [
        ("user_1", "user_1"),
        (" user_1\n", "user_1"),
        ("日本語", "日本語"),
        (42, "42"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        ("x" * 255, "x" * 255),
        ("日" * 85, "日" * 85),
        (User.ANN, "ann"),
        (Masked(" ann "), "ann"),
    ],
)
def test_distinct_id_is_the_stripped_text_of_the_identifier(identifier: object, distinct_id: str) -> None:
    assert distinct_id_of(identifier, str) == distinct_id


@pytest.mark.parametrize(
    ("identifier", "reason"),
    [
        ("", "the identifier is empty"),
        (" \t", "the identifier is empty"),
        (None, "Mixpanel blocks the identifier as a placeholder"),
        ("Anonymous", "Mixpanel blocks the identifier as a placeholder"),
        (0, "Mixpanel blocks the identifier as a placeholder"),
        ("x" * 256, "the identifier is longer than 255 bytes"),
        ("日" * 86, "the identifier is longer than 255 bytes"),
        ("\ud800", "the identifier is not valid Unicode"),
        (b"user_1", "the identifier is bytes; decode it"),
    ],
)
def test_identifier_that_mixpanel_would_refuse_or_cut_is_not_mirrored(identifier: object, reason: str) -> None:
    assert distinct_id_of(identifier, str) == NotMirrored(reason)


def test_distinct_id_callback_decides_on_the_profile() -> None:
    assert distinct_id_of("7", lambda identifier: f"account-{identifier} ") == "account-7"


def test_distinct_id_callback_gets_the_stripped_text() -> None:
    got = list[object]()
    distinct_id_of(" 7 ", got.append)
    assert got == ["7"]


@pytest.mark.parametrize(("mapped", "kind"), [(b"robot", "bytes"), (7, "int"), (False, "bool")])
def test_distinct_id_callback_that_returns_no_text_leaves_the_identity_out(mapped: Any, kind: str) -> None:
    reason = f"distinct_id returned {kind}, not str"
    assert distinct_id_of("robot", lambda _: mapped) == NotMirrored(reason)


def test_distinct_id_callback_that_exits_leaves_the_identity_out() -> None:
    found = distinct_id_of("ann", lambda _: sys.exit("no account"))
    assert found == NotMirrored("distinct_id raised SystemExit", "distinct_id raised SystemExit: no account")


def test_distinct_id_callback_that_raises_is_reported_without_the_identifier() -> None:
    callback = {"known": "1"}.__getitem__
    found = distinct_id_of(" secret ", callback)
    assert found == NotMirrored("distinct_id raised KeyError", "distinct_id raised KeyError: '…'")


def test_identifier_whose_text_raises_is_not_mirrored() -> None:
    reason = "the identifier's own str() raised SystemExit"
    assert distinct_id_of(Unspeakable(), str) == NotMirrored(reason, reason)


@pytest.mark.parametrize("text", [User.ANN, Masked("ann")])
def test_distinct_id_callback_may_return_a_text_that_does_not_show_itself(text: str) -> None:
    assert distinct_id_of("7", lambda _: text) == "ann"


@pytest.mark.parametrize(
    ("identifier", "warnings"),
    [("ann ", [WHITE_SPACE]), (Masked("\nann"), [WHITE_SPACE]), ("ann lee", []), (7, []), (" ", [])],
)
def test_white_space_round_an_identifier_is_warned_of(identifier: object, warnings: list[str]) -> None:
    warned = list[str]()
    distinct_id_of(identifier, str, warned.append)
    assert warned == warnings


@given(st.text() | st.integers() | st.none() | st.sampled_from(sorted(BLOCKED)))
def test_distinct_id_is_one_that_mixpanel_stores_uncut_whatever_the_identifier(identifier: object) -> None:
    distinct_id = distinct_id_of(identifier, str)
    if isinstance(distinct_id, str):
        assert distinct_id == distinct_id.strip()
        assert distinct_id.lower() not in {"", *BLOCKED}
        assert len(distinct_id.encode()) <= 255


def test_interrupt_of_the_main_thread_gets_through_distinct_id() -> None:
    def interrupt(_: str) -> str:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        distinct_id_of("user_1", interrupt)
