"""Fixtures for pytest, which finds them by the entry point ``flagsync.testing`` of the distribution."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from flagsync.testing.mixpanel import MixpanelServer


@pytest.fixture
def mixpanel_server() -> Iterator["MixpanelServer"]:
    """A loopback Mixpanel for one test."""
    # pytest imports this module in every project that has flagsync installed, also where nothing uses the fixture.
    from flagsync.testing.mixpanel import MixpanelServer  # noqa: PLC0415

    with MixpanelServer() as server:
        yield server
