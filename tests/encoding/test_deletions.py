"""Which properties of deleted features are removed, and when."""

from typing import Any

import pytest

from flagsync._encoding import deletions as deletions_module
from flagsync._encoding.deletions import ABSENT_SECONDS, LOOK_SECONDS, REMOVED_SECONDS, Deletions
from flagsync._outbox.contract import Destination, Limits
from flagsync._outbox.durable import DurableOutbox
from flagsync._outbox.memory import MemoryOutbox
from flagsync._outbox.options import Staging
from flagsync._report import Reporter
from flagsync._stats import Ledger
from tests.support.clock import Clock
from tests.support.encoding import DESTINATION
from tests.support.reference_backend import ReferenceStore, UnreliableBackend


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock(1.8e9)
    monkeypatch.setattr(deletions_module, "time", made)
    return made


@pytest.fixture
def outbox() -> MemoryOutbox:
    return MemoryOutbox(Limits(), Ledger(), Reporter(None))


@pytest.fixture
def deletions(clock: Clock, outbox: MemoryOutbox) -> Deletions:
    return Deletions(outbox, DESTINATION)


def document(*features: str, environment: object = "production") -> dict[str, Any]:
    return {"environment": {"key": environment, "name": "any"}, "features": dict.fromkeys(features)}


def look(
    deletions: Deletions, *features: str, environment: object = "production", **names: str
) -> tuple[str, ...]:
    """Look at a document whose features have properties of the same names, or of those that are given."""
    properties = {feature: feature for feature in features} | names
    return deletions.of(document(*properties, environment=environment), properties)


def test_property_is_removed_once_its_feature_has_been_absent_for_a_day(
    deletions: Deletions, clock: Clock
) -> None:
    assert look(deletions, "old", "new") == ()
    clock.now += 30 * ABSENT_SECONDS
    assert look(deletions, "new") == ()  # the day begins with the first document that lacks the feature
    clock.now += ABSENT_SECONDS - 1
    assert look(deletions, "new") == ()
    clock.now += 1
    assert look(deletions, "new") == ("old",)
    clock.now += ABSENT_SECONDS
    assert look(deletions, "new") == ("old",)


def test_property_is_removed_from_profiles_for_a_limited_time(deletions: Deletions, clock: Clock) -> None:
    look(deletions, "old", "new")
    look(deletions, "new")
    clock.now += REMOVED_SECONDS - 1
    assert look(deletions, "new") == ("old",)
    clock.now += 1
    assert look(deletions, "new") == ()


def test_feature_that_comes_back_is_not_deleted(deletions: Deletions, clock: Clock) -> None:
    look(deletions, "old", "new")
    look(deletions, "new")
    clock.now += ABSENT_SECONDS - 1
    look(deletions, "old", "new")
    clock.now += 1
    assert look(deletions, "new") == ()
    clock.now += ABSENT_SECONDS
    assert look(deletions, "new") == ("old",)
    assert look(deletions, "old", "new") == ()


def test_property_that_another_feature_writes_is_kept(deletions: Deletions, clock: Clock) -> None:
    look(deletions, "new", checkout_v1="checkout")
    look(deletions, "new", checkout_v2="checkout")
    clock.now += ABSENT_SECONDS
    assert look(deletions, "new", checkout_v2="checkout") == ()


def test_every_property_that_a_deleted_feature_had_is_removed(deletions: Deletions, clock: Clock) -> None:
    look(deletions, "new", old="Old")
    look(deletions, "new", old="Older")
    clock.now += 2 * ABSENT_SECONDS
    assert look(deletions, "new", old="Older") == ()  # the feature is there
    look(deletions, "new")
    clock.now += ABSENT_SECONDS
    assert look(deletions, "new") == ("Old", "Older")


def test_feature_that_is_left_out_is_not_deleted(deletions: Deletions, clock: Clock) -> None:
    look(deletions, "old", "new")
    for _ in range(2):
        assert deletions.of(document("old", "new"), {"new": "new"}) == ()
        clock.now += ABSENT_SECONDS


def test_properties_that_others_wrote_are_left_alone(deletions: Deletions, clock: Clock) -> None:
    look(deletions, "new")
    clock.now += 2 * ABSENT_SECONDS
    assert look(deletions, "new") == ()


def test_environments_do_not_take_each_others_features_for_deleted(deletions: Deletions, clock: Clock) -> None:
    for _ in range(2):
        assert look(deletions, "a", "both", environment="production") == ()
        assert look(deletions, "b", "both", environment="staging") == ()
        clock.now += 2 * ABSENT_SECONDS


def test_property_is_kept_while_any_environment_writes_it(deletions: Deletions, clock: Clock) -> None:
    look(deletions, "both", "new", environment="production")
    look(deletions, "both", environment="staging")
    look(deletions, "new", environment="production")
    clock.now += ABSENT_SECONDS
    assert look(deletions, "new", environment="production") == ()
    look(deletions, "other", environment="staging")
    clock.now += ABSENT_SECONDS
    assert look(deletions, "new", environment="production") == ("both",)


def test_environment_is_the_same_under_another_name(deletions: Deletions, clock: Clock) -> None:
    look(deletions, "old", "new")
    renamed = {**document("new"), "environment": {"key": "production", "name": "another"}}
    deletions.of(renamed, {"new": "new"})
    clock.now += ABSENT_SECONDS
    assert look(deletions, "new") == ("old",)


@pytest.mark.parametrize("environment", [None, "text", {}])
def test_document_without_a_key_is_an_environment_of_its_own(
    deletions: Deletions, clock: Clock, environment: Any
) -> None:
    look(deletions, "old", "new")
    for _ in range(2):
        assert deletions.of({"environment": environment, "features": {"new": {}}}, {"new": "new"}) == ()
        clock.now += ABSENT_SECONDS


def test_name_is_as_mixpanel_stores_it(deletions: Deletions, clock: Clock) -> None:
    name = 'é" \0\ud800' + "x" * 300
    look(deletions, "new", **{name: name})
    look(deletions, "new")
    clock.now += ABSENT_SECONDS
    assert look(deletions, "new") == (name[:255],)


def test_it_is_time_to_look_again_after_an_hour(deletions: Deletions, clock: Clock) -> None:
    assert not deletions.is_due()
    look(deletions, "new")
    clock.now += LOOK_SECONDS - 1
    assert not deletions.is_due()
    clock.now += 1
    assert deletions.is_due()
    look(deletions, "new")
    assert not deletions.is_due()
    clock.now -= 100 * LOOK_SECONDS  # somebody has put the clock back
    assert deletions.is_due()


def test_projects_do_not_mix(deletions: Deletions, clock: Clock, outbox: MemoryOutbox) -> None:
    other = Deletions(outbox, Destination("http://mixpanel/engage", "other"))
    look(deletions, "old", "new")
    look(other, "new")
    clock.now += 2 * ABSENT_SECONDS
    assert look(other, "new") == ()


def test_another_process_knows_what_was_written(clock: Clock) -> None:
    store = ReferenceStore()
    one, other = durable(store), durable(store)
    look(Deletions(one, DESTINATION), "old", "new")
    look(Deletions(other, DESTINATION), "new")
    clock.now += ABSENT_SECONDS
    assert look(Deletions(one, DESTINATION), "new") == ("old",)


def durable(store: ReferenceStore, backend: UnreliableBackend | None = None) -> DurableOutbox:
    ledger, report = Ledger(), Reporter(None)
    memory = MemoryOutbox(Limits(), ledger, report)
    staging = Staging(retry_seconds=1000.0)
    used = backend or UnreliableBackend(store)
    return DurableOutbox(memory, used, limits=Limits(), staging=staging, ledger=ledger, report=report)


def test_outbox_that_cannot_be_used_changes_nothing(clock: Clock) -> None:
    store = ReferenceStore()
    backend = UnreliableBackend(store)
    outbox = durable(store, backend)
    deletions = Deletions(outbox, DESTINATION)
    look(deletions, "old", "new")
    look(deletions, "new")
    clock.now += ABSENT_SECONDS
    assert look(deletions, "new") == ("old",)
    backend.broken = {"note_absences"}
    assert look(deletions, "new") == ("old",)
    [outage, _] = outbox.outages()
    assert outage.is_active
    backend.mend()
    assert look(deletions, "new") == ("old",)  # it is not asked while memory takes its place
    assert look(Deletions(outbox, DESTINATION), "new") == ()


def test_outbox_that_fails_in_between_changes_nothing(clock: Clock) -> None:
    store = ReferenceStore()
    backend = UnreliableBackend(store)
    calls = list[str]()

    def break_the_second(name: str) -> None:
        calls.append(name)
        backend.broken = {"note_absences"} if len(calls) > 1 else set()

    backend.before = break_the_second
    deletions = Deletions(durable(store, backend), DESTINATION)
    assert look(deletions, "new") == ()
    assert calls == ["note_absences"] * 2
