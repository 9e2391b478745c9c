"""Where a shared file can be: names, directories, links, owners and modes."""

import os
import sqlite3
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from stat import S_IMODE
from time import monotonic

import pytest

from flagsync._files.lease import FileLease
from flagsync._files.place import check_name
from flagsync._files.shared import SharedFile
from flagsync._files.sqlite import prepare
from tests.support.files import DIARY, entries
from tests.support.forks import in_child

OTHER_USER = 12345
SECONDS = 10.0
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "diary.db"


def make(path: Path) -> None:
    prepare(f"{path}", DIARY).close()


def modes(path: Path) -> dict[str, int]:
    return {file.name.removeprefix(path.name): S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}


# Names

URLS = [
    "redis://:secret@cache:6379/0",
    "rediss://cache/0",
    "valkey://cache",
    "postgresql://user:secret@db/app",
    "postgresql:///app",
    "redis+socket:///secret.sock",
    "REDIS://:secret@cache",
    "sqlite:///outbox.db",
    "https://user:secret@example.com/outbox.db",
    "file:///srv/outbox.db",
    "file:outbox.db?mode=rwc",
    "redis:secret@cache",
    "valkeys:secret",
    "Postgres:secret@db",
]


@pytest.mark.parametrize("url", URLS)
@pytest.mark.parametrize("prefix", ["", "/srv/app"])
def test_name_that_is_a_url_is_refused_without_its_password(prefix: str, url: str) -> None:
    path = os.path.realpath(f"{prefix}/{url}") if prefix else url
    with pytest.raises(ValueError) as raised:
        check_name(path, "diary")
    scheme = url.partition(":")[0]
    assert f"{raised.value}" == (
        f"diary: '{scheme}:…' is a URL; it takes the path of a file on a local disk, "
        "such as '/var/lib/app/flagsync.db'"
    )


@pytest.mark.parametrize("url", [" redis://:secret@cache", '"postgresql://:secret@db"', "'unix:secret'"])
def test_name_that_is_a_url_in_quotes_or_behind_a_blank_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ValueError, match="is a URL; it takes") as raised:
        check_name(os.path.realpath(url), "diary")
    assert "secret" not in f"{raised.value}"


@pytest.mark.parametrize("name", [":memory:", "/srv/app/:memory:"])
def test_name_of_memory_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"diary: ':memory:' is not a file that processes can share; it takes"):
        check_name(name, "diary")


@pytest.mark.parametrize(
    "name",
    [
        "/srv/outbox.db",
        "outbox",
        "/srv/12:30/outbox.db",
        "/srv/a:b/c:d.db",
        "/srv/profile:x",
        "file.db",
        "/:/x",
    ],
)
def test_name_of_a_file_is_accepted(name: str) -> None:
    check_name(name, "diary")


@pytest.mark.parametrize("name", [":memory:", "redis://:secret@cache:6379/0"])
@pytest.mark.parametrize("has_directory", [False, True])
def test_no_file_is_made_of_a_name_that_is_refused(tmp_path: Path, name: str, *, has_directory: bool) -> None:
    path = tmp_path / name
    if has_directory:
        path.parent.mkdir(parents=True, exist_ok=True)
    with pytest.raises(ValueError) as raised:
        make(path)
    assert "secret" not in f"{raised.value}"
    assert not path.exists()


# Links and mounts


@pytest.mark.parametrize("name", ["diary.db", "link.db"])
def test_file_with_a_hard_link_is_refused_by_either_name(path: Path, name: str) -> None:
    make(path)
    (path.parent / "link.db").hardlink_to(path)
    with pytest.raises(ValueError, match="it has a hard link; remove the link, or use a symbolic link"):
        make(path.parent / name)


def test_file_whose_hard_link_was_removed_is_accepted(path: Path) -> None:
    make(path)
    (link := path.parent / "link.db").hardlink_to(path)
    link.unlink()
    make(path)


@pytest.fixture(params=["mounted.db", "with space.db"])
def mount_point(request: pytest.FixtureRequest, path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file that a file is mounted on; where that is not allowed, a system that says so."""
    make(path)
    (target := path.parent / request.param).touch()
    with suppress(FileNotFoundError):
        if subprocess.run(["mount", "--bind", path, target], check=False, capture_output=True).returncode == 0:
            yield target
            subprocess.run(["umount", target], check=True)
            return
    line = f"36 35 98:0 /x {target} rw - ext4 /dev/root rw\n".replace("with space", "with\\040space")
    monkeypatch.setattr(Path, "read_text", lambda *_: line)
    yield target


def test_mount_point_is_refused(mount_point: Path) -> None:
    with pytest.raises(ValueError, match="it is a mount point; mount its directory instead"):
        make(mount_point)


def test_file_is_accepted_where_the_system_lists_no_mount_points(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", fail)
    make(path)


# Modes


@pytest.fixture
def no_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("no_umask")
def test_new_file_can_be_read_by_its_owner_only(path: Path) -> None:
    with closing(prepare(f"{path}", DIARY)) as connection:
        connection.execute("INSERT INTO entries VALUES ('one')")
        assert modes(path) == {"": 0o600, "-wal": 0o600, "-shm": 0o600}


@pytest.mark.usefixtures("no_umask")
@pytest.mark.parametrize("is_used", [False, True])
def test_existing_file_and_its_side_files_become_the_owners_alone(path: Path, *, is_used: bool) -> None:
    path.touch()
    with closing(sqlite3.connect(path)) as other:
        if is_used:
            make(path)
            other.execute("INSERT INTO entries VALUES ('one')")
            other.commit()
        for file in path.parent.iterdir():
            file.chmod(0o666)
        with closing(prepare(f"{path}", DIARY)) as connection:
            connection.execute("INSERT INTO entries VALUES ('two')")
            assert modes(path) == {"": 0o600, "-wal": 0o600, "-shm": 0o600}


def test_file_of_another_user_that_others_can_read_is_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(path)
    path.chmod(0o640)
    monkeypatch.setattr(os, "geteuid", lambda: OTHER_USER)
    with pytest.raises(ValueError, match="other users can read it, and it belongs to one of them; let all"):
        make(path)
    assert modes(path) == {"": 0o640}


@pytest.mark.parametrize("user", [0, os.geteuid()])
def test_file_that_others_can_read_is_hidden_by_its_owner_and_by_root(
    path: Path, monkeypatch: pytest.MonkeyPatch, user: int
) -> None:
    make(path)
    path.chmod(0o644)
    monkeypatch.setattr(os, "geteuid", lambda: user)
    make(path)
    assert modes(path) == {"": 0o600}


def test_file_of_another_user_that_nobody_else_can_read_is_accepted_if_it_can_be_opened(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(path)
    monkeypatch.setattr(os, "geteuid", lambda: OTHER_USER)
    make(path)


# Owners


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory of another user; that of pytest is closed to him."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        os.chown(name, OTHER_USER, OTHER_USER)
        yield Path(name)


def as_other_user(question: Callable[[], object]) -> bool:
    """Return the answer of a child that has not the rights of root."""

    def ask() -> object:
        os.setgroups([])
        os.setgid(OTHER_USER)
        os.setuid(OTHER_USER)
        return question()

    return in_child(ask)


def writes(path: Path, text: str) -> bool:
    """Use a file as a process that sends from it does; return whether it holds the lease."""
    file = SharedFile(f"{path}", DIARY)
    has_lease = file.lease.try_acquire()
    with file.write(monotonic() + SECONDS) as connection:
        connection.execute("INSERT INTO entries VALUES (?)", (text,))
    owners = {name.stat().st_uid for name in path.parent.iterdir()}
    file.close()
    return has_lease and owners == {OTHER_USER}


def refusal(path: Path) -> str:
    try:
        make(path)
    except ValueError as error:
        return f"{error}".partition(f"{path}': ")[2]
    return ""


@needs_root
def test_file_that_root_uses_first_is_used_by_the_owner_of_its_directory(home: Path) -> None:
    path = home / "diary.db"
    assert writes(path, "of root")
    assert as_other_user(lambda: writes(path, "of the owner"))
    with closing(prepare(f"{path}", DIARY)) as connection:
        assert entries(connection) == ["of root", "of the owner"]


@needs_root
def test_lock_file_that_root_makes_belongs_to_the_owner_of_the_file(path: Path) -> None:
    make(path)
    os.chown(path, OTHER_USER, OTHER_USER)
    lease = FileLease(f"{path}")
    assert lease.try_acquire()
    lease.release()
    lock = Path(f"{path}-sender").stat()
    assert (lock.st_uid, lock.st_gid, S_IMODE(lock.st_mode)) == (OTHER_USER, OTHER_USER, 0o600)


@needs_root
def test_lock_file_that_is_there_is_not_given_away(path: Path) -> None:
    make(path)
    os.chown(path, OTHER_USER, OTHER_USER)
    (target := path.with_name("target")).touch()
    Path(f"{path}-sender").symlink_to(target)
    lease = FileLease(f"{path}")
    assert lease.try_acquire()
    lease.release()
    assert target.stat().st_uid == 0


@pytest.mark.parametrize("error", [PermissionError, None])
def test_root_makes_a_file_though_it_may_not_give_it_away(
    path: Path, monkeypatch: pytest.MonkeyPatch, error: type[OSError] | None
) -> None:
    def change_owner(descriptor: int, user: int, group: int) -> None:
        assert (user, group) == (path.parent.stat().st_uid, path.parent.stat().st_gid)
        if error is not None:
            raise error

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "fchown", change_owner)
    make(path)


def test_user_keeps_the_files_that_he_makes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def change_owner(*_: int) -> None:
        raise AssertionError

    monkeypatch.setattr(os, "geteuid", lambda: OTHER_USER)
    monkeypatch.setattr(os, "fchown", change_owner)
    make(path)


def forbid(monkeypatch: pytest.MonkeyPatch, forbidden: Path) -> None:
    """Let the system forbid what it does not forbid root."""
    monkeypatch.setattr(os, "geteuid", lambda: OTHER_USER)
    monkeypatch.setattr(os, "access", lambda path, *_, **__: f"{path}" != f"{forbidden}")


FORBIDDEN_FILE = (
    "it belongs to user {}, and user {} may not read and write it; "
    "let all that share it run as one user, or name another path"
)
FORBIDDEN_DIRECTORY = (
    "user {} may not write to its directory, where SQLite keeps its log; "
    "let that user write to it, or name another directory"
)


def test_file_that_this_user_may_not_use_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(path)
    forbid(monkeypatch, path)
    assert refusal(path) == FORBIDDEN_FILE.format(os.getuid(), OTHER_USER)


def test_directory_that_this_user_may_not_use_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forbid(monkeypatch, path.parent)
    assert refusal(path) == FORBIDDEN_DIRECTORY.format(OTHER_USER)
    assert not path.exists()


@needs_root
def test_file_of_root_is_refused_to_other_users(home: Path) -> None:
    path = home / "diary.db"
    make(path)
    os.chown(path, 0, 0)
    expected = FORBIDDEN_FILE.format(0, OTHER_USER)
    assert as_other_user(lambda: refusal(path) == expected)


@needs_root
def test_directory_of_root_is_refused_to_other_users(home: Path) -> None:
    path = home / "diary.db"
    make(path)
    os.chown(home, 0, 0)
    home.chmod(0o755)
    expected = FORBIDDEN_DIRECTORY.format(OTHER_USER)
    assert as_other_user(lambda: refusal(path) == expected)
