"""Flushes in a signal handler that interrupts stats(), again and again."""

import random
import signal
import sys

from application import build

client = build(outbox=sys.argv[1], flush_interval_seconds=0.01)
client.get_identity_flags("user")
print(client.flush())
flushed: list[bool] = []
signal.signal(signal.SIGALRM, lambda *_: flushed.append(client.flush(5)))
while len(flushed) < int(sys.argv[2]):
    signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-5, 3e-4))
    client.stats()
signal.setitimer(signal.ITIMER_REAL, 0)
print({*flushed})
