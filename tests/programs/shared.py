"""What the programs of test_exits.py share: a client, told by the environment what it needs to know."""

import os

from application import build

client = build(
    outbox=os.environ["OUTBOX"] or None, flush_interval_seconds=float(os.environ["FLUSH_INTERVAL_SECONDS"])
)
