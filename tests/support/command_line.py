"""The command line as a person uses it, and outboxes with messages to look at."""

import json
from hashlib import blake2b
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

from typer.testing import CliRunner

from flagsync._cli.app import app
from flagsync._outbox.contract import Destination, Message
from flagsync._outbox.sqlite import SQLiteBackend

ENTRY = "import sys; from flagsync._cli import main; sys.exit(main())"
TOKEN = "0123456789abcdef0123456789abcdef"


class Ran(NamedTuple):
    """How a command has ended.

    Attributes:
        code: The exit code.
        out: What it has written to stdout.
        err: What it has written to stderr.
    """

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON object on stdout."""
        return json.loads(self.out)


def run(*arguments: object) -> Ran:
    """Run a command in this process, without a terminal. Nothing but its end may be raised."""
    result = CliRunner().invoke(app, [f"{argument}" for argument in arguments], prog_name="flagsync")
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.stderr
    return Ran(result.exit_code, result.stdout, result.stderr)


def profile(distinct_id: str, url: str = "http://127.0.0.1:9", **properties: Any) -> Message:
    """Return an update of a profile, as the encoder makes it."""
    update = {"$token": TOKEN, "$distinct_id": distinct_id, "$set": properties or {"beta": True}}
    return _message(distinct_id, update, Destination(f"{url}/engage", "project"), replaces=True)


def exposure(distinct_id: str, url: str = "http://127.0.0.1:9") -> Message:
    """Return the event of an exposure, as the encoder makes it."""
    properties = {
        "token": TOKEN,
        "distinct_id": distinct_id,
        "Experiment name": "checkout",
        "Variant name": "new",
    }
    event = {"event": "$experiment_started", "properties": properties}
    return _message(f"{distinct_id}\0checkout", event, Destination(f"{url}/track", "project"), replaces=False)


def store(path: Path, *messages: Message) -> Path:
    """Store messages in an outbox file, in this order; return its path."""
    backend = SQLiteBackend(path)
    for some in [[message] for message in messages] or [[]]:
        backend.store(some, (), (), monotonic() + 10)
    backend.close()
    return path


def _message(key: str, record: object, where: Destination, *, replaces: bool) -> Message:
    body = json.dumps(record).encode()
    fingerprint = blake2b(body, digest_size=16).digest()
    return Message(key, fingerprint, body[:-2], monotonic(), where, 300.0, tail=body[-2:], replaces=replaces)
