"""The command, which runs the checks and prints them."""

from collections.abc import Callable
from typing import Annotated

import typer
from rich.text import Text

from flagsync._cli.doctor import flagsmith, mixpanel, system
from flagsync._cli.doctor.check import Check
from flagsync._cli.doctor.facts import Facts, gather
from flagsync._cli.failure import WRONG
from flagsync._cli.settings import Document, Json
from flagsync._cli.terminal import plain, say, show, show_json, table

CHECKS: tuple[Callable[[Facts], Check | None], ...] = (
    system.configuration,
    system.mirroring,
    flagsmith.key,
    flagsmith.document,
    flagsmith.features,
    flagsmith.flapping,
    flagsmith.properties,
    mixpanel.host,
    mixpanel.token,
    mixpanel.clock,
    system.network,
    system.outbox,
)
EXAMPLES = ("flagsync doctor", "flagsync doctor --document environment.json --offline --json")


def doctor(
    *,
    document: Document = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Make no request to Flagsmith or Mixpanel.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check the configuration, and say what to do.

    It makes two requests, which change nothing, and says so before: Flagsmith is asked for the environment document,
    and Mixpanel whether it accepts the token. The exit code is 1 if a check fails.
    """
    facts = gather(document, say, offline=offline)
    found = [check for function in CHECKS if (check := function(facts)) is not None]
    if as_json:
        show_json({"checks": [check._asdict() for check in found]})
    else:
        show(table(("", "check", "result"), (_row(check) for check in found)))
    if not all(check.ok for check in found):
        raise typer.Exit(WRONG)


def _row(check: Check) -> tuple[Text, str, Text]:
    mark = Text("ok", "green") if check.ok else Text("wrong", "bold red")
    result = Text(plain(check.detail))
    if check.remedy:
        result.append(f"\n→ {plain(check.remedy)}", "bold")
    return mark, check.name.replace("_", " "), result
