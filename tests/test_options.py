"""The rules of options."""

import pydoc
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Any
from unittest.mock import MagicMock, Mock, create_autospec

import pytest
from flagsmith import Flagsmith
from flagsmith.models import Flag

from flagsync import FlagSync
from flagsync._client_rules import CLIENT
from flagsync._encoding.properties import served_value
from flagsync._options import ARGUMENTS, PLACEHOLDER_TOKEN, SERVED_VALUE, Options, Tuning
from flagsync.cohorts import SQLiteStore

NAN = float("nan")


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("region", ["de", "", None, ["us"]]),
        (
            "mixpanel_url",
            ["", "mixpanel.example.com", "ftp://mixpanel.example.com", "http://", "http://[", 7, ["http://x"]],
        ),
        (
            "mixpanel_url",
            [
                "https://host:0",
                "https://host:99999999",
                "http://a b",
                "http://x?y=1",
                "http://x#y",
                "http://x?",
                "http://x#",
                "https://api.mixpanel.com/engage",
                "https://api.mixpanel.com/track/",
                "https://proxy.example.com/mixpanel/Engage",
            ],
        ),
        ("flush_interval_seconds", [0, -1, NAN, "1", None, True, 10**400]),
        ("resend_after_seconds", [-1, NAN, float("inf"), "0", 10**400]),
        ("unset_deleted", [None, 1, "true"]),
        ("max_pending", [0, -1, 1.5, True, "10"]),
        ("when_full", ["block", None]),
        ("distinct_id", [None, "user"]),
        ("property_name", [None, "name", {"a": "b"}]),
        ("property_value", [None, 1]),
        ("on_error", ["log"]),
        ("cohorts", ["cohorts.db", SQLiteStore, 7]),
    ],
)
def test_invalid_option_is_named_with_the_accepted_values(
    offline: Flagsmith, option: str, values: list[Any]
) -> None:
    for value in values:
        with pytest.raises(ValueError, match=rf"^{option} must be [^;]+$"):
            FlagSync(offline, "token", **{option: value})


class Callbacks:
    """Callbacks in all shapes that functions come in."""

    def method(self, given: object, further: object = None) -> str:
        return f"{given}"

    def __call__(self, given: object) -> str:
        return f"{given}"

    async def later(self, given: object) -> str:
        return f"{given}"


class Unsigned:
    """Has no signature, like some functions of C."""

    __signature__ = "unknown"

    def __call__(self, *_: object) -> str:
        return ""


class Later:
    async def __call__(self, given: object) -> str:
        return f"{given}"


def generate(given: object) -> Iterator[object]:
    yield given


async def generate_later(given: object) -> AsyncIterator[object]:
    yield given


def two(one: object, other: object) -> str:
    return f"{one}{other}"


CALLBACKS = ("distinct_id", "property_name", "property_value", "experiment_name", "variant_name", "on_error")


@pytest.mark.parametrize("option", CALLBACKS)
@pytest.mark.parametrize(
    "callback",
    [
        {"a": "b"}.get,
        {"a": "b"}.__getitem__,
        str,
        str.upper,
        Callbacks().method,
        Callbacks(),
        partial(two, "one"),
        lambda *given: f"{given}",
        lambda given, *, further=1: f"{given}{further}",
        Unsigned(),
    ],
)
def test_callback_of_one_argument_is_accepted_in_any_shape(
    offline: Flagsmith, option: str, callback: Any
) -> None:
    options = {option: callback}
    assert getattr(FlagSync(offline, "token", **options)._options, option) is callback


@pytest.mark.parametrize("option", CALLBACKS)
@pytest.mark.parametrize(
    ("callback", "fault"),
    [
        (two, "one that cannot be called like that (missing a required argument: 'other')"),
        (lambda: "", "one that cannot be called like that (too many positional arguments)"),
        (lambda *, name: name, "one that cannot be called like that (too many positional arguments)"),
        (Callbacks.method, "one that cannot be called like that (missing a required argument: 'given')"),
        (Callbacks().later, "an async function or a generator, which is never awaited or iterated over"),
        (Later(), "an async function or a generator, which is never awaited or iterated over"),
        (
            partial(Callbacks().later),
            "an async function or a generator, which is never awaited or iterated over",
        ),
        (generate, "an async function or a generator, which is never awaited or iterated over"),
        (generate_later, "an async function or a generator, which is never awaited or iterated over"),
    ],
)
def test_callback_that_cannot_be_called_with_its_argument_is_refused(
    offline: Flagsmith, option: str, callback: Any, fault: str
) -> None:
    with pytest.raises(ValueError) as raised:
        FlagSync(offline, "token", **{option: callback})
    accepted = f"{option} must be a function of {ARGUMENTS[option][0]}"
    assert f"{raised.value}" == f"{accepted}, not {fault}"


def test_callback_for_properties_of_exposures_takes_two_arguments(offline: Flagsmith) -> None:
    for right in (None, lambda identifier, flag: {identifier: flag.feature_name}):
        assert FlagSync(offline, "token", exposure_properties=right)


@pytest.mark.parametrize("callback", [lambda _: {}, 7, Callbacks().later])
def test_callback_for_properties_of_exposures_that_takes_others_is_refused(
    offline: Flagsmith, callback: Any
) -> None:
    accepted = "exposure_properties must be a function of two arguments, the identifier and a Flag"
    with pytest.raises(ValueError, match=accepted):
        FlagSync(offline, "token", exposure_properties=callback)


def test_invalid_option_says_what_came(offline: Flagsmith) -> None:
    options: dict[str, Any] = {"region": "de", "max_pending": -1, "when_full": None, "cohorts": SQLiteStore}
    with pytest.raises(ValueError) as raised:
        FlagSync(offline, "token", **options)
    assert [rule.rpartition(", not ")[2] for rule in f"{raised.value}".split("; ")] == [
        "'de'",
        "-1",
        "None",
        "the class SQLiteStore: make an instance of it",
    ]


@pytest.mark.parametrize("region", ["eu", "in"])
def test_region_beside_a_url_is_refused(offline: Flagsmith, region: Any) -> None:
    with pytest.raises(ValueError, match=r"^region must be left out when mixpanel_url is given"):
        FlagSync(offline, "token", region=region, mixpanel_url="https://mixpanel.example.com")


@pytest.mark.parametrize(
    ("token", "came"),
    [
        ("", "an empty text"),
        ("  ", "an empty text"),
        (7, "7"),
        (b"token", "a value of type bytes"),
        ("to ken", "a placeholder such as 'ser.…' or '<your key>', nor text with white space"),
        ("<token>", "a placeholder such as 'ser.…' or '<your key>', nor text with white space"),
        ("token…", "a placeholder such as 'ser.…' or '<your key>', nor text with white space"),
        (PLACEHOLDER_TOKEN, "the one from the examples"),
    ],
)
def test_invalid_token_is_rejected_without_showing_it(offline: Flagsmith, token: Any, came: str) -> None:
    with pytest.raises(ValueError) as raised:
        FlagSync(offline, token)
    accepted = "the project token of Mixpanel's project settings, or None to mirror nothing"
    assert f"{raised.value}" == f"mixpanel_token must be {accepted}, not {came}"


class Async:
    async def get_identity_flags(self, identifier: str) -> None: ...


def wrapped() -> FlagSync:
    return FlagSync("ser.key", None)


async def built_later() -> None: ...


@pytest.mark.parametrize(
    ("make", "came"),
    [
        (lambda: None, "None"),
        (lambda: 1, "1"),
        (lambda: b"ser.key", "a value of type bytes"),
        (list, "a value of type list"),
        (lambda: "", "an empty text"),
        (lambda: "ser.…", "a placeholder such as 'ser.…' or '<your key>', nor text with white space"),
        (lambda: "ser...", "a placeholder such as 'ser.…' or '<your key>', nor text with white space"),
        (lambda: Flagsmith, "the class Flagsmith: make an instance of it"),
        (lambda: FlagSync, "the class FlagSync: make an instance of it"),
        (wrapped, "a FlagSync, which already mirrors: use it as it is, or pass its flagsmith"),
        (Async, "an async client: evaluate with it, and pass the result to mirror()"),
        (built_later, "a coroutine: await it first"),
        (lambda: Flagsmith(environment_key="ser.…"), "a client with a placeholder for a key"),
    ],
)
def test_flagsmith_that_evaluates_nothing_is_refused(make: Callable[[], Any], came: str) -> None:
    flagsmith = make()
    with pytest.raises(ValueError) as raised:
        FlagSync(flagsmith, "token")
    assert f"{raised.value}" == f"{CLIENT}, not {came}"
    if hasattr(flagsmith, "cr_code"):
        flagsmith.close()


@pytest.mark.parametrize("make", [Mock, MagicMock, partial(create_autospec, Flagsmith, instance=True)])
def test_mock_of_a_client_is_no_async_one(make: Callable[[], Any]) -> None:
    mock = make()
    with FlagSync(mock, None, property_name=mock.get_identity_flags) as client:
        assert client.get_identity_flags("ann") is mock.get_identity_flags.return_value


def test_environment_key_is_stripped() -> None:
    assert FlagSync(" ser.key\n", None).flagsmith.session.headers["X-Environment-Key"] == "ser.key"


def test_help_shows_defaults_in_words() -> None:
    shown = pydoc.plain(pydoc.render_doc(FlagSync))
    assert "= <the identifier itself>" in shown
    assert "= <the feature's own name>" in shown
    assert "= <what Flagsmith's own server sends>" in shown
    assert "<class 'str'>" not in shown
    assert " at 0x" not in shown


def test_defaults_are_called_without_a_detour(offline: Flagsmith) -> None:
    names = FlagSync(offline, None)._options.names
    assert (names.distinct_id, names.property_name, names.property_value) == (str, str, served_value)
    assert SERVED_VALUE(Flag(enabled=True, value=7, feature_id=1, feature_name="f")) == 7


def test_token_is_stripped(offline: Flagsmith) -> None:
    assert FlagSync(offline, " token\n")._options.token == "token"


def test_all_invalid_options_are_in_one_message() -> None:
    with pytest.raises(ValueError, match=r"^flagsmith must be .+; region must be .+; max_pending must be .+$"):
        FlagSync(7, "token", region="de", max_pending=0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("region", "mixpanel_url", "url"),
    [
        ("us", None, "https://api.mixpanel.com/engage"),
        ("eu", None, "https://api-eu.mixpanel.com/engage"),
        ("in", None, "https://api-in.mixpanel.com/engage"),
        ("us", "https://proxy.example.com/mixpanel/", "https://proxy.example.com/mixpanel/engage"),
    ],
)
def test_destination_is_the_host_of_the_region_or_the_proxy(
    region: str, mixpanel_url: str | None, url: str
) -> None:
    options: dict[str, Any] = dict.fromkeys(Options.__slots__)
    options |= {"token": "t", "region": region, "mixpanel_url": mixpanel_url, "tuning": Tuning()}
    assert Options(**options).destination("t").url == url


def test_token_is_in_no_repr(offline: Flagsmith) -> None:
    client = FlagSync(offline, "secret-token")
    assert "secret-token" not in repr(client) + repr(client._options)


def test_environment_key_alone_makes_a_remote_client() -> None:
    client = FlagSync("ser.key", None)
    assert client.flagsmith.enable_local_evaluation is False
