"""What type checkers accept."""

from typing import assert_type

from flagsmith import Flagsmith
from flagsmith.models import DefaultFlag, Flag, Flags
from openfeature.hook import Hook

from flagsync import DeliveryError, FlagSync, PropertyValue, Stats
from flagsync.cohorts import CohortWebhook, MembershipStore, SQLiteStore, TraitStats, TraitWriter
from flagsync.openfeature import MixpanelExposureHook
from flagsync.testing import MixpanelServer


def leave_out(name: str) -> str | None:
    return None if name.startswith("ops_") else name


def structured(flag: Flag) -> PropertyValue:
    return {"enabled": flag.enabled, "tags": ["a", 1, 2.5]}


def told(error: DeliveryError) -> None:
    assert_type(error.identifiers, tuple[str, ...])
    assert_type(error.will_retry, bool)


client = FlagSync(
    Flagsmith(environment_key="ser.key"),
    "token",
    region="eu",
    distinct_id=leave_out,
    property_name=leave_out,
    property_value=structured,
    when_full="wait",
    resend_after_seconds=0,
    on_error=told,
)
assert_type(client, FlagSync)
assert_type(FlagSync("key", None).flagsmith, Flagsmith)
assert_type(FlagSync.from_env(region="in", enable_local_evaluation=True, outbox=None), FlagSync)
assert_type(client.get_identity_flags("user", {"plan": "pro", "age": {"value": 7, "transient": True}}), Flags)
assert_type(client.get_environment_flags(), Flags)
assert_type(client.mirror("user", Flags()), None)
assert_type(client.flush(), bool)
assert_type(client.close(timeout_seconds=1), bool)
assert_type(client.stats(), Stats)
assert_type(client.flagsmith.offline_mode, bool)
hooks: list[Hook] = [MixpanelExposureHook(client), MixpanelExposureHook(client, experiments={"checkout"})]


async def evaluate() -> Flags:
    async with FlagSync("key", "token") as entered:
        assert_type(entered, FlagSync)
        assert_type(await entered.aget_experiment_flag("flag", "user", {"plan": "pro"}), Flag | DefaultFlag)
        assert_type(await entered.aflush(), bool)
        assert_type(await entered.aclose(timeout_seconds=1), bool)
        return assert_type(await entered.aget_identity_flags("user", transient=True), Flags)


assert_type(client.stats().delivered, int)
with FlagSync("key", "token") as entered, MixpanelServer() as server:
    assert_type(entered, FlagSync)
    assert_type(server.url, str)
store: MembershipStore = SQLiteStore("cohorts.db", traits={"VIPs": "vip"}, takes=lambda _, name: name == "VIPs")
FlagSync("key", "token", cohorts=store)
assert_type(TraitWriter(store, Flagsmith("ser.key"), on_error=told).stats(), TraitStats)
CohortWebhook(store, credentials=[("mixpanel", "password")], member_key="email")
CohortWebhook(store, credentials=None)
