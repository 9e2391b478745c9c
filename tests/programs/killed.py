"""Evaluates into an outbox while Mixpanel is down, and is killed once that has everything."""

import os
import signal
import sys

from application import build

from flagsync import outbox_stats

_, outbox, users = sys.argv
client = build(outbox=outbox, flush_interval_seconds=0.1)
for number in range(int(users)):
    client.get_identity_flags(f"user_{number}")
while outbox_stats(outbox).pending < int(users):
    pass
os.kill(os.getpid(), signal.SIGKILL)
