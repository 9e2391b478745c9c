"""Clients that share an outbox file: what becomes of their calls, and what damage to the file costs."""

import contextlib
import sqlite3
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from flagsmith import Flagsmith

from flagsync import DeliveryError, FlagSync, Stats, outbox_stats
from flagsync._delivery.destinations import Backoff
from flagsync._delivery.sender import Sending
from flagsync._files.shared import _open_files
from flagsync._options import Tuning
from flagsync._outbox.options import Staging, StoreBounds
from flagsync.testing import MixpanelServer
from tests.support.encoding import remote

Logged = Callable[[], list[str]]
Build = Callable[..., FlagSync]
CANNOT = "The outbox cannot be used, and memory takes its place"
NEVER = 3600.0
# Waits for no other process, and does not try again after a failure.
IMPATIENT = Tuning(staging=Staging(busy_seconds=0.0, retry_seconds=NEVER, max_retry_seconds=NEVER))
# Tries again at once after a failure.
PERSISTENT = Tuning(
    staging=Staging(busy_seconds=0.0, retry_seconds=0.0),
    sending=Sending(backoff=Backoff(first_seconds=0.0, jitter=(0.0, 0.0)), look_seconds=0.01),
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outbox.db"


@pytest.fixture
def build(offline: Flagsmith, mixpanel: MixpanelServer, path: Path) -> Iterator[Build]:
    """Builds clients with the outbox file; closes them."""
    clients: list[FlagSync] = []

    def build_client(tuning: Tuning | None = None, **options: Any) -> FlagSync:
        class Client(FlagSync):
            _tuning = tuning or Tuning()

        clients.append(Client(offline, "project-token", mixpanel_url=mixpanel.url, outbox=path, **options))
        return clients[-1]

    yield build_client
    for client in clients:
        client.close(0.1)


def lock(path: Path) -> Callable[[], None]:
    """Hold the file as another program may; return how to let it go."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("BEGIN EXCLUSIVE")
    return connection.close


@contextlib.contextmanager
def unused(path: Path) -> Iterator[None]:
    """Keep the threads of this process from using a file, and from making or removing the files beside it."""
    with contextlib.ExitStack() as stack:
        for file in [*_open_files.get().files]:
            if file.path == f"{path}":
                stack.enter_context(file._lock)
        yield


def overwrite(path: Path) -> Callable[[], None]:
    """Fill all files with something else, under open connections; return how to remove them."""
    with unused(path):
        for file in path.parent.iterdir():
            # Shorter files would not do: SQLite maps the -shm, and who reads beyond its end dies of SIGBUS.
            with file.open("r+b") as opened:
                opened.write(b"no database" * (1000 + file.stat().st_size // 11))
    return partial(remove, path)


def remove(path: Path) -> None:
    with unused(path):
        for file in path.parent.iterdir():
            file.unlink()


def replace(path: Path) -> Callable[[], None]:
    path.unlink()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE diary (entry)")
    connection.close()
    return path.unlink


# Clients that share a file


def test_outbox_outlives_its_client_and_is_sent_by_the_next_one(
    path: Path, build: Build, mixpanel: MixpanelServer
) -> None:
    mixpanel.fail(status=503)
    first = build()
    first.get_identity_flags("user_1")
    assert first.close(0.5)
    assert (first.stats().pending, first.stats().dropped) == (1, 0)
    mixpanel.recover()
    second = build()
    second.get_identity_flags("user_2")
    assert second.flush()
    assert {*mixpanel.profiles} == {"user_1", "user_2"}
    assert outbox_stats(path) == Stats(accepted=2, delivered=2)


def test_client_without_the_lease_waits_for_the_one_that_sends(
    build: Build, mixpanel: MixpanelServer, logged: Logged
) -> None:
    one, other = (build(flush_interval_seconds=0.05) for _ in range(2))
    one.get_identity_flags("user_1")
    assert one.flush()
    other.get_identity_flags("user_2")
    assert other.flush()
    assert (one.stats().requests, other.stats().requests) == (2, 0)
    assert other.stats() == Stats(accepted=1, delivered=1)
    assert {*mixpanel.profiles} == {"user_1", "user_2"}
    assert not [message for message in logged() if "outbox" in message]


def test_client_that_was_never_used_has_no_account_in_the_file(path: Path, build: Build) -> None:
    client = build()
    assert client.stats() == Stats()
    assert client.close()
    assert outbox_stats(path) == Stats()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM accounts WHERE number > 0").fetchone() == (0,)


def test_rejected_update_is_gone_from_the_file(path: Path, build: Build, mixpanel: MixpanelServer) -> None:
    mixpanel.fail(distinct_id="bad", status=400)
    client = build(flush_interval_seconds=60.0)
    client.get_identity_flags("bad")
    client.get_identity_flags("good")
    assert client.flush()
    assert {*mixpanel.profiles} == {"good"}
    stats = client.stats()
    assert (stats.delivered, stats.rejected, stats.pending) == (1, 1, 0)
    assert outbox_stats(path) == Stats(accepted=2, delivered=1, rejected=1)


@pytest.mark.parametrize("others_prune", [False, True])
def test_account_of_an_idle_client_may_be_closed_and_its_counts_stay(
    others_prune: bool, path: Path, build: Build, mixpanel: MixpanelServer
) -> None:
    pruning = Tuning(store=StoreBounds(account_seconds=0.0, prune_seconds=-1.0))
    build, errors = partial(build, flush_interval_seconds=0.02), list[DeliveryError]()
    chief = build(pruning)
    if others_prune:  # the one that sends does
        chief.get_identity_flags("chief")
        assert chief.flush()
    idle = build(pruning, on_error=errors.append)
    idle.get_identity_flags("user_1")
    assert idle.flush()
    for number in range(4):
        with build(pruning) as job:
            job.get_identity_flags(f"job_{number}")
            assert job.flush()
    chief.get_identity_flags("chief", {"plan": "premium"})
    assert chief.flush()
    assert idle.flush()
    assert idle.stats().delivered == 1
    idle.get_identity_flags("user_2")
    assert idle.flush()
    assert idle.close()
    assert (idle.stats().delivered, idle.stats().pending, errors) == (2, 0, [])
    assert outbox_stats(path).pending == outbox_stats(path).dropped == 0


# Options


@pytest.mark.parametrize(
    ("outbox", "reason"),
    [
        (":memory:", "outbox: ':memory:' is not a file that processes can share; it takes the path of a file"),
        (
            "mysql://:secret@db:3306/0",
            "outbox: 'mysql://…' is not supported; it takes the path of a file, or a URL with",
        ),
        (
            Path("postgresql://user:secret@db/app"),
            "outbox: 'postgresql:…' is a URL; it takes the path of a file",
        ),
        ("file:outbox.db?mode=rwc", "outbox: 'file:…' is a URL; it takes the path of a file"),
        ("", "it is a directory or a device; name a file"),
        (".", "it is a directory or a device; name a file"),
        ("missing/outbox.db", "its directory does not exist; create the directory"),
    ],
)
def test_outbox_that_is_no_path_of_a_file_is_refused_and_nothing_is_made(
    outbox: str | Path, reason: str, offline: Flagsmith, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError) as raised:
        FlagSync(offline, "project-token", outbox=outbox)
    assert reason in f"{raised.value}"
    assert "secret" not in f"{raised.value}"
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("outbox", [":memory:", "mysql://:secret@cache:6379/0"])
def test_stats_of_an_outbox_that_is_no_path_of_a_file_are_refused(outbox: str) -> None:
    with pytest.raises(ValueError, match="it takes the path of a file") as raised:
        outbox_stats(outbox)
    assert "secret" not in f"{raised.value}"


# Bounds


def test_burst_beyond_max_pending_is_not_dropped_while_the_file_has_room(path: Path, build: Build) -> None:
    client = build(max_pending=10)
    for number in range(200):
        client.mirror(f"user_{number}", remote(on=True))
        if number % 10 == 9:
            assert client.flush()
    assert client.stats() == Stats(accepted=200, delivered=200, requests=client.stats().requests)


def test_row_bound_of_the_file_is_reported_by_its_own_name(build: Build, mixpanel: MixpanelServer) -> None:
    mixpanel.fail(status=503)
    errors: list[DeliveryError] = []
    client = build(Tuning(store=StoreBounds(max_pending=2)), on_error=errors.append)
    for number in range(5):
        client.get_identity_flags(f"user_{number}")
    client.close(0.5)
    losses = [error.reason for error in errors if not error.will_retry]
    assert losses == ["The outbox has reached its own bound, and the oldest updates in it are dropped"]
    assert (client.stats().dropped, client.stats().pending) == (3, 2)


# Damage


@pytest.mark.parametrize("damage", [lock, overwrite, replace])
def test_file_that_cannot_be_used_is_reported_once_and_memory_takes_its_place(
    damage: Callable[[Path], Callable[[], None]], path: Path, build: Build, mixpanel: MixpanelServer
) -> None:
    errors: list[DeliveryError] = []
    client = build(IMPATIENT, on_error=errors.append)
    mend = damage(path)
    for number in range(3):
        for _ in range(2):
            client.get_identity_flags(f"user_{number}")
            assert client.flush()
    mend()
    assert {*mixpanel.profiles} == {"user_0", "user_1", "user_2"}
    assert client.stats() == Stats(accepted=6, delivered=3, unchanged=3, requests=3)
    [error] = errors
    assert error.reason.startswith(CANNOT)
    assert error.will_retry


@pytest.mark.parametrize("damage", [lock, overwrite])
def test_file_that_can_be_used_again_is_used_again(
    damage: Callable[[Path], Callable[[], None]],
    path: Path,
    build: Build,
    mixpanel: MixpanelServer,
    logged: Logged,
) -> None:
    client = build(PERSISTENT)
    client.get_identity_flags("user_1")
    assert client.flush()
    mend = damage(path)
    client.get_identity_flags("user_2")
    assert client.flush()
    mend()
    client.get_identity_flags("user_3")
    assert client.flush()
    assert client.close()
    assert client.stats().delivered == 3
    assert outbox_stats(path).pending == 0
    assert {*mixpanel.profiles} == {"user_1", "user_2", "user_3"}
    assert [line for line in logged() if "in use again" in line] == ["The outbox is in use again"]


def test_file_that_can_be_used_again_gets_what_waits_in_memory_when_the_client_is_closed(
    path: Path, build: Build, mixpanel: MixpanelServer
) -> None:
    mixpanel.fail(times=1000, status=503)
    errors: list[DeliveryError] = []
    # Both services would be tried again when it is too late.
    sending = Sending(backoff=Backoff(first_seconds=NEVER, max_seconds=NEVER))
    client = build(Tuning(staging=IMPATIENT.staging, sending=sending), on_error=errors.append)
    unlock = lock(path)
    client.get_identity_flags("user_1")
    assert not client.flush(0.2)
    unlock()
    assert client.close()  # nothing is lost
    assert (client.stats().pending, outbox_stats(path).pending) == (1, 1)
    assert all(error.will_retry for error in errors)


def test_file_that_is_locked_for_a_moment_is_used_again_after_a_moment(
    path: Path, build: Build, logged: Logged
) -> None:
    staging = Staging(busy_seconds=0.0, retry_seconds=0.05, max_retry_seconds=NEVER)
    client = build(Tuning(staging=staging, sending=Sending(look_seconds=0.01)))
    unlock = lock(path)
    client.get_identity_flags("user_1")
    assert client.flush()
    unlock()
    number = 0
    while outbox_stats(path).accepted == 0:
        number += 1
        client.mirror("user_2", remote(number=number))
        assert client.flush()
    assert client.close()
    assert client.stats().pending == client.stats().dropped == 0
    reports = [line.split(" (")[0] for line in logged() if "utbox" in line]
    assert reports == [CANNOT, "The outbox is in use again"]


def test_newer_state_is_not_sent_while_an_older_one_of_another_client_is_in_flight(
    path: Path, build: Build, mixpanel: MixpanelServer
) -> None:
    older, newer = (build(PERSISTENT, flush_interval_seconds=0.02) for _ in range(2))
    mixpanel.fail(times=1, delay_seconds=1.0)
    older.mirror("ann", remote(colour="old"))
    assert mixpanel.wait_for_requests(1)
    unlock = lock(path)
    older.mirror("bob", remote(colour="old"))
    assert not older.flush(0.2)  # it cannot use the file while its request is on its way
    unlock()
    newer.mirror("ann", remote(colour="new"))
    assert newer.flush()
    assert older.flush()
    assert mixpanel.profiles == {"ann": {"colour": "new"}, "bob": {"colour": "old"}}
    assert outbox_stats(path).pending == 0


def test_older_state_in_the_file_is_not_sent_after_a_newer_one_from_memory(
    path: Path, build: Build, mixpanel: MixpanelServer
) -> None:
    mixpanel.fail(status=503)
    with build(PERSISTENT) as first:
        first.mirror("ann", remote(colour="old"))
        first.close(0.5)
    mixpanel.recover()
    client = build(PERSISTENT)
    unlock = lock(path)
    client.mirror("ann", remote(colour="new"))
    client.flush(2.0)
    assert mixpanel.profiles["ann"] == {"colour": "new"}
    unlock()
    client.mirror("bob", remote(colour="new"))
    assert client.flush()
    assert mixpanel.profiles["ann"] == {"colour": "new"}
    assert outbox_stats(path).superseded == 1


# A client that finds messages of former processes


@pytest.fixture
def left_over(path: Path, build: Build, mixpanel: MixpanelServer) -> list[str]:
    """Leave messages of a client that is closed in the file; Mixpanel takes messages again."""
    names = ["ann", "bob", "cid"]
    mixpanel.fail(status=503)
    with build(PERSISTENT) as client:
        for name in names:
            client.mirror(name, remote(colour="blue"))
        client.close(0.5)
    assert outbox_stats(path).pending == 3
    mixpanel.recover()
    return names


@pytest.mark.usefixtures("left_over")
def test_client_sends_what_waits_in_its_outbox_without_evaluating_anything(
    build: Build, mixpanel: MixpanelServer
) -> None:
    before = len(mixpanel.requests)
    client = build(PERSISTENT, flush_interval_seconds=0.01)
    assert mixpanel.wait_for_requests(before + 1)
    assert client.flush()
    assert sorted(mixpanel.profiles) == ["ann", "bob", "cid"]
    assert client.stats() == Stats(requests=1)


@pytest.mark.usefixtures("left_over")
def test_flush_waits_for_what_former_processes_have_left(
    path: Path, build: Build, mixpanel: MixpanelServer
) -> None:
    mixpanel.fail(status=503)
    client = build(PERSISTENT)
    assert not client.flush(0.2)
    mixpanel.recover()
    assert client.flush()
    assert outbox_stats(path).pending == 0


def test_flush_starts_to_send_what_came_into_the_outbox_after_construction(
    path: Path, build: Build, mixpanel: MixpanelServer
) -> None:
    client = build(PERSISTENT)
    mixpanel.fail(status=503)
    with build(PERSISTENT) as other:
        other.mirror("ann", remote(colour="blue"))
        other.close(0.5)
    mixpanel.recover()
    assert client.flush()
    assert mixpanel.profiles == {"ann": {"colour": "blue"}}
    assert outbox_stats(path).pending == 0


def test_flush_of_a_client_whose_outbox_is_empty_starts_no_thread(build: Build) -> None:
    before = threading.active_count()
    assert build().flush()
    assert threading.active_count() == before


@pytest.mark.usefixtures("left_over")
def test_closing_an_unused_client_leaves_what_others_have_put_in_the_file(
    path: Path, build: Build, mixpanel: MixpanelServer
) -> None:
    mixpanel.fail(status=503)
    client = build(PERSISTENT)
    assert client.close()
    assert client.stats().dropped == 0
    assert outbox_stats(path).pending == 3


def test_close_and_stats_keep_their_time_while_the_file_is_locked(path: Path, build: Build) -> None:
    client = build(Tuning(staging=Staging(busy_seconds=60.0)))
    client.get_identity_flags("user_1")
    assert client.flush()
    unlock = lock(path)
    client.get_identity_flags("user_2")
    began = monotonic()
    client.stats()
    assert monotonic() - began < 0.2
    client.close(0.3)
    assert monotonic() - began < 2.0
    unlock()


def test_stats_of_an_outbox_say_how_long_its_first_message_waits(
    path: Path, build: Build, mixpanel: MixpanelServer
) -> None:
    mixpanel.fail(status=503)
    client = build(flush_interval_seconds=0.01)
    began = monotonic()
    client.get_identity_flags("user_1")
    assert client.flush(0.2) is False
    waited = [stats.oldest_seconds for stats in (client.stats(), outbox_stats(path))]
    assert all(0.1 < seconds <= monotonic() - began + 0.1 for seconds in waited)
    assert (outbox_stats(path).last_success_at, outbox_stats(path).last_error) == (None, None)


def test_stats_of_a_client_say_how_long_the_messages_of_another_process_wait(
    path: Path, build: Build, mixpanel: MixpanelServer
) -> None:
    mixpanel.fail(status=503)
    former = build(flush_interval_seconds=0.01)
    former.get_identity_flags("user_1")
    assert former.close(0.2) is True  # it is safe in the file
    waited = outbox_stats(path).oldest_seconds
    stats = build().stats()
    assert stats.pending == 0
    assert stats.oldest_seconds >= waited > 0
