"""FileLease: one holder among processes, whatever becomes of the lock file."""

import fcntl
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from time import time

import pytest

from flagsync._files.lease import FileLease
from tests.support.files import next_descriptor
from tests.support.forks import in_child

Build = Callable[..., FileLease]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The lock file."""
    return tmp_path / "diary.db-sender"


def lease_of(lock: Path) -> FileLease:
    return FileLease(f"{lock}".removesuffix("-sender"))


@pytest.fixture
def build(path: Path) -> Iterator[Build]:
    """Builds leases; each one has a lock of its own, as if it were another process's."""
    leases: list[FileLease] = []

    def build_lease(where: Path = path) -> FileLease:
        leases.append(lease_of(where))
        return leases[-1]

    yield build_lease
    for lease in leases:
        lease.release()


def test_lease_has_one_holder(build: Build) -> None:
    one, other = build(), build()
    assert [one.is_held, one.try_acquire(), one.is_held] == [False, True, True]
    assert [other.try_acquire(), other.is_held] == [False, False]
    assert one.try_acquire()


def test_lease_has_one_holder_among_processes(path: Path, build: Build) -> None:
    assert build().try_acquire()
    assert in_child(lambda: not lease_of(path).try_acquire())


def test_lease_that_is_released_can_be_acquired_by_another_process(build: Build) -> None:
    one, other = build(), build()
    assert one.try_acquire()
    one.release()
    one.release()
    assert not one.is_held
    assert other.try_acquire()
    assert not one.try_acquire()


def test_lease_ends_with_the_process_that_holds_it(path: Path, build: Build) -> None:
    lease = build()
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        try:
            own = lease_of(path)
            os.write(writing, b"held" if own.try_acquire() else b"free")
            signal.alarm(60)  # should the test end before it kills this process
            signal.pause()
        finally:
            os._exit(1)
    try:
        assert os.read(reading, 10) == b"held"
        assert not lease.try_acquire()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reading)
        os.close(writing)
    assert lease.try_acquire()


def test_lease_that_is_not_acquired_keeps_no_file_open(build: Build) -> None:
    assert build().try_acquire()
    before = next_descriptor()
    assert not build().try_acquire()
    assert next_descriptor() == before


def test_lock_file_can_be_read_by_its_owner_only(path: Path, build: Build) -> None:
    before = os.umask(0)
    assert build().try_acquire()
    os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600


def test_lease_in_a_directory_that_does_not_exist_is_an_error(path: Path, build: Build) -> None:
    with pytest.raises(FileNotFoundError):
        build(path / "diary.db-sender").try_acquire()


# The lock file


def remove(path: Path) -> None:
    path.unlink()


def replace(path: Path) -> None:
    (other := path.with_suffix(".new")).touch()
    other.replace(path)


@pytest.mark.parametrize("lose", [remove, replace])
def test_lease_whose_lock_file_is_lost_is_held_no_more_once_another_process_has_it(
    path: Path, build: Build, lose: Callable[[Path], None]
) -> None:
    one, other = build(), build()
    assert one.try_acquire()
    lose(path)
    assert other.try_acquire()
    assert [one.try_acquire(), one.is_held, other.try_acquire()] == [False, False, True]


@pytest.mark.parametrize("lose", [remove, replace])
def test_lease_whose_lock_file_is_lost_is_acquired_anew(
    path: Path, build: Build, lose: Callable[[Path], None]
) -> None:
    one, other = build(), build()
    assert one.try_acquire()
    lose(path)
    assert one.try_acquire()
    assert not other.try_acquire()


@pytest.mark.parametrize("lose", [remove, replace])
def test_lease_is_not_acquired_on_a_lock_file_that_was_lost_since_it_was_opened(
    path: Path, build: Build, monkeypatch: pytest.MonkeyPatch, lose: Callable[[Path], None]
) -> None:
    lease, flock, before = build(), fcntl.flock, next_descriptor()

    def late_flock(descriptor: int, operation: int) -> None:
        lose(path)
        flock(descriptor, operation)

    with monkeypatch.context() as slow:
        slow.setattr(fcntl, "flock", late_flock)
        assert not lease.try_acquire()
    assert next_descriptor() == before
    assert lease.try_acquire()


def test_hard_link_to_the_lock_file_is_the_same_lease(path: Path, build: Build) -> None:
    one = build()
    assert one.try_acquire()
    (link := path.with_name("link-sender")).hardlink_to(path)
    other = build(link)
    assert not other.try_acquire()
    one.release()
    assert other.try_acquire()


# Signs of life


def test_holder_is_not_silent(path: Path, build: Build) -> None:
    lease = build()
    assert lease.try_acquire()
    os.utime(path, (1, 1))
    assert lease.silent_seconds() == 0.0


def test_holder_that_shows_no_sign_of_life_is_silent_for_others(path: Path, build: Build) -> None:
    one, other = build(), build()
    assert one.try_acquire()
    os.utime(path, (0, time() - 100))
    assert other.silent_seconds() == 0.0  # it has not asked yet whether anybody holds the lease
    assert not other.try_acquire()
    assert other.silent_seconds() == pytest.approx(100, abs=10)
    one.release()
    os.utime(path, (0, time() - 100))
    assert other.try_acquire()
    other.release()
    assert other.silent_seconds() == 0.0  # nobody holds it


def test_holder_shows_a_sign_of_life_whenever_it_asks_for_the_lease(path: Path, build: Build) -> None:
    one, other = build(), build()
    assert one.try_acquire()
    os.utime(path, (0, time() - 100))
    assert not other.try_acquire()
    assert other.silent_seconds() > 50
    assert one.try_acquire()
    assert other.silent_seconds() < 50


def test_nobody_is_silent_without_a_lock_file_or_by_a_clock_that_was_put_back(path: Path, build: Build) -> None:
    lease = build()
    assert lease.silent_seconds() == 0.0
    path.touch()
    os.utime(path, (0, time() + 100))
    assert lease.silent_seconds() == 0.0
