"""What is remembered and what waits, in bytes."""

import gc
import tracemalloc
from collections.abc import Iterator

from flagsync import FlagSync
from tests.benchmarks.inputs import local_client
from tests.benchmarks.report import Row, verdict
from tests.benchmarks.server import Server

REMEMBERED, MORE, MAX_PENDING, SUBMITTED, CHUNK = 40_000, 200_000, 2000, 50_000, 2000
FEATURES = 5  # what is remembered does not depend on it


def memory(server: Server) -> Iterator[Row]:
    """What delivered profiles and a Mixpanel that is down leave in memory."""
    tracemalloc.start()
    yield from _remembered(server)
    yield from _down(server)
    tracemalloc.stop()


def _remembered(server: Server) -> Iterator[Row]:
    what, side = "remembered as sent", "flagsync, max_pending 50,000"
    with FlagSync(local_client(FEATURES), "token", mixpanel_url=server.url) as client:
        _submit(client, 0, 1)
        before = _traced()
        _submit(client, 1, REMEMBERED)
        each = (_traced() - before) / (REMEMBERED - 1)
        pending = client.stats().pending
        judged = verdict(reached=each <= 400 and not pending)  # noqa: PLR2004
        yield Row(f"{what}, {REMEMBERED:,} identities", side, f"{each:.0f} bytes each", "at most 400", judged)
        _submit(client, REMEMBERED, MORE)
        yield Row(f"{what}, {MORE:,} identities", side, f"{(_traced() - before) / 1e6:.1f} MB in all", "bounded")


def _submit(client: FlagSync, first: int, last: int) -> None:
    """Deliver, in chunks as an application would; the identifiers' strings are flagsync's own to keep."""
    for begin in range(first, last, CHUNK):
        for number in range(begin, min(begin + CHUNK, last)):
            client.get_identity_flags(f"user-{number}")
        client.flush(60)


def _down(server: Server) -> Iterator[Row]:
    what, side = f"Mixpanel down, {SUBMITTED:,} identities", f"flagsync, max_pending {MAX_PENDING:,}"
    before, pending, peak = _traced(), 0, 0
    client = FlagSync(local_client(50), "token", mixpanel_url=server.down_url, max_pending=MAX_PENDING)
    for number in range(SUBMITTED):
        client.get_identity_flags(f"user-{number}")
        if number % 100 == 0:
            pending = max(pending, client.stats().pending)
            peak = max(peak, tracemalloc.get_traced_memory()[0] - before)
    client.close(0.1)
    bound = 2 * MAX_PENDING  # inbox and outbox
    judged = verdict(reached=pending <= bound + 1)  # one is in the encoder's hands
    yield Row(what, side, f"{pending:,} pending at most", f"at most {bound:,}", judged)
    yield Row(what, side, f"{peak / 1e6:.1f} MB at most", "bounded")


def _traced() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]
