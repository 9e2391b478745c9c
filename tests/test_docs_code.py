# mypy: disable-error-code="import-untyped"
# Django is not typed.
"""Every block of Python in README.md and docs/ is run.

Nothing in a block is replaced but a directory and the hosts of both services, which are loopback servers. Celery and
uWSGI, which are not installed with the tests, have stand-ins that keep what is registered.
"""

import asyncio
import importlib
import json
import re
import signal
import subprocess
import sys
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from flagsmith import Flagsmith
from flagsmith.polling_manager import EnvironmentDataPollingManager
from openfeature import api
from prometheus_client import REGISTRY

from flagsync import FlagSync, cohorts
from flagsync._options import HOSTS
from flagsync.metrics import PrometheusCollector
from flagsync.testing import MixpanelServer
from tests.support.evaluating_flagsmith import EvaluatingFlagsmith
from tests.support.flagsmith_server import KEY
from tests.support.pages import ROOT, Block, blocks

# What stands in a block, and what takes its place.
PLACES = {"/var/lib/shop/": ""}
SERVERS = {
    "redis://:password@redis.example.com:6379/0": "valkey",
    "postgresql://user:password@db.example.com/shop": "postgres",
}
CREDENTIALS = ("mixpanel", "a long password")
CALL = {"action": "add_members", "parameters": {"mixpanel_cohort_id": "7", "members": []}}
HEADERS = {"authorization": f"Basic {b64encode(':'.join(CREDENTIALS).encode()).decode()}"}
# tests/spark runs the blocks for Spark.
PYTHON = [
    block for block in blocks("python") if not (block.content.startswith(">>>") or "pyspark" in block.content)
]
TESTS = [block for block in PYTHON if re.search(r"^(def test_|class Test)", block.content, re.MULTILINE)]


class Signal:
    """A signal of Celery, or a decorator of uWSGI: keeps what is registered."""

    def __init__(self) -> None:
        self.registered: list[Callable[..., object]] = []

    def connect(self, function: Callable[..., object]) -> Callable[..., object]:
        self.registered.append(function)
        return function

    def send(self) -> None:
        for function in self.registered:
            function()


@pytest.fixture
def services(
    document: dict[str, Any],
    mixpanel: MixpanelServer,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Iterator[EvaluatingFlagsmith]:
    """Both services on loopback, in the place of the real ones, and a directory to work in."""
    with EvaluatingFlagsmith(document) as server:
        monkeypatch.setattr("flagsmith.flagsmith.DEFAULT_API_URL", server.api_url)
        for region in HOSTS:
            monkeypatch.setitem(HOSTS, region, mixpanel.url)
        for name in (
            "MIXPANEL_URL",
            "MIXPANEL_REGION",
            "FLAGSMITH_API_URL",
            "FLAGSYNC_ENABLED",
            "FLAGSYNC_OUTBOX",
        ):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("FLAGSMITH_ENVIRONMENT_KEY", KEY)
        monkeypatch.setenv("MIXPANEL_TOKEN", "token")
        monkeypatch.chdir(tmp_path)
        monkeypatch.syspath_prepend(tmp_path)
        yield server
        sys.modules.pop("clients", None)
        for thread in threading.enumerate():  # Flagsmith's clients have no close()
            if isinstance(thread, EnvironmentDataPollingManager):
                thread.stop()


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> dict[str, Signal]:
    """What blocks for Celery and uWSGI have registered, by name."""
    signals = {name: Signal() for name in ("worker_process_init", "worker_process_shutdown", "postfork")}
    celery = ModuleType("celery.signals")
    vars(celery).update(signals)
    uwsgi = ModuleType("uwsgidecorators")
    vars(uwsgi)["postfork"] = signals["postfork"].connect
    for module in (ModuleType("celery"), celery, uwsgi):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return signals


@pytest.fixture
def _process_is_put_back(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Undo what blocks do to the process."""
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "")
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)
    api.shutdown()
    for collector in [*REGISTRY._collector_to_names]:
        if isinstance(collector, PrometheusCollector):
            REGISTRY.unregister(collector)


@pytest.fixture
def servers(block: Block, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers of Redis and PostgreSQL on loopback, in the place of those that a block names."""
    for url, fixture in SERVERS.items():
        if url in block.content:
            server = request.getfixturevalue(fixture)
            monkeypatch.setitem(PLACES, url, server.url if fixture == "valkey" else server.url())


def code_of(block: Block) -> str:
    code = block.content
    for place, replacement in PLACES.items():
        code = code.replace(place, replacement)
    return code


def run(block: Block, names: dict[str, Any]) -> dict[str, Any]:
    """Run a block, as the file that it says it is, or by itself; return its names."""
    for earlier in blocks("python", block.page):
        if earlier.file and earlier.line <= block.line:
            Path(earlier.file).write_text(code_of(earlier), "utf-8")
    if block.file and block.file.count(".") == 1:
        return vars(importlib.import_module(block.file.removesuffix(".py")))
    exec(compile("\n" * (block.line - 1) + code_of(block), block.page, "exec"), names)
    return names


def prepared(block: Block, offline: Flagsmith) -> dict[str, Any]:
    """Return the names that pages may use without saying more."""
    user = SimpleNamespace(id="user_42", traits={"plan": "pro"})
    names: dict[str, Any] = {"__name__": "block", "flagsmith": offline, "token": "token", "users": [user]}
    if not re.search(r"client = |as client", block.content):
        names["client"] = FlagSync(offline, "token")
    if "webhook." in block.content:
        names["webhook"] = cohorts.CohortWebhook(cohorts.SQLiteStore("cohorts.db"), credentials=[CREDENTIALS])
    if "writer." in block.content:
        names["writer"] = cohorts.TraitWriter(cohorts.SQLiteStore("cohorts.db"), KEY)
    return names


@pytest.mark.filterwarnings("ignore:Using `httpx`")
@pytest.mark.usefixtures("services", "servers", "_process_is_put_back")
@pytest.mark.parametrize("block", [block for block in PYTHON if block not in TESTS], ids=str)
def test_python_runs_and_what_it_evaluates_is_delivered(
    block: Block, offline: Flagsmith, mixpanel: MixpanelServer, registered: dict[str, Signal]
) -> None:
    if "django" in block.content:
        from django.conf import settings  # noqa: PLC0415 - other tests need none

        if not settings.configured:
            settings.configure(ALLOWED_HOSTS=["*"], SECRET_KEY="of a test")
    if "outbox_stats" in block.content:
        FlagSync(offline, "token", outbox="flagsync.db").close()
    names = run(block, prepared(block, offline))
    for name in ("worker_process_init", "postfork"):
        registered[name].send()
    for name, use in USES.items():
        if name in names:
            use(names[name])
    everywhere = (names, vars(sys.modules.get("clients", ModuleType("none"))))
    built = {value for found in everywhere for value in found.values() if isinstance(value, FlagSync)}
    assert built or block.file or "lifespan" in names  # which closes its client
    for client in built:
        client.get_identity_flags("user_43")
    registered["worker_process_shutdown"].send()
    if writer := names.get("writer"):
        writer.close()
    for client in built:
        assert client.close()
        assert client.stats().delivered >= 1
    close_connections(names)
    assert "user_42" in mixpanel.profiles or "/checkout" not in block.content


def close_connections(names: dict[str, Any]) -> None:
    """Close what a block has opened for the application itself."""
    for name in ("cache", "pool", "cohorts"):
        getattr(names.get(name), "close", lambda: None)()


def use_application(app: Any) -> None:
    """Call an application of Flask or FastAPI, which starts and ends with it."""
    if type(app).__name__ == "Flask":
        call(app.test_client())
    else:
        from fastapi.testclient import TestClient  # noqa: PLC0415 - it warns

        with TestClient(app) as browser:
            call(browser)


def call(browser: Any) -> None:
    """Get the page of an application, if it has one, else call its webhook."""
    answer = browser.get("/checkout?user=user_42")
    if answer.status_code == HTTPStatus.NOT_FOUND:
        answer = browser.post("/mixpanel/cohorts", json=CALL, headers=HEADERS)
    assert {*json.loads(answer.text)} & {"button", "status"}, answer.text
    assert answer.status_code == HTTPStatus.OK


def use_url_patterns(patterns: list[Any]) -> None:
    """Call the webhook through Django, as its WSGI and its ASGI handler do."""
    from django.test import AsyncRequestFactory, RequestFactory  # noqa: PLC0415

    [pattern] = patterns
    for factory in (RequestFactory(), AsyncRequestFactory()):
        for headers, status in ((HEADERS, 200), ({}, 401)):
            request = factory.post(
                f"/{pattern.pattern}", json.dumps(CALL), content_type="application/json", headers=headers
            )
            assert pattern.callback(request).status_code == status


USES: dict[str, Callable[[Any], object]] = {
    "app": use_application,
    "urlpatterns": use_url_patterns,
    "handler": lambda handler: handler({"user_id": "user_42"}, None),
    "evaluate": lambda evaluate: asyncio.run(evaluate("user_42")),
    "post_fork": lambda post_fork: post_fork(None, None),
    "start": lambda start: start(),
    "mirroring": lambda mirroring: json.dumps(mirroring()),
    "work": lambda work: work("user_42"),
    "mirror_again": lambda mirror_again: mirror_again("user_42", {"plan": "pro"}),
}


@pytest.mark.parametrize("block", TESTS, ids=str)
def test_tests_pass(block: Block, tmp_path: Path) -> None:
    (tmp_path / "environment.json").write_bytes((ROOT / "tests/data/environment-document.json").read_bytes())
    context = (
        ""
        if "import FlagSync" in block.content or "class Test" in block.content
        else "from flagsync import *\n"
    )
    (tmp_path / "test_block.py").write_text(context + code_of(block), "utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n", "utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_block.py"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stdout
