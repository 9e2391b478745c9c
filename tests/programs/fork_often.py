"""Forks again and again while threads evaluate and requests are on their way; threads in each child, too."""

import os
import sys
import threading

from application import build

CHILDREN, THREADS = 5, 8
sys.setswitchinterval(1e-6)  # a fork meets the other threads anywhere
client = build(flush_interval_seconds=0.001, max_pending=1000)
ending = threading.Event()


def hammer(number: int) -> None:
    done = False
    while not done:
        done = ending.is_set()
        for user in range(100):
            client.get_identity_flags(f"parent_{number}_{user}")


def evaluate(identifier: str) -> None:
    together.wait()
    client.get_identity_flags(identifier)


hammers = [threading.Thread(target=hammer, args=(number,)) for number in range(2)]
for thread in hammers:
    thread.start()
codes = set()
for child in range(CHILDREN):
    if not (pid := os.fork()):
        together = threading.Barrier(THREADS)
        threads = [threading.Thread(target=evaluate, args=(f"child_{child}_{n}",)) for n in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        sys.exit(client.stats().accepted != THREADS)
    codes.add(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
ending.set()
for thread in hammers:
    thread.join()
print(codes)
