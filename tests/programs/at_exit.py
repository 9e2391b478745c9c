"""Evaluates in an ``atexit`` handler.

The arguments: whether the handler is registered before flagsync's own, so that it runs after it, or after; and
"used" (the client has its threads already), "flush" and "wait" (the handler waits for Mixpanel), or "late" (the
handler builds the client, too).
"""

import atexit
import sys

order, how = sys.argv[1:]


def say_goodbye() -> None:
    client = build() if how == "late" else shared
    for number in range(3):
        client.get_identity_flags(f"late_{number}")
    if how == "flush":
        print(client.flush())


if order == "before":
    atexit.register(say_goodbye)

from application import build  # noqa: E402 - which imports flagsync

shared = build(when_full="wait" if how == "wait" else "drop", max_pending=3 if how == "wait" else 100)
if how == "used":
    shared.get_identity_flags("early")
if order == "after":
    atexit.register(say_goodbye)
