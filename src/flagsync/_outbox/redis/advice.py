"""Settings of a server that lose messages."""

from collections.abc import Mapping, Sequence
from typing import cast

from flagsync._outbox.redis.server import Server

EVICTS = (
    "The Redis server of the outbox deletes keys of any kind when its memory is full (maxmemory-policy {}), and then "
    "all pending updates at once; set maxmemory-policy to noeviction"
)
FORGETS = (
    "The Redis server of the outbox writes nothing to its disk (appendonly no, no save), and loses all pending updates "
    "when it restarts; set appendonly to yes"
)


def advice(server: Server, seconds: float) -> list[str]:
    """Return what to warn of; nothing if the server does not tell, as managed services do."""
    try:
        policy = _setting(server, "maxmemory-policy", seconds)
        is_forgetful = [_setting(server, name, seconds) for name in ("appendonly", "save")] == ["no", ""]
    except OSError:
        return []
    # Policies that begin with "volatile" evict keys that expire, and none of ours does.
    evicts = [EVICTS.format(policy)] if policy.startswith("allkeys") else []
    return evicts + [FORGETS] * is_forgetful


def _setting(server: Server, name: str, seconds: float) -> str:
    """Return a setting; empty if the server has none of this name."""
    reply = server.execute("CONFIG GET", name, seconds=seconds)
    # A client of the application makes a dictionary of it, and so does version 3 of the protocol.
    values = [*reply.values()] if isinstance(reply, Mapping) else cast("Sequence[object]", reply)[1::2]
    value = values[0] if values else ""
    return value.decode() if isinstance(value, bytes) else str(value)
