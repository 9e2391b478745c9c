"""Forks; the argument says what was built before that. Each side says whose warnings it logs."""

import logging
import os
import sys

from application import build, polling

flagsmith = polling()
client = build(flagsmith)
child = os.fork()
logging.basicConfig(format=f"{'parent' if child else 'child'}: %(message)s")
if not child and sys.argv[1] == "Flagsmith":
    client = build(flagsmith)
if not child and sys.argv[1] == "nothing":
    client = build(polling())
for number in range(3):
    client.get_identity_flags(f"user_{number}")
if child:
    os.waitpid(child, 0)
