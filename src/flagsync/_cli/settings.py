"""Options that commands share, and the configuration from the environment.

Guarantee: the rules are those of ``FlagSync.from_env``, and so are their texts.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Annotated

import typer
from flagsmith import Flagsmith
from flagsmith.offline_handlers import LocalFileHandler
from flagsmith.polling_manager import EnvironmentDataPollingManager

from flagsync._cli.failure import Failure, failing_on
from flagsync._client import FlagSync
from flagsync._environment import Environment, EnvironmentOptions, read_environment
from flagsync._messages import refresher
from flagsync._options import Options, Tuning
from flagsync._rules import require

CONFIGURATION = "https://github.com/flagsync/flagsync/blob/main/docs/configuration.md"
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
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        name = type(error).__name__
        what = f"{error}" if isinstance(error, OSError | json.JSONDecodeError) else f"{name}: {error}"
        raise Failure(
            f"--document: {document} is not an environment document of Flagsmith ({what}); download it from "
            "…/api/v1/environment-document/ with a server-side key"
        ) from error
    return {"offline_mode": True, "offline_handler": handler}


def options_of(environment: Environment) -> Options:
    """Return the options that a client would have. Their rules are not checked."""
    given = {**(FlagSync.__init__.__kwdefaults__ or {}), **environment.flagsync}
    return Options(token=given.pop("mixpanel_token"), tuning=Tuning(), **given)


def project_of(options: Options) -> str:
    """Return a text that tells Mixpanel projects apart, without being a token."""
    where = options.destination(options.token or "")
    return blake2b(f"{where.url} {where.project}".encode(), digest_size=8).hexdigest()


@contextmanager
def flagsmith_client(document: Path | None) -> Iterator[Flagsmith]:
    """Build the Flagsmith client of the environment, and end its thread.

    Raises:
        Failure: A variable is missing or wrong.
    """
    environment = read_environment({**flagsmith_options(document), "mixpanel_token": None, "outbox": None})
    with failing_on(ValueError):
        require(environment.rules)
        flagsmith = Flagsmith(**environment.flagsmith)
    try:
        yield flagsmith
    finally:
        if isinstance(thread := refresher(flagsmith), EnvironmentDataPollingManager):
            thread.stop()
