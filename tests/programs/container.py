"""Runs a program as the first process of a namespace of its own, as in a container; prints its process id out here."""

import ctypes
import os
import sys

CLONE_NEWPID = 0x20000000  # <linux/sched.h>; os.unshare came with Python 3.12


def unshare() -> None:
    """Let the next child be the first process of a namespace."""
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWPID):
        sys.exit(os.strerror(ctypes.get_errno()))


if __name__ == "__main__":
    unshare()
    if (child := os.fork()) == 0:
        assert os.getpid() == 1
        os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
    os.write(1, f"{child}\n".encode())
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
