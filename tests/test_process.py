"""PerProcess and its mark: a page that the kernel clears in a child, and what takes its place."""

import mmap
from collections.abc import Callable
from typing import Any

import pytest

from flagsync import _process
from flagsync._process import PerProcess
from tests.support.forks import in_child

MARKS = {"a page": _process._new_mark, "asking": _process._PidMark}


@pytest.mark.parametrize("kind", MARKS)
def test_mark_belongs_to_the_process_that_set_it(kind: str) -> None:
    mark = MARKS[kind]()
    assert not mark[0]
    mark[0] = 1
    assert mark[0]
    assert in_child(lambda: not mark[0])
    assert mark[0]


@pytest.mark.parametrize("kind", MARKS)
def test_child_sets_its_own_mark_and_its_children_lose_it(kind: str) -> None:
    mark = MARKS[kind]()
    mark[0] = 1

    def child_sets() -> bool:
        mark[0] = 1
        return bool(mark[0]) and in_child(lambda: not mark[0])

    assert in_child(child_sets)
    assert mark[0]


class Page(bytearray):
    """Memory of a system that knows some advice."""

    known: tuple[int, ...] = (_process.MADV_WIPEONFORK,)

    def __init__(self, *_: object, **__: object) -> None:
        super().__init__(1)

    def madvise(self, advice: int) -> None:
        if advice not in self.known:
            raise OSError


class OldKernel(Page):
    known = ()


class DeafEmulator(Page):
    known = (_process.MADV_WIPEONFORK, _process.INVALID_ADVICE)


def no_flags(*_: object, **__: object) -> Any:
    raise AttributeError  # Windows has no MAP_PRIVATE


@pytest.mark.parametrize(
    ("system", "kind"),
    [
        (Page, Page),
        (OldKernel, _process._PidMark),
        (DeafEmulator, _process._PidMark),
        (no_flags, _process._PidMark),
    ],
)
def test_mark_is_a_page_where_the_kernel_clears_it_in_children(
    system: Callable[..., Any], kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mmap, "mmap", system)
    assert type(_process._new_mark()) is kind


def test_per_process_makes_one_object_and_tells_of_it_once() -> None:
    told = list[tuple[object, object]]()
    objects = PerProcess[object](lambda _: object(), lambda *made: told.append(made))
    assert objects.existing() is None
    first = objects.get()
    assert objects.get() is objects.existing() is first
    assert told == [(first, None)]


def test_per_process_makes_a_childs_object_from_the_inherited_one() -> None:
    objects = PerProcess[list[object]](lambda inherited: [inherited])
    parent = objects.get()
    assert in_child(
        lambda: objects.existing() is None and objects.get() == [parent] and objects.get() is not parent
    )
    assert objects.get() is parent


def test_per_process_gives_threads_that_race_the_same_object() -> None:
    def make(_: object) -> object:
        if len(made) < 1:
            made.append(object())
            assert objects.get() is not made[0]  # what another thread does meanwhile
            return made[0]
        return object()

    made, told = list[object](), list[object]()
    objects = PerProcess[object](make, lambda own, _: told.append(own))
    assert objects.get() is not made[0]
    assert told == [objects.get()]


def test_thread_of_a_child_that_comes_second_does_not_get_the_object_of_the_parent() -> None:
    class Raced(_process._PidMark):
        def __getitem__(self, item: int) -> int:
            objects._find_or_make()  # what another thread does meanwhile
            return super().__getitem__(item)

    objects = PerProcess[object](lambda _: object())
    objects._mark = Raced()
    parent = objects.get()
    assert in_child(lambda: objects.get() is not parent)
