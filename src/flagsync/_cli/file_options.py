"""Options of the commands that go through a file of users."""

from pathlib import Path
from typing import Annotated

import typer

from flagsync._cli.failure import Failure, failing_on
from flagsync._cli.rows.source import STDIN
from flagsync._rules import is_number

Identifier = Annotated[str, typer.Option(metavar="COLUMN", help="The column with the identifier.")]
Rate = Annotated[float, typer.Option(metavar="N", help="Profiles a second, at most.")]
Checkpoint = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        dir_okay=False,
        show_default=False,
        help="Where progress is written. The same command continues where the last run ended, however it ended.",
    ),
]
Rejects = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        dir_okay=False,
        show_default=False,
        help="Where each rejected row is written, as a line of JSON: row, identifier, reason.",
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Read each row and send nothing.")]


@failing_on(OSError)
def check_files(
    file: Path, checkpoint: Path | None, rejects: Path | None, rate: float, *, dry_run: bool
) -> None:
    """Refuse files that would overwrite each other, and a dry run that would count as progress."""
    if not (is_number(rate) and rate > 0):
        raise Failure(f"--rate takes a number above 0, not {rate}")
    if dry_run and checkpoint:
        raise Failure("--dry-run makes no progress to write down: leave out --checkpoint")
    if checkpoint and (file == STDIN or (file.exists() and not file.is_file())):
        raise Failure("--checkpoint needs a file that can be read again, not a pipe")
    paths = [path.resolve() for path in (file, checkpoint, rejects) if path is not None]
    if len({*paths}) < len(paths):
        raise Failure("FILE, --checkpoint and --rejects must be different files")
