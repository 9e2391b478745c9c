"""The rules of options, and the environment that they may come from."""

from typing import Any

import pytest
from flagsmith import Flagsmith

from flagsync import FlagSync
from flagsync._options import Options, Tuning

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
            ],
        ),
        ("flush_interval_seconds", [0, -1, NAN, "1", None, True, 10**400]),
        ("resend_after_seconds", [-1, NAN, float("inf"), "0", 10**400]),
        ("max_pending", [0, -1, 1.5, True, "10"]),
        ("when_full", ["block", None]),
        ("distinct_id", [None, "user"]),
        ("property_name", [None, "name"]),
        ("property_value", [None, 1]),
        ("on_error", ["log"]),
    ],
)
def test_invalid_option_is_named_with_the_accepted_values(
    offline: Flagsmith, option: str, values: list[Any]
) -> None:
    for value in values:
        with pytest.raises(ValueError, match=rf"^{option} must be [^;]+$"):
            FlagSync(offline, "token", **{option: value})


@pytest.mark.parametrize("token", ["", "  ", 7])
def test_empty_token_is_rejected(offline: Flagsmith, token: Any) -> None:
    with pytest.raises(ValueError, match="mixpanel_token must be the project token"):
        FlagSync(offline, token)


@pytest.mark.parametrize("flagsmith", [None, 1, b"ser.key", [], Flagsmith])
def test_flagsmith_option_rejects_objects_that_evaluate_nothing(flagsmith: Any) -> None:
    with pytest.raises(ValueError, match="flagsmith must be a configured client"):
        FlagSync(flagsmith, "token")


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
        ("eu", "https://proxy.example.com/mixpanel/", "https://proxy.example.com/mixpanel/engage"),
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


def test_from_env_builds_a_client_of_both_services(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLAGSMITH_ENVIRONMENT_KEY", " ser.key ")
    monkeypatch.setenv("FLAGSMITH_API_URL", "https://flagsmith.example.com/api/v1")
    monkeypatch.setenv("MIXPANEL_TOKEN", "token")
    monkeypatch.setenv("MIXPANEL_REGION", "eu")
    client = FlagSync.from_env(max_pending=7)
    assert client.flagsmith.api_url == "https://flagsmith.example.com/api/v1/"
    assert client.flagsmith.session.headers["X-Environment-Key"] == "ser.key"
    assert client.flagsmith.enable_local_evaluation is False
    assert (client._options.region, client._options.max_pending) == ("eu", 7)


def test_from_env_prefers_options_to_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLAGSMITH_ENVIRONMENT_KEY", "key")
    monkeypatch.setenv("MIXPANEL_TOKEN", "token")
    monkeypatch.setenv("MIXPANEL_URL", "http://one.example.com")
    client = FlagSync.from_env(mixpanel_url="http://two.example.com", mixpanel_token=None)
    assert (client._options.mixpanel_url, client._options.token) == ("http://two.example.com", None)


@pytest.mark.parametrize("token", ["token", None])
def test_from_env_takes_a_token_from_its_options_alone(
    token: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLAGSMITH_ENVIRONMENT_KEY", "key")
    monkeypatch.delenv("MIXPANEL_TOKEN", raising=False)
    assert FlagSync.from_env(mixpanel_token=token)._options.token == token


def test_from_env_names_every_variable_that_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLAGSMITH_ENVIRONMENT_KEY", raising=False)
    monkeypatch.setenv("FLAGSMITH_API_URL", "flagsmith.example.com")
    monkeypatch.setenv("FLAGSMITH_LOCAL_EVALUATION", "perhaps")
    monkeypatch.setenv("MIXPANEL_TOKEN", "")
    monkeypatch.setenv("MIXPANEL_REGION", "moon")
    monkeypatch.setenv("MIXPANEL_URL", "mixpanel")
    with pytest.raises(ValueError, match="FLAGSMITH_ENVIRONMENT_KEY") as raised:
        FlagSync.from_env()
    assert [rule.split()[0] for rule in str(raised.value).split("; ")] == [
        "FLAGSMITH_ENVIRONMENT_KEY",
        "FLAGSMITH_API_URL",
        "FLAGSMITH_LOCAL_EVALUATION",
        "MIXPANEL_TOKEN",
        "MIXPANEL_REGION",
        "MIXPANEL_URL",
    ]


def test_client_side_key_with_local_evaluation_is_flagsmiths_own_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FLAGSMITH_ENVIRONMENT_KEY", "client-side")
    monkeypatch.setenv("FLAGSMITH_LOCAL_EVALUATION", "TRUE")
    monkeypatch.setenv("MIXPANEL_TOKEN", "token")
    with pytest.raises(ValueError, match="please generate a server key"):
        FlagSync.from_env()


def test_environment_key_alone_makes_a_remote_client() -> None:
    client = FlagSync("ser.key", None)
    assert client.flagsmith.enable_local_evaluation is False
