"""``python -m flagsync.testing [--port N]``: a loopback Mixpanel that shows what arrives, until Ctrl-C or SIGTERM.

Guarantee: no token is shown.
"""

import signal
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from threading import TIMEOUT_MAX
from time import strftime
from typing import Any

from flagsync.testing.events import complaint as event_complaint
from flagsync.testing.mixpanel import MixpanelServer, Request
from flagsync.testing.updates import complaint

MAX_SHOWN = 20  # updates or events of a request
STARTED = """\
Mixpanel on loopback: {url}

Send updates to it, from another terminal:
    FlagSync(flagsmith, "any-token", mixpanel_url="{url}")
    MIXPANEL_URL={url}    for FlagSync.from_env()

Waiting for updates and events. Press Ctrl-C to stop.
"""


def main(arguments: Sequence[str] | None = None, show: Callable[[str], None] | None = None) -> int:
    """Serve until Ctrl-C; return the exit status.

    Args:
        arguments: The command line arguments.
        show: Called with each text; the default prints it.
    """
    show = show or _print
    parser = ArgumentParser(
        "python -m flagsync.testing", description="Serve a loopback Mixpanel and show what arrives."
    )
    parser.add_argument("--port", type=int, default=0, help="the port to listen on (default: a free one)")
    port = parser.parse_args(arguments).port
    try:
        server = MixpanelServer(port)
    except (OSError, OverflowError) as error:
        parser.error(f"port {port} cannot be used ({error}); pass another one, or none")
    requests = 0
    try:
        show(STARTED.format(url=server.url))
        while True:
            server.wait_for_requests(1, TIMEOUT_MAX)
            requests += 1
            show("\n".join(lines(server.requests.pop(0))))
    except KeyboardInterrupt:
        with suppress(KeyboardInterrupt):  # Ctrl-C again
            server.close()
            profiles, events = _count(len(server.profiles), "profile"), _count(len(server.events), "event")
            show(f"\n{_count(requests, 'request')}, {profiles}, {events}")
    return 0


def lines(request: Request) -> Iterator[str]:
    """Describe a request: a line for it, for each profile or event, and for each property."""
    has_events = request.path.startswith(("/track", "/import"))
    what, find = ("event", event_complaint) if has_events else ("update", complaint)
    yield f"{strftime('%H:%M:%S')}  {request.method} {request.path}  {_count(len(request.updates), what)}"
    if not request.updates:
        yield f"    refused: the body is not a JSON array of {what}s"
    for update in request.updates[:MAX_SHOWN]:
        if (error := find(update)) is not None:
            yield f"    refused: {error}"
        elif "event" in update:
            properties = dict(update["properties"])
            yield f"    {properties.pop('distinct_id', '')}  {update['event']}"
            yield from _operations({"$set": {name: properties[name] for name in properties if name != "token"}})
        else:
            yield f"    {update['$distinct_id']}"
            yield from _operations(update)
    if (more := len(request.updates) - MAX_SHOWN) > 0:
        yield f"    and {_count(more, f'further {what}')}"


def _print(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _operations(update: Mapping[str, Any]) -> Iterator[str]:
    properties = {**update.get("$set", {}), **dict.fromkeys(map(str, update.get("$unset", ())), "(removed)")}
    width = max(map(len, properties), default=0)
    return (f"        {name:{width}}  {value!r}" for name, value in properties.items())


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
    sys.exit(main())
