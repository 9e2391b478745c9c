"""Whether this process is the one that it was: a question for every call, so one without a system call.

Guarantee: a child is noticed however it was forked, also past Python's hooks (uWSGI).
"""

import mmap
from contextlib import suppress
from os import getpid

MADV_WIPEONFORK, NO_ADVICE = 18, -1  # Linux 4.14; <asm-generic/mman-common.h>


def unset_mark() -> "mmap.mmap | _AskedMark":
    """A mark, at index 0: it is 0 until a process sets it to 1, and again in each of its children."""
    with suppress(AttributeError, OSError):
        page = mmap.mmap(-1, 1, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        try:
            page.madvise(NO_ADVICE)  # an emulator that takes this does not listen
        except OSError:
            page.madvise(MADV_WIPEONFORK)  # a child finds zeros in its place
            return page
    return _AskedMark()


class _AskedMark:
    """The mark where the kernel has no such pages."""

    _pid = 0

    def __getitem__(self, _: int) -> int:
        return self._pid == getpid()

    def __setitem__(self, _: int, value: int) -> None:
        self._pid = getpid() * value
