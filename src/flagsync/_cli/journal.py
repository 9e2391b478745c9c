"""What a backfill writes down, so that the next run continues where this one ends, however it ends.

Guarantee: the rows that a checkpoint counts are settled, and each of them that was rejected is in the file of rejects
once. Boundary: a loss of power may undo the last moments of both files.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO, Self

from flagsync._cli.failure import Failure, failing_on
from flagsync.bulk import Outcome, Report

CHANGED = {
    "file": "of another file, or the file has changed since",
    "options": "of another command, or of a run with other options",
    "project": "of another Mixpanel project, region or URL",
}


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
        self._checkpoint, self._job = checkpoint, job
        self.before, self._kept = self._load() if checkpoint and checkpoint.exists() else (Report(), 0)
        with failing_on(OSError):
            self._rejects = _open(rejects, self._kept) if rejects else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._rejects is not None:
            self._rejects.close()

    def reject(self, outcome: Outcome) -> None:
        """Write a rejected row."""
        if self._rejects is not None:
            line = {"row": outcome.row, "identifier": outcome.identifier, "reason": outcome.reason}
            self._rejects.write(json.dumps(line).encode() + b"\n")

    def save(self, report: Report) -> None:
        """Write how far this run has come, behind the rows that were rejected."""
        if self._rejects is not None:
            self._rejects.flush()
        if self._checkpoint is not None:
            self._kept = self._kept if self._rejects is None else self._rejects.tell()
            content = {**self._job, "rejects_bytes": self._kept, "report": asdict(report)}
            new = self._checkpoint.with_name(f"{self._checkpoint.name}.new")
            new.write_text(json.dumps(content), "utf-8")
            new.replace(self._checkpoint)

    def _load(self) -> tuple[Report, int]:
        with failing_on(OSError):
            text = Path(f"{self._checkpoint}").read_bytes()
        try:
            content: Any = json.loads(text)
            found = Report(**content["report"]), int(content["rejects_bytes"])
            changed = [what for key, what in CHANGED.items() if content[key] != self._job[key]]
        except (ValueError, TypeError, LookupError) as error:
            raise Failure(f"{self._checkpoint} is not a checkpoint: choose another file") from error
        if changed:
            raise Failure(
                f"The checkpoint {self._checkpoint} is {' and '.join(changed)}. To begin anew, remove it; to go on, "
                "run the command as before"
            )
        return found


def _open(rejects: Path, kept: int) -> BinaryIO:
    """Open a file for rejects; what is behind those that count is removed, since it comes again."""
    if not kept:
        return rejects.open("wb")
    file = rejects.open("r+b")
    if file.seek(0, os.SEEK_END) < kept:
        file.close()
        raise Failure(
            f"{rejects} has changed since the checkpoint was written: remove the checkpoint to begin anew"
        )
    file.seek(kept)
    file.truncate()
    return file
