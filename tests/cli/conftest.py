"""An environment without variables of its own, and loggers as they were."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.evaluating_flagsmith import EvaluatingFlagsmith

VARIABLES = (
    "FLAGSMITH_ENVIRONMENT_KEY FLAGSMITH_API_URL FLAGSMITH_LOCAL_EVALUATION MIXPANEL_TOKEN MIXPANEL_REGION "
    "MIXPANEL_URL FLAGSYNC_ENABLED FLAGSYNC_OUTBOX FORCE_COLOR NO_COLOR COLUMNS HTTP_PROXY HTTPS_PROXY ALL_PROXY "
    "http_proxy https_proxy all_proxy REQUESTS_CA_BUNDLE CURL_CA_BUNDLE"
).split()


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    loggers = [logging.getLogger(name) for name in ("", "flagsync", "flagsmith")]
    before = [[*logger.handlers] for logger in loggers]
    yield
    for logger, handlers in zip(loggers, before, strict=True):
        logger.handlers[:] = handlers


@pytest.fixture
def environment_file(document: dict[str, Any], tmp_path: Path) -> Path:
    """A file with the recorded environment document."""
    path = tmp_path / "environment.json"
    path.write_text(json.dumps(document), "utf-8")
    return path


@pytest.fixture
def flagsmith_server(
    document: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> Iterator[EvaluatingFlagsmith]:
    """A Flagsmith on loopback, to which the environment points."""
    with EvaluatingFlagsmith(document) as server:
        monkeypatch.setenv("FLAGSMITH_API_URL", server.api_url)
        yield server
