"""Registers commands with their help.

A command is a function; its docstring is the help, and examples follow.
"""

from collections.abc import Callable

import typer
from rich.markup import escape


def new_group(text: str) -> typer.Typer:
    """Return an empty group of commands."""
    return typer.Typer(help=text, no_args_is_help=True, rich_markup_mode="rich")


def register(group: typer.Typer, function: Callable[..., None], *examples: str) -> None:
    """Add a command under the name of its function.

    Args:
        group: Where it is added.
        function: The command. Paragraphs of its docstring are wrapped to the width of the terminal.
        examples: Command lines.
    """
    paragraphs = (function.__doc__ or "").split("\n\n")
    text = "\n\n".join(escape(" ".join(paragraph.split())) for paragraph in paragraphs)
    group.command(help=text, epilog=_shown(examples))(function)


def _shown(examples: tuple[str, ...]) -> str:
    return "\n\n".join(
        ["[bold]Examples[/bold]", *(f"[cyan]$ {escape(example)}[/cyan]" for example in examples)]
    )
