"""Which paths a shared file can have, and who owns and can read it.

Guarantee: only its owner can read a file. A file that root creates belongs to the owner of the shared file, as SQLite's
own side files do, and a new shared file to the owner of its directory, so that root does not lock out the application.
Boundary: local file systems on POSIX.
"""

import os
import re
import stat
from contextlib import suppress
from pathlib import Path

SIDE_FILES = ("-wal", "-shm")
ESCAPED = re.compile(r"\\([0-7]{3})")  # an escaped character in the list of mount points
# What a URL becomes as an absolute path, such as "/srv/redis:/:secret@cache/0" or "/srv/file:outbox.db"; also behind
# a blank or a quotation mark, which files of variables may keep.
SCHEMES = r"file|rediss?|valkeys?|unix|postgres(?:ql)?"
URL = re.compile(rf"(?<![a-z0-9+.-])([a-z][a-z0-9+.-]*(?=:/)|(?:{SCHEMES})(?=:[^/]*$))", re.IGNORECASE)
ACCEPTED = "it takes the path of a file on a local disk, such as '/var/lib/app/flagsync.db'"


def check_name(path: str, option: str) -> None:
    """Reject a text that does not name a file.

    Raises:
        ValueError: It is a URL, whose password the message does not repeat, or ``:memory:``.
    """
    if Path(path).name == ":memory:":
        raise ValueError(f"{option}: ':memory:' is not a file that processes can share; {ACCEPTED}")
    if (scheme := URL.search(path)) is not None:
        raise ValueError(f"{option}: '{scheme[1]}:…' is a URL; {ACCEPTED}")


def make(path: str, shared: str) -> None:
    """Create an empty file that only its owner can read, unless the file exists.

    Args:
        path: Path of the file.
        shared: Path of the shared file. If root creates a file, it gives it to the owner of the shared file, or of its
            directory if there is no shared file yet.
    """
    owner = _owner(shared)
    with suppress(FileExistsError):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            if os.geteuid() == 0:
                with suppress(OSError):  # root lacks this right in some containers
                    os.fchown(descriptor, owner.st_uid, owner.st_gid)
        finally:
            os.close(descriptor)


def check_directory(path: str) -> None:
    """Check that this process can use the directory of a file.

    Raises:
        OSError: The message says what to do.
    """
    directory = Path(path).parent
    if not directory.is_dir():
        raise OSError("its directory does not exist; create the directory")
    if not _may(f"{directory}", os.W_OK | os.X_OK):
        raise OSError(
            f"user {os.geteuid()} may not write to its directory, where SQLite keeps its log; "
            "let that user write to it, or name another directory"
        )


def check_file(path: str) -> None:
    """Check that a file can be shared safely and used by this process.

    Raises:
        OSError: The message says what to do.
    """
    status = Path(path).stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError("it is a directory or a device; name a file")
    if not _may(path, os.R_OK | os.W_OK):
        raise OSError(
            f"it belongs to user {status.st_uid}, and user {os.geteuid()} may not read and write it; "
            "let all that share it run as one user, or name another path"
        )
    if status.st_mode & 0o077 and os.geteuid() not in (0, status.st_uid):
        raise OSError(
            "other users can read it, and it belongs to one of them; "
            "let all that share it run as one user, or name another path"
        )
    # SQLite would keep a log beside each path that leads to the file, and lose data.
    if status.st_nlink > 1:
        raise OSError("it has a hard link; remove the link, or use a symbolic link")
    if path in _mount_points():
        raise OSError("it is a mount point; mount its directory instead")


def hide_from_others(path: str) -> None:
    """Remove the rights of other users. SQLite gives new side files the mode of the file."""
    for file in (path, *(path + ending for ending in SIDE_FILES)):
        with suppress(FileNotFoundError):
            if (mode := stat.S_IMODE(Path(file).stat().st_mode)) & 0o077:
                Path(file).chmod(mode & 0o700)


def _owner(path: str) -> os.stat_result:
    with suppress(FileNotFoundError):
        return Path(path).stat()
    return Path(path).parent.stat()


def _may(path: str, rights: int) -> bool:
    """Return whether the effective user of this process has some rights."""
    return os.access(path, rights, effective_ids=os.access in os.supports_effective_ids)


def _mount_points() -> list[str]:
    """Return the mount points of this process, if the system lists them as in proc(5)."""
    with suppress(OSError):
        mounts = Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape").splitlines()
        return [ESCAPED.sub(lambda found: chr(int(found[1], 8)), mount.split(" ")[4]) for mount in mounts]
    return []
