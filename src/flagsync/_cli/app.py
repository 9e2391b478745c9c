"""The commands, and how they end.

Guarantee: whatever a user does ends with an exit code and a sentence, without a traceback: 0 if all is well, 1 if
something is wrong or was refused, 2 for wrong use, 130 after Ctrl-C.
"""

import logging
import os
import sys
from typing import Annotated

import typer
from typer.core import TyperGroup

from flagsync import __version__
from flagsync._cli import backfill, outbox, preview, unset
from flagsync._cli.commands import register
from flagsync._cli.doctor import command as doctor
from flagsync._cli.failure import WRONG, Failure
from flagsync._cli.settings import CONFIGURATION
from flagsync._cli.terminal import give_up, say


class Commands(TyperGroup):
    """A group of commands that turns a ``Failure`` into its sentence and exit code."""

    def invoke(self, ctx: typer.Context) -> object:  # type: ignore[override] # Context's public name
        try:
            return super().invoke(ctx)
        except Failure as failure:
            say(f"Error: {failure}")
            raise typer.Exit(failure.code) from failure


class _Said(logging.Handler):
    """Says each message once, without a traceback."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._said = set[str]()

    def emit(self, record: logging.LogRecord) -> None:
        if (text := f"{record.levelname.capitalize()}: {record.getMessage()}") not in self._said:
            self._said.add(text)
            say(text)


def _print_version(is_wanted: bool) -> None:  # noqa: FBT001 - as typer calls it
    if is_wanted:
        typer.echo(f"flagsync {__version__}")
        raise typer.Exit


app = typer.Typer(
    name="flagsync",
    cls=Commands,
    help="Flagsmith flags on Mixpanel profiles: check a configuration, mirror many users, look into an outbox.",
    epilog="Configuration comes from the environment, as in FlagSync.from_env(): FLAGSMITH_ENVIRONMENT_KEY, "
    f"MIXPANEL_TOKEN, MIXPANEL_REGION, FLAGSYNC_OUTBOX and others; see {CONFIGURATION}",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,  # they would show local variables, and so tokens
    context_settings={"help_option_names": ["--help", "-h"]},
)


@app.callback()
def _options(
    *,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """Take the options before a command."""


register(app, doctor.doctor, *doctor.EXAMPLES)
register(app, preview.preview, *preview.EXAMPLES)
register(app, backfill.backfill, *backfill.EXAMPLES)
register(app, unset.unset, *unset.EXAMPLES)
app.add_typer(outbox.app, name="outbox")


def run() -> int:
    """Run the command of this process's arguments; return the exit code."""
    code = 0
    _prepare()
    try:
        app(prog_name="flagsync")
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 0
    except KeyboardInterrupt:  # before or after typer looked for it
        code = 130
    except OSError as error:
        code = _give_up_output(error)
    try:
        sys.stdout.flush()
    except OSError as error:
        code = code or _give_up_output(error)
    return code


def _give_up_output(error: OSError) -> int:
    """Write to stdout no more, and say why, unless its reader has ended; return the exit code."""
    if not isinstance(error, BrokenPipeError):
        say(f"Error: {error.strerror or error}")
    give_up(sys.stdout)
    return WRONG


def _prepare() -> None:
    """Print what a stream cannot encode escaped, and log messages without a traceback."""
    for name in ("stdout", "stderr"):
        if (stream := getattr(sys, name)) is None:  # the caller has closed it
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
        else:
            stream.reconfigure(errors="backslashreplace")
    logging.getLogger().addHandler(logging.NullHandler())  # urllib3 would say each attempt, with its URL
    for name in ("flagsync", "flagsmith"):
        logging.getLogger(name).addHandler(_Said())
