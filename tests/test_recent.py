"""The bounded map."""

from hypothesis import given
from hypothesis import strategies as st

from flagsync._recent import Recent


def test_recent_finds_and_forgets_entries() -> None:
    recent: Recent[str, int] = Recent(2)
    recent["a"] = 1
    assert (recent.get("a"), recent.get("b")) == (1, None)
    recent.forget("a")
    assert recent.get("a") is None


def test_recent_keeps_an_entry_that_is_used_now_and_then() -> None:
    recent: Recent[str, int] = Recent(3)
    recent["kept"] = 1
    for number in range(100):
        recent[str(number)] = number
        assert recent.get("kept") == 1


@given(st.lists(st.integers(0, 30), max_size=200), st.integers(1, 5))
def test_recent_keeps_the_entries_used_last_and_at_most_twice_as_many(keys: list[int], size: int) -> None:
    recent: Recent[str, int] = Recent(size)
    used: list[int] = []
    for key in keys:
        recent[str(key)] = key
        used = [key, *(other for other in used if other != key)]
        found = {other for other in range(31) if str(other) in {*recent._young, *recent._old}}
        assert {*used[: size - 1]} <= found
        assert len(found) <= 2 * size
