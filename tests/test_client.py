"""FlagSync in every mode of Flagsmith, and what it does with bad input."""

import copy
import json
import pickle
import sys
import threading
from collections.abc import Callable
from itertools import count
from pathlib import Path
from queue import SimpleQueue
from time import monotonic
from types import ModuleType
from typing import Any

import pytest
import requests
import responses
from flagsmith import Flagsmith
from flagsmith.exceptions import FlagsmithAPIError
from flagsmith.models import DefaultFlag, Flag, Flags
from flagsmith.offline_handlers import LocalFileHandler

from flagsync import DeliveryError, FlagSync, Stats
from flagsync._delivery.destinations import Backoff
from flagsync._delivery.sender import Sending
from flagsync._options import Tuning
from flagsync._pipeline import WAITS_NO_LONGER
from flagsync.cohorts import CohortUpdate, SQLiteStore
from flagsync.testing import MixpanelServer
from tests.support.encoding import lazy
from tests.support.identifiers import Masked, User

DATA = Path(__file__).parent / "data"
API = "https://flagsmith.example.com/api/v1/"
VECTORS: list[dict[str, Any]] = json.loads((DATA / "identities.json").read_text("utf-8"))
Build = Callable[..., FlagSync]


@pytest.fixture
def api(mixpanel: MixpanelServer) -> Any:
    """Flagsmith's API; requests to the loopback Mixpanel pass."""
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        mock.add_passthru(mixpanel.url)
        yield mock


def remote(**options: Any) -> Flagsmith:
    return Flagsmith(environment_key="key", api_url=API, **options)


def identity(pair: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The identity of a recorded pair, and its stored and passed traits."""
    body = pair["response"]["body"]
    return body["identifier"], {trait["trait_key"]: trait["trait_value"] for trait in body["traits"]}


def typed(properties: dict[str, Any]) -> dict[str, Any]:
    """Values with their types: ``True`` equals ``1``, which Mixpanel shows as another value."""
    return {name: (type(value), value) for name, value in properties.items()}


@pytest.mark.parametrize("pair", VECTORS, ids=lambda pair: pair["name"])
def test_remote_evaluation_is_mirrored_as_flagsmiths_own_server_does(
    pair: dict[str, Any], flagsync: Build, mixpanel: MixpanelServer, api: Any
) -> None:
    api.post(f"{API}identities/", json=pair["response"]["body"])
    identifier, traits = identity(pair)
    client = flagsync(remote())
    client.get_identity_flags(identifier, traits)
    assert client.flush()
    [sent] = pair["mixpanel"]["body"]
    assert typed(mixpanel.profiles[identifier]) == typed(sent["$set"])
    assert mixpanel.requests[0].updates[0]["$ip"] == sent["$ip"]


@pytest.mark.parametrize("pair", VECTORS, ids=lambda pair: pair["name"])
def test_local_evaluation_is_mirrored_as_flagsmiths_own_server_does(
    pair: dict[str, Any], flagsync: Build, mixpanel: MixpanelServer, api: Any, document: dict[str, Any]
) -> None:
    api.get(f"{API}environment-document/", json=document)
    local = Flagsmith(environment_key="ser.key", api_url=API, enable_local_evaluation=True)
    identifier, traits = identity(pair)
    client = flagsync(local)
    client.get_identity_flags(identifier, traits)
    assert client.flush()
    profile = mixpanel.profiles[identifier]
    if pair["key"] == "client":
        assert profile.pop("server_only") == "secret"
    assert typed(profile) == typed(pair["mixpanel"]["body"][0]["$set"])
    local.environment_data_polling_manager_thread.stop()


def test_mirroring_leaves_flagsmiths_answer_untouched(flagsync: Build, offline: Flagsmith) -> None:
    client = flagsync()
    flags = client.get_identity_flags("premium_user", {"plan": "premium"})
    bare = offline.get_identity_flags("premium_user", {"plan": "premium"})
    assert (type(flags), flags) == (type(bare), bare)
    assert client.flush()
    assert flags.flags == {}
    assert flags.get_feature_value("seg_override") == "gold"


def test_offline_evaluation_is_mirrored(flagsync: Build, mixpanel: MixpanelServer) -> None:
    client = flagsync()
    client.get_identity_flags("user_2")
    assert client.flush()
    assert mixpanel.profiles["user_2"]["str_on"] == "green"


def test_fallback_on_the_offline_handler_is_mirrored(
    flagsync: Build, mixpanel: MixpanelServer, api: Any
) -> None:
    api.post(f"{API}identities/", status=500)
    client = flagsync(remote(offline_handler=LocalFileHandler(str(DATA / "environment-document.json"))))
    client.get_identity_flags("user_2")
    assert client.flush()
    assert mixpanel.profiles["user_2"]["str_on"] == "green"


def test_answer_of_a_default_flag_handler_is_not_mirrored(
    flagsync: Build, mixpanel: MixpanelServer, api: Any, logged: Callable[[], list[str]]
) -> None:
    api.post(f"{API}identities/", status=500)
    default = DefaultFlag(enabled=True, value="default")
    client = flagsync(remote(default_flag_handler=lambda _: default))
    assert client.get_identity_flags("user_1").get_flag("anything") is default
    assert client.flush()
    assert (mixpanel.requests, client.stats()) == ([], Stats(skipped=1))
    assert logged() == ["An identity is not mirrored: Flagsmith evaluated no flags"]


def test_answer_of_the_api_is_mirrored_beside_a_default_flag_handler(
    flagsync: Build, mixpanel: MixpanelServer, api: Any
) -> None:
    api.post(f"{API}identities/", json=VECTORS[0]["response"]["body"])
    client = flagsync(remote(default_flag_handler=lambda _: DefaultFlag(enabled=True, value="default")))
    client.get_identity_flags("user_1")
    assert client.flush()
    assert mixpanel.profiles["user_1"]["str_on"] == "blue"


def test_exceptions_of_flagsmith_reach_the_caller(flagsync: Build, api: Any) -> None:
    api.post(f"{API}identities/", status=403, json={"detail": "no"})
    client = flagsync(remote())
    with pytest.raises(FlagsmithAPIError):
        client.get_identity_flags("user_1")
    assert client.stats() == Stats()


@pytest.mark.parametrize("token", ["project-token", None])
def test_status_that_flagsmiths_exception_hides_is_logged_once(
    token: str | None, flagsync: Build, api: Any, logged: Callable[[], list[str]]
) -> None:
    api.post(f"{API}identities/", status=401)
    client = flagsync(remote(), token=token)
    for _ in range(2):
        with pytest.raises(FlagsmithAPIError, match=r"^Unable to get valid response from Flagsmith API\.$"):
            client.get_identity_flags("user_1")
    found = [line for line in logged() if "HTTP status 401" in line]
    assert len(found) == (1 if token else 0)  # without a token, nothing of flagsync is at work


def test_request_without_an_answer_is_not_explained(
    flagsync: Build, api: Any, logged: Callable[[], list[str]]
) -> None:
    api.post(f"{API}identities/", body=ConnectionError("refused"))
    with pytest.raises(ConnectionError):
        flagsync(remote()).get_identity_flags("user_1")
    api.post(f"{API}identities/", body=requests.ConnectionError("refused"))
    with pytest.raises(FlagsmithAPIError):
        flagsync(remote()).get_identity_flags("user_1")
    assert logged() == []


@pytest.mark.parametrize(("key", "is_warned"), [("clientkey", True), ("ser.key", False)])
def test_cohorts_of_a_remote_client_with_a_client_side_key_are_warned_of(
    key: str, is_warned: bool, flagsync: Build, tmp_path: Path, logged: Callable[[], list[str]]
) -> None:
    client = Flagsmith(environment_key=key, api_url=API)
    flagsync(client, cohorts=SQLiteStore(tmp_path / "cohorts.db"))
    assert bool([line for line in logged() if "client-side key" in line]) is is_warned


def test_arguments_reach_flagsmith_unchanged(flagsync: Build, api: Any) -> None:
    api.post(f"{API}identities/", json=VECTORS[0]["response"]["body"])
    client = flagsync(remote())
    client.get_identity_flags(
        identifier=" user_1 ", traits={"a": {"value": 1, "transient": True}}, transient=True
    )
    assert json.loads(api.calls[0].request.body) == {
        "identifier": " user_1 ",
        "traits": [{"trait_key": "a", "trait_value": 1, "transient": True}],
        "transient": True,
    }


def test_cohorts_of_an_identity_are_traits_of_its_evaluation(flagsync: Build, api: Any, tmp_path: Path) -> None:
    api.post(f"{API}identities/", json=VECTORS[0]["response"]["body"])
    with SQLiteStore(tmp_path / "cohorts.db") as store:
        store.apply(CohortUpdate("add_members", "7", "vips", members=("user_1",)))
        with flagsync(remote(), cohorts=store) as client:
            client.get_identity_flags("user_1", {"plan": "pro"})
    assert {
        trait["trait_key"]: trait["trait_value"] for trait in json.loads(api.calls[0].request.body)["traits"]
    } == {
        "mixpanel_cohort_vips": True,
        "plan": "pro",
    }


def test_transient_identity_is_evaluated_and_not_mirrored(flagsync: Build, mixpanel: MixpanelServer) -> None:
    client = flagsync()
    assert client.get_identity_flags("user_1", transient=True).is_feature_enabled("bool_on")
    assert client.flush()
    assert (mixpanel.requests, client.stats()) == ([], Stats(skipped=1))


def test_distinct_id_callback_that_returns_none_excludes_a_user_without_a_message(
    flagsync: Build, mixpanel: MixpanelServer, caplog: pytest.LogCaptureFixture
) -> None:
    client = flagsync(distinct_id=lambda _: None)
    client.get_identity_flags("robot")
    assert client.flush()
    assert (mixpanel.requests, client.stats(), caplog.messages) == ([], Stats(skipped=1), [])


def test_environment_flags_are_returned_and_not_mirrored(flagsync: Build, offline: Flagsmith) -> None:
    client = flagsync()
    assert client.get_environment_flags() == offline.get_environment_flags()
    assert client.stats() == Stats()


def test_mirror_accepts_flags_that_were_evaluated_elsewhere(flagsync: Build, mixpanel: MixpanelServer) -> None:
    client = flagsync()
    client.mirror("user_9", Flags({"a": Flag(enabled=True, value=7, feature_id=1, feature_name="a")}))
    assert client.flush()
    assert mixpanel.profiles == {"user_9": {"a": 7}}


def test_mirror_accepts_the_flags_of_many_environments_in_turn(
    flagsync: Build, mixpanel: MixpanelServer, document: Any
) -> None:
    client = flagsync()
    for number in range(30):
        client.mirror(f"user_{number}", lazy(document, f"user_{number}"))
    assert client.flush()
    assert len(mixpanel.profiles) == client.stats().delivered == 30


def test_client_without_a_token_mirrors_nothing(flagsync: Build, mixpanel: MixpanelServer) -> None:
    client = flagsync(token=None)
    assert client.get_identity_flags("user_1").is_feature_enabled("bool_on")
    client.get_identity_flags("user_1", transient=True)
    client.mirror("user_1", Flags())
    assert (client.flush(), client.close(), client.stats(), mixpanel.requests) == (True, True, Stats(), [])


def test_options_decide_on_names_values_and_profiles(flagsync: Build, mixpanel: MixpanelServer) -> None:
    client = flagsync(
        distinct_id=lambda identifier: f"account:{identifier}",
        property_name=lambda name: f"flag: {name}" if name.startswith("int") else None,
        property_value=lambda flag: flag.value if flag.enabled else None,
    )
    client.get_identity_flags("7")
    assert client.flush()
    assert mixpanel.profiles == {
        "account:7": {"flag: int_on": 42, "flag: int_zero": 0, "flag: int_neg": -7},
    }


def test_identity_without_any_property_is_skipped(flagsync: Build, mixpanel: MixpanelServer) -> None:
    client = flagsync(property_name=lambda _: None)
    client.get_identity_flags("user_1")
    assert client.flush()
    assert (mixpanel.requests, client.stats()) == ([], Stats(skipped=1))


def test_latest_wins_for_identifiers_that_differ_in_white_space_only(
    flagsync: Build, mixpanel: MixpanelServer
) -> None:
    client = flagsync(flush_interval_seconds=60)
    for identifier, plan in (("user ", "premium"), ("user", "premium"), ("user ", "free")):
        client.get_identity_flags(identifier, {"plan": plan})
    assert client.flush()
    assert mixpanel.profiles["user"]["seg_override"] is False
    assert client.stats() == Stats(accepted=3, delivered=1, superseded=2, requests=1)


def test_identifiers_that_do_not_show_themselves_have_profiles_of_their_own(
    flagsync: Build, mixpanel: MixpanelServer
) -> None:
    client = flagsync(flush_interval_seconds=60)
    for identifier in (User.ANN, User.BOB, Masked("eve"), Masked("joe")):
        client.get_identity_flags(identifier)
    assert client.flush()
    assert [*mixpanel.profiles] == ["ann", "bob", "eve", "joe"]


def test_white_space_round_identifiers_is_logged_once_with_the_remedy(
    flagsync: Build, offline: Flagsmith, logged: Callable[[], list[str]]
) -> None:
    client = flagsync()
    for identifier in (" ann", "bob\n", "eve"):
        flags = client.get_identity_flags(identifier)
        assert flags.all_flags() == offline.get_identity_flags(identifier).all_flags()
    assert client.flush()
    [message] = [message for message in logged() if "white space" in message]
    assert message.endswith("may choose another variant: strip identifiers before the call")
    assert "ann" not in message


def test_unchanged_identity_is_sent_once(flagsync: Build, mixpanel: MixpanelServer) -> None:
    client = flagsync()
    for _ in range(3):
        client.get_identity_flags("user_1")
        assert client.flush()
    assert len(mixpanel.requests) == 1
    assert client.stats() == Stats(accepted=3, delivered=1, unchanged=2, requests=1)


def test_same_traits_are_not_evaluated_again(flagsync: Build, mixpanel: MixpanelServer) -> None:
    read = list[str]()

    def value(flag: Flag) -> bool:
        read.append(flag.feature_name)
        return flag.enabled

    client, reads = flagsync(property_value=value), list[int]()
    for plan in ("pro", "pro", "free"):
        client.get_identity_flags("user_1", {"plan": plan})
        assert client.flush()
        reads.append(len(read))
    assert 0 < reads[0] == reads[1] < reads[2]


def test_same_flags_of_other_traits_are_unchanged(flagsync: Build, mixpanel: MixpanelServer) -> None:
    client = flagsync()
    for age in (1, 2, 3):
        client.get_identity_flags("user_1", {"age": age})
        assert client.flush()
    assert (len(mixpanel.requests), client.stats().unchanged) == (1, 2)


def test_flags_that_change_and_change_back_are_three_updates(flagsync: Build, mixpanel: MixpanelServer) -> None:
    client = flagsync()
    for plan in ("free", "premium", "free"):
        client.get_identity_flags("user_1", {"plan": plan})
        assert client.flush()
    sent = [request.updates[0]["$set"]["seg_override"] for request in mixpanel.requests]
    assert sent == [False, "gold", False]


def test_resend_after_zero_seconds_sends_every_call(flagsync: Build, mixpanel: MixpanelServer) -> None:
    client = flagsync(resend_after_seconds=0)
    for _ in range(3):
        client.get_identity_flags("user_1")
        assert client.flush()
    assert len(mixpanel.requests) == 3


@pytest.mark.parametrize(
    ("identifier", "reason"),
    [
        ("", "the identifier is empty"),
        (" \n", "the identifier is empty"),
        ("NULL", "Mixpanel blocks the identifier as a placeholder"),
        ("x" * 2000, "the identifier is longer than 255 bytes"),
    ],
)
def test_unusable_identifier_is_evaluated_skipped_and_logged_once(
    identifier: str, reason: str, flagsync: Build, mixpanel: MixpanelServer, logged: Callable[[], list[str]]
) -> None:
    client = flagsync()
    for _ in range(2):
        assert client.get_identity_flags(identifier).is_feature_enabled("bool_on")
        assert client.flush()
    assert (mixpanel.requests, client.stats()) == ([], Stats(skipped=2))
    assert logged() == [f"An identity is not mirrored: {reason}"]


def test_unhashable_identifier_is_evaluated_and_skipped(
    flagsync: Build, logged: Callable[[], list[str]]
) -> None:
    client = flagsync()
    identifier: Any = ["user", 1]
    assert client.get_identity_flags(identifier).is_feature_enabled("bool_on")
    assert client.flush()
    assert client.stats() == Stats(skipped=1)
    assert logged() == ["An identity is not mirrored: TypeError"]


@pytest.mark.parametrize("error", [RuntimeError, IndexError])
def test_flags_that_raise_cost_no_other_update(
    error: type[Exception], flagsync: Build, mixpanel: MixpanelServer
) -> None:
    class Broken(Flags):
        def __getattribute__(self, name: str) -> Any:
            if name == "flags":
                raise error
            return super().__getattribute__(name)

    client = flagsync(flush_interval_seconds=60)
    client.mirror("user_1", object.__new__(Broken))
    client.get_identity_flags("user_2")
    assert client.flush()
    assert [*mixpanel.profiles] == ["user_2"]
    assert client.stats() == Stats(accepted=1, delivered=1, skipped=1, requests=1)


def test_remote_evaluations_of_one_identity_are_told_apart(flagsync: Build, mixpanel: MixpanelServer) -> None:
    client = flagsync(flush_interval_seconds=60)
    for value in ("A", "B", "B"):
        client.mirror("user_1", Flags({"f": Flag(enabled=True, value=value, feature_id=1, feature_name="f")}))
        assert client._pipelines is not None
        assert client._pipelines.get().encoder.flush(monotonic() + 10)  # not sent yet
    assert client.flush()
    assert client.stats() == Stats(accepted=3, delivered=1, superseded=1, unchanged=1, requests=1)
    assert mixpanel.profiles == {"user_1": {"f": "B"}}


def test_flush_interval_longer_than_any_clock_leaves_delivery_to_flush(
    flagsync: Build, mixpanel: MixpanelServer
) -> None:
    client = flagsync(flush_interval_seconds=1e300)
    for identifier in ("user_1", "user_2"):
        client.get_identity_flags(identifier)
        assert client.flush()
    assert [*mixpanel.profiles] == ["user_1", "user_2"]


def test_equal_identifiers_of_different_text_are_two_profiles(
    flagsync: Build, mixpanel: MixpanelServer
) -> None:
    client = flagsync(flush_interval_seconds=60)
    identifiers: list[Any] = [42, 42.0, "42.5", 42.5]
    for identifier in identifiers:
        client.get_identity_flags(identifier)
    assert client.flush()
    assert [*mixpanel.profiles] == ["42", "42.0", "42.5"]
    assert client.stats().superseded == 1


def test_default_flags_do_not_replace_a_pending_evaluation(flagsync: Build, mixpanel: MixpanelServer) -> None:
    client = flagsync(flush_interval_seconds=60)
    client.get_identity_flags("user_1")
    client.mirror("user_1", Flags(default_flag_handler=lambda _: DefaultFlag(enabled=True, value="default")))
    assert client.flush()
    assert mixpanel.profiles["user_1"]["bool_on"] is True
    assert client.stats() == Stats(accepted=1, delivered=1, skipped=1, requests=1)


async def evaluated_later() -> None: ...


@pytest.mark.parametrize(
    ("make", "came"),
    [
        (lambda: {"a": True}, "a value of type dict"),
        (list, "a value of type list"),
        (lambda: "user_1", "a value of type str"),
        (lambda: None, "None"),
        (lambda: Flags, "the class Flags: make an instance of it"),
        (evaluated_later, "a coroutine: await it first"),
    ],
    ids=["dict", "list", "text", "None", "class", "coroutine"],
)
def test_mirror_of_something_else_than_flags_is_logged_once(
    make: Callable[[], Any],
    came: str,
    flagsync: Build,
    mixpanel: MixpanelServer,
    logged: Callable[[], list[str]],
) -> None:
    client, given = flagsync(flush_interval_seconds=60), make()
    for identifier in ("user_1", "user_2"):
        client.mirror(identifier, given)
    client.mirror("user_3", Flags({"f": Flag(enabled=True, value="on", feature_id=1, feature_name="f")}))
    assert client.flush()
    assert [*mixpanel.profiles] == ["user_3"]
    assert client.stats() == Stats(accepted=1, delivered=1, skipped=2, requests=1)
    flags = "the Flags that get_identity_flags() of a Flagsmith client returns"
    assert logged() == [f"mirror() takes {flags}, not {came}"]
    if came.startswith("a coroutine"):
        given.close()


def test_callbacks_that_raise_are_logged_once_with_type_and_text(
    flagsync: Build, logged: Callable[[], list[str]]
) -> None:
    numbers = count(1)

    def raising(given: object) -> Any:
        raise LookupError(f"{next(numbers)}: nothing for {given}")

    for option in ("distinct_id", "property_name", "property_value"):
        client = flagsync(**{option: raising})
        for identifier in ("user_1", "user_2"):
            client.get_identity_flags(identifier)
        assert client.flush()
    by_identifier, by_name, by_value = (record for record in logged() if "LookupError" in record)
    assert by_identifier == "An identity is not mirrored: distinct_id raised LookupError: 1: nothing for …"
    assert by_name.startswith("property_name raised LookupError: 3: nothing for bool_on. Flags for which it")
    assert ": nothing for Flag(" in by_value


def test_oversized_update_is_rejected_and_reported(flagsync: Build, mixpanel: MixpanelServer) -> None:
    errors: list[Exception] = []
    client = flagsync(on_error=errors.append)
    client.mirror(
        "user_1", Flags({"a": Flag(enabled=True, value="x" * 1_000_000, feature_id=1, feature_name="a")})
    )
    assert client.flush()
    assert (mixpanel.requests, client.stats().rejected, len(errors)) == ([], 1, 1)


@pytest.mark.parametrize("early", [1, 3])
def test_max_pending_drops_the_oldest_and_reports_it_once(
    early: int, flagsync: Build, mixpanel: MixpanelServer
) -> None:
    errors: list[DeliveryError] = []
    blocked, go = threading.Event(), threading.Event()

    def hold(name: str) -> str:
        blocked.set()
        go.wait(10)
        return name

    client = flagsync(max_pending=3, on_error=errors.append, property_name=hold)
    for number in range(early):
        client.get_identity_flags(f"user_{number}")
    assert blocked.wait(10)
    for number in range(early, 11):
        client.get_identity_flags(f"user_{number}")
    assert 4 <= client.stats().pending <= early + 3  # three wait, and some are being encoded
    go.set()
    assert client.close()
    # What is in flight counts, too, but there is always room for the newest one.
    assert "user_10" in mixpanel.profiles
    dropped = 11 - len(mixpanel.profiles)
    assert client.stats() == Stats(
        accepted=11, delivered=11 - dropped, dropped=dropped, requests=client.stats().requests
    )
    assert sum(error.count for error in errors) == dropped
    assert len(errors) <= 2


def test_when_full_wait_drops_nothing(flagsync: Build, mixpanel: MixpanelServer) -> None:
    client = flagsync(max_pending=7, when_full="wait", flush_interval_seconds=60)
    for number in range(50):
        client.get_identity_flags(f"user_{number}")
        assert client.stats().pending <= 7
    assert client.flush()
    assert len(mixpanel.profiles) == 50
    assert len(mixpanel.requests) == 8  # each time that seven wait, and at the end
    assert client.stats().dropped == 0


def test_mirror_waits_for_room_with_when_full_wait(flagsync: Build, mixpanel: MixpanelServer) -> None:
    client = flagsync(max_pending=2, when_full="wait", flush_interval_seconds=60)
    flags = client.flagsmith.get_identity_flags("user_1")
    for number in range(4):
        client.mirror(f"user_{number}", flags)
        assert client.stats().pending < 2
    assert len(mixpanel.profiles) == 4


class Impatient(FlagSync):
    """Retries at once, and has no room for more than ``max_pending`` messages."""

    _tuning = Tuning(sending=Sending(backoff=Backoff(first_seconds=0.0, max_seconds=0.0)), max_callers=0)


class Unretrying(FlagSync):
    """Has no room for more than ``max_pending`` messages."""

    _tuning = Tuning(max_callers=0)


@pytest.mark.parametrize("status", [401, 400])
def test_when_full_wait_does_not_wait_while_a_configuration_error_lasts(
    status: int, offline: Flagsmith, mixpanel: MixpanelServer, logged: Callable[[], list[str]]
) -> None:
    errors = list[DeliveryError]()
    mixpanel.fail(status=status)
    with Unretrying(
        offline,
        "wrong-token",
        mixpanel_url=mixpanel.url,
        max_pending=100,
        when_full="wait",
        on_error=errors.append,
    ) as client:
        for number in range(1000):
            client.get_identity_flags(f"user_{number}")
        assert not client.flush(0.01)
        assert logged().count(WAITS_NO_LONGER) == 1
        stats = client.stats()
        assert (stats.accepted, stats.delivered) == (1000, 0)
        assert stats.pending <= 3 * 100  # at the two stages of the queue, and in the outbox
        assert stats.dropped == 1000 - stats.pending
    assert errors[0].misconfigured


def test_caller_who_waits_for_room_is_released_when_a_configuration_error_follows_an_outage(
    offline: Flagsmith, mixpanel: MixpanelServer
) -> None:
    mixpanel.fail(status=503, times=3)
    mixpanel.fail(status=401)
    client = Impatient(offline, "token", mixpanel_url=mixpanel.url, max_pending=1, when_full="wait")
    client.get_identity_flags("user_1")
    assert len(mixpanel.requests) >= 4
    client.close(0)


def test_when_full_wait_waits_again_once_the_configuration_error_is_corrected(
    offline: Flagsmith, mixpanel: MixpanelServer
) -> None:
    mixpanel.fail(status=401)
    with Impatient(offline, "token", mixpanel_url=mixpanel.url, max_pending=2, when_full="wait") as client:
        for number in range(2):
            client.get_identity_flags(f"user_{number}")
        assert client.stats().pending == 2
        mixpanel.recover()
        assert client.flush()
        for number in range(2, 20):
            client.get_identity_flags(f"user_{number}")
            assert client.stats().pending < 2
        assert (len(mixpanel.profiles), client.stats().dropped) == (20, 0)


def test_threads_that_wait_for_room_drop_nothing(flagsync: Build, mixpanel: MixpanelServer) -> None:
    client = flagsync(max_pending=1, when_full="wait")
    threads = [
        threading.Thread(target=client.get_identity_flags, args=(f"user_{number}",)) for number in range(50)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert client.flush()
    assert (len(mixpanel.profiles), client.stats().dropped) == (50, 0)


def test_callback_that_evaluates_never_waits_for_room(flagsync: Build, mixpanel: MixpanelServer) -> None:
    client: FlagSync

    def name(feature: str) -> str:
        if feature == "bool_on":
            for number in range(5):
                client.get_identity_flags(f"nested_{number}")
        return feature

    client = flagsync(max_pending=2, when_full="wait", property_name=name)
    client.get_identity_flags("user_1")
    assert client.flush()
    assert "user_1" in mixpanel.profiles


def test_hanging_request_delays_no_caller(flagsync: Build, mixpanel: MixpanelServer) -> None:
    mixpanel.fail(delay_seconds=3600)
    client = flagsync(flush_interval_seconds=0.001)
    client.get_identity_flags("user_1")
    assert mixpanel.wait_for_requests(1)
    for number in range(100):
        assert client.get_identity_flags(f"user_{number}").is_feature_enabled("bool_on")
    assert client.flush(0.01) is False
    assert client.stats().pending > 0
    assert client.close(0.01) is False


def test_close_drops_and_reports_what_is_pending_at_its_timeout(
    flagsync: Build, mixpanel: MixpanelServer
) -> None:
    mixpanel.fail(delay_seconds=3600)
    errors = SimpleQueue[DeliveryError]()
    client = flagsync(flush_interval_seconds=0.001, on_error=errors.put)
    client.get_identity_flags("user_1")
    assert mixpanel.wait_for_requests(1)
    client.get_identity_flags("user_2")
    assert client.close(0.05) is False
    error = errors.get(timeout=10)  # close() does not wait for on_error beyond its timeout
    assert str(error) == "The client was closed before Mixpanel accepted them: 2 updates lost"
    assert client.close(0) is False


@pytest.mark.parametrize("status", [401, 403])
def test_wrong_token_is_reported_and_updates_are_kept_until_it_is_right(
    status: int, flagsync: Build, mixpanel: MixpanelServer
) -> None:
    mixpanel.fail(times=1, status=status)
    told = threading.Event()
    errors: list[Exception] = []

    def on_error(error: DeliveryError) -> None:
        errors.append(error)
        told.set()

    client = flagsync(on_error=on_error)
    client.get_identity_flags("user_1")
    assert client.flush(0.2) is False
    assert told.wait(10)
    assert "check mixpanel_token, region and mixpanel_url" in str(errors[0])
    assert (len(mixpanel.requests), client.stats().pending) == (1, 1)
    assert client.close()
    assert "user_1" in mixpanel.profiles


def test_close_reports_the_configuration_error_behind_a_loss(flagsync: Build, mixpanel: MixpanelServer) -> None:
    errors: list[DeliveryError] = []
    client = flagsync(on_error=errors.append, flush_interval_seconds=60)
    mixpanel.fail(status=403, body="Forbidden")
    client.get_identity_flags("user_1")
    assert not client.close()
    [error] = errors
    assert str(error) == (
        "Configuration error: The client was closed before Mixpanel accepted them; Mixpanel does not accept updates "
        "(HTTP 403; check mixpanel_token, region and mixpanel_url): 1 update lost"
    )
    assert error.answer == "Forbidden"


def test_on_error_that_raises_costs_no_update(flagsync: Build, mixpanel: MixpanelServer) -> None:
    mixpanel.fail(status=400, distinct_id="poison")

    def on_error(_: Exception) -> None:
        raise RuntimeError

    client = flagsync(on_error=on_error, flush_interval_seconds=60)
    for identifier in ("user_1", "poison", "user_2"):
        client.get_identity_flags(identifier)
    assert client.flush()
    assert sorted(mixpanel.profiles) == ["user_1", "user_2"]
    assert (client.stats().delivered, client.stats().rejected) == (2, 1)


def test_logs_and_reprs_name_neither_users_nor_secrets(
    flagsync: Build, mixpanel: MixpanelServer, logged: Callable[[], list[str]]
) -> None:
    mixpanel.fail(times=3, body='{"status": 0, "error": "secret-token user_7 blue"}')
    client = flagsync(token="secret-token", distinct_id=lambda identifier: {"user_7": "user_7"}[identifier])
    client.get_identity_flags("user_7")
    client.get_identity_flags("user_8")
    assert client.flush()
    said = " ".join(logged())
    assert "refused" in said or "does not accept" in said
    assert not any(
        secret in said + repr(client) + repr(client.stats()) for secret in ("secret-token", "user_", "blue")
    )


# Processes


@pytest.mark.parametrize(
    "work",
    [pickle.dumps, copy.copy, copy.deepcopy, lambda client: pickle.dumps([client.get_identity_flags])],
    ids=["pickle", "copy", "deepcopy", "pickle of a method"],
)
def test_pickling_or_copying_a_client_says_to_build_one_in_each_process(
    work: Callable[[FlagSync], object], flagsync: Build
) -> None:
    with pytest.raises(TypeError, match=r"FlagSync cannot be pickled or copied, .*: build one in each process"):
        work(flagsync())


@pytest.mark.parametrize(("has_threads", "warnings"), [(0, 1), (1, 0)])
def test_uwsgi_without_threads_is_warned_of_once(
    has_threads: int,
    warnings: int,
    flagsync: Build,
    logged: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    uwsgi: Any = ModuleType("uwsgi")
    uwsgi.has_threads = has_threads
    monkeypatch.setitem(sys.modules, "uwsgi", uwsgi)
    client = flagsync()
    for number in range(3):
        client.get_identity_flags(f"user_{number}")
    assert client.flush()
    said = [message for message in logged() if "set enable-threads = true" in message]
    assert len(said) == warnings
