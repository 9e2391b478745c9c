"""A client, as a backfill uses it; the only module of the folder that knows its insides.

Guarantee: what is submitted is evaluated and sent by the client's own threads, in its own order and outbox.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from flagsmith.exceptions import FlagsmithAPIError
from flagsmith.models import Flags

from flagsync._client import FlagSync
from flagsync._encoding.distinct_id import NotMirrored, distinct_id_of
from flagsync._encoding.evaluation import context_of, is_evaluated
from flagsync._encoding.pacer import WHILE_SOMEBODY_WAITS, Pacer
from flagsync._messages import status_of
from flagsync._pipeline import profile_encoder
from flagsync._report import Reporter
from flagsync._rules import require, shown
from flagsync.bulk.report import Result
from flagsync.bulk.rows import Row
from flagsync.bulk.settling import Settling

# A remote Flagsmith answers these if it cannot evaluate this one identity.
REFUSED = (400, 413, 414, 422)
NO_FLAGS = "Flagsmith evaluated no flags"
NO_TOKEN = "a-dry-run"  # noqa: S105 - nothing is sent with it


class Client:
    """Evaluates rows and mirrors them, or in a dry run only evaluates them; see ``Target``.

    Args:
        client: The client of the application.
        dry_run: Whether to send nothing. Then the client needs no token.

    Raises:
        ValueError: It is no client, or mirrors nothing although it should.
    """

    def __init__(self, client: FlagSync, *, dry_run: bool) -> None:
        require({f"client must be a FlagSync, not {shown(client)}": isinstance(client, FlagSync)})
        pipelines = client._pipelines  # noqa: SLF001 - what only a backfill needs is no option of the client
        require(
            {
                "client must have a mixpanel_token to send anything: without one, or with FLAGSYNC_ENABLED=false, only "
                "dry_run=True is possible": dry_run or pipelines is not None
            }
        )
        options = client._options  # noqa: SLF001
        self._client, self._names, self.max_rows = client, options.names, options.max_pending
        self.success: Result = "evaluated" if dry_run else "delivered"
        self._pipeline = pipelines.get() if pipelines is not None and not dry_run else None
        self._before, self._told = client.stats(), 0
        pacer = Pacer()
        pacer.rhythm = WHILE_SOMEBODY_WAITS
        self._encoder = profile_encoder(options, options.token or NO_TOKEN, pacer, Reporter(None))

    @contextmanager
    def followed_by(self, reject: Callable[[str, str], bool]) -> Iterator[None]:
        """Meanwhile tell of each profile that is not updated."""

        def follow(distinct_id: str, reason: str) -> None:
            self._told += reject(distinct_id, reason)

        if self._pipeline is None:
            yield
            return
        report = self._pipeline.report
        report.followers += (follow,)
        try:
            yield
        finally:
            report.followers = tuple(other for other in report.followers if other is not follow)

    def distinct_id(self, identifier: str) -> str | NotMirrored:
        """Return the profile of an identifier, as the client names it."""
        return distinct_id_of(identifier, self._names.distinct_id)

    def submit(self, row: Row, distinct_id: str) -> str:
        """Evaluate a row and let it be mirrored; return why that is impossible, or nothing.

        Raises:
            FlagsmithAPIError: A remote Flagsmith does not evaluate now.
        """
        try:
            flags = self._flags(row)
        except FlagsmithAPIError as error:
            if (status := status_of(error)) in REFUSED:
                return f"Flagsmith does not evaluate it (HTTP {status})"
            raise
        if context_of(flags) is None and not is_evaluated(flags):
            return NO_FLAGS
        return "" if self._pipeline else self._evaluate(row.identifier, distinct_id, flags)

    def settle(self) -> Settling | None:
        """Begin to wait for the client's own threads."""
        if self._pipeline is not None:
            return Settling(self._pipeline)
        calls = self._encoder.calls
        calls.forget(calls.retire())
        return None

    def counts(self) -> tuple[int, int]:
        """Return what the client has counted since the beginning."""
        stats, before = self._client.stats(), self._before
        lost = stats.rejected + stats.dropped - before.rejected - before.dropped
        return stats.unchanged - before.unchanged, max(0, lost - self._told)

    def _flags(self, row: Row) -> Flags:
        if self._pipeline is not None:
            return self._client.get_identity_flags(row.identifier, row.traits)
        traits = self._client._evaluator.merge(row.identifier, row.traits)  # noqa: SLF001
        return self._client.flagsmith.get_identity_flags(row.identifier, traits)

    def _evaluate(self, identifier: str, distinct_id: str, flags: Flags) -> str:
        """Evaluate flags as the encoder's thread would; return why they cannot be mirrored, or nothing."""
        try:
            message = self._encoder.encode(distinct_id, self._encoder.calls.make(identifier, flags), None)
        except Exception as error:  # noqa: BLE001 - one row's failure must not end the others
            return f"Flags cannot be mirrored ({type(error).__name__})"
        return message.reason if isinstance(message, NotMirrored) else ""
