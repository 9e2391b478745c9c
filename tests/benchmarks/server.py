"""A cheap loopback Mixpanel in a process of its own, so that its work is on nobody's account.

``/engage`` answers at once, ``/slow/engage`` after 100 ms, ``/down/engage`` with 503; ``/counts`` says what came
since it was last asked. Each answer is one write: in two, it meets delayed acknowledgement and makes every client
look slow.
"""

import json
import re
import socketserver
import subprocess
import sys
import threading
from collections import Counter
from time import sleep
from typing import NamedTuple, Self
from urllib.request import urlopen

LATENCY_SECONDS = 0.1
# As JSON, and as the form of the Mixpanel SDK's consumers.
DISTINCT_ID = re.compile(rb'distinct_id(?:":"|%22%3A%22)([\w-]+)')


class Counts(NamedTuple):
    """What the server got: ``most`` is how often the profile that came most often came."""

    requests: int
    bytes: int
    updates: int
    profiles: int
    most: int


class Server:
    """The process, as a context manager; it ends with the one that started it, however that ends."""

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "tests.benchmarks.server"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: S603
        assert self._process.stdout  # noqa: S101 - for mypy
        self.url = f"http://127.0.0.1:{int(self._process.stdout.readline())}"
        self.slow_url, self.down_url = f"{self.url}/slow", f"{self.url}/down"
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()  # closes its input, which is its sign to end

    def counts(self) -> Counts:
        """What came since the last call."""
        with urlopen(f"{self.url}/counts") as answer:  # noqa: S310 - loopback
            return Counts(*json.load(answer))


class _Handler(socketserver.StreamRequestHandler):
    disable_nagle_algorithm = True
    seen: Counter[bytes] = Counter()
    totals: Counter[str] = Counter()
    lock = threading.Lock()

    def handle(self) -> None:
        while path := self.rfile.readline()[5:]:
            length = 0
            while (line := self.rfile.readline()) not in (b"\r\n", b""):
                if line.lower().startswith(b"content-length:"):
                    length = int(line[15:])
            status, answer = self._answer(path, self.rfile.read(length))
            self.wfile.write(b"HTTP/1.1 %d -\r\nContent-Length: %d\r\n\r\n%s" % (status, len(answer), answer))

    def _answer(self, path: bytes, body: bytes) -> tuple[int, bytes]:
        if b"counts" in path:
            return 200, self._counts()
        if path.startswith(b"down", 1):
            return 503, b""
        with self.lock:
            self.totals.update(requests=1, bytes=len(body))
            self.seen.update(DISTINCT_ID.findall(body))
        if path.startswith(b"slow", 1):
            sleep(LATENCY_SECONDS)
        return 200, b'{"status":1,"error":null}'

    def _counts(self) -> bytes:
        with self.lock:
            seen, totals = self.seen, self.totals
            most = max(seen.values(), default=0)
            counts = Counts(totals["requests"], totals["bytes"], seen.total(), len(seen), most)
            seen.clear()
            totals.clear()
        return json.dumps(counts).encode()


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False


if __name__ == "__main__":
    with _Server(("127.0.0.1", 0), _Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        print(server.server_address[1], flush=True)
        sys.stdin.read()
