"""Messages, as the scripts take and return them: numbers of fixed sizes, and then the texts."""

from collections.abc import Mapping
from functools import lru_cache
from hashlib import blake2b
from struct import Struct
from typing import NamedTuple

from flagsync._outbox.contract import Destination, Message, Repeat
from flagsync._outbox.redis.server import Argument

# The place of the destination in the call, whether it replaces others, whether its evaluation is known, the sizes of
# fingerprint and key, when it was evaluated, the evaluation, for how many seconds it counts as accepted, and its tail.
# Fingerprint, key and body follow.
HEAD = Struct(">HBBBId8sd16s")
# The place of the destination in the call, when it was evaluated, and the evaluation; the key follows.
REPEAT = Struct(">Hd8s")
# What the scripts put before a message: account, when it was evaluated on the server's clock, and boot.
RECORD = Struct(">8sd6s")
# Boot, and when it was evaluated on the clocks of that host and of the server.
EVALUATED = Struct(">6sdd")
UNKNOWN, ACCOUNT_BYTES = bytes(8), 8


class Now(NamedTuple):
    """One moment on the clocks of this host and of the server, and the boot of this host."""

    boot: bytes
    here: float
    there: float

    def here_at(self, boot: bytes, evaluated_at: float, there: float) -> float:
        """Return when something was evaluated, on the clock of this host."""
        return evaluated_at if boot == self.boot else self.here - (self.there - there)


def packed(message: Message, place: int) -> bytes:
    """Return a message, as the scripts take it."""
    key = encoded(message.key)
    about = message.replaces, message.evaluation is not None, len(message.fingerprint), len(key)
    when = message.evaluated_at, _encoded(message.evaluation), message.resend_after_seconds
    head = HEAD.pack(place, *about, *when, digest_of(message.tail))
    return b"".join((head, message.fingerprint, key, message.body))


def packed_repeat(repeat: Repeat, place: int) -> bytes:
    """Return a repeat, as the scripts take it."""
    return REPEAT.pack(place, repeat.evaluated_at, _encoded(repeat.evaluation)) + encoded(repeat.key)


def settled_of(message: Message, account: bytes) -> tuple[Argument, ...]:
    """Return what the scripts must know of a message that is settled."""
    return message.version, account + bytes([message.replaces]), encoded(message.key), digest_of(message.tail)


def message_of(
    record: bytes,
    *,
    version: int,
    evaluated: bytes,
    destination: Destination,
    tails: Mapping[bytes, bytes],
    now: Now,
) -> Message:
    """Return the message of a record.

    Args:
        record: Made by a script.
        version: It is given by the queue.
        evaluated: When an equal message was evaluated last; empty if that is unknown.
        destination: Where it goes.
        tails: Contents by digest.
        now: When the record was read.
    """
    _, since, boot = RECORD.unpack_from(record)
    _, replaces, _, fingerprint_size, key_size, evaluated_at, _, resend, tail = HEAD.unpack_from(
        record, RECORD.size
    )
    key_at = (fingerprint_at := RECORD.size + HEAD.size) + fingerprint_size
    when = EVALUATED.unpack(evaluated) if evaluated else (boot, evaluated_at, since)
    return Message(
        decoded(record[key_at : key_at + key_size]),
        record[fingerprint_at:key_at],
        record[key_at + key_size :],
        now.here_at(*when),
        destination,
        resend,
        tail=tails[tail],
        replaces=bool(replaces),
        version=version,
    )


def encoded(text: str) -> bytes:
    """Return a text as bytes, lone surrogates included."""
    return text.encode("utf-8", "surrogatepass")


def decoded(text: bytes) -> str:
    """Undo ``encoded``."""
    return text.decode("utf-8", "surrogatepass")


def name_of(destination: Destination) -> bytes:
    """Return the text that stands for a destination."""
    return b"\0".join(map(encoded, destination))


def destination_of(name: bytes) -> Destination:
    """Undo ``name_of``. No URL contains NUL."""
    url, _, project = decoded(name).partition("\0")
    return Destination(url, project)


@lru_cache(maxsize=16)  # many messages have the same tail, which may be long
def digest_of(tail: bytes) -> bytes:
    return blake2b(tail, digest_size=16).digest()


def _encoded(evaluation: int | None) -> bytes:
    return UNKNOWN if evaluation is None else evaluation.to_bytes(8, signed=True)
