"""The first of what another thread changes meanwhile."""

from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator

import pytest

from flagsync._oldest import first_of


@pytest.mark.parametrize("items", [deque([1, 2]), {1: 2, 3: 4}.keys(), OrderedDict({1: 2, 3: 4}).keys()])
def test_first_of_a_collection_is_its_oldest_item(items: Iterable[int]) -> None:
    assert first_of(items) == 1


@pytest.mark.parametrize("items", [deque[int](), dict[int, int]().values(), OrderedDict[int, int]().values()])
def test_first_of_an_empty_collection_is_none(items: Iterable[int]) -> None:
    assert first_of(items) is None


@pytest.mark.parametrize("changed", [deque, OrderedDict.fromkeys, dict.fromkeys])
def test_first_of_a_collection_that_another_thread_changes_is_read_again(changed: object) -> None:
    class Changing:
        """Changes once, between the two steps of reading."""

        def __init__(self) -> None:
            self.items, self.is_first = changed([1, 2]), True  # type: ignore[operator]

        def __iter__(self) -> Iterator[int]:
            found: Iterator[int] = iter(self.items)
            if self.is_first:
                self.is_first = False
                self.items.pop() if isinstance(self.items, deque) else self.items.pop(1)
            return found

    assert first_of(Changing()) in (1, 2)
