"""Evaluates, says that it is ready, and waits for SIGTERM or for the end of its input.

The argument says what else handles SIGTERM.
"""

import os
import signal
import socket
import sys
from typing import Any

from application import build

from flagsync import close_on_sigterm


def say(text: str) -> None:
    os.write(1, f"{text}\n".encode())


def note(*_: Any) -> None:
    say("handled")


def leave(*_: Any) -> None:
    sys.exit(7)


def kill(number: int, *_: Any) -> None:
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def shut_down(number: int, *_: Any) -> None:  # as uvicorn: gracefully, and again
    signals.append(number)


BEFORE: dict[str, Any] = {
    "ignore": signal.SIG_IGN,
    "note": note,
    "exit": leave,
    "kill": kill,
    "again": shut_down,
}

how = sys.argv[1]
signals: list[int] = []
# signal.pause() would miss a signal that arrives just before it; this socket keeps it.
arrived, writer = socket.socketpair()
writer.setblocking(False)
signal.set_wakeup_fd(writer.fileno())
client = build()
if how in BEFORE:
    signal.signal(signal.SIGTERM, BEFORE[how])
for _ in range(2 if how == "twice" else 1):
    close_on_sigterm()
if how == "later":
    signal.signal(signal.SIGTERM, note)
client.get_identity_flags("before")
say("ready")
if how == "again":
    while not signals:
        arrived.recv(1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    client.get_identity_flags("meanwhile")
    signal.raise_signal(signals[0])
    client.get_identity_flags("after")
else:
    sys.stdin.read()
    client.get_identity_flags("after")
