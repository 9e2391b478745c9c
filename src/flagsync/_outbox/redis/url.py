"""What a URL says: where the server is, how to connect to it, and the namespace."""

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from redis import connection
from redis.exceptions import RedisError

from flagsync._outbox.redis.keys import check_namespace
from flagsync._outbox.redis.server import UrlServer

# redis-py knows Valkey by the names of Redis.
SCHEMES = {"redis": "redis", "rediss": "rediss", "valkey": "redis", "valkeys": "rediss", "unix": "unix"}
read: Callable[[str], dict[str, Any]] = connection.parse_url  # which has no annotations
DATABASE = re.compile(r"/?\d*")
# Others would be objects, which no URL can name, or have each command fail.
TAKEN = ("client_name", "db", "password", "protocol", "socket_keepalive", "username")
# Set here, since the outbox waits and tries again by its own rules, or useless to a single connection.
OVERRULED = (
    "decode_responses",
    "health_check_interval",
    "max_connections",
    "namespace",
    "retry_on_error",
    "retry_on_timeout",
    "socket_connect_timeout",
    "socket_timeout",
    "timeout",
)
MALFORMED = (
    "outbox: the URL of a Redis or Valkey server is malformed; it takes "
    "'redis://user:password@host:6379/0?namespace=flagsync', rediss:// for TLS, valkey://, valkeys://, or "
    "'unix:///path/to/socket?db=0'; in a user or a password write a special character as %23 for '#'"
)


def parse(url: str) -> tuple[UrlServer, str]:
    """Return the server and the namespace that a URL names. Does not connect.

    Raises:
        ValueError: It is malformed. The message does not repeat it, as it may contain a password.
    """
    try:
        options, namespace = _options(url)
        server = UrlServer(options.pop("connection_class", connection.Connection), options)
    except (TypeError, ValueError, RedisError):
        raise ValueError(MALFORMED) from None
    return server, check_namespace(namespace)


def _options(url: str) -> tuple[dict[str, Any], str]:
    parts = urlsplit(url)
    scheme = SCHEMES[parts.scheme]  # in lower case
    options = read(scheme + url[len(parts.scheme) :])
    is_socket = options.get("connection_class") is connection.UnixDomainSocketConnection
    is_complete = "path" in options if is_socket else DATABASE.fullmatch(parts.path)
    query = parse_qs(parts.query, keep_blank_values=True)
    is_known = all(name in TAKEN + OVERRULED or name.startswith("ssl_") for name in query)
    is_reachable = not parts.hostname if is_socket else parts.port != 0
    if parts.fragment or not (is_complete and is_known and is_reachable):  # usually a part of a password
        raise ValueError
    if options.get("db", 0) < 0 or "\0" in unquote(url):
        raise ValueError
    [namespace] = query.get("namespace", ["flagsync"])
    # All servers speak version 2 of the protocol, and the scripts need no more.
    return {"protocol": 2, **{name: options[name] for name in options if name not in OVERRULED}}, namespace
