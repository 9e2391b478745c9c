"""Evaluates in a tight loop and in the handler of a signal that interrupts it; closes there, too."""

import signal
import sys
from itertools import count

from application import build

client = build()
handled: list[int] = []
numbers = count()
looped = 0
closed: list[bool] = []


def evaluate(*_: object) -> None:  # which another signal may interrupt
    number = next(numbers)
    client.get_identity_flags(f"handler_{number}")
    handled.append(number)


def end(*_: object) -> None:
    closed.append(client.close())


signal.signal(signal.SIGALRM, evaluate)
signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
while len(handled) < 1000:
    client.get_identity_flags(f"loop_{looped % 50}")
    looped += 1
signal.setitimer(signal.ITIMER_REAL, 0)
flushed, stats = client.flush(), client.stats()
print(flushed, stats.accepted == len(handled) + looped, stats.pending, stats.dropped)
print(len(handled))
for number in range(int(sys.argv[1])):
    client = build()
    client.get_identity_flags("loop_0")  # starts the threads
    signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, 0.005 + number * 1e-6)
    for user in count():
        if len(closed) > number:
            break
        client.get_identity_flags(f"loop_{user % 50}")
print(set(closed))
