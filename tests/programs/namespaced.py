"""The first process of a container has a child which is the first of another one: both have the process id 1."""

import os
import sys

from application import build
from container import unshare

client = build()
client.get_identity_flags("parent")
print(os.getpid(), client.flush(), flush=True)
client.get_identity_flags("pending")
unshare()
if (child := os.fork()) == 0:
    client.get_identity_flags("child")
    print(os.getpid(), client.flush(), flush=True)
    sys.exit()
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
