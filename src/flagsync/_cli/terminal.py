"""What commands print: data to stdout, all else to stderr.

Guarantee: without a terminal there are no colours, no bars and no wrapped lines; with ``NO_COLOR`` there are no
colours. No text from outside can control the terminal. Boundary: the commands decide what may be shown.
"""

import json
import os
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TextIO

from rich.console import Console
from rich.file_proxy import FileProxy
from rich.table import Table
from rich.text import Text

UNWRAPPED = 100_000  # columns: a table in a pipe is as wide as its content
SHOWN_CHARACTERS = 4


def console(stream: TextIO) -> Console:
    """Return a console on stdout or stderr that neither interprets text nor colours it by itself."""
    width = None if stream.isatty() else UNWRAPPED
    return Console(file=stream, width=width, highlight=False, markup=False, emoji=False)


def say(text: str) -> None:
    """Tell a person something, on stderr, if anybody reads it."""
    try:
        if isinstance(sys.stderr, FileProxy):  # a bar is shown: only its own console prints above it
            sys.stderr.write(f"{plain(text)}\n")
        else:
            console(sys.stderr).print(plain(text))
    except OSError:
        give_up(sys.stderr)


def give_up(stream: TextIO) -> None:
    """Let what is written to a stream go nowhere from here on, also what Python writes when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def show(*what: str | Text | Table) -> None:
    """Print data for people, on stdout."""
    out = console(sys.stdout)
    for item in what:
        out.print(plain(item) if isinstance(item, str) else item, soft_wrap=isinstance(item, str))


def show_json(value: Mapping[str, object]) -> None:
    """Print one JSON object, on stdout."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def table(
    headings: Sequence[str], rows: Iterable[Sequence[str | Text]], *, numbers: Collection[str] = ()
) -> Table:
    """Return a table without lines, whose cells are wrapped where there is a terminal.

    Args:
        headings: The names of the columns.
        rows: The cells of each row.
        numbers: The columns that are aligned to the right.
    """
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in headings:
        made.add_column(heading, overflow="fold", justify="right" if heading in numbers else "left")
    for row in rows:
        made.add_row(*[cell if isinstance(cell, Text) else Text(plain(cell)) for cell in row])
    return made


def plain(text: str) -> str:
    """Return a text in which characters that may control a terminal are escaped."""
    return "".join(
        character
        if character.isprintable() or character == "\n"
        else character.encode("unicode_escape").decode()
        for character in text
    )


def masked(secret: str) -> str:
    """Return the beginning of a token or key, by which its owner can recognise it."""
    return f"{secret[: min(SHOWN_CHARACTERS, len(secret) // 3)]}…"


def count(number: int, what: str) -> str:
    """Return a number with its noun."""
    return f"{number:,} {what}{'s' * (number != 1)}"


def age(seconds: float) -> str:
    """Return a duration as people say it."""
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= length:
            return count(int(seconds // length), unit)
    return count(int(seconds), "second")
