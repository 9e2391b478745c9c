"""Evaluates until a signal handler raises, as Ctrl-C does, wherever it is; then in another thread."""

import signal
import threading
from contextlib import suppress

from application import build


class Interrupt(BaseException):
    """What the signal handler raises."""


def interrupt(*_: object) -> None:
    interrupted.set()
    raise Interrupt


def evaluate(seconds: float) -> None:
    signal.setitimer(signal.ITIMER_REAL, seconds)
    while not interrupted.is_set():
        client.get_identity_flags("again")


clients = []
signal.signal(signal.SIGALRM, interrupt)
for number in range(60):
    client = build()
    clients.append(client)  # one that is collected could be interrupted in what Python runs for that
    client.get_identity_flags("first")
    interrupted = threading.Event()
    with suppress(Interrupt):
        evaluate(0.002 + number * 1e-6)
    other = threading.Thread(target=client.get_identity_flags, args=(f"other_{number}",))
    other.start()
    other.join()
    client.close()
