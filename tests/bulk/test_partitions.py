"""A partition is mirrored by one function, whether it has rows or data frames; without Spark."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from flagsync import DeliveryError, FlagSync
from flagsync.bulk import Outcome, Report, partition_writer
from flagsync.bulk.window import CHUNK_ROWS
from flagsync.testing import MixpanelServer
from tests.support.processes import names

Build = Callable[..., FlagSync]


class SparkRow(tuple[Any, ...]):
    """A row as Spark has it: a tuple with names."""

    __slots__ = ()

    def asDict(self) -> dict[str, Any]:  # noqa: N802 - Spark's name
        return dict(self)


class Frame:
    """What a data frame of pandas has."""

    def __init__(self, data: Mapping[str, list[Any]]) -> None:
        self.columns = data

    def __len__(self) -> int:
        return len(self.columns["identifier"])

    def to_dict(self, orient: str) -> list[dict[str, Any]]:
        assert orient == "records"
        return [dict(zip(self.columns, row, strict=True)) for row in zip(*self.columns.values(), strict=True)]


def frames(*sizes: int) -> Iterator[Frame]:
    start = 0
    for size in sizes:
        yield Frame({"identifier": names("user", start + size)[start:], "age": [30] * size})
        start += size


@pytest.fixture
def clients() -> list[FlagSync]:
    return []


@pytest.fixture
def make_client(flagsync: Build, clients: list[FlagSync]) -> Callable[[], FlagSync]:
    """Builds clients, and keeps them."""

    def make() -> FlagSync:
        clients.append(flagsync())
        return clients[-1]

    return make


def test_partition_of_rows_is_mirrored_at_once(
    make_client: Callable[[], FlagSync], clients: list[FlagSync], mixpanel: MixpanelServer
) -> None:
    rejected = list[Outcome]()
    write = partition_writer(make_client, identifier="id", on_reject=rejected.append)
    report = write(iter([SparkRow({"id": "user_1", "age": 30}.items()), {"id": "user_2"}, SparkRow()]))
    assert report == Report(read=3, delivered=2, rejected=1)
    assert {*mixpanel.profiles} == {"user_1", "user_2"}
    assert [outcome.row for outcome in rejected] == [3]
    assert clients[0]._pipelines.get().is_closed  # type: ignore[union-attr]


def test_partition_without_rows_does_nothing(make_client: Callable[[], FlagSync]) -> None:
    assert partition_writer(make_client)(iter([])) == Report()


def test_partition_of_data_frames_gets_an_outcome_a_row_in_frames_of_the_same_size(
    make_client: Callable[[], FlagSync], clients: list[FlagSync], mixpanel: MixpanelServer
) -> None:
    mixpanel.fail(distinct_id="user_2", status=400)
    sizes = 2, 0, CHUNK_ROWS, 5, 0
    written: Any = partition_writer(make_client)(frames(*sizes))
    outcomes = [frame.columns for frame in written]
    assert [len(one["identifier"]) for one in outcomes] == [*sizes]
    assert [name for one in outcomes for name in one["identifier"]] == names("user", sum(sizes))
    assert outcomes[0] == {
        "identifier": ["user_0", "user_1"],
        "outcome": ["delivered", "delivered"],
        "reason": [None, None],
    }
    assert outcomes[2]["outcome"][0] == "rejected"
    assert outcomes[2]["reason"][0] == "Mixpanel does not accept updates (HTTP 400)"
    assert clients[0]._pipelines.get().is_closed  # type: ignore[union-attr]


def test_partition_that_is_repeated_changes_nothing(
    make_client: Callable[[], FlagSync], mixpanel: MixpanelServer
) -> None:
    write = partition_writer(make_client)
    write(iter([{"identifier": "user_1", "age": 30}]))
    before = {name: {**properties} for name, properties in mixpanel.profiles.items()}
    write(iter([{"identifier": "user_1", "age": 30}]))
    assert mixpanel.profiles == before


@pytest.mark.parametrize("partition", [[{"identifier": "user_1"}], [*frames(1)]])
def test_partition_fails_with_its_task_if_the_configuration_is_wrong(
    make_client: Callable[[], FlagSync], mixpanel: MixpanelServer, partition: list[Any]
) -> None:
    mixpanel.fail(status=401)
    with pytest.raises(DeliveryError, match="HTTP 401"):
        list(partition_writer(make_client)(iter(partition)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (
            lambda _: None,
            {},
            "make_client must be a function that builds a FlagSync, not one that cannot be called",
        ),
        (7, {}, "make_client must be a function that builds a FlagSync, not 7"),
        (lambda: None, {"rate": -1}, "rate must be a number above 0"),
    ],
)
def test_options_of_a_partition_that_are_wrong_are_refused(
    make: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        partition_writer(make, **options)


def test_client_of_a_partition_must_be_one(offline: Any) -> None:
    for partition in ([{"identifier": "user_1"}], [*frames(1)]):
        with pytest.raises((ValueError, TypeError)):
            list(partition_writer(lambda: offline)(iter(partition)))  # type: ignore[arg-type]
