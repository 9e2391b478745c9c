"""Experiments end to end: who met which variant, in every mode, and once."""

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import responses
from flagsmith import Flagsmith
from flagsmith.analytics import EventProcessor, EventProcessorConfig
from flagsmith.exceptions import FlagsmithFeatureDoesNotExistError
from flagsmith.models import DefaultFlag, Flag
from flagsmith.offline_handlers import LocalFileHandler

from flagsync import FlagSync, Stats, outbox_stats
from flagsync._clock import monotonic, time
from flagsync._encoding.calls import Exposure
from flagsync._stats import ExposureStats
from flagsync.testing import MixpanelServer
from tests.support.encoding import lazy
from tests.support.evaluating_flagsmith import as_answered

Build = Callable[..., FlagSync]
Groups = dict[str, set[str]]
API = "https://flagsmith.example.com/api/v1/"
USERS = [f"shopper_{number}" for number in range(300)]
KEYLESS, KEYED, BY_SEGMENT, BY_VALUE = "mv_keyed", "mv_split", "bool_off", "str_on"


@pytest.fixture
def experiments(document: dict[str, Any]) -> dict[str, Any]:
    """A document with a multivariate flag with keys and one without, and two flags that a segment decides on."""
    found = copy.deepcopy(document)
    by_name = {state["feature"]["name"]: state for state in found["feature_states"]}
    for number, option in enumerate(by_name[KEYED]["multivariate_feature_state_values"]):
        option["multivariate_feature_option"]["key"] = f"treatment_{number}"
        option["percentage_allocation"] = 30.0
    overrides = []
    for number, (name, value) in enumerate([(BY_SEGMENT, None), (BY_VALUE, "red")]):
        state = copy.deepcopy(by_name[name])
        priority = {"priority": 0}
        state |= {
            "enabled": True,
            "feature_state_value": value,
            "feature_segment": priority,
            "django_id": 900 + number,
        }
        overrides.append(state)
    half = {"operator": "PERCENTAGE_SPLIT", "value": "50", "property_": ""}
    rule = {"type": "ALL", "conditions": [], "rules": [{"type": "ANY", "rules": [], "conditions": [half]}]}
    found["project"]["segments"].append(
        {"id": 90, "name": "half", "rules": [rule], "feature_states": overrides}
    )
    return found


@pytest.fixture
def local(experiments: dict[str, Any], tmp_path: Path) -> Flagsmith:
    """A Flagsmith client that evaluates the document of experiments."""
    path = tmp_path / "document.json"
    path.write_text(json.dumps(experiments))
    return Flagsmith(offline_mode=True, offline_handler=LocalFileHandler(str(path)))


@pytest.fixture
def remote(experiments: dict[str, Any], mixpanel: MixpanelServer) -> Iterator[Flagsmith]:
    """A Flagsmith client whose API answers what the document says, without reasons as a real server does."""

    def answer(request: Any) -> tuple[int, dict[str, str], str]:
        flags = lazy(experiments, json.loads(request.body)["identifier"]).all_flags()
        return 200, {}, json.dumps({"flags": [as_answered(flag) for flag in flags], "traits": []})

    with responses.RequestsMock(assert_all_requests_are_fired=False) as api:
        api.add_passthru(mixpanel.url)
        api.add_callback("POST", f"{API}identities/", answer)
        yield Flagsmith(environment_key="key", api_url=API)


def split(flagsmith: Flagsmith, feature: str, name_of: Callable[[Flag], str]) -> Groups:
    """Return Flagsmith's own groups of the users."""
    groups: Groups = {}
    for user in USERS:
        flag = flagsmith.get_identity_flags(user).get_flag(feature)
        assert isinstance(flag, Flag)
        groups.setdefault(name_of(flag), set()).add(user)
    return groups


@pytest.mark.parametrize("mode", ["local", "remote"])
def test_groups_in_mixpanel_are_those_of_flagsmith(
    mode: str, request: pytest.FixtureRequest, flagsync: Build, mixpanel: MixpanelServer
) -> None:
    flagsmith: Flagsmith = request.getfixturevalue(mode)
    client = flagsync(flagsmith)
    for user in USERS:
        for feature in (KEYLESS, KEYED, BY_SEGMENT, BY_VALUE):
            client.get_experiment_flag(feature, user)
    assert client.flush()
    assert mixpanel.experiments == {
        KEYLESS: split(flagsmith, KEYLESS, lambda flag: flag.variant or str(flag.value)),
        KEYED: split(flagsmith, KEYED, lambda flag: f"{flag.variant}"),
        BY_SEGMENT: split(flagsmith, BY_SEGMENT, lambda flag: "true" if flag.enabled else "false"),
        BY_VALUE: split(flagsmith, BY_VALUE, lambda flag: str(flag.value)),
    }
    names = {name: set(groups) for name, groups in mixpanel.experiments.items()}
    assert names == {
        KEYLESS: {"control", "val_a", "val_b"},
        KEYED: {"control", "treatment_0", "treatment_1"},
        BY_SEGMENT: {"true", "false"},
        BY_VALUE: {"blue", "red"},
    }
    assert len(mixpanel.events) == 4 * len(USERS)


def test_experiment_flag_is_evaluated_once_mirrored_and_recorded(
    flagsync: Build, local: Flagsmith, mixpanel: MixpanelServer
) -> None:
    client = flagsync(local)
    flag = client.get_experiment_flag(KEYED, "ann", {"plan": "premium"})
    assert flag == local.get_identity_flags("ann", {"plan": "premium"}).get_flag(KEYED)
    assert client.flush()
    assert mixpanel.profiles["ann"]["seg_override"] == "gold"
    [event] = mixpanel.events
    assert event["properties"]["Experiment name"] == KEYED
    assert client.stats() == Stats(
        accepted=1, delivered=1, requests=2, exposures=ExposureStats(accepted=1, delivered=1)
    )


def test_missing_experiment_flag_raises_what_flagsmith_raises(flagsync: Build, local: Flagsmith) -> None:
    client = flagsync(local)
    with pytest.raises(FlagsmithFeatureDoesNotExistError):
        client.get_experiment_flag("no_such_flag", "ann")
    assert client.stats().exposures == ExposureStats()


def test_exposure_is_sent_once_and_again_if_the_variant_differs(
    flagsync: Build, mixpanel: MixpanelServer
) -> None:
    client = flagsync()
    for value in ("A", "A", "B", "B", "A"):
        client.track_exposure("ann", flag(value))
    assert client.flush()
    client.track_exposure("ann", flag("A"))
    assert client.flush()
    variants = [event["properties"]["Variant name"] for event in mixpanel.events]
    assert variants == ["A", "B", "A"]
    assert client.stats() == Stats(requests=1, exposures=ExposureStats(accepted=6, delivered=3, unchanged=3))


def flag(value: Any = "A", name: str = "checkout", **more: Any) -> Flag:
    return Flag(enabled=True, value=value, feature_id=1, feature_name=name, **more)


def test_exposure_counts_as_sent_only_when_mixpanel_has_accepted_it(
    flagsync: Build, mixpanel: MixpanelServer
) -> None:
    client = flagsync()
    mixpanel.fail(times=1, status=400)
    client.track_exposure("ann", flag())
    assert client.flush()
    assert (client.stats().exposures, mixpanel.events) == (ExposureStats(accepted=1, rejected=1), [])
    client.track_exposure("ann", flag())
    assert client.flush()
    assert client.stats().exposures == ExposureStats(accepted=2, rejected=1, delivered=1)


@pytest.mark.parametrize("kind", [None, "text", DefaultFlag(enabled=True, value="A"), object()])
def test_exposure_to_no_flag_is_skipped_and_logged_once(
    flagsync: Build, mixpanel: MixpanelServer, logged: Callable[[], list[str]], kind: Any
) -> None:
    client = flagsync()
    for user in ("ann", "bob"):
        client.track_exposure(user, kind)
    assert client.flush()
    assert (mixpanel.requests, client.stats()) == ([], Stats(exposures=ExposureStats(skipped=2)))
    assert logged() == [
        "An exposure is not recorded: it needs a Flag that Flagsmith has evaluated; a default flag does not count"
    ]


@pytest.mark.parametrize("identifier", ["anonymous", "", None, b"x", "x" * 300, [], {}])
def test_exposure_of_an_unusable_identifier_is_skipped(
    flagsync: Build, mixpanel: MixpanelServer, identifier: Any
) -> None:
    client = flagsync()
    client.track_exposure(identifier, flag())
    assert client.flush()
    assert (mixpanel.events, client.stats()) == ([], Stats(exposures=ExposureStats(skipped=1)))


def test_exposure_that_cannot_be_encoded_is_rejected_and_costs_no_other_one(
    flagsync: Build, mixpanel: MixpanelServer
) -> None:
    client = flagsync(exposure_properties=lambda name, _: {"x": "x" * 1_000_000} if name == "ann" else {})
    client.track_exposure("ann", flag())
    client.track_exposure("bob", flag())
    assert client.flush()
    assert mixpanel.experiments == {"checkout": {"A": {"bob"}}}
    assert client.stats().exposures == ExposureStats(accepted=2, delivered=1, rejected=1)


def test_exposure_options_name_experiments_and_add_properties(
    flagsync: Build, mixpanel: MixpanelServer
) -> None:
    names = {"checkout": "Checkout 2026"}
    client = flagsync(
        experiment_name=names.get,
        variant_name=lambda flag: f"{flag.value}".lower(),
        exposure_properties=lambda identifier, flag: {"company_id": f"{identifier}:{flag.feature_name}"},
    )
    client.track_exposure("ann", flag())
    client.track_exposure("ann", flag(name="no_experiment"))
    assert client.flush()
    assert mixpanel.experiments == {"Checkout 2026": {"a": {"ann"}}}
    assert mixpanel.events[0]["properties"]["company_id"] == "ann:checkout"
    assert client.stats().exposures == ExposureStats(accepted=1, delivered=1, skipped=1)


def test_another_experiment_name_begins_anew(flagsync: Build, mixpanel: MixpanelServer, tmp_path: Path) -> None:
    for name in ("first", "first", "second"):
        with flagsync(outbox=tmp_path / "outbox.db", experiment_name=lambda _, name=name: name) as client:
            client.track_exposure("ann", flag())
    assert mixpanel.experiments == {"first": {"A": {"ann"}}, "second": {"A": {"ann"}}}
    assert len(mixpanel.events) == 2


def test_exposure_after_close_is_skipped(flagsync: Build, mixpanel: MixpanelServer) -> None:
    client = flagsync()
    client.close()
    client.track_exposure("ann", flag())
    assert (client.stats(), mixpanel.events) == (Stats(exposures=ExposureStats(skipped=1)), [])


def test_exposure_without_a_token_is_nothing(flagsync: Build, local: Flagsmith) -> None:
    client = flagsync(local, token=None)
    assert client.get_experiment_flag(KEYED, "ann") == local.get_identity_flags("ann").get_flag(KEYED)
    assert client.stats() == Stats()


def test_exposures_that_wait_are_sent_when_the_client_closes(flagsync: Build, mixpanel: MixpanelServer) -> None:
    client = flagsync(flush_interval_seconds=3600)
    client.track_exposure("ann", flag())
    assert client.close()
    assert mixpanel.experiments == {"checkout": {"A": {"ann"}}}


def test_exposure_waits_for_room_only_where_the_client_is_told_to(
    flagsync: Build, mixpanel: MixpanelServer
) -> None:
    client = flagsync(when_full="wait", max_pending=10)
    for number in range(10):
        client.track_exposure(f"user_{number}", flag())
    assert len(mixpanel.events) == 10


def test_another_client_without_an_outbox_sends_again_what_was_sent(
    flagsync: Build, mixpanel: MixpanelServer, tmp_path: Path
) -> None:
    client = flagsync(outbox=tmp_path / "outbox.db")
    for one in (client, client, flagsync()):
        one.get_experiment_flag("mv_keyed", "ann")
        assert one.flush()
    updates = [one for request in mixpanel.requests for one in request.updates if "$set" in one]
    assert (len(updates), len(mixpanel.events)) == (2, 2)


def test_exposures_that_a_closing_client_gives_up_are_dropped(
    flagsync: Build, mixpanel: MixpanelServer
) -> None:
    errors: list[Any] = []
    client = flagsync(on_error=errors.append)
    mixpanel.fail(status=503)
    client.track_exposure("ann", flag())
    assert client.close(0.3) is False
    assert client.stats().exposures == ExposureStats(accepted=1, dropped=1)
    assert errors[-1].count == 1


def test_file_tells_profiles_and_exposures_apart(
    flagsync: Build, local: Flagsmith, mixpanel: MixpanelServer, tmp_path: Path
) -> None:
    path = tmp_path / "outbox.db"
    with flagsync(local, outbox=path) as client:
        for _ in range(2):
            client.get_experiment_flag(KEYED, "ann")
            client.get_experiment_flag(BY_SEGMENT, "ann")
            assert client.flush()
        assert client.stats().exposures == ExposureStats(accepted=4, delivered=2, unchanged=2)
        assert client.stats().accepted == 4
    stats = outbox_stats(path)
    assert stats.exposures == ExposureStats(accepted=4, delivered=2, unchanged=2)
    assert stats.delivered == 1
    assert stats.accepted == stats.delivered + stats.unchanged + stats.superseded


def test_exposure_in_a_file_is_kept_for_the_next_client(
    flagsync: Build, mixpanel: MixpanelServer, tmp_path: Path
) -> None:
    path = tmp_path / "outbox.db"
    mixpanel.fail(status=503)
    client = flagsync(outbox=path)
    client.track_exposure("ann", flag("A"))
    client.track_exposure("ann", flag("B"))
    client.close(0.3)
    assert client.stats().exposures == ExposureStats(accepted=2, pending=2)
    mixpanel.recover()
    assert flagsync(outbox=path).flush()
    assert [event["properties"]["Variant name"] for event in mixpanel.events] == ["A", "B"]


def test_exposure_that_has_waited_for_days_keeps_its_time(flagsync: Build, mixpanel: MixpanelServer) -> None:
    client = flagsync()
    days = 5 * 86400
    pipelines = client._pipelines
    assert pipelines is not None
    pipelines.get()._inbox.calls.append(Exposure("ann", 0, flag(), monotonic() - days))
    client.track_exposure("bob", flag())
    assert client.flush()
    assert mixpanel.experiments == {"checkout": {"A": {"ann", "bob"}}}
    assert [request.path for request in mixpanel.requests] == ["/import?strict=1"]
    assert abs(mixpanel.events[0]["properties"]["time"] - (time() - days)) < 10


def test_old_exposures_that_import_refuses_are_rejected_in_one_request(
    flagsync: Build, mixpanel: MixpanelServer
) -> None:
    client = flagsync()
    failed = {"code": 400, "failed_records": [{"index": 1, "message": "no"}], "num_records_imported": 2}
    mixpanel.fail(times=1, status=400, body=json.dumps(failed))
    pipelines = client._pipelines
    assert pipelines is not None
    for user in ("ann", "bob", "cid"):
        pipelines.get()._inbox.calls.append(Exposure(user, 0, flag(), monotonic() - 5 * 86400))
    client.track_exposure("dan", None)  # type: ignore[arg-type] # it only wakes the encoder
    assert client.flush()
    assert len(mixpanel.requests) == 1
    assert client.stats().exposures == ExposureStats(accepted=3, delivered=2, rejected=1, skipped=1)


def test_exposures_arrive_while_profiles_do_not(
    flagsync: Build, local: Flagsmith, mixpanel: MixpanelServer
) -> None:
    client = flagsync(local)
    mixpanel.fail(endpoint="/engage", status=503)
    client.get_experiment_flag(KEYED, "ann")
    assert client.flush(0.5) is False
    assert len(mixpanel.events) == 1
    assert (client.stats().pending, client.stats().exposures.delivered) == (1, 1)


class Wrapped:
    """Somebody else's class that passes calls on to a Flagsmith client."""

    def __init__(self, flagsmith: Flagsmith) -> None:
        self._flagsmith = flagsmith

    def __getattr__(self, name: str) -> Any:
        return getattr(self._flagsmith, name)


@pytest.mark.parametrize("wrapped", [lambda flagsmith: flagsmith, Wrapped])
def test_flagsmith_records_its_own_exposure_where_events_are_enabled(
    wrapped: Callable[[Flagsmith], Flagsmith], flagsync: Build, mixpanel: MixpanelServer
) -> None:
    answered = as_answered(flag("A", variant="treatment"))
    answered["metadata"] = {"experiment": {"id": 7, "name": "checkout", "in_experiment": True}}
    with responses.RequestsMock() as api:
        api.add_passthru(mixpanel.url)
        api.add("POST", f"{API}identities/", json={"flags": [answered], "traits": []})
        flagsmith = Flagsmith(environment_key="key", api_url=API)
        flagsmith._event_processor = events = EventProcessor(EventProcessorConfig(), "key")  # not started
        client = flagsync(wrapped(flagsmith))
        found = client.get_experiment_flag("checkout", "ann", {"plan": "premium"})
        assert len([call for call in api.calls if API in f"{call.request.url}"]) == 1
    assert isinstance(found, Flag)
    assert found.variant == "treatment"
    assert client.flush()
    assert mixpanel.experiments == {"checkout": {"treatment": {"ann"}}}
    [event] = events._buffer
    assert (event["identifier"], event["value"], event["traits"]) == ("ann", "treatment", {"plan": "premium"})
    events._buffer.clear()  # else Flagsmith's client sends it when it is collected
