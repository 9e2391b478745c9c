"""Properties of features that were deleted in Flagsmith, from a client to Mixpanel."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flagsmith import Flagsmith
from flagsmith.offline_handlers import LocalFileHandler

from flagsync import FlagSync
from flagsync._client_rules import DELETIONS_UNKNOWN
from flagsync._encoding import deletions
from flagsync._encoding.deletions import ABSENT_SECONDS, LOOK_SECONDS
from flagsync._outbox.contract import MAX_BATCH_MESSAGES
from flagsync.testing import MixpanelServer
from tests.conftest import DATA
from tests.support.clock import Clock
from tests.support.evaluating_flagsmith import EvaluatingFlagsmith, Polling

Build = Callable[..., FlagSync]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock(1.8e9)
    monkeypatch.setattr(deletions, "time", made)
    return made


class Environment:
    """An environment of Flagsmith, and a client with local evaluation.

    Attributes:
        client: Fetches the document when a feature is deleted.
    """

    def __init__(self, server: EvaluatingFlagsmith) -> None:
        self._server, self.client = server, Polling(server)

    def keep(self, *features: str) -> None:
        """Delete all other features."""
        states = self._server.document["feature_states"]
        kept = [state for state in states if state["feature"]["name"] in features]
        self._server.document = {**self._server.document, "feature_states": kept}
        self.client.update_environment()

    def delete(self, feature: str) -> None:
        """Delete a feature."""
        names = [state["feature"]["name"] for state in self._server.document["feature_states"]]
        names.remove(feature)
        self.keep(*names)


@pytest.fixture
def environment(document: dict[str, Any]) -> Iterator[Environment]:
    with EvaluatingFlagsmith(document) as server:
        made = Environment(server)
        yield made
        made.client.close()


def mirror(client: FlagSync, identifier: str) -> None:
    client.get_identity_flags(identifier)
    assert client.flush(10)


@pytest.fixture(params=["memory", "file"])
def options(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    outbox = tmp_path / "outbox.db" if request.param == "file" else None
    return {"unset_deleted": True, "outbox": outbox}


def test_property_of_a_deleted_feature_is_removed_after_a_day_as_profiles_come_by(
    flagsync: Build,
    environment: Environment,
    mixpanel: MixpanelServer,
    clock: Clock,
    options: dict[str, Any],
) -> None:
    client = flagsync(environment.client, **options)
    for user in ("ann", "bob"):
        mirror(client, user)
    environment.delete("str_on")
    mirror(client, "ann")
    clock.now += ABSENT_SECONDS - LOOK_SECONDS
    mirror(client, "ann")
    assert mixpanel.profiles["ann"]["str_on"] == "blue"
    clock.now += LOOK_SECONDS
    mirror(client, "ann")
    assert "str_on" not in mixpanel.profiles["ann"]
    assert "str_on" in mixpanel.profiles["bob"]
    mirror(client, "ann")
    mirror(client, "bob")
    assert [len(mixpanel.profiles[user]) for user in ("ann", "bob")] == [23, 23]
    stats = client.stats()
    # The day began with the second document, which has changed the profile, as the removal did.
    assert (stats.delivered, stats.unchanged, stats.pending, stats.rejected) == (5, 2, 0, 0)


def test_deleted_feature_is_remembered_in_the_outbox(
    flagsync: Build,
    environment: Environment,
    mixpanel: MixpanelServer,
    clock: Clock,
    tmp_path: Path,
) -> None:
    path = tmp_path / "outbox.db"
    for step in ("before", "without", "a day later"):
        with flagsync(environment.client, outbox=path, unset_deleted=True) as client:
            mirror(client, "ann")
        assert ("str_on" in mixpanel.profiles["ann"]) is (step != "a day later")
        if step == "before":
            environment.delete("str_on")
        clock.now += ABSENT_SECONDS


def test_nothing_is_removed_unless_it_is_asked_for(
    flagsync: Build, environment: Environment, mixpanel: MixpanelServer, clock: Clock
) -> None:
    client = flagsync(environment.client)
    mirror(client, "ann")
    environment.delete("str_on")
    mirror(client, "ann")
    clock.now += 2 * ABSENT_SECONDS
    mirror(client, "bob")
    mirror(client, "ann")
    assert "str_on" in mixpanel.profiles["ann"]


def test_requests_have_no_more_records_than_mixpanel_takes(
    flagsync: Build, environment: Environment, mixpanel: MixpanelServer, clock: Clock
) -> None:
    environment.keep("str_on", "int_on")
    client = flagsync(environment.client, unset_deleted=True, flush_interval_seconds=60.0)
    mirror(client, "ann")
    environment.delete("str_on")
    mirror(client, "ann")
    clock.now += ABSENT_SECONDS
    count = len(mixpanel.requests)
    for number in range(MAX_BATCH_MESSAGES + 1):
        client.get_identity_flags(f"user_{number}")
    assert client.flush(30)
    sizes = [len(json.loads(request.body)) for request in mixpanel.requests[count:]]
    assert sum(sizes) == 2 * (MAX_BATCH_MESSAGES + 1)
    assert max(sizes) <= MAX_BATCH_MESSAGES


@pytest.mark.parametrize(
    "flagsmith",
    [
        pytest.param("ser.key", id="key of a remote client"),
        pytest.param(Flagsmith(environment_key="ser.key"), id="remote client"),
        pytest.param(
            Flagsmith(
                offline_mode=True,
                offline_handler=LocalFileHandler(str(DATA / "environment-document.json")),
            ),
            id="offline client",
        ),
    ],
)
def test_deletions_need_a_client_that_knows_which_features_exist(flagsmith: Any) -> None:
    with pytest.raises(
        ValueError, match=r"^unset_deleted needs a client with enable_local_evaluation=True"
    ) as raised:
        FlagSync(flagsmith, "token", unset_deleted=True)
    assert str(raised.value) == DELETIONS_UNKNOWN
    FlagSync(flagsmith, "token").close()


def test_file_that_takes_the_place_of_an_unreachable_flagsmith_may_be_old(environment: Environment) -> None:
    environment.client.offline_handler = LocalFileHandler(str(DATA / "environment-document.json"))
    with pytest.raises(ValueError, match=r"without offline_handler"):
        FlagSync(environment.client, "token", unset_deleted=True)


def test_all_that_is_wrong_is_said_together() -> None:
    with pytest.raises(ValueError, match=r"region must be .*") as raised:
        FlagSync("ser.key", "token", unset_deleted=True, region="mars")  # type: ignore[arg-type]
    assert DELETIONS_UNKNOWN in str(raised.value)
