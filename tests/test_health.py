"""Whether a client is healthy and, if not, why."""

import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from flagsmith import Flagsmith
from flagsmith.models import Flag

from flagsync import FlagSync
from flagsync._delivery.destinations import Backoff
from flagsync._delivery.sender import Sending
from flagsync._health import CLOSED, ClientHealth
from flagsync._messages import NO_THREADS
from flagsync._options import Tuning
from flagsync._outbox.options import Staging
from flagsync._refresh import NO_DOCUMENT
from flagsync._thresholds import Thresholds
from flagsync.testing import MixpanelServer

Build = Callable[..., FlagSync]
SOON = Sending(backoff=Backoff(first_seconds=0.01, max_seconds=0.01, jitter=(0.0, 0.0)))
LONG = Thresholds(lasting_seconds=3600.0, old_seconds=3600.0)
TOKEN = "token-of-the-project"


@pytest.fixture
def build(offline: Flagsmith, mixpanel: MixpanelServer) -> Iterator[Build]:
    """Builds clients with thresholds; closes them."""
    clients: list[FlagSync] = []

    def build_client(
        thresholds: Thresholds = LONG, flagsmith: Flagsmith = offline, token: str | None = TOKEN, **options: Any
    ) -> FlagSync:
        class Client(FlagSync):
            _tuning = Tuning(
                sending=SOON,
                thresholds=thresholds,
                staging=Staging(busy_seconds=0.0, retry_seconds=0.0, max_retry_seconds=0.0),
            )

        url = None if token is None else mixpanel.url
        clients.append(Client(flagsmith, token, mixpanel_url=url, flush_interval_seconds=0.01, **options))
        return clients[-1]

    yield build_client
    for client in clients:
        client.close(0.1)


def test_client_is_healthy_before_and_after_it_delivers(build: Build) -> None:
    client = build()
    assert client.health() == ClientHealth(ok=True)
    client.get_identity_flags("user_1")
    assert client.flush()
    assert client.health()
    assert asdict(client.health()) == {"ok": True, "reasons": ()}


def test_client_that_mirrors_nothing_on_purpose_is_healthy(build: Build) -> None:
    client = build(token=None)
    client.close()
    assert client.health().ok


def test_closed_client_is_not_healthy(build: Build) -> None:
    client = build()
    client.close()
    assert client.health() == ClientHealth(ok=False, reasons=(CLOSED,))
    assert not client.health()


def test_closed_client_says_nothing_of_what_it_gave_up(build: Build, mixpanel: MixpanelServer) -> None:
    mixpanel.fail(status=401)
    client = build()
    client.get_identity_flags("user_1")
    assert client.close(0.2) is False
    assert client.health().reasons == (CLOSED,)


def test_configuration_error_is_a_reason_at_once(build: Build, mixpanel: MixpanelServer) -> None:
    mixpanel.fail(status=401)
    client = build()
    client.get_identity_flags("user_1")
    assert client.flush(0.2) is False
    [reason] = client.health().reasons
    assert reason.startswith("Configuration error: Mixpanel does not accept updates (HTTP 401")
    mixpanel.recover()
    assert client.flush()
    assert client.health()


def test_outage_is_a_reason_once_it_lasts(build: Build, mixpanel: MixpanelServer) -> None:
    mixpanel.fail(status=503)
    short, long = build(), build(Thresholds(lasting_seconds=0.0, old_seconds=3600.0))
    for client in (short, long):
        client.get_identity_flags("user_1")
        assert client.flush(0.1) is False
    assert short.health()
    [reason] = long.health().reasons
    assert reason == "Mixpanel does not accept updates (HTTP 503), for 0 seconds"


def test_outage_of_one_endpoint_is_a_reason_while_the_other_one_works(
    build: Build, mixpanel: MixpanelServer
) -> None:
    mixpanel.fail(status=403, endpoint="/track")
    client = build()
    client.get_experiment_flag("mv_keyed", "user_1")
    assert client.flush(0.3) is False
    for number in range(3):
        client.get_identity_flags(f"user_{number}")
        client.flush(0.1)
    assert client.stats().delivered >= 3
    [reason] = client.health().reasons
    assert "HTTP 403" in reason


def test_message_that_waits_too_long_is_a_reason(build: Build, mixpanel: MixpanelServer) -> None:
    mixpanel.fail(delay_seconds=3600)
    client = build(Thresholds(lasting_seconds=3600.0, old_seconds=0.01))
    client.get_identity_flags("user_1")
    assert client.flush(0.2) is False
    assert client.health().reasons == ("The oldest pending update has waited for 0 seconds",)


def test_outbox_that_cannot_be_used_is_a_reason(build: Build, mixpanel: MixpanelServer, tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    client = build(Thresholds(lasting_seconds=0.0, old_seconds=3600.0), outbox=path)
    mixpanel.fail(delay_seconds=3600)
    path.unlink()
    path.mkdir()
    client.get_identity_flags("user_1")
    assert client.flush(0.2) is False
    [reason] = client.health().reasons
    assert reason.startswith("The outbox cannot be used, and memory takes its place (")


def test_threads_that_uwsgi_does_not_run_are_a_reason(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    client = build()
    uwsgi = ModuleType("uwsgi")
    vars(uwsgi)["has_threads"] = False
    monkeypatch.setitem(sys.modules, "uwsgi", uwsgi)
    assert client.health().reasons == (NO_THREADS,)


def test_trouble_with_the_environment_document_is_a_reason_even_without_mirroring(
    build: Build, offline: Flagsmith
) -> None:
    offline.enable_local_evaluation, offline._evaluation_context = True, None
    assert build(token=None).health().reasons == (NO_DOCUMENT,)


def test_health_holds_no_token_and_no_identifier(build: Build, mixpanel: MixpanelServer) -> None:
    mixpanel.fail(status=401, body=f"{TOKEN} ann")
    client = build(Thresholds(lasting_seconds=0.0, old_seconds=0.0))
    client.get_identity_flags("ann")
    assert client.flush(0.2) is False
    shown = f"{client.health()} {client.stats()}"
    assert "HTTP 401" in shown
    assert not [secret for secret in (TOKEN, "ann", mixpanel.url) if secret in shown.replace("cannot", "")]


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_health_and_stats_wait_for_no_lock(
    kind: str, build: Build, mixpanel: MixpanelServer, tmp_path: Path
) -> None:
    client = build(outbox=tmp_path / "outbox.db" if kind == "file" else None)
    client.get_identity_flags("user_1")
    assert client.flush()
    assert client._pipelines is not None
    outbox: Any = client._pipelines.get()._outbox
    memory = getattr(outbox, "_memory", outbox)
    answers = list[object]()

    def read() -> None:
        answers.extend([client.health(), client.stats()])

    with memory._lock, getattr(outbox, "_io", memory._lock):
        thread = threading.Thread(target=read)
        thread.start()
        thread.join(5)
        assert len(answers) == 2


def test_oldest_seconds_are_those_of_calls_that_nobody_has_encoded_yet(build: Build) -> None:
    is_encoding, may_go_on = threading.Event(), threading.Event()

    def slow(flag: Flag) -> str:
        is_encoding.set()
        assert may_go_on.wait(10)
        return flag.feature_name

    client = build(property_value=slow)
    client.get_identity_flags("user_1")
    assert is_encoding.wait(10)
    client.get_identity_flags("user_2")
    assert client.flush(0.1) is False
    assert client.stats().oldest_seconds >= 0.1
    may_go_on.set()
    assert client.flush()
    assert client.stats().oldest_seconds == 0.0


def test_calls_that_were_given_up_wait_no_longer(build: Build, mixpanel: MixpanelServer) -> None:
    is_encoding, may_go_on = threading.Event(), threading.Event()

    def slow(flag: Flag) -> str:
        is_encoding.set()
        assert may_go_on.wait(10)
        return flag.feature_name

    client = build(property_value=slow)
    client.get_identity_flags("user_1")
    assert is_encoding.wait(10)
    client.get_identity_flags("user_2")
    assert client.close(0.1) is False
    stats = client.stats()
    assert (stats.dropped, stats.pending, stats.oldest_seconds) == (2, 0, 0.0)
    may_go_on.set()
