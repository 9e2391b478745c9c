"""A backfill of a CSV file beside the same users without a file: calls of a client that waits for room."""

from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

from flagsync import FlagSync
from flagsync._cli.rows.columns import Types
from flagsync._cli.rows.source import Source
from flagsync.bulk import Report
from flagsync.bulk import backfill as mirror_rows
from tests.benchmarks.inputs import local_client
from tests.benchmarks.server import Server
from tests.benchmarks.table import judge, show

ROWS, WARM_ROWS, FEATURES, ROUNDS = 100_000, 20_000, 50, 5
LEAST_RATE, MOST_GROWTH = 0.8, 30.0
PLANS = ("free", "pro")


def backfill(server: Server) -> None:
    """Rows a second, and memory from the first rows to the last."""
    calls, rows, memory = list[float](), list[float](), list[float]()
    with TemporaryDirectory() as folder:
        path = Path(folder) / "users.csv"
        lines = (f"{user},{traits['plan']},{traits['age']}" for user, traits in _users())
        path.write_text("\n".join(("identifier,plan,age", *lines)))
        for _ in range(ROUNDS):  # in turn, since the speed of a machine changes
            calls.append(_rate(lambda: _call(server)))
            rows.append(_rate(lambda: _backfill(server, path, memory)))
    server.counts()
    what, ratio = f"{ROWS:,} users, {FEATURES} flags", median(rows) / median(calls)
    show(what, "calls, when_full='wait'", f"{median(calls):,.0f} a second")
    verdict = judge(f"{ratio:.2f} x", reached=ratio >= LEAST_RATE)
    show("", "backfill of a CSV file", f"{median(rows):,.0f} a second", f"at least {LEAST_RATE} x", verdict)
    growth = max(memory) - memory[0]
    verdict = judge(f"+{growth:.1f} MB", reached=growth <= MOST_GROWTH)
    show("", f"  memory after {WARM_ROWS:,}", f"{memory[0]:.0f} MB", f"at most +{MOST_GROWTH:.0f} MB", verdict)


def _rate(work: Callable[[], object]) -> float:
    began = perf_counter()
    work()
    return ROWS / (perf_counter() - began)


def _users() -> Iterator[tuple[str, dict[str, str | int]]]:
    for number in range(ROWS):
        yield f"user-{number}", {"plan": PLANS[number % 2], "age": number % 90}


def _call(server: Server) -> None:
    with FlagSync(
        local_client(FEATURES), "token", mixpanel_url=server.url, when_full="wait", max_pending=5000
    ) as client:
        for user, traits in _users():
            client.get_identity_flags(user, traits)
        assert client.flush(600)
        assert client.stats().delivered == ROWS


def _backfill(server: Server, path: Path, memory: list[float]) -> None:
    def note(report: Report) -> None:
        if report.read >= WARM_ROWS:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            memory.append(pages * 4096 / 1e6)

    with (
        Source(path, Types(["age=int"], "identifier"), "identifier") as source,
        FlagSync(local_client(FEATURES), "token", mixpanel_url=server.url) as client,
    ):
        report = mirror_rows(source, client, rate=None, on_progress=note)  # type: ignore[arg-type]
    assert report == Report(read=ROWS, delivered=ROWS)
