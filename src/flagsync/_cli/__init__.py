"""The command line, ``flagsync``; it needs the extra ``flagsync[cli]``.

app        the commands, and how they end
terminal   what is printed: data to stdout, all else to stderr
commands   how a command is registered, with its help
settings   options that commands share, and the configuration from the environment
stores     opens the outbox that a command names
rows       what `backfill` and `unset` read: CSV, JSON Lines, Parquet
journal    what they write down, to go on where they ended
bar        how far they are
removal    sends records that remove properties
failure    what ends a command with a sentence in place of a traceback

A command is a function in a module of its own, and ``app`` registers it.
"""

import sys

REQUIRED = ("typer", "rich")
MISSING = "The command line of flagsync needs typer and rich: pip install 'flagsync[cli]'\n"


def main() -> int:
    """Run the command of this process's arguments; return the exit code."""
    try:
        from flagsync._cli.app import run  # noqa: PLC0415 - the extra may be missing
    except ModuleNotFoundError as error:
        if error.name not in REQUIRED:
            raise
        sys.stderr.write(MISSING)
        return 2
    except KeyboardInterrupt:  # importing takes half a second
        return 130
    return run()
