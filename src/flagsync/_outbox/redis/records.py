"""Messages, as the scripts take and return them: numbers of fixed sizes, and then the texts."""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from hashlib import blake2b
from struct import Struct
from typing import NamedTuple

from flagsync._outbox.contract import Destination, Message, Repeat

# The place of the destination in the call, whether it replaces others, whether its evaluation is known, the sizes of
# fingerprint, key and body, when it was evaluated, the evaluation, for how many seconds it counts as accepted, and its
# tail. Fingerprint, key and body follow.
HEAD = Struct(">HBBBIId8sd16s")
# The place of the destination in the call, when it was evaluated, the evaluation, and the size of the key. The key
# follows.
REPEAT = Struct(">Hd8sI")
# Before a message that is claimed: its version, whether it is the latest of its key, and if so boot and time of its
# last evaluation on the clocks of the host and of the server, since an equal message may have been evaluated later.
CLAIMED = Struct(">dB6sdd")
# What the scripts keep before a message (account, when it was evaluated on the server's clock, and boot), and the
# message up to its texts.
RECORD = Struct(">8sd6s" + HEAD.format[1:])
# Version, account, whether it replaces others, its tail, and the size of the key, which follows.
SETTLED = Struct(">d8sB16sI")
UNKNOWN = bytes(8)


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
    about = message.replaces, message.evaluation is not None
    sizes = len(message.fingerprint), len(key), len(message.body)
    when = message.evaluated_at, _encoded(message.evaluation), message.resend_after_seconds
    head = HEAD.pack(place, *about, *sizes, *when, digest_of(message.tail))
    return b"".join((head, message.fingerprint, key, message.body))


def packed_repeat(repeat: Repeat, place: int) -> bytes:
    """Return a repeat, as the scripts take it."""
    key = encoded(repeat.key)
    return REPEAT.pack(place, repeat.evaluated_at, _encoded(repeat.evaluation), len(key)) + key


def packed_settled(message: Message, account: bytes) -> bytes:
    """Return what the scripts must know of a message that is settled."""
    key = encoded(message.key)
    return SETTLED.pack(message.version, account, message.replaces, digest_of(message.tail), len(key)) + key


def messages_of(
    found: bytes, destination: Destination, tails: Mapping[bytes, bytes], now: Now
) -> Iterator[tuple[bytes, Message]]:
    """Yield the messages that were claimed, each with its account.

    Args:
        found: The messages, as a script returns them.
        destination: Where they go.
        tails: Contents by digest.
        now: When they were read.
    """
    begin = 0
    while begin < len(found):
        version, is_latest, *latest = CLAIMED.unpack_from(found, begin)
        account, there, boot, *head = RECORD.unpack_from(found, record_at := begin + CLAIMED.size)
        _, replaces, _, fingerprint_size, key_size, body_size, evaluated_at, _, resend, tail = head
        when = latest if is_latest else (boot, evaluated_at, there)
        key_at = (fingerprint_at := record_at + RECORD.size) + fingerprint_size
        begin = (body_at := key_at + key_size) + body_size
        message = Message(
            decoded(found[key_at:body_at]),
            found[fingerprint_at:key_at],
            found[body_at:begin],
            now.here_at(*when),
            destination,
            resend,
            tail=tails[tail],
            replaces=bool(replaces),
            version=int(version),
        )
        yield account, message


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
