"""Options that commands share, and the configuration from the environment.

Guarantee: the rules are those of ``FlagSync.from_env``, and so are their texts.
"""

import json
from pathlib import Path
from typing import Annotated

import typer
from flagsmith.offline_handlers import LocalFileHandler

from flagsync._cli.failure import Failure
from flagsync._environment import EnvironmentOptions

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
Document = Annotated[
    Path | None,
    typer.Option(
        "--document",
        metavar="FILE",
        exists=True,
        dir_okay=False,
        readable=True,
        help="Evaluate with an environment document in a file, without Flagsmith's API and without a key.",
    ),
]


def flagsmith_options(document: Path | None) -> EnvironmentOptions:
    """Return what ``from_env`` gets, so that it evaluates with an environment document if there is one.

    Raises:
        Failure: The file is no environment document.
    """
    if document is None:
        return {}
    try:
        handler = LocalFileHandler(f"{document}")
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        name = type(error).__name__
        what = f"{error}" if isinstance(error, OSError | json.JSONDecodeError) else f"{name}: {error}"
        raise Failure(
            f"--document: {document} is not an environment document of Flagsmith ({what}); download it from "
            "…/api/v1/environment-document/ with a server-side key"
        ) from error
    return {"offline_mode": True, "offline_handler": handler}
