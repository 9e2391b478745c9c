"""Rules of options."""

import pytest

from flagsync._rules import is_number, is_url, require


def test_require_names_each_broken_rule_in_one_error() -> None:
    require({"one": True})
    with pytest.raises(ValueError, match=r"^one; three$"):
        require({"one": False, "two": True, "three": False})


@pytest.mark.parametrize("value", ["https://api.mixpanel.com", "http://127.0.0.1:8000/path", "http://u:p@h"])
def test_is_url_accepts_absolute_urls(value: str) -> None:
    assert is_url(value)


@pytest.mark.parametrize(
    "value", ["", "host", "ftp://h", "http://", "http://[", "http://h:0", "http://a b", "http://h?x", 7]
)
def test_is_url_rejects_everything_else(value: object) -> None:
    assert not is_url(value)


@pytest.mark.parametrize(
    ("value", "is_one"), [(1, True), (0.5, True), (True, False), ("1", False), (float("nan"), False)]
)
def test_is_number_accepts_finite_numbers(value: object, is_one: bool) -> None:
    assert is_number(value) is is_one
