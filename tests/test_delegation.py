"""The public names of the Flagsmith client on the client that wraps it."""

import copy
from collections.abc import Callable
from typing import Any
from unittest.mock import Mock

import pytest
from flagsmith import Flagsmith
from flagsmith.analytics import EventProcessor, EventProcessorConfig

from flagsync import FlagSync

Build = Callable[..., FlagSync]


def public_names(value: object) -> set[str]:
    return {name for name in dir(value) if not name.startswith("_")}


def remote() -> Flagsmith:
    return Flagsmith(environment_key="key", api_url="https://flagsmith.example.com/api/v1/")


def test_every_public_name_of_flagsmith_is_delegated_unless_the_client_has_its_own(flagsync: Build) -> None:
    client = flagsync(flagsmith := remote())
    names = public_names(flagsmith)
    assert {"session", "api_url", "offline_mode", "get_identity_segments", "track_event"} <= names
    for name in names - {*vars(FlagSync)}:
        assert getattr(client, name) == getattr(flagsmith, name)


def test_names_of_the_client_are_not_delegated(flagsync: Build, offline: Flagsmith) -> None:
    client = flagsync()
    assert client.get_identity_flags.__self__ is client  # type: ignore[attr-defined]
    assert client.flagsmith is offline


def test_delegated_name_has_the_value_of_the_moment(flagsync: Build, offline: Flagsmith) -> None:
    client: Any = flagsync()
    assert client.offline_mode is True
    offline.offline_mode = False
    assert client.offline_mode is False


def test_event_processor_is_delegated_since_the_provider_asks_for_it(flagsync: Build) -> None:
    client: Any = flagsync(flagsmith := remote())
    assert client._event_processor is None
    flagsmith._event_processor = EventProcessor(EventProcessorConfig(), "key")  # not started
    assert client._event_processor is flagsmith._event_processor


@pytest.mark.parametrize("name", ["no_such_name", "session"])
def test_delegation_of_an_unknown_name_says_that_both_clients_lack_it(name: str, flagsync: Build) -> None:
    client = flagsync()  # which has no session, since it is offline
    message = f"'FlagSync' object has no attribute '{name}', and neither has the Flagsmith client that it wraps"
    with pytest.raises(AttributeError) as raised:
        getattr(client, name)
    assert (f"{raised.value}", raised.value.name, raised.value.obj) == (message, name, client)
    assert not hasattr(client, name)


def test_delegation_keeps_the_error_of_a_property(flagsync: Build) -> None:
    class Broken(Flagsmith):
        @property
        def region(self) -> str:
            raise AttributeError("of the property")

    client: Any = flagsync(Broken(environment_key="key"))
    with pytest.raises(AttributeError, match="'region', and neither") as raised:
        _ = client.region
    assert f"{raised.value.__cause__}" == "of the property"


@pytest.mark.parametrize("name", ["_evaluation_context", "_Flagsmith__evaluation_context", "__deepcopy__"])
def test_private_names_are_not_delegated(name: str, flagsync: Build, offline: Flagsmith) -> None:
    vars(offline).setdefault("__deepcopy__", None)
    with pytest.raises(AttributeError, match=rf"^'FlagSync' object has no attribute '{name}'$"):
        getattr(flagsync(), name)


@pytest.mark.parametrize("name", ["flagsmith", "_evaluator", "offline_mode", "_event_processor"])
def test_delegation_before_init_says_that_it_has_not_run(name: str) -> None:
    with pytest.raises(AttributeError, match=f"no attribute '{name}': .* has not run to its end"):
        getattr(FlagSync.__new__(FlagSync), name)


def test_delegation_before_init_leaves_special_names_alone() -> None:
    bare = FlagSync.__new__(FlagSync)
    assert not hasattr(bare, "__deepcopy__")
    assert "flush" in dir(bare)
    with pytest.raises(TypeError, match="cannot be pickled or copied"):
        copy.deepcopy(bare)


def test_delegated_names_are_listed_and_specify_mocks(flagsync: Build, offline: Flagsmith) -> None:
    client = flagsync()
    assert public_names(client) == public_names(FlagSync) | public_names(offline) | {"flagsmith"}
    mock = Mock(spec=client)
    mock.track_event("signed_up")
    with pytest.raises(AttributeError):
        mock.no_such_name()
