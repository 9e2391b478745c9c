"""Records exposures of one user after the other until it is killed, and prints when each call ended."""

import sys
from time import sleep, time_ns

from application import build
from flagsmith.models import Flag

_, outbox, interval = sys.argv
client = build(outbox=outbox, flush_interval_seconds=float(interval))
flag = Flag(enabled=True, value="x", feature_id=1, feature_name="checkout", variant="control")
for number in range(100_000):
    client.track_exposure(f"user_{number}", flag)
    print(f"user_{number}", time_ns(), flush=True)
    sleep(0.001)  # a service has a thousand calls a second, not as many as a loop can make
