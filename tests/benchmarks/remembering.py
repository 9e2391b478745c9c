"""What stays in memory: profiles that were delivered, and those that wait."""

import gc
import logging
import tracemalloc
from collections.abc import Iterable

from flagsync import FlagSync
from flagsync._encoding.encoder import CALLS_AT_ONCE
from tests.benchmarks.inputs import local_client
from tests.benchmarks.server import Server
from tests.benchmarks.table import OURS, judge, show

SOME, MANY, CHUNK = 40_000, 150_000, 2000
MAX_PENDING, SUBMITTED, TRACKED = 2000, 50_000, 20_000


def memory(server: Server) -> None:
    """Bytes by ``tracemalloc``, and objects that the garbage collector must look at."""
    _tracked(server)
    tracemalloc.start()
    _remembered(server)
    _down(server)
    tracemalloc.stop()


def _tracked(server: Server) -> None:
    logging.getLogger("flagsync").setLevel(logging.CRITICAL)  # what is lost here is meant to be
    for kind, url in (("remembered", server.url), ("pending", f"{server.url}/down")):
        client = FlagSync(local_client(50), "token", mixpanel_url=url)
        for numbers in (range(-CHUNK, 0), range(TRACKED)):
            before = _tracked_objects()
            _call(client, numbers)
            client.flush(60 if kind == "remembered" else 3)
        each, pending = (_tracked_objects() - before) / TRACKED, client.stats().pending
        verdict = judge(f"{pending:,} pending", reached=each < 0.01)
        show(f"garbage collector, {TRACKED:,} {kind}", OURS, f"{each:.4f} objects each", "0", verdict)
        client.close(0.1)


def _call(client: FlagSync, numbers: Iterable[int]) -> None:
    for number in numbers:
        client.get_identity_flags(f"user-{number}", {"number": number})


def _tracked_objects() -> int:
    gc.collect()
    return len(gc.get_objects())


def _remembered(server: Server) -> None:
    # Five flags: what is remembered does not depend on their number.
    with FlagSync(local_client(5), "token", mixpanel_url=server.url) as client:
        _deliver(client, range(-CHUNK, 0))
        before = _traced()
        _deliver(client, range(SOME))
        each = (_traced() - before) / SOME
        verdict = judge(f"{client.stats().pending} pending", reached=each <= 400)
        show(f"memory, {SOME:,} identities delivered", OURS, f"{each:.0f} bytes each", "at most 400", verdict)
        _deliver(client, range(SOME, MANY))
        total = f"{(_traced() - before) / 1e6:.1f} MB in all"
        show(f"  {MANY:,} identities delivered", OURS, total, "bounded")


def _deliver(client: FlagSync, numbers: Iterable[int]) -> None:
    for number in numbers:
        client.get_identity_flags(f"user-{number}")  # the string, too, is flagsync's own to keep
        if number % CHUNK == 0:
            client.flush(60)
    client.flush(60)


def _down(server: Server) -> None:
    logging.getLogger("flagsync").setLevel(logging.CRITICAL)  # what is lost here is meant to be
    before, pending, peak, url = _traced(), 0, 0, f"{server.url}/down"
    client = FlagSync(local_client(50), "token", mixpanel_url=url, max_pending=MAX_PENDING)
    for number in range(SUBMITTED):
        client.get_identity_flags(f"user-{number}")
        if number % 100 == 0:
            pending = max(pending, client.stats().pending)
            peak = max(peak, tracemalloc.get_traced_memory()[0] - before)
    client.close(0.1)
    what, side = f"memory, Mixpanel down, {SUBMITTED:,} calls", f"flagsync, max_pending {MAX_PENDING:,}"
    bound = 3 * MAX_PENDING + CALLS_AT_ONCE  # calls, inbox, outbox, and what the encoder has in hand
    verdict = judge(f"{peak / 1e6:.1f} MB at most", reached=pending <= bound)
    show(what, side, f"{pending:,} pending at most", f"at most {bound:,}", verdict)


def _traced() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]
