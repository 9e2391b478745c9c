"""What a backfill writes down, so that the next run continues where this one ends, however it ends.

Guarantee: the rows that a checkpoint counts are settled, and each of them that was rejected is in the file of rejects
once. Boundary: a loss of power may undo the last moments of both files.
"""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO, Self

from flagsync._cli.failure import MISUSED, WRONG, Failure, failing_if
from flagsync.bulk import Outcome, Report

CHANGED = {
    "file": "of another file, or the file has changed since",
    "options": "of another command, or of a run with other options",
    "project": "of another Mixpanel project, region or URL",
}
BEGIN = b'{"row": '  # of a file of rejects


class Journal:
    """The checkpoint and the rejects of a backfill.

    Args:
        checkpoint: Where the progress is written; None: nowhere.
        rejects: Where rejected rows are written; None: nowhere.
        job: What must be the same in each run: the keys of ``CHANGED``.

    Attributes:
        before: How far earlier runs have come.

    Raises:
        Failure: A file cannot be used, or the checkpoint is one of another job.
    """

    def __init__(self, checkpoint: Path | None, rejects: Path | None, job: Mapping[str, str]) -> None:
        self._checkpoint, self._rejects_path, self._job = checkpoint, rejects, job
        with failing_if(f"{checkpoint} cannot be used", MISUSED):
            self.before, self._kept = self._load() if checkpoint and checkpoint.exists() else (Report(), 0)
            if checkpoint:  # what cannot be written is better known before anything is sent
                _beside(checkpoint).touch()
                _beside(checkpoint).unlink()
        with failing_if(f"{rejects} cannot be used", MISUSED):
            self._rejects = _open(rejects, self._kept) if rejects else None
        if checkpoint and self._rejects and not self._rejects.seekable():
            self._rejects.close()
            raise Failure("--rejects needs a file together with --checkpoint, not a pipe")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._rejects is not None:
            with suppress(OSError):  # save() has written all, or has failed
                self._rejects.close()

    def reject(self, outcome: Outcome) -> None:
        """Write a rejected row."""
        if self._rejects is not None:
            line = {"row": outcome.row, "identifier": outcome.identifier, "reason": outcome.reason}
            with failing_if(f"{self._rejects_path} cannot be used", WRONG):
                self._rejects.write(json.dumps(line).encode() + b"\n")

    def save(self, report: Report) -> None:
        """Write how far this run has come, behind the rows that were rejected."""
        if self._rejects is not None:
            with failing_if(f"{self._rejects_path} cannot be used", WRONG):
                self._rejects.flush()
        if self._checkpoint is not None:
            self._kept = self._kept if self._rejects is None else self._rejects.tell()
            content = {**self._job, "rejects_bytes": self._kept, "report": asdict(report)}
            with failing_if(f"{self._checkpoint} cannot be used", WRONG):
                new = _beside(self._checkpoint)
                new.write_text(json.dumps(content), "utf-8")
                new.replace(self._checkpoint)

    def _load(self) -> tuple[Report, int]:
        text = Path(f"{self._checkpoint}").read_bytes()
        try:
            content: Any = json.loads(text)
            report, kept = content["report"], content["rejects_bytes"]
            found = Report(**{name: _count(report[name]) for name in report}), _count(kept)
            changed = [what for key, what in CHANGED.items() if content[key] != self._job[key]]
        except (ValueError, TypeError, LookupError, RecursionError) as error:
            raise Failure(f"{self._checkpoint} is not a checkpoint: choose another file") from error
        if changed:
            raise Failure(
                f"The checkpoint {self._checkpoint} is {' and '.join(changed)}. To begin anew, remove it; to go on, "
                "run the command as before"
            )
        return found


def _count(value: object) -> int:
    if type(value) is not int or value < 0:
        raise ValueError
    return value


def _beside(checkpoint: Path) -> Path:
    """Return the file that takes the place of a checkpoint once it is written."""
    return checkpoint.with_name(f"{checkpoint.name}.flagsync-new")


def _open(path: Path, kept: int) -> BinaryIO:
    """Open a file for rejects, which only its owner can read if it is new, since it names users.

    What is behind the rejects that count is removed, since it comes again.

    Raises:
        Failure: It is another file, which would be lost, or one that has changed.
    """
    size = 0
    if path.is_file():
        with path.open("rb") as found:
            if found.read(len(BEGIN)) not in (b"", BEGIN):
                raise Failure(
                    f"{path} does not hold rejected rows, and would be overwritten: choose another file"
                )
            size = found.seek(0, os.SEEK_END)
    if size < kept:
        raise Failure(
            f"{path} has changed since the checkpoint was written: remove the checkpoint to begin anew"
        )
    file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "wb")
    if size:
        file.seek(kept)
        file.truncate()
    return file
