"""Rules of options."""

from collections.abc import Iterator

import pytest

from flagsync._rules import call_fault, is_number, is_url, key_fault, require, shown


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


class NamelessMeta(type):
    @property
    def __name__(cls) -> str:  # type: ignore[override]
        raise SystemExit


class Nameless(metaclass=NamelessMeta):
    """Whose class does not tell its name."""

    def __getattribute__(self, name: str) -> object:
        raise SystemExit


class Future:
    def __await__(self) -> Iterator[None]:
        yield


class Later(Future):
    """Inherits that it can be awaited."""


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "None"),
        (True, "True"),
        (7, "7"),
        (0.5, "0.5"),
        (10**5000, "a value of type int"),
        ("secret", "a value of type str"),
        ("", "an empty text"),
        (str, "the class str: make an instance of it"),
        (Nameless, "the class Nameless: make an instance of it"),
        (Nameless(), "a value of type Nameless"),
    ],
    ids=["None", "True", "7", "0.5", "large", "text", "empty", "class", "class without a name", "object"],
)
def test_shown_tells_what_came_and_no_secret(value: object, words: str) -> None:
    assert shown(value) == words


def test_shown_asks_nothing_of_a_class_that_raises() -> None:
    class Meta(type):
        def __getattribute__(cls, name: str) -> object:
            raise SystemExit

    class Closed(metaclass=Meta):
        pass

    assert shown(Closed) == "the class Closed: make an instance of it"
    assert shown(object.__new__(Closed)) == "a value of type Closed"


def test_shown_says_to_await_what_can_be_awaited() -> None:
    assert shown(Later()) == "a Later: await it first"


def test_call_fault_counts_arguments() -> None:
    assert call_fault(lambda one, other: None, 2) == ""
    assert (
        call_fault(lambda one: None, 2) == "one that cannot be called like that (too many positional arguments)"
    )


@pytest.mark.parametrize("key", ["ser.abc", "key", "client-side", "a/b+c="])
def test_key_fault_is_empty_for_what_may_be_a_key(key: str) -> None:
    assert key_fault(key) == ""


@pytest.mark.parametrize("key", ["ser.…", "ser.", "ser...", "<key>", "a b", "a\n", "\0", "ключ"], ids=ascii)
def test_key_fault_names_placeholders(key: str) -> None:
    assert key_fault(key) == "a placeholder such as 'ser.…' or '<your key>', nor text with white space"
