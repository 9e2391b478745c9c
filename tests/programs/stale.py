"""Forks; the argument says what was built before that. Each side says whose warnings it logs."""

import logging
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from application import DOCUMENT, build
from flagsmith import Flagsmith


class Api(BaseHTTPRequestHandler):
    """Flagsmith's API, as far as it serves the environment document."""

    def do_GET(self) -> None:
        body = DOCUMENT.read_bytes()
        self.send_response(200 if self.path == "/api/v1/environment-document/" else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


def polling() -> Flagsmith:
    url = f"http://127.0.0.1:{server.server_address[1]}/api/v1/"
    return Flagsmith(environment_key="ser.key", enable_local_evaluation=True, api_url=url)


server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
threading.Thread(target=server.serve_forever, daemon=True).start()
flagsmith = polling()
client = build(flagsmith)
child = os.fork()
logging.basicConfig(format=f"{'parent' if child else 'child'}: %(message)s")
if not child and sys.argv[1] == "Flagsmith":
    client = build(flagsmith)
if not child and sys.argv[1] == "nothing":
    client = build(polling())
for number in range(3):
    client.get_identity_flags(f"user_{number}")
if child:
    os.waitpid(child, 0)
server.server_close()
