"""``flagsync outbox``: looks into an outbox, and delivers its pending messages.

Guarantee: nothing but ``drain`` sends or changes anything; ``peek`` shows no personal data unless it is told to; no
token is shown.
"""

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from hashlib import blake2b
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer

from flagsync._cli.commands import new_group, register
from flagsync._cli.drain import drain as deliver
from flagsync._cli.failure import WRONG, Failure
from flagsync._cli.settings import Json
from flagsync._cli.stores import Place, Store, opened, shown_url
from flagsync._cli.terminal import age, count, masked, say, show, show_json, table
from flagsync._clock import monotonic
from flagsync._outbox.contract import Message
from flagsync._outbox.place import stats_of_totals
from flagsync._stats import OUTCOMES

DRAIN_SECONDS = 60.0
DIGEST_KEY = os.urandom(16)  # each time another one, so that nobody can find out whose digest it is
SHOWN_MESSAGES = 20
# What a person sees of a message; JSON has more.
COLUMNS = {
    "version": "version",
    "kind": "kind",
    "distinct_id": "profile",
    "distinct_id_digest": "digest",
    "properties": "properties",
    "bytes": "bytes",
    "url": "destination",
}
TOKENS = ("$token", "token")


def stats(place: Place, *, as_json: Json = False) -> None:
    """Count what became of all updates and exposures, and say how long the oldest pending one has waited."""
    with opened(place) as store:
        counts = asdict(stats_of_totals(store.totals))
    names, exposures = ("accepted", *OUTCOMES, "pending"), counts["exposures"]
    if as_json:
        of_updates = {name: counts[name] for name in names}
        of_exposures = {name: exposures[name] for name in names if name in exposures}
        show_json({**of_updates, "oldest_seconds": _oldest_seconds(store), "exposures": of_exposures})
        return
    rows = ((name, f"{counts[name]:,}", f"{exposures.get(name, 0):,}") for name in names)
    show(table(("outcome", "updates", "exposures"), rows, numbers=("updates", "exposures")))
    show("", _pending(store))


def drain(
    place: Place,
    *,
    timeout: Annotated[
        float, typer.Option(min=0.0, metavar="SECONDS", help="How long to try.", show_default=True)
    ] = DRAIN_SECONDS,
    as_json: Json = False,
) -> None:
    """Deliver the pending messages, for example as the last step of a container.

    It needs neither Flagsmith nor a token, since each message has the token of its project. While another process sends
    from the outbox, it waits for that one. The exit code is 1 if messages are still pending, or Mixpanel rejected some.
    """
    with opened(place) as store:
        if store.status.pending:
            say(f"{_pending(store)} Delivering for at most {timeout:g} seconds.")
            deliver(store.backend, monotonic() + timeout)
        left = store.again()
    before, after = store.totals.every, left.totals.every
    done = {name: getattr(after, name) - getattr(before, name) for name in ("delivered", "rejected")}
    if as_json:
        show_json({**done, "pending": left.status.pending, "oldest_seconds": _oldest_seconds(left)})
    else:
        show(
            f"{count(done['delivered'], 'message')} delivered, {done['rejected']:,} rejected by Mixpanel.",
            _pending(left),
        )
    if left.status.pending or done["rejected"]:
        raise typer.Exit(WRONG)


def peek(
    place: Place,
    *,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="How many messages to show.")] = SHOWN_MESSAGES,
    reveal: Annotated[
        bool, typer.Option("--reveal", help="Show identifiers and values, which are personal data.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show the pending messages, the oldest first; without identifiers and values unless --reveal is given."""
    with opened(place) as store:
        messages = sorted(chain(*store.waiting(limit)), key=lambda message: message.version)[:limit]
    shown = [_described(message, reveal=reveal) for message in messages]
    if as_json:
        show_json(
            {"pending": store.status.pending, "oldest_seconds": _oldest_seconds(store), "messages": shown}
        )
        return
    if shown:
        rows = ([_cell(one[name]) for name in one if name in COLUMNS] for one in shown)
        headings = [COLUMNS[name] for name in shown[0] if name in COLUMNS]
        show(table(headings, rows, numbers=("version", "properties", "bytes")))
        for one in shown if reveal else ():
            show("", json.dumps(one["record"], ensure_ascii=False))
        show("")
    show(_pending(store))


def export(
    place: Place,
    *,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", dir_okay=False, help="A new file in place of stdout."),
    ] = None,
) -> None:
    """Write the pending messages as JSON lines, with identifiers and values, but tokens masked. They stay pending."""
    written = 0
    with opened(place) as store, _lines_to(output) as file:
        for message in chain.from_iterable(store.waiting()):
            file.write(json.dumps(_described(message, reveal=True)) + "\n")
            written += 1
    say(f"{count(written, 'message')} exported.")


def _described(message: Message, *, reveal: bool) -> dict[str, Any]:
    """Return what is shown of a message; without personal data unless ``reveal``.

    Raises:
        Failure: Something else than flagsync has written the message, or changed it.
    """
    try:
        record = dict[str, Any]()
        for one in json.loads(b"[%b]" % message.record):  # one that removes properties may come first
            record |= one
        return _description(message, record, reveal=reveal)
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise Failure(f"outbox: message {message.version} is damaged and cannot be shown", WRONG) from error


def _description(message: Message, record: Mapping[str, Any], *, reveal: bool) -> dict[str, Any]:
    where, of_profile = message.destination, message.replaces
    digest = blake2b(message.distinct_id.encode(), digest_size=6, key=DIGEST_KEY).hexdigest()
    properties = record.get("$set", {}) if of_profile else record["properties"]
    described = {
        "version": message.version,
        "kind": "profile" if of_profile else "exposure",
        **({"distinct_id": message.distinct_id} if reveal else {"distinct_id_digest": digest}),
        "properties": len(properties) + len(record.get("$unset", ())),
        "bytes": len(message.record),
        "project": where.project,
        "url": shown_url(where.url),
    }
    return {**described, "record": _without_token(record)} if reveal else described


def _cell(value: str | int) -> str:
    """Return what a table has of a value: of a URL, what tells one from another."""
    return f"{value}".removeprefix("https://")


def _without_token(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record whose token is masked, in the record itself or in the properties of an event."""
    found: dict[str, Any] = {
        name: masked(f"{value}") if name in TOKENS else value for name, value in record.items()
    }
    return {**found, "properties": _without_token(found["properties"])} if "event" in found else found


def _oldest_seconds(store: Store) -> float | None:
    return store.status.oldest_seconds if store.status.pending else None


def _pending(store: Store) -> str:
    pending = store.status.pending
    return (
        f"{count(pending, 'message')} pending, the oldest for {age(store.status.oldest_seconds)}."
        if pending
        else "Nothing is pending."
    )


@contextmanager
def _lines_to(path: Path | None) -> Iterator[TextIO]:
    """Open a new file that only its owner can read, or stdout."""
    if path is None:
        yield sys.stdout
        sys.stdout.flush()
        return
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise Failure(f"--output: {path} cannot be created ({error.strerror}); name a new file") from error
    with open(descriptor, "w", encoding="utf-8") as file:  # noqa: PTH123 - it is not a path
        yield file


app = new_group("Look into an outbox, and deliver its pending messages.")
register(app, stats, "flagsync outbox stats flagsync.db", "flagsync outbox stats --json")
register(
    app, drain, "flagsync outbox drain flagsync.db", "flagsync outbox drain flagsync.db --timeout 20 --json"
)
register(app, peek, "flagsync outbox peek flagsync.db", "flagsync outbox peek flagsync.db --limit 3 --reveal")
register(
    app,
    export,
    "flagsync outbox export flagsync.db > pending.jsonl",
    "flagsync outbox export flagsync.db -o pending.jsonl",
)
