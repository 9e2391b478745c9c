"""A WSGI application that evaluates for the user in the path; at import for its worker, which it prints."""

import os
import socket
from collections.abc import Callable
from typing import Any

from shared import client

# gevent resolves names in native threads, which Python 3.12 does not start at exit: here is its first.
socket.getaddrinfo("127.0.0.1", 80)
client.get_identity_flags(f"worker_{os.getpid()}")
os.write(1, f"worker_{os.getpid()}\n".encode())  # in one piece, beside the other workers


def app(environ: dict[str, Any], start_response: Callable[[str, list[tuple[str, str]]], object]) -> list[bytes]:
    client.get_identity_flags(environ["PATH_INFO"].strip("/"))
    start_response("200 OK", [("Content-Length", "0")])
    return []
