"""Where a shared file can be, and to whom it belongs.

Guarantee: nobody but its owner can read a file. What root makes belongs to the owner of the shared file, as SQLite's
own side files do, and a new shared file to the owner of its directory: so root does not lock out the application.
Boundary: local file systems of POSIX systems.
"""

import os
import re
import stat
from contextlib import suppress
from pathlib import Path

SIDE_FILES = ("-wal", "-shm")
ESCAPED = re.compile(r"\\([0-7]{3})")  # a character of a path in the list of mount points
# What is left of a URL in an absolute path, such as "/srv/redis:/:secret@cache/0" or "/srv/file:outbox.db".
URL = re.compile(r"(?:^|/)([a-z][a-z0-9+.-]*(?=:/)|file(?=:[^/]*$))", re.IGNORECASE)
ACCEPTED = "it takes the path of a file on a local disk, such as '/var/lib/app/flagsync.db'"


def check_name(path: str, option: str) -> None:
    """Raise for what is meant for something else than a file.

    Raises:
        ValueError: It is a URL, whose password the message does not repeat, or SQLite's name of memory.
    """
    if Path(path).name == ":memory:":
        raise ValueError(f"{option}: ':memory:' is no file that processes can share; {ACCEPTED}")
    if (scheme := URL.search(path)) is not None:
        raise ValueError(f"{option}: '{scheme[1]}:…' is a URL; {ACCEPTED}")


def make(path: str, shared: str) -> None:
    """Make an empty file that only its owner can read, unless there is a file.

    Args:
        path: Of the file.
        shared: Path of the shared file, to whose owner root gives the new file; where there is none yet, to the owner
            of its directory.
    """
    owner = _owner(shared)
    with suppress(FileExistsError):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            if os.geteuid() == 0:
                with suppress(OSError):  # some containers take this right from root
                    os.fchown(descriptor, owner.st_uid, owner.st_gid)
        finally:
            os.close(descriptor)


def check_directory(path: str) -> None:
    """Raise for a file whose directory cannot be used by this process.

    Raises:
        OSError: The message says what to do.
    """
    directory = Path(path).parent
    if not directory.is_dir():
        raise OSError("its directory does not exist; create the directory")
    if not _may(f"{directory}", os.W_OK | os.X_OK):
        raise OSError(
            f"user {os.geteuid()} may not write to its directory, where SQLite keeps its log; "
            "give that user the directory, or name another one"
        )


def check_file(path: str) -> None:
    """Raise for what cannot be shared safely, or not be used by this process.

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
    """Take away the rights of other users; SQLite gives new side files the mode of the file."""
    for file in (path, *(path + ending for ending in SIDE_FILES)):
        with suppress(FileNotFoundError):
            if (mode := stat.S_IMODE(Path(file).stat().st_mode)) & 0o077:
                Path(file).chmod(mode & 0o700)


def _owner(path: str) -> os.stat_result:
    with suppress(FileNotFoundError):
        return Path(path).stat()
    return Path(path).parent.stat()


def _may(path: str, rights: int) -> bool:
    """Return whether the system lets this process do something, in the name of the user that it acts for."""
    return os.access(path, rights, effective_ids=os.access in os.supports_effective_ids)


def _mount_points() -> list[str]:
    """Return the mount points of this process, where the system lists them; proc(5) says how."""
    with suppress(OSError):
        mounts = Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape").splitlines()
        return [ESCAPED.sub(lambda found: chr(int(found[1], 8)), mount.split(" ")[4]) for mount in mounts]
    return []
