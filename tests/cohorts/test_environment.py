"""What is known of an environment of Flagsmith from a client."""

from typing import Any

import pytest
from flagsmith import Flagsmith

from flagsync.cohorts.environment import TRAITS_MAY_BE_IGNORED, Environment, ignored_traits

URL = "https://flagsmith.example.com/api/v1/"


def test_environment_is_told_apart_by_key_and_url() -> None:
    environments = [
        Environment.of(Flagsmith(key, url)) for key in ("ser.a", "ser.b") for url in (URL, "https://b/")
    ]
    assert len({environment.name for environment in environments}) == 4
    assert Environment.of(Flagsmith("ser.a", URL[:-1])).name == environments[0].name


def test_environment_shows_neither_key_nor_password() -> None:
    proxies = {"https": "http://user:secret@proxy"}
    environment = Environment.of(Flagsmith("ser.secret", "https://user:secret@host/", proxies=proxies))
    assert "secret" not in f"{environment!r}{environment.name}"


def test_environment_of_a_key_is_in_the_cloud() -> None:
    assert Environment.of("ser.key").url == "https://edge.api.flagsmith.com/api/v1/"


@pytest.mark.parametrize("key", [" ser.key", "ser.key\n", "\tser.key "])
def test_white_space_round_a_key_is_removed(key: str) -> None:
    expected = Environment.of("ser.key")
    for environment in (Environment.of(key), Environment.of(Flagsmith(key))):
        assert (environment.has_server_key, environment) == (True, expected)


def test_header_of_bytes_is_text() -> None:
    client = Flagsmith("ser.key")
    client.session.headers["X-Environment-Key"] = b"ser.other"
    assert Environment.of(client).name == Environment.of("ser.other").name


def test_offline_client_has_no_key(offline: Flagsmith) -> None:
    assert not Environment.of(offline).has_server_key


def test_remote_client_with_a_client_side_key_may_have_its_traits_ignored(offline: Flagsmith) -> None:
    assert ignored_traits(Flagsmith("client-side")) == TRAITS_MAY_BE_IGNORED
    assert [ignored_traits(client) for client in (offline, Flagsmith("ser.key"))] == [None, None]


def test_client_that_evaluates_locally_or_without_a_session_has_its_traits() -> None:
    local = Flagsmith("client-side")
    local.enable_local_evaluation = True
    wrapped: Any = object()
    assert [ignored_traits(client) for client in (local, wrapped)] == [None, None]
