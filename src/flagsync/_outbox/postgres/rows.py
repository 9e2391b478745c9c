"""Rows that a change reads together and writes together."""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from hashlib import blake2b

from flagsync._outbox.contract import Destination, Message, Repeat
from flagsync._outbox.judge import Known
from flagsync._outbox.postgres import schema as sql
from flagsync._postgres.database import Transaction

DIGEST_BYTES = 16


class Rows:
    """The last message of each of some keys, and messages that wait, as they will be in the tables.

    Args:
        transaction: A transaction that has the lock of the store.
        keys: The messages or repeats of those keys.
        last_version: The highest version given so far.
    """

    def __init__(
        self, transaction: Transaction, keys: Iterable[Message | Repeat], last_version: int = 0
    ) -> None:
        self._transaction, self.last_version = transaction, last_version
        self._new: dict[bytes, tuple[int, Known]] = {}
        self._touched: dict[bytes, Known] = {}
        self._waiting: dict[tuple[int, int], Sequence[object]] = {}  # by destination and version
        self._removed: list[tuple[int, int]] = []
        self._tails: dict[bytes, bytes] = {}
        digests = [digest_of(key.destination, key.key) for key in keys]
        self.known = {row[0]: Known(*row[1:]) for row in transaction.rows(sql.KNOWN, digests)}

    def note(self, number: int, digest: bytes, known: Known) -> None:
        """Note the last message of a key."""
        self.known[digest] = known
        self._new[digest] = number, known
        self._touched.pop(digest, None)

    def touch(self, digest: bytes, known: Known) -> None:
        """Note a later evaluation with the same result."""
        self.known[digest] = known
        if digest in self._new:
            self._new[digest] = self._new[digest][0], known
        else:
            self._touched[digest] = known

    def wait(self, number: int, digest: bytes, known: Known, message: Message) -> None:
        """Let a message wait."""
        if tail := digest_of_tail(message.tail):
            self._tails[tail] = message.tail
        when = known.boot, known.evaluated_at, known.moment, known.resend_after_seconds
        content = len(message.body) + len(message.tail), message.replaces, digest, as_bytes(message.key)
        row = number, known.version, *when, known.account, *content, known.fingerprint, tail, message.body
        self._waiting[number, known.version] = row

    def remove(self, number: int, version: int) -> None:
        """Let a message wait no longer."""
        if self._waiting.pop((number, version), None) is None:
            self._removed.append((number, version))

    def write(self, boot: int, account: int, now: float, ahead: float) -> None:
        """Write what was noted.

        Args:
            boot: The number of this host's boot.
            account: The account of this process.
            now: The time by the server's clock.
            ahead: How far that clock is ahead of this host's.
        """
        run = self._transaction.run
        self._write_tails()
        if self._removed:
            run(sql.REMOVE, *columns(self._removed))
        if self._waiting:
            self._transaction.copy(sql.NEW_WAITING, [*sql.WAITING.values()], self._waiting.values())
        if self._new:
            new = columns(
                (digest, number, known.version, *_evaluated(known), known.fingerprint, *_ends(known))
                for digest, (number, known) in self._new.items()
            )
            run(sql.NOTE_LATEST, boot, account, ahead, now, *new)
        if self._touched:
            touched = ((digest, *_evaluated(known)) for digest, known in self._touched.items())
            run(sql.TOUCH, boot, ahead, *columns(touched))

    def _write_tails(self) -> None:
        if self._tails:
            used = {row[0] for row in self._transaction.rows(sql.USE_TAILS, self.last_version, [*self._tails])}
            if new := [tail for tail in self._tails if tail not in used]:
                contents = [self._tails[tail] for tail in new]
                self._transaction.run(sql.NEW_TAILS, self.last_version, new, contents)


def _evaluated(known: Known) -> tuple[float, int | None]:
    return known.evaluated_at, known.evaluation


def _ends(known: Known) -> tuple[float, int]:
    return known.resend_after_seconds, known.waits


def columns(rows: Iterable[Iterable[object]]) -> list[list[object]]:
    """Return the columns of some rows, which become arrays."""
    return [[*column] for column in zip(*rows, strict=True)]


def as_bytes(text: str) -> bytes:
    """Return any text as bytes, whatever the encoding of a database."""
    return text.encode("utf-8", "surrogatepass")


def as_text(content: bytes) -> str:
    """Undo ``as_bytes``."""
    return content.decode("utf-8", "surrogatepass")


def digest_of(destination: Destination, key: str) -> bytes:
    """Return a digest of a destination and a key."""
    return blake2b(as_bytes(key), digest_size=DIGEST_BYTES, key=_digest_of(destination)).digest()


def digest_of_tail(tail: bytes) -> bytes:
    """Return a digest of a tail; an empty one of an empty tail, which needs no row."""
    return _digest_of_tail(tail) if tail else b""


@lru_cache(maxsize=64)
def _digest_of(destination: Destination) -> bytes:
    parts = [as_bytes(part) for part in destination]
    return blake2b(b"".join([len(parts[0]).to_bytes(8), *parts]), digest_size=DIGEST_BYTES).digest()


@lru_cache(maxsize=8)
def _digest_of_tail(tail: bytes) -> bytes:
    return blake2b(tail, digest_size=DIGEST_BYTES).digest()


def destination_of(url: bytes, project: bytes) -> Destination:
    """Return the destination of two columns."""
    return Destination(as_text(url), as_text(project))
