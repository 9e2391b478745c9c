"""Evaluates and ends, in the way that the argument names."""

import sys

from application import build

client = build()
for number in range(3):
    client.get_identity_flags(f"user_{number}")
if sys.argv[1] == "sys.exit":
    sys.exit(3)
if sys.argv[1] == "exception":
    raise LookupError("unhandled")
