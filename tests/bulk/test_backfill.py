"""Rows of any source become profiles, each settled with an outcome."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flagsmith import Flagsmith
from flagsmith.exceptions import FlagsmithAPIError
from flagsmith.models import DefaultFlag

from flagsync import DeliveryError, FlagSync
from flagsync._delivery.destinations import Backoff
from flagsync._delivery.sender import Sending
from flagsync._encoding.properties import served_value
from flagsync._options import Tuning
from flagsync.bulk import Outcome, Report, backfill
from flagsync.bulk.pace import Pace
from flagsync.bulk.window import CHUNK_ROWS, MAX_CHUNKS
from flagsync.testing import MixpanelServer, Request
from tests.support.evaluating_flagsmith import EvaluatingFlagsmith
from tests.support.flagsmith_server import KEY
from tests.support.processes import names, sent

Build = Callable[..., FlagSync]
MANY = 3 * CHUNK_ROWS + 7


class Impatient(FlagSync):
    """Tries again almost at once."""

    _tuning = Tuning(sending=Sending(backoff=Backoff(first_seconds=0.01, max_seconds=0.02)))


def rows(count: int, prefix: str = "user") -> list[dict[str, object]]:
    return [{"identifier": name, "age": 30} for name in names(prefix, count)]


def test_backfill_delivers_every_row(flagsync: Build, mixpanel: MixpanelServer) -> None:
    report = backfill(rows(MANY), flagsync())
    assert report == Report(read=MANY, delivered=MANY)
    assert sent(mixpanel) == dict.fromkeys(names("user", MANY), 1)


def test_backfill_evaluates_with_the_traits_of_the_row(
    flagsync: Build, mixpanel: MixpanelServer, offline: Flagsmith
) -> None:
    traits: list[dict[str, str | int]] = [{}, {"age": 30}, {"age": "30"}, {"plan": "pro"}]
    backfill(({"id": f"user_{n}", **one} for n, one in enumerate(traits)), flagsync(), identifier="id")
    for number, one in enumerate(traits):
        flags = offline.get_identity_flags(f"user_{number}", one).all_flags()
        assert mixpanel.profiles[f"user_{number}"] == {flag.feature_name: served_value(flag) for flag in flags}


def test_backfill_rejects_a_bad_row_and_goes_on(flagsync: Build, mixpanel: MixpanelServer) -> None:
    mixpanel.fail(distinct_id="user_3", status=400)
    rejected = list[Outcome]()
    given: list[Any] = [*rows(5), {"name": "x"}, {"identifier": "null"}, *rows(3, "other")]
    report = backfill(given, flagsync(), on_reject=rejected.append)
    assert report == Report(read=10, delivered=7, rejected=3)
    assert rejected == [
        Outcome(4, "user_3", "rejected", "Mixpanel does not accept updates (HTTP 400)"),
        Outcome(6, None, "rejected", "there is no column 'identifier'"),
        Outcome(7, "null", "rejected", "Mixpanel blocks the identifier as a placeholder"),
    ]
    assert {*mixpanel.profiles} == {*names("user", 5)} - {"user_3"} | {*names("other", 3)}


def test_backfill_rejects_a_row_whose_record_is_too_large(flagsync: Build) -> None:
    rejected = list[Outcome]()
    client = flagsync(property_value=lambda flag: "x" * 1_000_000)
    report = backfill(rows(1), client, on_reject=rejected.append)
    assert report == Report(read=1, rejected=1)
    assert rejected == [Outcome(1, "user_0", "rejected", "Flags cannot be mirrored (OverflowError)")]


def test_backfill_rejects_a_row_without_any_property(flagsync: Build) -> None:
    rejected = list[Outcome]()
    report = backfill(rows(1), flagsync(property_name=lambda _: None), on_reject=rejected.append)
    assert report == Report(read=1, rejected=1)
    assert rejected[0].reason == "no flag has a property name"


def test_backfill_skips_a_row_that_has_no_profile(flagsync: Build, mixpanel: MixpanelServer) -> None:
    client = flagsync(distinct_id=lambda name: None if name == "user_1" else f"p-{name}")
    assert backfill(rows(3), client) == Report(read=3, delivered=2, skipped=1)
    assert {*mixpanel.profiles} == {"p-user_0", "p-user_2"}


def test_backfill_lets_the_last_row_of_a_profile_win(flagsync: Build, mixpanel: MixpanelServer) -> None:
    client = flagsync(distinct_id=lambda _: "same", property_value=lambda flag: flag.feature_id)
    rejected = list[Outcome]()
    mixpanel.fail(distinct_id="same", status=400)
    report = backfill(rows(3), client, on_reject=rejected.append)
    assert report == Report(read=3, superseded=2, rejected=1)
    assert [outcome.row for outcome in rejected] == [3]


def test_backfill_counts_what_mixpanel_has_already(flagsync: Build, mixpanel: MixpanelServer) -> None:
    client = flagsync()
    backfill(rows(10), client)
    assert backfill(rows(12), client) == Report(read=12, delivered=2, unchanged=10)
    assert len(sent(mixpanel)) == 12


def test_backfill_waits_while_mixpanel_is_away(offline: Flagsmith, mixpanel: MixpanelServer) -> None:
    mixpanel.fail(times=5, status=503)
    with Impatient(offline, "token", mixpanel_url=mixpanel.url) as client:
        assert backfill(rows(MANY), client) == Report(read=MANY, delivered=MANY)


def test_backfill_reads_no_further_than_its_window_while_mixpanel_is_away(
    offline: Flagsmith, mixpanel: MixpanelServer
) -> None:
    read, is_full = [0], threading.Event()
    window = CHUNK_ROWS * MAX_CHUNKS

    def source() -> Iterator[dict[str, object]]:
        for row in rows(2 * window):
            read[0] += 1
            if read[0] == window:
                is_full.set()
            yield row

    mixpanel.fail(status=503)
    with Impatient(offline, "token", mixpanel_url=mixpanel.url) as client:
        thread = threading.Thread(target=backfill, args=(source(), client))
        thread.start()
        assert is_full.wait(30)
        assert mixpanel.wait_for_requests(len(mixpanel.requests) + 10)
        assert read[0] == window
        mixpanel.recover()
        thread.join(60)
        assert client.stats().delivered == 2 * window


def test_backfill_fails_if_mixpanel_refuses_the_configuration(
    flagsync: Build, mixpanel: MixpanelServer
) -> None:
    mixpanel.fail(status=401)
    reports = list[Report]()
    with pytest.raises(DeliveryError, match="HTTP 401") as raised:
        backfill(rows(MANY), flagsync(), on_progress=reports.append)
    assert raised.value.misconfigured
    assert 0 < raised.value.count <= MANY
    assert reports == []


def test_backfill_fails_if_its_client_is_closed(flagsync: Build) -> None:
    client = flagsync()
    client.close()
    with pytest.raises(DeliveryError, match="The client is closed"):
        backfill(rows(1), client)


def test_backfill_passes_on_what_its_source_raises_after_the_rows_before(flagsync: Build) -> None:
    def source() -> Iterator[dict[str, object]]:
        yield from rows(MANY)
        raise OSError("the disk is gone")

    reports = list[Report]()
    with pytest.raises(OSError, match="the disk is gone"):
        backfill(source(), flagsync(), on_progress=reports.append)
    assert reports[-1] == Report(read=MANY, delivered=MANY)


def test_backfill_reports_progress_as_rows_are_settled(flagsync: Build) -> None:
    reports = list[Report]()
    backfill(rows(MANY), flagsync(), on_progress=reports.append)
    assert [report.read for report in reports] == [CHUNK_ROWS, 2 * CHUNK_ROWS, 3 * CHUNK_ROWS, MANY]


def test_backfill_goes_on_after_an_earlier_run(flagsync: Build, mixpanel: MixpanelServer) -> None:
    rejected = list[Outcome]()
    before = Report(read=5, delivered=4, rejected=1)
    report = backfill([*rows(8), {}], flagsync(), after=before, on_reject=rejected.append)
    assert report == Report(read=9, delivered=7, rejected=2)
    assert {*mixpanel.profiles} == {"user_5", "user_6", "user_7"}
    assert [outcome.row for outcome in rejected] == [9]


def test_backfill_keeps_its_window_below_max_pending(flagsync: Build) -> None:
    reports = list[Report]()
    client = flagsync(max_pending=16)
    assert backfill(rows(100), client, on_progress=reports.append).delivered == 100
    assert reports[0].read == 16 // MAX_CHUNKS
    assert client.stats().dropped == 0


def test_backfill_counts_a_loss_that_another_process_has_not_told(
    flagsync: Build, monkeypatch: pytest.MonkeyPatch, mixpanel: MixpanelServer
) -> None:
    mixpanel.fail(distinct_id="user_1", status=400)
    client = flagsync()
    client._pipelines.get().report.tell = lambda *_: None  # type: ignore[union-attr,method-assign]
    assert backfill(rows(3), client) == Report(read=3, delivered=2, rejected=1)


def test_two_backfills_of_one_client_do_not_mix(flagsync: Build, mixpanel: MixpanelServer) -> None:
    mixpanel.fail(distinct_id="b_0", status=400)
    client, rejected = flagsync(), list[Outcome]()

    def source() -> Iterator[dict[str, object]]:
        yield from rows(2, "a")
        backfill(rows(2, "b"), client, on_reject=rejected.append)
        yield from rows(1, "c")

    others = list[Outcome]()
    backfill(source(), client, on_reject=others.append)
    assert [outcome.identifier for outcome in rejected] == ["b_0"]
    assert others == []
    assert client._pipelines.get().report.followers == ()  # type: ignore[union-attr]


class TestDryRun:
    def test_dry_run_evaluates_and_sends_nothing(self, flagsync: Build, mixpanel: MixpanelServer) -> None:
        given: list[dict[str, object]] = [*rows(3), {"identifier": "nil"}]
        assert backfill(given, flagsync(token=None), dry_run=True) == Report(read=4, evaluated=3, rejected=1)
        assert backfill(given, flagsync(), dry_run=True) == Report(read=4, evaluated=3, rejected=1)
        assert mixpanel.requests == []

    def test_dry_run_rejects_what_cannot_be_mirrored(self, flagsync: Build) -> None:
        rejected = list[Outcome]()
        large = flagsync(property_value=lambda flag: "x" * 1_000_000)
        none = flagsync(property_name=lambda _: None)
        for client in (large, none):
            backfill(rows(1), client, dry_run=True, on_reject=rejected.append)
        assert [outcome.reason for outcome in rejected] == [
            "Flags cannot be mirrored (OverflowError)",
            "no flag has a property name",
        ]


class TestRemote:
    @pytest.fixture
    def remote(self, document: Any) -> Iterator[EvaluatingFlagsmith]:
        with EvaluatingFlagsmith(document) as server:
            yield server

    def test_backfill_evaluates_remotely(
        self, flagsync: Build, remote: EvaluatingFlagsmith, mixpanel: MixpanelServer
    ) -> None:
        client = flagsync(Flagsmith(KEY, api_url=remote.api_url))
        assert backfill(rows(3), client) == Report(read=3, delivered=3)

    def test_backfill_rejects_a_row_that_flagsmith_refuses(
        self, flagsync: Build, remote: EvaluatingFlagsmith
    ) -> None:
        answer = remote._answer

        def refuse(request: Request) -> tuple[int, bytes]:
            return (400, b"{}") if b"user_1" in request.body else answer(request)

        remote._answer = refuse  # type: ignore[method-assign]
        rejected = list[Outcome]()
        client = flagsync(Flagsmith(KEY, api_url=remote.api_url))
        assert backfill(rows(3), client, on_reject=rejected.append) == Report(read=3, delivered=2, rejected=1)
        assert rejected[0].reason == "Flagsmith does not evaluate it (HTTP 400)"

    def test_backfill_fails_if_flagsmith_does_not_evaluate(
        self, flagsync: Build, remote: EvaluatingFlagsmith
    ) -> None:
        client, reports = flagsync(Flagsmith(KEY, api_url=remote.api_url)), list[Report]()

        def source() -> Iterator[dict[str, object]]:
            yield from rows(3)
            remote.fail(status=503)
            yield from rows(3, "late")

        with pytest.raises(FlagsmithAPIError):
            backfill(source(), client, on_progress=reports.append)
        assert reports[-1] == Report(read=3, delivered=3)

    def test_backfill_rejects_a_row_for_which_flagsmith_has_only_defaults(
        self, flagsync: Build, remote: EvaluatingFlagsmith
    ) -> None:
        remote.fail(status=503)
        handler = lambda _: DefaultFlag(enabled=False, value=None)  # noqa: E731
        client = flagsync(Flagsmith(KEY, api_url=remote.api_url, default_flag_handler=handler))
        rejected = list[Outcome]()
        assert backfill(rows(1), client, on_reject=rejected.append) == Report(read=1, rejected=1)
        assert rejected[0].reason == "Flagsmith evaluated no flags"


class TestOptions:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"rate": 0}, "rate must be a number above 0, or None, not 0"),
            ({"identifier": ""}, "identifier must be the name of a column, not an empty text"),
            ({"after": 7}, "after must be a Report of an earlier run, or None, not 7"),
        ],
    )
    def test_options_that_are_wrong_are_refused(
        self, flagsync: Build, options: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(ValueError, match=message):
            backfill([], flagsync(), **options)

    def test_client_must_be_one_that_mirrors(self, flagsync: Build, offline: Flagsmith) -> None:
        with pytest.raises(ValueError, match="client must have a mixpanel_token"):
            backfill([], flagsync(token=None))
        with pytest.raises(ValueError, match="client must be a FlagSync, not a value of type Flagsmith"):
            backfill([], offline)  # type: ignore[arg-type]


class TestPace:
    def test_pace_waits_for_its_turn(self) -> None:
        slept = list[float]()
        pace = Pace(100.0, slept.append)
        for _ in range(3):
            pace.wait(50)
        assert slept == [pytest.approx(0.5, abs=0.2), pytest.approx(1.0, abs=0.2)]

    def test_pace_without_a_rate_never_waits(self) -> None:
        pace = Pace(None, lambda _: pytest.fail("it waited"))
        for _ in range(3):
            pace.wait(50)

    def test_low_rate_is_an_even_one(self, flagsync: Build, monkeypatch: pytest.MonkeyPatch) -> None:
        reports = list[Report]()
        backfill(rows(3), flagsync(), rate=30.0, on_progress=reports.append)
        assert reports[0].read <= 3
