"""Fixtures for pytest."""

from collections.abc import Iterator

import pytest

from flagsync.testing.mixpanel import MixpanelServer


@pytest.fixture
def mixpanel_server() -> Iterator[MixpanelServer]:
    """A loopback Mixpanel for one test."""
    with MixpanelServer() as server:
        yield server
