"""OpenFeature with Flagsmith's own provider: what it gets from the client, and the hook that records exposures."""

import asyncio
import importlib
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flagsmith import Flagsmith
from flagsmith.analytics import EventProcessor, EventProcessorConfig
from flagsmith.models import DefaultFlag, Flag
from openfeature import api
from openfeature.client import OpenFeatureClient
from openfeature.evaluation_context import EvaluationContext
from openfeature.flag_evaluation import FlagEvaluationDetails, FlagEvaluationOptions, Reason
from openfeature.hook import Hook, HookContext, HookHints
from openfeature.track import TrackingEventDetails
from openfeature_flagsmith import FlagsmithProvider

from flagsync import FlagSync
from flagsync._observation import CURRENT, MAX_EVALUATIONS
from flagsync._stats import ExposureStats
from flagsync.openfeature import MixpanelExposureHook
from flagsync.testing import MixpanelServer
from tests.support.evaluating_flagsmith import EvaluatingFlagsmith
from tests.support.flagsmith_server import KEY
from tests.support.tasks import Run

Build = Callable[..., FlagSync]
Groups = dict[str, set[str]]
USERS = [f"shopper_{number}" for number in range(100)]
# Variants with and without a control group, a segment that decides, a flag that is off without variants and with them.
SPLIT, BY_SEGMENT, OFF, SPLIT_OFF = "mv_keyed", "seg_override", "str_off", "mv_off"
HAND_PICKED = "user_2"  # has an identity override of STRING
STRING, NUMBER = "str_on", "int_on"
NOT_RECORDED = "An exposure is not recorded: "
needs_reasons = pytest.mark.skipif(not hasattr(Flag, "reason"), reason="flagsmith 6.1 does not say why")


@pytest.fixture(autouse=True)
def _openfeature_is_reset() -> Iterator[None]:
    """Leave neither providers nor hooks, and no observation."""
    yield
    api.shutdown()
    assert CURRENT.get() is None


@pytest.fixture
def server(document: dict[str, Any]) -> Iterator[EvaluatingFlagsmith]:
    """A loopback Flagsmith."""
    with EvaluatingFlagsmith(document) as started:
        yield started


@pytest.fixture
def remote(server: EvaluatingFlagsmith) -> Flagsmith:
    """A client that has Flagsmith evaluate."""
    return Flagsmith(KEY, api_url=server.api_url)


@pytest.fixture
def local(server: EvaluatingFlagsmith) -> Iterator[Flagsmith]:
    """A client that evaluates what it has fetched."""
    client = Flagsmith(KEY, api_url=server.api_url, enable_local_evaluation=True)
    yield client
    client.environment_data_polling_manager_thread.stop()


class Calling(Hook):
    """Somebody else's hook, which calls functions with the name of the flag."""

    def __init__(
        self, before: Callable[[str], Any] = lambda _: None, after: Callable[[str], Any] = lambda _: None
    ) -> None:
        self._before, self._after = before, after

    def before(self, hook_context: HookContext, hints: HookHints) -> EvaluationContext | None:
        found = self._before(hook_context.flag_key)
        return found if isinstance(found, EvaluationContext) else None

    def after(self, hook_context: HookContext, details: FlagEvaluationDetails[Any], hints: HookHints) -> None:
        self._after(hook_context.flag_key)


def provided(client: FlagSync | Flagsmith, *hooks: Hook, **options: Any) -> OpenFeatureClient:
    """Return a client of OpenFeature that evaluates with this one, and has hooks."""
    api.set_provider(FlagsmithProvider(client=client, **options))
    found = api.get_client()
    found.add_hooks([*hooks])
    return found


def user(identifier: str | None = "ann", **attributes: Any) -> EvaluationContext:
    return EvaluationContext(identifier, attributes)


def only(*hooks: Hook) -> FlagEvaluationOptions:
    return FlagEvaluationOptions(hooks=[*hooks])


def split(flagsmith: Flagsmith, feature: str, name_of: Callable[[Flag], str]) -> Groups:
    """Return Flagsmith's own groups of the users, every second of whom is premium."""
    groups: Groups = {}
    for number, name in enumerate(USERS):
        flag = flagsmith.get_identity_flags(name, plan(number)).get_flag(feature)
        assert isinstance(flag, Flag)
        groups.setdefault(name_of(flag), set()).add(name)
    return groups


def plan(number: int) -> dict[str, Any]:
    return {"plan": "premium" if number % 2 else "free"}


# The provider with a FlagSync


def test_provider_says_stale_offline(flagsync: Build) -> None:
    details = provided(flagsync()).get_string_details(STRING, "", user())
    assert (details.value, details.reason) == ("blue", Reason.STALE)


def test_provider_evaluates_as_with_flagsmith_alone_and_all_flags_are_mirrored(
    flagsync: Build, local: Flagsmith, mixpanel: MixpanelServer
) -> None:
    client, found = flagsync(local), []
    for wrapped in (client, local):
        evaluate = provided(wrapped).get_string_details
        found.append([evaluate(name, "", user()) for name in (STRING, SPLIT, NUMBER, OFF, "none")])
    assert found[0] == found[1]
    assert client.flush()
    assert mixpanel.profiles["ann"]["bool_on"] is True


def test_provider_tracks_events_with_flagsmith(flagsync: Build, remote: Flagsmith) -> None:
    remote._event_processor = events = EventProcessor(EventProcessorConfig(), "key")  # not started
    found = provided(flagsync(remote))
    found.track("signed_up", user(plan="pro"), TrackingEventDetails(7))
    [event] = events._buffer
    assert (event["event"], event["identifier"], event["value"]) == ("signed_up", "ann", "7")
    found.track(
        "feature_flag.exposure", user(), TrackingEventDetails(attributes={"flag_key": SPLIT, "variant": "a"})
    )
    assert [event["identifier"] for event in events._buffer] == ["ann", "ann"]
    events._buffer.clear()  # else Flagsmith's client sends them when it is collected


def test_shutdown_of_openfeature_leaves_the_client_open(flagsync: Build, mixpanel: MixpanelServer) -> None:
    client = flagsync()
    provided(client)
    api.shutdown()
    client.get_identity_flags("ann")
    assert client.flush()
    assert "ann" in mixpanel.profiles


# The hook


@pytest.mark.parametrize("mode", ["local", "remote"])
def test_hook_records_the_groups_of_flagsmith(
    mode: str, request: pytest.FixtureRequest, flagsync: Build, mixpanel: MixpanelServer, run: Run
) -> None:
    flagsmith: Flagsmith = request.getfixturevalue(mode)
    client = flagsync(flagsmith)
    found = provided(client, MixpanelExposureHook(client, experiments={SPLIT, BY_SEGMENT, STRING}))
    contexts = [user(name, **plan(number)) for number, name in enumerate(USERS)]

    async def meet() -> None:
        for context in contexts[50:]:
            for feature in (SPLIT, STRING, "json_on"):
                await found.get_string_value_async(feature, "", context)
            await found.get_boolean_value_async(BY_SEGMENT, default_value=False, evaluation_context=context)

    run(meet)
    for context in contexts[:50]:
        for feature in (SPLIT, STRING, "json_on"):
            found.get_string_value(feature, "", context)
        found.get_boolean_value(BY_SEGMENT, default_value=False, evaluation_context=context)
    assert client.flush()
    assert mixpanel.experiments == {
        SPLIT: split(flagsmith, SPLIT, lambda flag: flag.variant or f"{flag.value}"),
        BY_SEGMENT: split(flagsmith, BY_SEGMENT, lambda flag: f"{flag.value}" if flag.enabled else "false"),
        STRING: {"blue": {*USERS}},
    }
    assert {*mixpanel.experiments[SPLIT]} == {"control", "val_a", "val_b"}
    assert {*mixpanel.experiments[BY_SEGMENT]} == {"gold", "false"}
    assert client.stats().exposures == ExposureStats(accepted=300, delivered=300)


def test_hook_evaluates_nothing_again(flagsync: Build, remote: Flagsmith, server: EvaluatingFlagsmith) -> None:
    client = flagsync(remote)
    provided(client, MixpanelExposureHook(client)).get_string_value(SPLIT, "", user())
    assert len(server.requests) == 1


def test_hook_records_the_value_that_a_boolean_evaluation_does_not_show(
    flagsync: Build, mixpanel: MixpanelServer
) -> None:
    client = flagsync()
    provided(client, MixpanelExposureHook(client)).get_boolean_value(
        STRING, default_value=False, evaluation_context=user()
    )
    assert client.flush()
    assert mixpanel.experiments == {STRING: {"blue": {"ann"}}}


@needs_reasons
@pytest.mark.parametrize("mode", ["local", "offline"])
def test_hook_records_no_identity_override(
    mode: str,
    request: pytest.FixtureRequest,
    flagsync: Build,
    mixpanel: MixpanelServer,
    logged: Callable[[], list[str]],
) -> None:
    client = flagsync(request.getfixturevalue(mode))
    provided(client, MixpanelExposureHook(client)).get_string_value(STRING, "", user(HAND_PICKED))
    assert client.flush()
    assert (mixpanel.events, client.stats().exposures) == ([], ExposureStats(skipped=1))
    assert "the flag is overridden for this identity" in logged()[-1]


def test_hook_records_a_flag_that_is_off_though_the_provider_reports_an_error(
    flagsync: Build, mixpanel: MixpanelServer
) -> None:
    client = flagsync()
    details = provided(client, MixpanelExposureHook(client)).get_string_details(OFF, "default", user())
    assert (details.value, details.reason) == ("default", Reason.ERROR)
    assert client.flush()
    assert mixpanel.experiments == {OFF: {"false": {"ann"}}}


@pytest.mark.parametrize(
    ("feature", "context", "reason"),
    [
        (NUMBER, user(), "the evaluation failed, so OpenFeature returned the default of the call"),
        ("bool_on", user(), "the evaluation failed, so OpenFeature returned the default of the call"),
        ("no_such_flag", user(), "it needs a Flag that Flagsmith has evaluated; a default flag does not count"),
        (STRING, user(transient=True), "the identity is transient"),
        (STRING, user(None), "OpenFeature evaluated the flag without a targeting key"),
        (STRING, user(""), "OpenFeature evaluated the flag without a targeting key"),
        ("no_such_flag", user(None), "OpenFeature evaluated the flag without a targeting key"),
        (STRING, user("anonymous"), "Mixpanel blocks the identifier as a placeholder"),
    ],
)
def test_hook_counts_and_logs_what_it_does_not_record(
    feature: str, context: EvaluationContext, reason: str, flagsync: Build, logged: Callable[[], list[str]]
) -> None:
    client = flagsync()
    found = provided(client, MixpanelExposureHook(client))
    for _ in range(2):
        found.get_string_value(feature, "default", context)
    assert client.flush()
    assert client.stats().exposures == ExposureStats(skipped=2)
    assert f"{NOT_RECORDED}{reason}" in logged()
    assert len([message for message in logged() if NOT_RECORDED in message]) == 1


@needs_reasons
def test_hook_records_no_multivariate_flag_that_is_off(
    flagsync: Build, mixpanel: MixpanelServer, logged: Callable[[], list[str]]
) -> None:
    client = flagsync()
    provided(client, MixpanelExposureHook(client)).get_string_value(SPLIT_OFF, "", user())
    assert client.flush()
    assert (mixpanel.events, client.stats().exposures) == ([], ExposureStats(skipped=1))
    assert "the multivariate flag is disabled, so nobody is served a variant" in logged()[-1]


def test_hook_counts_an_experiment_without_a_name(flagsync: Build) -> None:
    client = flagsync(experiment_name=lambda _: None)
    provided(client, MixpanelExposureHook(client, experiments=[STRING])).get_string_value(STRING, "", user())
    assert client.flush()
    assert client.stats().exposures == ExposureStats(skipped=1)


def test_hook_counts_the_default_of_flagsmith(flagsync: Build, server: EvaluatingFlagsmith) -> None:
    server.fail(status=503)
    default = DefaultFlag(enabled=True, value="A")
    client = flagsync(Flagsmith(KEY, api_url=server.api_url, default_flag_handler=lambda _: default))
    found = provided(client, MixpanelExposureHook(client), use_flagsmith_defaults=True)
    assert found.get_string_value(STRING, "", user()) == "A"
    assert client.flush()
    assert client.stats().exposures == ExposureStats(skipped=1)


def test_hook_counts_an_evaluation_that_flagsmith_did_not_answer(
    flagsync: Build, remote: Flagsmith, server: EvaluatingFlagsmith, logged: Callable[[], list[str]]
) -> None:
    server.fail(status=503)
    client = flagsync(remote)
    provided(client, MixpanelExposureHook(client)).get_string_value(STRING, "", user())
    assert client.flush()
    assert client.stats().exposures == ExposureStats(skipped=1)
    assert "a default flag does not count" in logged()[-1]


def test_hook_ignores_flags_that_are_no_experiments(flagsync: Build, mixpanel: MixpanelServer) -> None:
    client = flagsync()
    found = provided(client, MixpanelExposureHook(client, experiments=(SPLIT,)))
    found.get_string_value(STRING, "", user())
    found.get_string_value(OFF, "", user())
    assert client.flush()
    assert (mixpanel.events, client.stats().exposures) == ([], ExposureStats())


def test_hook_says_if_the_provider_evaluates_with_another_client(
    flagsync: Build, offline: Flagsmith, mixpanel: MixpanelServer, logged: Callable[[], list[str]]
) -> None:
    client = flagsync()
    found = provided(offline, MixpanelExposureHook(client))
    assert found.get_string_value(STRING, "", user()) == "blue"
    assert client.flush()
    assert (mixpanel.events, client.stats().exposures) == ([], ExposureStats(skipped=1))
    assert "pass the same one to FlagsmithProvider(client=…) and to MixpanelExposureHook" in logged()[0]


def test_hook_does_not_record_what_another_client_evaluates(
    flagsync: Build, remote: Flagsmith, mixpanel: MixpanelServer
) -> None:
    client, other = flagsync(), flagsync(remote)
    hooks = [MixpanelExposureHook(each) for each in (client, other)]
    provided(client, *hooks).get_string_value(STRING, "", user())
    assert client.flush()
    assert other.flush()
    assert len(mixpanel.events) == 1
    assert other.stats().exposures == ExposureStats(skipped=1)


def test_hook_of_a_client_without_a_token_does_nothing(flagsync: Build) -> None:
    client = flagsync(token=None)
    assert provided(client, MixpanelExposureHook(client)).get_string_value(STRING, "", user()) == "blue"
    assert client.stats().exposures == ExposureStats()


def test_hook_never_turns_an_evaluation_into_an_error(flagsync: Build, offline: Flagsmith) -> None:
    client = flagsync()
    hook = MixpanelExposureHook(client)
    found = provided(client, hook)
    client.track_exposure = None  # type: ignore[assignment, method-assign] # it cannot be called
    details = found.get_string_details(STRING, "", user())
    assert (details.value, details.error_code) == ("blue", None)


# Other hooks, threads and tasks


@pytest.mark.parametrize("where", ["api", "client", "call"])
def test_hook_works_wherever_it_is_added(where: str, flagsync: Build, mixpanel: MixpanelServer) -> None:
    client = flagsync()
    hook, found = MixpanelExposureHook(client), provided(client)
    if where == "api":
        api.add_hooks([hook])
    if where == "client":
        found.add_hooks([hook])
    found.get_string_value(STRING, "", user(), only(hook) if where == "call" else None)
    assert client.flush()
    assert client.stats().exposures == ExposureStats(accepted=1, delivered=1)


def test_hooks_of_one_evaluation_all_see_it(flagsync: Build, mixpanel: MixpanelServer) -> None:
    client = flagsync()
    hooks = [MixpanelExposureHook(client, experiments=[name]) for name in (STRING, SPLIT)]
    found = provided(client, *hooks, *hooks)
    for name in (STRING, SPLIT):
        found.get_string_value(name, "", user())
    assert client.flush()
    assert client.stats().exposures == ExposureStats(accepted=4, delivered=2, unchanged=2)


def test_hook_records_the_identity_that_another_hook_has_set(flagsync: Build, mixpanel: MixpanelServer) -> None:
    client = flagsync()
    login = Calling(before=lambda _: user("bob"))
    for hooks in ((login, MixpanelExposureHook(client)), (MixpanelExposureHook(client), login)):
        provided(client, *hooks).get_string_value(STRING, "", user())
        provided(client, *hooks).get_string_value(STRING, "", user(None))
    assert client.flush()
    assert mixpanel.experiments == {STRING: {"blue": {"bob"}}}


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("who", ["ann", HAND_PICKED])
def test_hook_is_not_misled_by_evaluations_of_other_hooks(
    when: str, who: str, flagsync: Build, mixpanel: MixpanelServer
) -> None:
    client = flagsync()
    bare = provided(client)

    def evaluate(_: str) -> None:
        client.get_identity_flags(who)
        bare.get_string_value(STRING, "", user(who))
        bare.get_string_value(STRING, "", user(None))

    other, hook = Calling(**{when: evaluate}), MixpanelExposureHook(client)
    for hooks in ((hook, other), (other, hook)):
        bare.get_string_value(STRING, "", user(), only(*hooks))
    assert client.flush()
    assert mixpanel.experiments == {STRING: {"blue": {"ann"}}}
    assert client.stats().exposures == ExposureStats(accepted=2, delivered=1, unchanged=1)


@pytest.mark.parametrize("when", ["before", "after"])
def test_hook_records_evaluations_within_an_evaluation(
    when: str, flagsync: Build, mixpanel: MixpanelServer
) -> None:
    client = flagsync()
    hook = MixpanelExposureHook(client, experiments=[STRING, SPLIT])

    def evaluate(feature: str) -> None:
        if feature == STRING:
            api.get_client().get_string_value(SPLIT, "", user("bob"))

    api.add_hooks([hook, Calling(**{when: evaluate})])
    provided(client).get_string_value(STRING, "", user())
    assert client.flush()
    met = {name: {*groups} for name, groups in mixpanel.experiments.items()}
    users = {name: set[str]().union(*groups.values()) for name, groups in mixpanel.experiments.items()}
    assert users == {STRING: {"ann"}, SPLIT: {"bob"}}
    assert met[STRING] == {"blue"}


@pytest.mark.parametrize("others", [["cid", "dan"], ["cid"] * MAX_EVALUATIONS])
def test_hook_records_nothing_if_it_cannot_tell_who_was_evaluated(
    others: list[str], flagsync: Build, mixpanel: MixpanelServer
) -> None:
    client = flagsync()

    def evaluate(feature: str) -> None:
        for name in others:
            client.get_identity_flags(name).get_flag(feature)

    login = Calling(before=lambda _: user("bob"), after=evaluate)
    provided(client, MixpanelExposureHook(client), login).get_string_value(STRING, "", user())
    assert client.flush()
    assert (mixpanel.events, client.stats().exposures) == ([], ExposureStats(skipped=1))


def test_hook_takes_no_identity_of_another_hook_for_a_missing_one(
    flagsync: Build, mixpanel: MixpanelServer
) -> None:
    client = flagsync()
    other = Calling(before=lambda feature: client.get_identity_flags("bob").get_flag(feature))
    provided(client, MixpanelExposureHook(client), other).get_string_value(STRING, "", user(None))
    assert client.flush()
    assert (mixpanel.events, client.stats().exposures) == ([], ExposureStats(skipped=1))


def test_hook_takes_no_evaluation_of_another_hook_for_one_that_failed(
    flagsync: Build, remote: Flagsmith, server: EvaluatingFlagsmith, mixpanel: MixpanelServer
) -> None:
    client = flagsync(remote)

    def evaluate(_: str) -> None:
        client.get_identity_flags("ann")
        server.fail(status=503)

    provided(client, MixpanelExposureHook(client), Calling(before=evaluate)).get_string_value(
        STRING, "", user()
    )
    assert client.flush()
    assert (mixpanel.events, client.stats().exposures) == ([], ExposureStats(skipped=1))


def test_hook_records_no_flag_that_is_off_if_another_hook_has_failed(
    flagsync: Build, mixpanel: MixpanelServer
) -> None:
    client = flagsync()
    broken = Calling(after=dict[str, object]().__getitem__)
    found = provided(client, MixpanelExposureHook(client), broken)
    assert found.get_boolean_value(OFF, default_value=True, evaluation_context=user()) is True
    assert client.flush()
    assert (mixpanel.events, client.stats().exposures) == ([], ExposureStats(skipped=1))


def test_hook_records_no_exposure_if_another_hook_turns_the_evaluation_into_an_error(
    flagsync: Build, mixpanel: MixpanelServer
) -> None:
    client = flagsync()
    hook = MixpanelExposureHook(client)
    values: dict[str, object] = {}
    for broken in (Calling(before=values.__getitem__), Calling(after=values.__getitem__)):
        for hooks in ((broken, hook), (hook, broken)):
            details = provided(client, *hooks).get_string_details(STRING, "default", user())
            assert (details.value, details.reason) == ("default", Reason.ERROR)
    assert client.flush()
    assert (mixpanel.events, client.stats().exposures) == ([], ExposureStats(skipped=4))


def test_hook_tells_users_apart_in_concurrent_threads_and_tasks(
    flagsync: Build, remote: Flagsmith, mixpanel: MixpanelServer
) -> None:
    client = flagsync(remote)
    found = provided(client, MixpanelExposureHook(client))

    async def meet(name: str) -> None:
        await found.get_string_value_async(SPLIT, "", user(name))

    async def meet_all(names: list[str]) -> None:
        await asyncio.gather(*[meet(name) for name in names])

    threads = [
        threading.Thread(target=lambda part=part: asyncio.run(meet_all(USERS[part::4]))) for part in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert client.flush()
    groups = split(remote, SPLIT, lambda flag: flag.variant or f"{flag.value}")
    assert mixpanel.experiments == {SPLIT: groups}


def test_hook_that_was_interrupted_leaves_nothing_that_grows_or_misleads(
    flagsync: Build, mixpanel: MixpanelServer
) -> None:
    def interrupt(_: str) -> None:
        raise KeyboardInterrupt

    client = flagsync()
    hook = MixpanelExposureHook(client)
    found = provided(client, hook)
    with pytest.raises(UnboundLocalError):  # openfeature-sdk 0.9 makes it of a KeyboardInterrupt
        found.get_string_value(STRING, "", user(), only(Calling(before=interrupt)))
    for number in range(2 * MAX_EVALUATIONS):
        client.get_identity_flags(f"shopper_{number}")
    observation = CURRENT.get()
    assert observation is not None
    assert len(observation._evaluations) == MAX_EVALUATIONS
    found.get_string_value(STRING, "", user("bob"))
    assert CURRENT.get() is observation
    CURRENT.set(None)
    assert client.flush()
    assert mixpanel.experiments == {STRING: {"blue": {"bob"}}}


# What the hook accepts, and what it needs


@pytest.mark.parametrize("experiments", ["mv_keyed", [1], 7, b"mv_keyed", iter(["mv_keyed"])])
def test_hook_refuses_experiments_that_are_no_collection_of_names(experiments: Any, flagsync: Build) -> None:
    with pytest.raises(ValueError, match="experiments must be a collection of feature names, such as"):
        MixpanelExposureHook(flagsync(), experiments=experiments)


def test_hook_refuses_another_client(offline: Flagsmith) -> None:
    message = "client must be the FlagSync that FlagsmithProvider evaluates with, not a value of type Flagsmith"
    with pytest.raises(ValueError, match=message):
        MixpanelExposureHook(offline)  # type: ignore[arg-type]


@pytest.mark.parametrize("missing", ["openfeature.hook", "openfeature_flagsmith.exceptions"])
def test_hook_without_the_extra_says_what_to_install(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.delitem(sys.modules, "flagsync.openfeature")
    with pytest.raises(
        ImportError, match=r"needs OpenFeature's SDK .*: pip install 'flagsync\[openfeature\]'$"
    ) as raised:
        importlib.import_module("flagsync.openfeature")
    assert raised.value.name == missing
