"""What a web application sees: a page under gunicorn, with and without flagsync, at a rate and as fast as it goes."""

import selectors
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from math import inf
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import NamedTuple
from urllib.request import urlopen

from tests.benchmarks.evaluating import TYPICAL
from tests.benchmarks.server import Server
from tests.benchmarks.table import judge, show

RATES, SECONDS, OUTSTANDING, REPEATING, ROUNDS = (500, 1000, inf), 6.0, 16, 500, 3
OPTIONS = ("--workers=1", "--worker-class=sync", "--no-control-socket", "--log-level=error")
SIDES = ("bare", "memory", "file")


class Load(NamedTuple):
    """What came of requests: how many a second, how long each took, and full collections meanwhile."""

    rate: float
    seconds: list[float]
    collections: int

    def percentile(self, percent: float) -> float:
        """Milliseconds that so many per cent of the requests did not exceed."""
        return sorted(self.seconds)[int(len(self.seconds) * percent / 100)] * 1000


def web(server: Server) -> None:
    """New users and users who come again, each side in turn; what is shown is the median of the rounds."""
    for users in ("new", "repeating"):
        loads: dict[tuple[str, float], list[Load]] = {}
        with TemporaryDirectory() as folder:
            for round_ in range(ROUNDS):
                for side in SIDES:
                    outbox = f"{folder}/{users}-{round_}.db" if side == "file" else ""
                    with _page(server, side, outbox) as port:
                        paths = (f"user-{n % REPEATING if users == 'repeating' else n}" for n in count())
                        _load(port, paths, inf, 1.0)  # imports, first evaluations
                        for rate in RATES:
                            loads.setdefault((side, rate), []).append(_load(port, paths, rate, SECONDS))
        for rate in RATES:
            for side in SIDES:
                _show(f"page, {users} users", rate, side, loads[side, rate], loads["bare", rate])
        _show_collections(loads)


def _show(what: str, rate: float, side: str, loads: list[Load], bare: list[Load]) -> None:
    served, their = (median(load.rate for load in of) for of in (loads, bare))
    p50, p99, p999 = (median(load.percentile(percent) for load in loads) for percent in (50, 99, 99.9))
    figure = f"{served:,.0f}/s, p50 {p50:.1f}, p99 {p99:.1f}, p99.9 {p999:.1f} ms"
    target = verdict = ""
    if side != "bare":
        if rate == inf:
            least = 0.95 if "repeating" in what else 0.88
            target, verdict = (
                f"at least {least}",
                judge(f"{served / their:.2f} x", reached=served >= least * their),
            )
        else:
            times = p999 / median(load.percentile(99.9) for load in bare)
            target, verdict = "p99.9 at most 2 x", judge(f"{times:.1f} x", reached=times <= 2)
    load = "as fast as it goes" if rate == inf else f"{rate:,.0f} a second"
    show(
        f"{what}, {load}", "bare Flagsmith" if side == "bare" else f"flagsync, {side}", figure, target, verdict
    )


def _show_collections(loads: dict[tuple[str, float], list[Load]]) -> None:
    per_side = {}
    for side in SIDES:
        of = [load for rate in RATES for load in loads[side, rate]]
        per_side[side] = sum(load.collections for load in of) / sum(len(load.seconds) for load in of) * 1e6
    for side, each in per_side.items():
        verdict = target = ""
        if side != "bare":
            times = each / per_side["bare"] if per_side["bare"] else inf
            target, verdict = "at most 1.5 x", judge(f"{times:.1f} x", reached=times <= 1.5)
        figure = f"{each:,.0f} a million requests"
        show(
            "  full collections",
            "bare Flagsmith" if side == "bare" else f"flagsync, {side}",
            figure,
            target,
            verdict,
        )


@contextmanager
def _page(server: Server, side: str, outbox: str) -> Iterator[int]:
    """Run the page; yield its port."""
    root = str(Path(__file__).parent.parent.parent)
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        bind = f"--bind=fd://{listener.fileno()}"
        command = [sys.executable, "-m", "gunicorn", *OPTIONS, bind, "tests.benchmarks.page:application"]
        page = " ".join((side, outbox, f"{server.url}/unread", *map(str, TYPICAL)))
        environment = {"PAGE": page, "PATH": "", "PYTHONPATH": f"{root}/src:{root}"}
        process = subprocess.Popen(command, cwd=root, env=environment, pass_fds=[listener.fileno()])
        try:
            yield listener.getsockname()[1]
        finally:
            process.terminate()
            process.wait()


def _collections(port: int) -> int:
    with urlopen(f"http://127.0.0.1:{port}/full/collections") as answer:
        return int(answer.read())


def _load(port: int, paths: Iterator[str], rate: float, seconds: float) -> Load:
    """Ask for pages at a rate, whether or not earlier ones have come; without one, with a few outstanding."""
    before, selector = _collections(port), selectors.DefaultSelector()
    taken, began = list[float](), perf_counter()
    ends, scheduled, outstanding = began + seconds, began, 0
    while outstanding or scheduled < ends:
        now = perf_counter()
        if now >= ends:
            scheduled = inf
        while scheduled <= now and outstanding < (OUTSTANDING if rate == inf else inf):
            due = now if rate == inf else scheduled
            selector.register(_ask(port, next(paths)), selectors.EVENT_READ, due)
            scheduled, outstanding = (now if rate == inf else scheduled + 1 / rate), outstanding + 1
        wait = min(scheduled, ends) - perf_counter() if outstanding < OUTSTANDING or rate != inf else seconds
        for key, _ in selector.select(max(0.0, wait)):
            connection: socket.socket = key.fileobj  # type: ignore[assignment]
            if not connection.recv(4096):  # the page closes the connection behind its answer
                taken.append(perf_counter() - key.data)
                selector.unregister(connection)
                connection.close()
                outstanding -= 1
    return Load(len(taken) / (perf_counter() - began), taken, _collections(port) - before)


def _ask(port: int, path: str) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port))
    connection.sendall(f"GET /{path} HTTP/1.1\r\nHost: page\r\nConnection: close\r\n\r\n".encode())
    return connection
