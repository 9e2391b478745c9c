"""``flagsync backfill``: evaluates and mirrors each row of a file.

Guarantee: memory does not grow with the file. With a checkpoint, a run that was killed goes on where Mixpanel had
accepted. A bad row costs itself. Boundary: options that only code can set, such as ``property_name``, are unknown.
"""

import json
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from hashlib import blake2b
from itertools import chain, islice
from pathlib import Path
from typing import Annotated, Any

import typer
from flagsmith import Flagsmith
from flagsmith.exceptions import FlagsmithAPIError

from flagsync._cli.bar import Bar
from flagsync._cli.failure import WRONG, Failure, failing_on
from flagsync._cli.journal import Journal
from flagsync._cli.rows.columns import Types
from flagsync._cli.rows.source import STDIN, Source
from flagsync._cli.settings import Document, Json, flagsmith_client, options_of
from flagsync._cli.terminal import examples, say, show, show_json, table
from flagsync._client import FlagSync
from flagsync._environment import read_environment
from flagsync._messages import no_answer
from flagsync._report import described
from flagsync._rules import require
from flagsync.bulk import Outcome, Report, backfill
from flagsync.bulk.pace import PROFILES_PER_SECOND
from flagsync.exceptions import DeliveryError

SAMPLE_ROWS = 100
MAX_REASONS, SHOWN_REASONS = 100, 5
EXAMPLES = examples(
    "flagsync backfill users.csv --type age=int --dry-run",
    "flagsync backfill users.csv --type age=int --checkpoint users.done --rejects users.bad",
    "psql -c 'copy (select id, plan from users) to stdout csv header' | flagsync backfill - --identifier id",
)


def backfill_file(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            show_default=False,
            help="CSV with a header, JSON Lines or Parquet; - reads CSV or JSON Lines from stdin.",
        ),
    ],
    *,
    identifier: Annotated[
        str, typer.Option(metavar="COLUMN", help="The column with the identifier. Every other one is a trait.")
    ] = "identifier",
    types: Annotated[
        list[str] | None,
        typer.Option(
            "--type",
            metavar="COLUMN=TYPE",
            show_default=False,
            help="The type of a trait: int, float, bool or str; as often as needed. A trait of CSV is text without it.",
        ),
    ] = None,
    rate: Annotated[float, typer.Option(metavar="N", help="Profiles a second, at most.")] = PROFILES_PER_SECOND,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            dir_okay=False,
            show_default=False,
            help="Where progress is written. The same command then goes on where the last run ended, however it ended.",
        ),
    ] = None,
    rejects: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            dir_okay=False,
            show_default=False,
            help="Where each row that was refused is written, a JSON object a line: row, identifier, reason.",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Evaluate each row and send nothing.")] = False,
    document: Document = None,
    as_json: Json = False,
) -> None:
    """Evaluate the flags of each row of a file, and mirror them to Mixpanel.

    Rows that are refused do not stop the others, and the exit code is then 1. While Mixpanel cannot be reached, the
    command waits.
    """
    _check_files(file, checkpoint, rejects, dry_run=dry_run)
    declared = Types(types or (), identifier)
    with (
        Source(file, declared, identifier) as source,
        _client(document, dry_run=dry_run) as (client, project),
        Journal(checkpoint, rejects, _job(source, identifier, declared, project, checkpoint)) as journal,
    ):
        rows = _with_advice(source, declared)
        run = _Run(source, journal, rate)
        with failing_on(ValueError):
            report = run.of(rows, client, identifier=identifier, dry_run=dry_run)
    run.show(report, as_json=as_json, has_rejects=rejects is not None)
    if report.rejected:
        raise typer.Exit(WRONG)


class _Run:
    """One run of the command.

    Args:
        source: Where the rows are read.
        journal: Where progress is written.
        rate: Profiles a second, at most.
    """

    def __init__(self, source: Source, journal: Journal, rate: float) -> None:
        self._source, self._journal, self._rate = source, journal, rate
        self._reasons, self._seconds = Counter[str](), 0.0

    def of(
        self, rows: Iterable[Mapping[str, object]], client: FlagSync, *, identifier: str, dry_run: bool
    ) -> Report:
        """Mirror the rows.

        Raises:
            Failure: They cannot be mirrored to the end.
            ValueError: An option is invalid.
        """
        journal, report = self._journal, self._journal.before
        with Bar(self._rate, report) as bar:

            def progress(new: Report) -> None:
                nonlocal report
                report = new
                journal.save(report)
                bar.show(report, self._source.share)

            try:
                report = backfill(
                    rows,
                    client,
                    identifier=identifier,
                    rate=self._rate,
                    dry_run=dry_run,
                    after=journal.before,
                    on_progress=progress,
                    on_reject=self._reject,
                )
            except (DeliveryError, FlagsmithAPIError) as error:
                why = error.reason if isinstance(error, DeliveryError) else no_answer(error) or f"{error}"
                raise Failure(f"{why}. {_settled(report)}", WRONG) from error
            except KeyboardInterrupt:
                say(_settled(report))
                raise
            self._seconds = bar.seconds
        return report

    def show(self, report: Report, *, as_json: bool, has_rejects: bool) -> None:
        """Print what became of the rows."""
        new = report.read - self._journal.before.read
        speed = round(new / self._seconds) if self._seconds else 0
        if as_json:
            reasons = dict(self._reasons.most_common())
            times = {"seconds": round(self._seconds, 3), "rows_per_second": speed}
            show_json({**asdict(report), **times, "reasons": reasons})
            return
        counts = [(name, f"{count:,}") for name, count in asdict(report).items() if count or name == "read"]
        show(table(("rows", "count"), [*counts, ("a second", f"{speed:,}")]))
        if self._reasons:
            refused = [(reason, f"{count:,}") for reason, count in self._reasons.most_common(SHOWN_REASONS)]
            show("", table(("why rows were refused", "count"), refused))
        if report.rejected and not has_rejects:
            say("--rejects FILE tells which rows were refused.")

    def _reject(self, outcome: Outcome) -> None:
        self._journal.reject(outcome)
        if outcome.reason in self._reasons or len(self._reasons) < MAX_REASONS:
            self._reasons[outcome.reason] += 1


def _settled(report: Report) -> str:
    """Say how far a run has come that does not go on."""
    return f"{report.read:,} rows are settled; with --checkpoint, the same command goes on behind them"


def _check_files(file: Path, checkpoint: Path | None, rejects: Path | None, *, dry_run: bool) -> None:
    """Refuse files that would overwrite each other, and a dry run that would count as progress."""
    if dry_run and checkpoint:
        raise Failure("--dry-run makes no progress to write down: leave out --checkpoint")
    if file == STDIN and checkpoint:
        raise Failure("--checkpoint needs a file, since stdin cannot be read again")
    paths = [path.resolve() for path in (file, checkpoint, rejects) if path is not None]
    if len({*paths}) < len(paths):
        raise Failure("FILE, --checkpoint and --rejects must be different files")


@contextmanager
def _client(document: Path | None, *, dry_run: bool) -> Iterator[tuple[FlagSync, str]]:
    """Build the client of the environment and close it; with it, yield what tells Mixpanel projects apart."""
    offline = {"offline_mode": True} if document else {}
    silent = {"mixpanel_token": None, "outbox": None} if dry_run else {}
    environment = read_environment({**offline, **silent})
    with failing_on(ValueError):
        require(environment.rules)
    with flagsmith_client(document) as flagsmith:
        _check_flagsmith(flagsmith)
        with failing_on(ValueError, ImportError):
            client = FlagSync(flagsmith, **environment.flagsync)
        with client:
            options = options_of(environment)
            where = options.destination(options.token or "")
            yield client, blake2b(f"{where.url} {where.project}".encode(), digest_size=8).hexdigest()


def _check_flagsmith(flagsmith: Flagsmith) -> None:
    """Evaluate once, since what is wrong here is wrong for each row."""
    try:
        flagsmith.get_environment_flags()
    except FlagsmithAPIError as error:
        raise Failure(no_answer(error) or f"{error}", WRONG) from error
    except Exception as error:
        raise Failure(f"Flagsmith cannot evaluate ({described(error)})", WRONG) from error
    if not (flagsmith.offline_mode or flagsmith.enable_local_evaluation):
        say("Each row is a request to Flagsmith's API; with FLAGSMITH_LOCAL_EVALUATION=true none is.")


def _job(
    source: Source, identifier: str, types: Types, project: str, checkpoint: Path | None
) -> dict[str, str]:
    """Return what must be the same in each run with a checkpoint."""
    options = json.dumps([identifier, sorted(types.declared.items())])
    return {"file": source.digest() if checkpoint else "", "options": options, "project": project}


def _with_advice(source: Source, types: Types) -> Iterator[Any]:
    """Return the rows of a source; if columns look like numbers or booleans, say how to declare that."""
    rows = iter(source)
    sample = [*islice(rows, SAMPLE_ROWS)]
    if source.is_text and (apparent := types.apparent(sample)):
        flags = " ".join(f"--type {shlex.quote(f'{column}={kind}')}" for column, kind in apparent.items())
        say(f"All traits of CSV are text until a type is declared. These look like others: {flags}")
    return chain(sample, rows)
