"""A WSGI application that evaluates for the user in the path; one evaluation happens at import."""

from collections.abc import Callable
from typing import Any

from application import build

client = build()
client.get_identity_flags("import")


def app(environ: dict[str, Any], start_response: Callable[[str, list[tuple[str, str]]], object]) -> list[bytes]:
    client.get_identity_flags(environ["PATH_INFO"].strip("/"))
    start_response("200 OK", [("Content-Length", "0")])
    return []
