"""The store that an ``outbox`` option names."""

import os
from contextlib import closing
from math import nan
from pathlib import Path
from typing import Any

import pytest
import redis
from flagsmith import Flagsmith

import flagsync.outboxes
from flagsync import FlagSync, Stats, outbox_stats
from flagsync._outbox.place import absolute, check
from flagsync.outboxes import PostgresBackend, RedisBackend, SQLiteBackend, StoreBounds
from flagsync.testing import MixpanelServer
from tests.support.forks import in_child
from tests.support.outboxes import message
from tests.support.reference_backend import ReferenceBackend, ReferenceStore

LONG = 1e9


def test_place_of_a_file_is_absolute_and_anything_else_stays_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    where = os.path.realpath(tmp_path / "outbox.db")
    assert absolute("outbox.db") == absolute(Path("outbox.db")) == where
    backend = ReferenceBackend(ReferenceStore())
    for place in (None, backend, "redis://cache", "POSTGRESQL://db/app"):
        assert absolute(place) is place


@pytest.mark.parametrize("url", ["mysql://secret@db/app", "https://secret@cache", "REDIS+SSL://secret@cache"])
def test_place_with_another_scheme_is_refused_with_those_that_it_takes(url: str) -> None:
    scheme = url.partition(":")[0].lower()
    with pytest.raises(
        ValueError, match="path of a file, or a URL with redis://, rediss://, valkey://"
    ) as raised:
        check(url)
    assert f"'{scheme}://…' is not supported" in f"{raised.value}"
    assert "secret" not in f"{raised.value}"


def test_outbox_that_is_neither_a_path_nor_a_backend_is_refused(offline: Flagsmith) -> None:
    with pytest.raises(ValueError, match=r"a backend of flagsync\.outboxes, or None, not 7"):
        FlagSync(offline, "token", outbox=7)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"the class SQLiteBackend: make an instance of it"):
        FlagSync(offline, "token", outbox=SQLiteBackend)  # type: ignore[arg-type]


def test_outbox_may_be_a_backend(offline: Flagsmith, mixpanel: MixpanelServer, tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    with FlagSync(offline, "token", mixpanel_url=mixpanel.url, outbox=SQLiteBackend(path)) as client:
        client.get_identity_flags("user_1")
        assert client.flush()
    assert {*mixpanel.profiles} == {"user_1"}
    expected = Stats(accepted=1, delivered=1)
    with closing(SQLiteBackend(path)) as backend:
        assert outbox_stats(backend) == outbox_stats(path) == expected


def test_outbox_of_from_env_may_be_a_path_or_a_backend(
    tmp_path: Path, mixpanel: MixpanelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLAGSMITH_ENVIRONMENT_KEY", "key")
    for place in (tmp_path / "outbox.db", SQLiteBackend(tmp_path / "outbox.db")):
        FlagSync.from_env(mixpanel_token="token", mixpanel_url=mixpanel.url, outbox=place).close()
    assert (tmp_path / "outbox.db").exists()


def test_outbox_that_is_a_backend_is_checked_as_its_path_is(offline: Flagsmith, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"outbox: cannot open or create a flagsync file at .* name a file"):
        FlagSync(offline, "token", outbox=SQLiteBackend(tmp_path))
    with pytest.raises(ValueError, match="outbox: 'redis:…' is a URL") as raised:
        FlagSync(offline, "token", outbox=SQLiteBackend("redis://:s3cret@cache"))
    assert "s3cret" not in f"{raised.value}"


@pytest.mark.parametrize("bounds", [None, 7, {}, StoreBounds])
def test_backend_with_bounds_that_are_none_is_refused(tmp_path: Path, bounds: Any) -> None:
    for build in (
        lambda: SQLiteBackend(tmp_path / "outbox.db", bounds),
        lambda: RedisBackend(redis.Redis(), bounds=bounds),
        lambda: PostgresBackend("postgresql://db/app", bounds=bounds),
    ):
        with pytest.raises(ValueError, match="bounds must be a StoreBounds, not "):
            build()


def test_bounds_that_are_wrong_are_all_named() -> None:
    with pytest.raises(ValueError, match="max_pending must be a whole number above 0, not 0") as raised:
        StoreBounds(
            max_pending=0,
            call_messages=1.5,  # type: ignore[arg-type]
            lease_seconds=0.0,
            remember_seconds=nan,
            prune_seconds=-1.0,
        )
    assert [part.split()[0] for part in f"{raised.value}".split("; ")] == [
        "max_pending",
        "remember_seconds",
        "call_messages",
        "lease_seconds",
    ]


def test_backend_of_another_client_is_refused_until_that_is_closed(
    offline: Flagsmith, mixpanel: MixpanelServer, tmp_path: Path
) -> None:
    backend = SQLiteBackend(tmp_path / "outbox.db")
    with FlagSync(offline, "token", mixpanel_url=mixpanel.url, outbox=backend):
        with pytest.raises(
            ValueError, match="outbox: another client uses this backend; make one for each client"
        ):
            FlagSync(offline, "token", mixpanel_url=mixpanel.url, outbox=backend)
        FlagSync(offline, None, outbox=backend).close()  # it mirrors nothing
    for _ in range(2):
        FlagSync(offline, "token", mixpanel_url=mixpanel.url, outbox=backend).close()
    for _ in range(2):  # a text may be the same object
        FlagSync(offline, "token", mixpanel_url=mixpanel.url, outbox=backend.path)


@pytest.mark.parametrize("place", [None, 7, b"outbox.db", [], SQLiteBackend])
def test_stats_of_what_is_no_outbox_are_refused(place: Any) -> None:
    with pytest.raises(ValueError, match=r"outbox must be the path of a file, the URL of .*, not "):
        outbox_stats(place)


def test_backend_in_a_forked_child_is_that_of_another_process(tmp_path: Path) -> None:
    backend = SQLiteBackend(tmp_path / "outbox.db")
    backend.store([message("ann=1")], [], [], LONG)

    def child() -> bool:
        backend.store([message("bob=1"), message("cid=1")], [], [], LONG)
        return backend.status([]).own.accepted == 2

    assert in_child(child)
    assert backend.status([]).own.accepted == 1
    assert backend.totals().every.accepted == 3
    backend.close()


def test_names_of_backends_are_listed_before_they_are_imported() -> None:
    assert {*flagsync.outboxes.__all__} <= {*dir(flagsync.outboxes)}
    with pytest.raises(AttributeError, match="has no attribute 'MongoBackend'"):
        getattr(flagsync.outboxes, "MongoBackend")  # noqa: B009
