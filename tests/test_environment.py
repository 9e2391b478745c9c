"""The options of a client that come from the environment."""

import inspect
from pathlib import Path
from typing import Any

import pytest
from flagsmith import Flagsmith
from flagsmith.models import DefaultFlag

from flagsync import FlagSync
from flagsync._environment import EnvironmentOptions

KEY, TOKEN = "FLAGSMITH_ENVIRONMENT_KEY", "MIXPANEL_TOKEN"


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ENVIRONMENT_KEY", "API_URL", "LOCAL_EVALUATION"):
        monkeypatch.delenv(f"FLAGSMITH_{name}", raising=False)
    for name in ("TOKEN", "REGION", "URL"):
        monkeypatch.delenv(f"MIXPANEL_{name}", raising=False)
    for name in ("ENABLED", "OUTBOX"):
        monkeypatch.delenv(f"FLAGSYNC_{name}", raising=False)


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
    assert FlagSync.from_env(mixpanel_token=token)._options.token == token


def test_from_env_names_every_variable_that_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLAGSMITH_API_URL", "flagsmith.example.com")
    monkeypatch.setenv("FLAGSMITH_LOCAL_EVALUATION", "perhaps")
    monkeypatch.setenv("MIXPANEL_TOKEN", "")
    monkeypatch.setenv("MIXPANEL_REGION", "moon")
    monkeypatch.setenv("MIXPANEL_URL", "mixpanel")
    monkeypatch.setenv("FLAGSYNC_ENABLED", "perhaps")
    with pytest.raises(ValueError, match="FLAGSMITH_ENVIRONMENT_KEY") as raised:
        FlagSync.from_env(max_pending=0)
    assert str(raised.value).split("; ") == [
        "FLAGSMITH_ENVIRONMENT_KEY must be set to an SDK key of the environment",
        "FLAGSMITH_API_URL must be a complete URL, such as https://edge.api.flagsmith.com/api/v1/",
        "FLAGSMITH_LOCAL_EVALUATION must be true or false, not 'perhaps'",
        "MIXPANEL_TOKEN must be set to the project token",
        "MIXPANEL_REGION must be us, eu or in, not 'moon'",
        "MIXPANEL_URL must be a complete URL, such as https://mixpanel.example.com",
        "FLAGSYNC_ENABLED must be true or false, not 'perhaps'",
        "max_pending must be a whole number above 0, not 0",
    ]


def test_client_side_key_with_local_evaluation_is_flagsmiths_own_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FLAGSMITH_ENVIRONMENT_KEY", "client-side")
    monkeypatch.setenv("FLAGSMITH_LOCAL_EVALUATION", "TRUE")
    monkeypatch.setenv("MIXPANEL_TOKEN", "token")
    with pytest.raises(ValueError, match="please generate a server key"):
        FlagSync.from_env()


@pytest.mark.parametrize("value", ["false", "False", "0", "no", "off"])
def test_from_env_mirrors_nothing_while_it_is_switched_off(
    value: str, monkeypatch: pytest.MonkeyPatch, offline: Flagsmith
) -> None:
    monkeypatch.setenv("FLAGSYNC_ENABLED", value)
    client = FlagSync.from_env(
        offline_mode=True,
        offline_handler=offline.offline_handler,
        mixpanel_token="token",
        outbox="/nowhere/outbox.db",
    )
    assert client._options.token is None
    assert client.get_identity_flags("user_1").is_feature_enabled("bool_on")


@pytest.mark.parametrize("value", ["true", "1", "on", ""])
def test_from_env_mirrors_while_it_is_not_switched_off(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLAGSYNC_ENABLED", value)
    monkeypatch.setenv(KEY, "key")
    monkeypatch.setenv(TOKEN, "token")
    assert FlagSync.from_env()._options.token == "token"


@pytest.mark.parametrize(("options", "name"), [({}, "one.db"), ({"outbox": "two.db"}, "two.db")])
def test_from_env_takes_the_outbox_of_the_environment_unless_one_is_passed(
    options: Any, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(KEY, "key")
    monkeypatch.setenv(TOKEN, "token")
    monkeypatch.setenv("FLAGSYNC_OUTBOX", " one.db ")
    with FlagSync.from_env(**options) as client:
        assert client._options.outbox == f"{tmp_path / name}"
        assert [path.name for path in tmp_path.glob("*.db")] == [name]


def test_from_env_needs_no_outbox_of_the_environment_while_it_is_switched_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(KEY, "key")
    monkeypatch.setenv("FLAGSYNC_ENABLED", "false")
    monkeypatch.setenv("FLAGSYNC_OUTBOX", "/nowhere/outbox.db")
    assert FlagSync.from_env()._options.outbox is None


def test_from_env_passes_flagsmiths_own_options_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, "key")
    monkeypatch.setenv(TOKEN, "token")
    monkeypatch.setenv("FLAGSMITH_API_URL", "https://one.example.com/")
    client = FlagSync.from_env(
        api_url="https://two.example.com/",
        request_timeout_seconds=3,
        default_flag_handler=lambda _: DefaultFlag(enabled=False, value=None),
        custom_headers={"X-Mine": "yes"},
        max_pending=7,
    )
    assert client.flagsmith.api_url == "https://two.example.com/"
    assert client.flagsmith.request_timeout_seconds == 3
    assert client.flagsmith.session.headers["X-Mine"] == "yes"
    assert client._options.max_pending == 7


def test_from_env_needs_no_key_for_one_that_is_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN, "token")
    client = FlagSync.from_env(environment_key="ser.key")
    assert client.flagsmith.session.headers["X-Environment-Key"] == "ser.key"


def test_from_env_refuses_a_placeholder_for_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, "ser.…")
    monkeypatch.setenv(TOKEN, "token")
    with pytest.raises(ValueError, match=r"^FLAGSMITH_ENVIRONMENT_KEY must be .*, not a placeholder"):
        FlagSync.from_env()


def test_from_env_with_a_url_of_its_own_ignores_the_region_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(KEY, "key")
    monkeypatch.setenv(TOKEN, "token")
    monkeypatch.setenv("MIXPANEL_REGION", "eu")
    client = FlagSync.from_env(mixpanel_url="https://mixpanel.example.com")
    assert client._options.mixpanel_url == "https://mixpanel.example.com"


@pytest.mark.parametrize(
    ("variable", "options"), [("eu", {}), ("moon", {}), ("", {"region": "eu"}), ("us", {"region": "in"})]
)
def test_from_env_with_a_url_in_the_environment_ignores_the_region(
    variable: str, options: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY, "key")
    monkeypatch.setenv(TOKEN, "token")
    monkeypatch.setenv("MIXPANEL_REGION", variable)
    monkeypatch.setenv("MIXPANEL_URL", "http://127.0.0.1:8001")
    client = FlagSync.from_env(**options)
    assert client._options.destination("token").url == "http://127.0.0.1:8001/engage"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"region": "moon"}, "^region must be 'us', 'eu' or 'in'"),
        ({"region": []}, "^region must be 'us', 'eu' or 'in'"),
        (
            {"region": "eu", "mixpanel_url": "http://127.0.0.1:8001"},
            "^region must be left out when mixpanel_url",
        ),
    ],
)
def test_from_env_with_a_url_in_the_environment_refuses_options_that_are_wrong(
    options: Any, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY, "key")
    monkeypatch.setenv(TOKEN, "token")
    monkeypatch.setenv("MIXPANEL_URL", "http://127.0.0.1:8001")
    with pytest.raises(ValueError, match=message):
        FlagSync.from_env(**options)


def test_from_env_without_a_url_by_option_uses_the_region_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(KEY, "key")
    monkeypatch.setenv(TOKEN, "token")
    monkeypatch.setenv("MIXPANEL_REGION", "eu")
    monkeypatch.setenv("MIXPANEL_URL", "http://127.0.0.1:8001")
    client = FlagSync.from_env(mixpanel_url=None)
    assert client._options.destination("token").url == "https://api-eu.mixpanel.com/engage"


def test_from_env_checks_options_before_it_builds_a_flagsmith_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, "client-side")  # which Flagsmith refuses for local evaluation
    monkeypatch.setenv(TOKEN, "token")
    with pytest.raises(ValueError, match=r"^max_pending must be"):
        FlagSync.from_env(enable_local_evaluation=True, max_pending=0)


def test_from_env_has_no_other_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, "key")
    monkeypatch.setenv(TOKEN, "token")
    options: Any = {"max_waiting": 7, "token": "token", "tuning": None, "max_pending": 0}
    with pytest.raises(TypeError) as raised:
        FlagSync.from_env(**options)
    refused, _, accepted = str(raised.value).partition("; it accepts ")
    assert refused == "from_env() has no option named max_waiting, token, tuning"
    assert accepted.split(", ") == sorted(EnvironmentOptions.__optional_keys__)


def test_from_env_declares_every_option_of_both_constructors() -> None:
    own = {"mixpanel_token", *(FlagSync.__init__.__kwdefaults__ or {})}
    assert {*inspect.signature(Flagsmith).parameters} | own <= EnvironmentOptions.__optional_keys__
