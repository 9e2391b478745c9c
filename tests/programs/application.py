"""What the programs of test_life_cycle.py share: a client, told by the environment where its servers are."""

import os
from pathlib import Path
from typing import Any

from flagsmith import Flagsmith
from flagsmith.offline_handlers import LocalFileHandler

from flagsync import FlagSync

DOCUMENT = Path(__file__).parents[1] / "data" / "environment-document.json"


def offline() -> Flagsmith:
    """A Flagsmith client without threads and network."""
    return Flagsmith(offline_mode=True, offline_handler=LocalFileHandler(str(DOCUMENT)))


def polling() -> Flagsmith:
    """A Flagsmith client whose thread polls the environment document."""
    return Flagsmith(
        environment_key="ser.key", enable_local_evaluation=True, api_url=os.environ["FLAGSMITH_API_URL"]
    )


def build(flagsmith: Flagsmith | None = None, **options: Any) -> FlagSync:
    """A client that sends when it is flushed, closed or told to hurry by ``flush_interval_seconds``."""
    options = {"mixpanel_url": os.environ["MIXPANEL_URL"], "flush_interval_seconds": 60.0, **options}
    return FlagSync(flagsmith or offline(), "project-token", **options)
