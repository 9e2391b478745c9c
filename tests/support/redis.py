"""Redis backends of tests: other hosts, and another time on the server."""

from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha1
from itertools import count
from time import monotonic

import pytest

from flagsync._outbox.options import StoreBounds
from flagsync._outbox.redis import RedisBackend, backend, scripts
from flagsync._outbox.redis.url import parse

CLOCK = "local now = "
read_script = scripts.script.__wrapped__  # of functools.cache
NUMBERS = count()
BOUNDS = StoreBounds()


def new_namespace() -> str:
    """Return the name of a store that nobody has used."""
    return f"test {next(NUMBERS)}"


def backend_at(url: str, namespace: str, bounds: StoreBounds = BOUNDS) -> RedisBackend:
    """Return the backend of another process."""
    server, _ = parse(url)
    return RedisBackend(server, namespace, bounds)


def move_clock(patch: pytest.MonkeyPatch, seconds: float) -> None:
    """Let the server's clock be ahead by some seconds, for all scripts from now on."""

    def moved(name: str) -> tuple[str, str]:
        text, _ = read_script(name)
        text = text.replace(CLOCK, f"{CLOCK}{seconds!r} + ", 1)
        return text, sha1(text.encode()).hexdigest()

    patch.setattr(scripts, "script", moved)


@contextmanager
def on_host(one: RedisBackend, boot: bytes, ahead: float) -> Iterator[None]:
    """Call a backend on another host, whose monotonic clock is ahead of this one."""
    one._process.get().boot = boot
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backend, "monotonic", lambda: monotonic() + ahead)
        yield
