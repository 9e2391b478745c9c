"""What type checkers refuse: each line would be an error without its comment, and the comment without it."""

from flagsync import FlagSync
from flagsync.cohorts import CohortWebhook, SQLiteStore, TraitWriter
from flagsync.openfeature import MixpanelExposureHook

FlagSync("key")  # type: ignore[call-arg]
FlagSync("key", "token", "eu")  # type: ignore[call-arg]
FlagSync("key", "token", region="de")  # type: ignore[arg-type]
FlagSync("key", "token", when_full="block")  # type: ignore[arg-type]
FlagSync("key", "token", max_pending="many")  # type: ignore[arg-type]
FlagSync("key", "token", distinct_id=lambda identifier: 7)  # type: ignore[arg-type, return-value]
FlagSync("key", "token", property_value=lambda flag: object())  # type: ignore[arg-type, return-value]
FlagSync("key", "token", on_error=lambda: None)  # type: ignore[arg-type, misc]
FlagSync("key", "token", outbox_path="file")  # type: ignore[call-arg]
FlagSync.from_env(region="de")  # type: ignore[arg-type]
FlagSync.from_env(max_waiting=7)  # type: ignore[call-arg]
client = FlagSync("key", "token")
client.get_identity_flags()  # type: ignore[call-arg]
client.get_identity_flag("user")  # type: ignore[attr-defined]
client.track_event("signed_up")  # type: ignore[attr-defined] # client.flagsmith.track_event is typed
MixpanelExposureHook(client, {"checkout"})  # type: ignore[call-arg]
MixpanelExposureHook(client.flagsmith)  # type: ignore[arg-type]
client.get_identity_flags("user", {}, True)  # type: ignore[call-arg]
client.aget_identity_flags("user", {}, True)  # type: ignore[call-arg, unused-coroutine]
client.aget_identity_flags("user").is_feature_enabled("flag")  # type: ignore[attr-defined]
client.mirror("user", {"flag": True})  # type: ignore[arg-type]
client.stats().delivered = 1  # type: ignore[misc]
store = SQLiteStore("cohorts.db")
FlagSync("key", "token", cohorts="cohorts.db")  # type: ignore[arg-type]
SQLiteStore("cohorts.db", {"VIPs": "vip"})  # type: ignore[call-arg]
CohortWebhook(store, [("mixpanel", "password")])  # type: ignore[call-arg]
CohortWebhook(store, credentials=["password"])  # type: ignore[list-item]
TraitWriter(store)  # type: ignore[call-arg]
