"""A cheap loopback Mixpanel in a process of its own, so that its work is on nobody's account.

``/engage`` and ``/track`` answer at once, ``/slow/engage`` after 100 ms, ``/down/engage`` with 503, ``/unread/engage``
without looking at what came. Each answer is one write: in two, it meets delayed acknowledgement and makes every client
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
# In JSON, and in the form that the Mixpanel SDK's consumers send. PostHog's events have it, too.
DISTINCT_ID = re.compile(rb'distinct_id(?:": ?"|%22%3A%22)([\w-]+)')


class Counts(NamedTuple):
    """What came: ``most`` is how often the profile that came most often did."""

    requests: int
    bytes: int
    updates: int
    profiles: int
    most: int


class Server:
    """The process, as a context manager; it ends with the one that started it, however that ends."""

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "tests.benchmarks.server"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout
        self.url = f"http://127.0.0.1:{int(self._process.stdout.readline())}"
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()  # closes its input, which it waits for

    def counts(self) -> Counts:
        """What came since the last call."""
        with urlopen(f"{self.url}/counts") as answer:
            return Counts(*json.load(answer))


class _Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        while (path := self.rfile.readline()[4:].strip()) != b"":
            length = 0
            while (line := self.rfile.readline()) not in (b"\r\n", b""):
                if line.lower().startswith(b"content-length:"):
                    length = int(line[15:])
            status, answer = _answer(path, self.rfile.read(length))
            self.wfile.write(b"HTTP/1.1 %d -\r\nContent-Length: %d\r\n\r\n%s" % (status, len(answer), answer))


def _answer(path: bytes, body: bytes) -> tuple[int, bytes]:
    if path.startswith(b"/counts"):
        counts = Counts(totals[0], totals[1], seen.total(), len(seen), max(seen.values(), default=0))
        seen.clear()
        totals[:] = 0, 0
        return 200, json.dumps(counts).encode()
    with lock:
        totals[:] = totals[0] + 1, totals[1] + len(body)
        if not path.startswith(b"/unread"):
            seen.update(DISTINCT_ID.findall(body))
    if path.startswith(b"/slow"):
        sleep(LATENCY_SECONDS)
    return 503 if path.startswith(b"/down") else 200, b'{"status":1,"error":null}'


seen: Counter[bytes] = Counter()
totals, lock = [0, 0], threading.Lock()

if __name__ == "__main__":
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Handler) as server:
        server.daemon_threads, server.block_on_close = True, False
        threading.Thread(target=server.serve_forever, daemon=True).start()
        print(server.server_address[1], flush=True)
        sys.stdin.read()
