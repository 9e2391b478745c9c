"""Options that cannot be right."""

from typing import Any

import pytest
from flagsmith import Flagsmith

from flagsync import FlagSync
from flagsync._config import Config

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
def test_an_option_that_cannot_be_right_is_named_with_its_remedy(
    offline: Flagsmith, option: str, values: list[Any]
) -> None:
    for value in values:
        with pytest.raises(ValueError, match=rf"^{option} is [^;]+$"):
            FlagSync(offline, "token", **{option: value})


@pytest.mark.parametrize("token", ["", "  ", 7])
def test_an_empty_token_is_no_token(offline: Flagsmith, token: Any) -> None:
    with pytest.raises(ValueError, match="mixpanel_token is the project token"):
        FlagSync(offline, token)


@pytest.mark.parametrize("flagsmith", [None, 1, b"ser.key", [], Flagsmith])
def test_what_evaluates_nothing_is_no_client(flagsmith: Any) -> None:
    with pytest.raises(ValueError, match="flagsmith is a configured client"):
        FlagSync(flagsmith, "token")


def test_white_space_round_a_token_is_no_part_of_it(offline: Flagsmith) -> None:
    assert FlagSync(offline, " token\n")._config.token == "token"


def test_all_that_is_wrong_is_said_at_once(offline: Flagsmith) -> None:
    with pytest.raises(ValueError, match=r"^region is .+; max_pending is .+$"):
        FlagSync(offline, "token", region="de", max_pending=0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("region", "mixpanel_url", "url"),
    [
        ("us", None, "https://api.mixpanel.com/engage"),
        ("eu", None, "https://api-eu.mixpanel.com/engage"),
        ("in", None, "https://api-in.mixpanel.com/engage"),
        ("eu", "https://proxy.example.com/mixpanel/", "https://proxy.example.com/mixpanel/engage"),
    ],
)
def test_updates_go_to_the_regions_host_or_to_the_proxy(
    region: str, mixpanel_url: str | None, url: str
) -> None:
    options: dict[str, Any] = dict.fromkeys(Config.__slots__)
    options |= {"token": "t", "region": region, "mixpanel_url": mixpanel_url, "when_full": "drop"}
    options |= {"distinct_id": str, "property_name": str, "property_value": str}
    options |= {"flush_interval_seconds": 1, "resend_after_seconds": 0, "max_pending": 1}
    assert Config(**options).url == url


def test_the_token_is_in_no_repr(offline: Flagsmith) -> None:
    client = FlagSync(offline, "secret-token")
    assert "secret-token" not in repr(client) + repr(client._config)


def test_from_env_builds_a_client_of_both_services(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLAGSMITH_ENVIRONMENT_KEY", " ser.key ")
    monkeypatch.setenv("FLAGSMITH_API_URL", "https://flagsmith.example.com/api/v1")
    monkeypatch.setenv("MIXPANEL_TOKEN", "token")
    monkeypatch.setenv("MIXPANEL_REGION", "eu")
    client = FlagSync.from_env(max_pending=7)
    assert client.flagsmith.api_url == "https://flagsmith.example.com/api/v1/"
    assert client.flagsmith.session.headers["X-Environment-Key"] == "ser.key"
    assert client.flagsmith.enable_local_evaluation is False
    assert (client._config.url, client._config.max_pending) == ("https://api-eu.mixpanel.com/engage", 7)


def test_options_come_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLAGSMITH_ENVIRONMENT_KEY", "key")
    monkeypatch.setenv("MIXPANEL_TOKEN", "token")
    monkeypatch.setenv("MIXPANEL_URL", "http://one.example.com")
    client = FlagSync.from_env(mixpanel_url="http://two.example.com", mixpanel_token=None)
    assert (client._config.url, client._config.token) == ("http://two.example.com/engage", None)


@pytest.mark.parametrize("token", ["token", None])
def test_from_env_takes_a_token_from_its_options_alone(
    token: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLAGSMITH_ENVIRONMENT_KEY", "key")
    monkeypatch.delenv("MIXPANEL_TOKEN", raising=False)
    assert FlagSync.from_env(mixpanel_token=token)._config.token == token


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


def test_a_client_side_key_with_local_evaluation_is_flagsmiths_own_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FLAGSMITH_ENVIRONMENT_KEY", "client-side")
    monkeypatch.setenv("FLAGSMITH_LOCAL_EVALUATION", "TRUE")
    monkeypatch.setenv("MIXPANEL_TOKEN", "token")
    with pytest.raises(ValueError, match="please generate a server key"):
        FlagSync.from_env()


def test_an_environment_key_alone_makes_a_remote_client() -> None:
    client = FlagSync("ser.key", None)
    assert client.flagsmith.enable_local_evaluation is False
