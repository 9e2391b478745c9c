"""Forks and evaluates on both sides; the argument says what the parent has done before."""

import os
import sys

state = sys.argv[1]
if state == "gevent":
    from gevent import monkey  # type: ignore[import-untyped]

    monkey.patch_all()

from application import build  # noqa: E402

from flagsync import Stats  # noqa: E402

client = build(flush_interval_seconds=0.001 if state == "request" else 0.3 if state == "gevent" else 60.0)
if state != "unused":
    client.get_identity_flags("parent")
if state == "closed":
    client.close()
if state == "request":
    sys.stdin.read()  # ends when the request is on its way
if child := os.fork():
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    client.get_identity_flags("parent")
    sys.exit(code)
print(client.stats() == Stats())
client.get_identity_flags("child")
print(client.close())
