"""What the programs of test_life_cycle.py share: a client, told by the environment where Mixpanel is."""

import os
from pathlib import Path
from typing import Any

from flagsmith import Flagsmith
from flagsmith.offline_handlers import LocalFileHandler

from flagsync import FlagSync

DOCUMENT = Path(__file__).parents[1] / "data" / "environment-document.json"


def build(flagsmith: Flagsmith | None = None, **options: Any) -> FlagSync:
    """A client, offline by default, that sends when it is flushed, closed or told another interval."""
    offline = Flagsmith(offline_mode=True, offline_handler=LocalFileHandler(str(DOCUMENT)))
    options = {"mixpanel_url": os.environ["MIXPANEL_URL"], "flush_interval_seconds": 60.0, **options}
    return FlagSync(flagsmith or offline, "project-token", **options)
