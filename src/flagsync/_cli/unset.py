"""``flagsync unset``: removes properties from the profiles of the users in a file.

Guarantee: what Mixpanel reserves is never removed, and a dry run sends nothing. Boundary: the option ``distinct_id`` of
a client is unknown, so each identifier is taken for the ``distinct_id`` of its profile.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from flagsync._cli.backfill_run import Run
from flagsync._cli.failure import WRONG, Failure, failing_on
from flagsync._cli.file_options import Checkpoint, DryRun, Identifier, Rate, Rejects, check_files
from flagsync._cli.journal import Journal
from flagsync._cli.removal import Removal
from flagsync._cli.rows.columns import Types, Values
from flagsync._cli.rows.source import Source
from flagsync._cli.settings import Json, options_of, project_of
from flagsync._cli.terminal import count, say
from flagsync._encoding.properties import MAX_NAME_CHARACTERS, RESERVED_PREFIXES
from flagsync._environment import read_environment
from flagsync._options import Options
from flagsync._rules import require
from flagsync.bulk.pace import PROFILES_PER_SECOND
from flagsync.bulk.rows import Unreadable
from flagsync.bulk.run import run as run_over

EXAMPLES = (
    "flagsync unset old_banner --from users.csv --dry-run",
    "flagsync unset old_banner 'flag: beta' --from users.csv --rejects users.bad",
    "psql -c 'copy (select id from users) to stdout csv header' | flagsync unset beta --from - --identifier id",
)


def unset(
    name: Annotated[
        list[str],
        typer.Argument(metavar="NAME", show_default=False, help="The properties, by their names in Mixpanel."),
    ],
    *,
    file: Annotated[
        Path,
        typer.Option(
            "--from",
            metavar="FILE",
            show_default=False,
            help="The users: CSV with a header, JSON Lines or Parquet; - reads CSV or JSON Lines from stdin.",
        ),
    ],
    identifier: Identifier = "identifier",
    rate: Rate = PROFILES_PER_SECOND,
    checkpoint: Checkpoint = None,
    rejects: Rejects = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Remove properties from the profiles of all users in a file. Try --dry-run first: nothing brings a value back.

    It is for features that were deleted in Flagsmith, and for a prefix that is no longer used. A property of a feature
    that is still there comes back with the next evaluation. Flagsmith is not asked.
    """
    names = _checked(name)
    check_files(file, checkpoint, rejects, rate, dry_run=dry_run)
    options = _options(dry_run=dry_run)
    job = {"options": json.dumps(["unset", identifier, names]), "project": project_of(options)}
    token, destination = options.token or "", options.destination(options.token or "")
    with (
        Source(file, Types((), identifier), identifier) as source,
        Journal(checkpoint, rejects, {"file": source.digest() if checkpoint else "", **job}) as journal,
        closing(Removal(token, destination, names, dry_run=dry_run)) as removal,
    ):
        run = Run(source, journal, rate)
        report = run.of(partial(run_over, _identifiers(source, identifier), removal, identifier))
    run.show(as_json=as_json, has_rejects=rejects is not None)
    if dry_run:
        who = count(report.evaluated, "profile")
        say(f"Nothing was sent. Without --dry-run, {who} would lose: {', '.join(names)}.")
    if report.rejected:
        raise typer.Exit(WRONG)


def _checked(names: Sequence[str]) -> list[str]:
    """Return the names without repeats, as Mixpanel stores them."""
    for name in names:
        if not name.strip() or name.startswith(RESERVED_PREFIXES):
            raise Failure(
                f"NAME takes a property that flagsync wrote, not {name!r}: Mixpanel reserves names that begin with "
                f"{' or '.join(RESERVED_PREFIXES)}, and no name is empty"
            )
    return [*dict.fromkeys(name[:MAX_NAME_CHARACTERS] for name in names)]


def _options(*, dry_run: bool) -> Options:
    """Return the options of the environment, without those of Flagsmith and of an outbox."""
    silent = {"mixpanel_token": None} if dry_run else {}
    environment = read_environment({"offline_mode": True, "outbox": None, **silent})
    options = options_of(environment)
    with failing_on(ValueError):
        require({**environment.rules, **options.rules()})
    if options.token is None and not dry_run:
        raise Failure("FLAGSYNC_ENABLED=false switches Mixpanel off, so only --dry-run is possible")
    return options


def _identifiers(source: Source, identifier: str) -> Iterator[Values | Unreadable]:
    """Yield the rows without their other columns, which need not be traits."""
    for row in source:
        yield row if isinstance(row, Unreadable) or identifier not in row else {identifier: row[identifier]}
