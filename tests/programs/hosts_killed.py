"""Evaluates into an outbox on a server while Mixpanel is down, and says when all is stored and it has begun to send."""

import os
import sys
import time

from application import DOCUMENT
from flagsmith import Flagsmith
from flagsmith.offline_handlers import LocalFileHandler

from flagsync import FlagSync, outbox_stats
from flagsync._options import Tuning
from flagsync._outbox.options import Staging, StoreBounds


class Client(FlagSync):
    _tuning = Tuning(staging=Staging(grace_seconds=0.5), store=StoreBounds(lease_seconds=2.0))


_, outbox, users = sys.argv
offline = Flagsmith(offline_mode=True, offline_handler=LocalFileHandler(str(DOCUMENT)))
client = Client(
    offline,
    "project-token",
    mixpanel_url=os.environ["MIXPANEL_URL"],
    outbox=outbox,
    flush_interval_seconds=0.05,
)
for number in range(int(users)):
    client.get_identity_flags(f"user_{number}")
while outbox_stats(outbox).pending < int(users) or not client.stats().requests:
    time.sleep(0.01)
print("sending", flush=True)
time.sleep(3600)
