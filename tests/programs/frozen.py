"""The clock is frozen until the process has ended; flagsync is imported before that, or after it."""

import sys

from freezegun import freeze_time

freezer = freeze_time("2026-01-01")

if sys.argv[1] == "after":
    freezer.start()

from application import build  # noqa: E402

if sys.argv[1] == "before":
    freezer.start()

client = build()
client.get_identity_flags("flushed")
print(client.flush())
client.get_identity_flags("last")
