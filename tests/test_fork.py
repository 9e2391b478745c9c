"""Marks of a process: the page that the kernel wipes, and what takes its place."""

import mmap
import os
from collections.abc import Callable
from typing import Any

import pytest

from flagsync import _fork
from flagsync._fork import unset_mark

MARKS = {"a page": unset_mark, "asking": _fork._AskedMark}


def in_child(question: Callable[[], object]) -> bool:
    """The answer of a child."""
    if (child := os.fork()) == 0:
        answer = 2
        try:
            answer = int(not question())
        finally:
            os._exit(answer)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 1)
    return code == 0


@pytest.mark.parametrize("kind", MARKS)
def test_a_mark_is_of_the_process_that_set_it(kind: str) -> None:
    mark = MARKS[kind]()
    assert not mark[0]
    mark[0] = 1
    assert mark[0]
    assert in_child(lambda: not mark[0])
    assert mark[0]


@pytest.mark.parametrize("kind", MARKS)
def test_a_child_sets_its_own_and_its_children_lose_it(kind: str) -> None:
    mark = MARKS[kind]()
    mark[0] = 1

    def child_sets() -> bool:
        mark[0] = 1
        return bool(mark[0]) and in_child(lambda: not mark[0])

    assert in_child(child_sets)
    assert mark[0]


class Page(bytearray):
    """Memory of a system that knows some advice."""

    known: tuple[int, ...] = (_fork.MADV_WIPEONFORK,)

    def __init__(self, *_: object, **__: object) -> None:
        super().__init__(1)

    def madvise(self, advice: int) -> None:
        if advice not in self.known:
            raise OSError


class OldKernel(Page):
    known = ()


class DeafEmulator(Page):
    known = (_fork.MADV_WIPEONFORK, _fork.NO_ADVICE)


def no_flags(*_: object, **__: object) -> Any:
    raise AttributeError  # Windows has no MAP_PRIVATE


@pytest.mark.parametrize(
    ("system", "kind"),
    [
        (Page, Page),
        (OldKernel, _fork._AskedMark),
        (DeafEmulator, _fork._AskedMark),
        (no_flags, _fork._AskedMark),
    ],
)
def test_a_page_is_taken_where_the_kernel_wipes_it(
    system: Callable[..., Any], kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mmap, "mmap", system)
    assert type(unset_mark()) is kind
