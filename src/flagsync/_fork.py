"""Whether this process is the one that it was: a question for every call, so one without a system call.

Guarantee: a child is noticed however it was forked, also past Python's hooks (uWSGI).
"""

import mmap
from contextlib import suppress
from os import getpid
from typing import Protocol

MADV_WIPEONFORK, NO_ADVICE = 18, -1  # Linux 4.14; <asm-generic/mman-common.h>


class Mark(Protocol):
    """A byte of the process that sets it to 1: 0 in every child."""

    def __getitem__(self, index: int, /) -> int: ...
    def __setitem__(self, index: int, value: int, /) -> None: ...


def unset_mark() -> Mark:
    """A mark that is 0, at index 0."""
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
