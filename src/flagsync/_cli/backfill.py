"""``flagsync backfill``: evaluates and mirrors each row of a file.

Guarantee: memory does not grow with the file. With a checkpoint, the next run continues after the last settled row. A
bad row does not stop the others. Boundary: options that only code can set, such as ``property_name``, are unknown.
"""

import json
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer
from flagsmith import Flagsmith

from flagsync._cli.backfill_run import Run
from flagsync._cli.failure import WRONG, Failure, failing_on
from flagsync._cli.file_options import Checkpoint, DryRun, Identifier, Rate, Rejects, check_files
from flagsync._cli.journal import Journal
from flagsync._cli.rows.columns import SHOWN_COLUMNS, Types
from flagsync._cli.rows.source import Source
from flagsync._cli.settings import Document, Json, flagsmith_client, options_of, project_of
from flagsync._cli.terminal import say
from flagsync._client import FlagSync
from flagsync._environment import read_environment
from flagsync._report import described
from flagsync._rules import require
from flagsync.bulk import backfill as mirror
from flagsync.bulk.pace import PROFILES_PER_SECOND

SAMPLE_ROWS = 100
EXAMPLES = (
    "flagsync backfill users.csv --type age=int --dry-run",
    "flagsync backfill users.csv --type age=int --checkpoint users.done --rejects users.bad",
    "psql -c 'copy (select id, plan from users) to stdout csv header' | flagsync backfill - --identifier id",
)


def backfill(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            show_default=False,
            help="CSV with a header, JSON Lines or Parquet; - reads CSV or JSON Lines from stdin. Columns are traits.",
        ),
    ],
    *,
    identifier: Identifier = "identifier",
    types: Annotated[
        list[str] | None,
        typer.Option(
            "--type",
            metavar="COLUMN=TYPE",
            show_default=False,
            help="The type of a trait: int, float, bool or str; repeatable. Traits of CSV are text without it.",
        ),
    ] = None,
    rate: Rate = PROFILES_PER_SECOND,
    checkpoint: Checkpoint = None,
    rejects: Rejects = None,
    dry_run: DryRun = False,
    document: Document = None,
    as_json: Json = False,
) -> None:
    """Evaluate the flags of each row of a file, and mirror them to Mixpanel.

    Rejected rows do not stop the others, and the exit code is then 1. While Mixpanel cannot be reached, the command
    waits.
    """
    check_files(file, checkpoint, rejects, rate, dry_run=dry_run)
    declared = Types(types or (), identifier)
    with (
        Source(file, declared, identifier) as source,
        _client(document, dry_run=dry_run) as (client, project),
        Journal(checkpoint, rejects, _job(source, identifier, declared, project, checkpoint)) as journal,
    ):
        run = Run(source, journal, rate)
        rows = _with_advice(source, declared)
        report = run.of(partial(mirror, rows, client, identifier=identifier, dry_run=dry_run))
    run.show(as_json=as_json, has_rejects=rejects is not None)
    if report.rejected:
        raise typer.Exit(WRONG)


@contextmanager
def _client(document: Path | None, *, dry_run: bool) -> Iterator[tuple[FlagSync, str]]:
    """Build the client of the environment and close it; with it, yield what tells Mixpanel projects apart."""
    offline = {"offline_mode": True} if document else {}
    silent = {"mixpanel_token": None, "outbox": None} if dry_run else {}
    environment = read_environment({**offline, **silent})
    with failing_on(ValueError):
        require(environment.rules)
    if environment.flagsync["mixpanel_token"] is None and not dry_run:
        raise Failure("FLAGSYNC_ENABLED=false switches mirroring off, so only --dry-run is possible")
    with flagsmith_client(document) as flagsmith:
        _check_flagsmith(flagsmith)
        with failing_on(ValueError, ImportError):
            client = FlagSync(flagsmith, **environment.flagsync)
        with client:
            yield client, project_of(options_of(environment))


def _check_flagsmith(flagsmith: Flagsmith) -> None:
    """Evaluate once, if that is free: what is wrong here is wrong for each row."""
    if not (flagsmith.offline_mode or flagsmith.enable_local_evaluation):
        say("Each row is a request to Flagsmith's API; with FLAGSMITH_LOCAL_EVALUATION=true none is.")
        return
    try:
        flagsmith.get_environment_flags()
    except Exception as error:
        raise Failure(f"Flagsmith cannot evaluate ({described(error)})", WRONG) from error


def _job(
    source: Source, identifier: str, types: Types, project: str, checkpoint: Path | None
) -> dict[str, str]:
    """Return what must be the same in each run with a checkpoint."""
    options = json.dumps([identifier, sorted(types.declared.items())])
    return {"file": source.digest() if checkpoint else "", "options": options, "project": project}


def _with_advice(source: Source, types: Types) -> Iterator[Any]:
    """Yield the rows of a source; if columns look like numbers or booleans at first, say how to declare that."""
    rows, sample = iter(source), list[Any]()
    for row in islice(rows, SAMPLE_ROWS):
        sample.append(row)
        yield row
    if source.is_text and (apparent := types.apparent(sample)):
        flags = [f"--type {shlex.quote(f'{column}={kind}')}" for column, kind in apparent.items()]
        shown = " ".join(flags[:SHOWN_COLUMNS]) + f" … ({len(flags):,})" * (len(flags) > SHOWN_COLUMNS)
        say(f"All traits of CSV are text until a type is declared. These columns look like others: {shown}")
    yield from rows
