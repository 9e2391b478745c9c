"""``flagsync preview``: what would be mirrored for an identity, and why each flag has its value.

Guarantee: the properties are those that a client would send, made by the same encoder. Mixpanel gets nothing, and
Flagsmith stores nothing. Boundary: options that only code can set, such as ``property_name``, and cohorts are unknown.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer
from flagsmith.exceptions import FlagsmithAPIError
from flagsmith.models import Flag, Flags

from flagsync._cli.failure import WRONG, Failure
from flagsync._cli.settings import Document, Json, flagsmith_client, options_of
from flagsync._cli.terminal import say, show, show_json, table
from flagsync._cli.traits import traits_of
from flagsync._encoding.distinct_id import NotMirrored
from flagsync._encoding.evaluation import context_of, evaluate
from flagsync._encoding.inbox import NOT_MIRRORED
from flagsync._encoding.pacer import Pacer
from flagsync._encoding.variant import OUTSIDE, OVERRIDE, SPLIT
from flagsync._environment import read_environment
from flagsync._messages import no_answer
from flagsync._pipeline import profile_encoder
from flagsync._report import Reporter, described

NO_TOKEN = "preview"  # noqa: S105 - it is none; nothing is sent
SEGMENT = "TARGETING_MATCH; segment="
DEFAULTS = {"STATIC": "default", OUTSIDE: "no segment matches"}
NO_REASONS = (
    "Remote answers and flagsmith 6.1 do not say why: use local evaluation or --document, and a newer flagsmith"
)
SHOWN_CHARACTERS = 24  # of a value; --json has all of it
EXAMPLES = (
    "flagsync preview user_42 -t plan=pro -t age:int=30",
    "flagsync preview user_42 --document environment.json --json",
)


def preview(
    identifier: Annotated[str, typer.Argument(metavar="ID", show_default=False, help="The identifier.")],
    *,
    trait: Annotated[
        list[str] | None,
        typer.Option(
            "--trait",
            "-t",
            metavar="NAME=VALUE",
            show_default=False,
            help="A trait; repeatable. Its value is text, unless name:int=…, :float= or :bool= gives a type.",
        ),
    ] = None,
    document: Document = None,
    as_json: Json = False,
) -> None:
    """Show what would be mirrored for an identity, and why each flag has its value. Sends nothing.

    Under remote evaluation, Flagsmith is asked with a transient identity, of which it stores nothing.
    """
    traits = traits_of(trait or ())
    with flagsmith_client(document) as flagsmith:
        try:
            flags = flagsmith.get_identity_flags(identifier, traits, transient=True)
            evaluated = _evaluated(flags)
        except FlagsmithAPIError as error:
            raise Failure(no_answer(error) or f"{error}", WRONG) from error
        except Exception as error:
            raise Failure(f"Flagsmith cannot evaluate this identity ({described(error)})", WRONG) from error
    record = _record(identifier, flags)
    properties = {} if isinstance(record, NotMirrored) else record["$set"]
    distinct_id = None if isinstance(record, NotMirrored) else record["$distinct_id"]
    if as_json:
        shown = [_shown(flag, properties) for flag in evaluated]
        show_json({"distinct_id": distinct_id, "properties": properties, "flags": shown})
    else:
        _show(distinct_id, properties, evaluated)
    if isinstance(record, NotMirrored):
        raise Failure(NOT_MIRRORED.format(record.detail or record.reason), WRONG)


def _evaluated(flags: Flags) -> list[Flag]:
    """Return all flags, evaluated as the encoder does."""
    context = context_of(flags)
    return flags.all_flags() if context is None else evaluate(context)


def _record(identifier: str, flags: Flags) -> dict[str, Any] | NotMirrored:
    """Return the update that Mixpanel would get, or why it would get none."""
    options = options_of(read_environment({"mixpanel_token": None, "outbox": None}))
    encoder = profile_encoder(options, NO_TOKEN, Pacer(), Reporter(None))
    distinct_id = encoder.distinct_id(identifier)
    if isinstance(distinct_id, NotMirrored):
        return distinct_id
    message = encoder.encode(distinct_id, encoder.calls.make(identifier, flags), None)
    if isinstance(message, NotMirrored):
        return message
    record: dict[str, Any] = json.loads(message.record)
    return record


def _shown(flag: Flag, properties: Mapping[str, Any]) -> dict[str, Any]:
    """Return a flag as JSON has it."""
    reason = _reason(flag)
    is_segment = reason is not None and reason.startswith(SEGMENT) and reason != OVERRIDE
    return {
        "name": flag.feature_name,
        "enabled": flag.enabled,
        "value": flag.value,
        "variant": flag.variant,
        "reason": reason,
        "segment": reason.removeprefix(SEGMENT) if reason and is_segment else None,
        "is_mirrored": flag.feature_name in properties,
    }


def _reason(flag: Flag) -> str | None:
    return getattr(flag, "reason", None)  # flagsmith 6.1 has none


def _why(flag: Flag) -> str:
    """Say why a flag has its value."""
    if (reason := _reason(flag)) is None:
        return "not said"
    if reason == OVERRIDE:
        return "override of this identity"
    if reason.startswith(SEGMENT):
        return f"segment {reason.removeprefix(SEGMENT)}"
    if reason.startswith(SPLIT):
        return f"split, {reason.rpartition('weight=')[2].removesuffix('.0')} %"
    return DEFAULTS.get(reason, reason)


def _show(distinct_id: str | None, properties: Mapping[str, Any], flags: Sequence[Flag]) -> None:
    """Print the flags as a table."""
    show(f"Profile: {distinct_id or 'none'}", "")
    rows = ((flag.feature_name, _value(flag, properties), flag.variant or "", _why(flag)) for flag in flags)
    show(table(("property", "value", "variant", "why"), rows))
    if flags and all(_reason(flag) is None for flag in flags):
        say(NO_REASONS)


def _value(flag: Flag, properties: Mapping[str, Any]) -> str:
    """Return the value of a flag's property, as it is sent."""
    if flag.feature_name not in properties:
        return "(not mirrored)"
    text = json.dumps(properties[flag.feature_name], ensure_ascii=False)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[: SHOWN_CHARACTERS - 1]}…"
