"""The scripts in ``lua/``, which Redis runs one at a time and as a whole.

Guarantee: a server that was restarted or has forgotten its scripts gets them again.
"""

from functools import cache
from hashlib import sha1
from importlib.resources import files

from redis.exceptions import NoScriptError

from flagsync._outbox.redis.server import Argument, Server


class Scripts:
    """Runs scripts on the keys of a namespace.

    Args:
        server: Where they run.
        keys: All keys of the namespace. Each script is told all of them.
    """

    def __init__(self, server: Server, keys: tuple[bytes, ...]) -> None:
        self._server, self._keys = server, keys

    def run(self, name: str, *arguments: Argument, seconds: float) -> object:
        """Run a script, and return its reply.

        Raises:
            OSError: The server did not answer within ``seconds``, or refused.
        """
        text, digest = script(name)
        arguments = (len(self._keys), *self._keys, *arguments)
        try:
            return self._server.execute("EVALSHA", digest, *arguments, seconds=seconds)
        except NoScriptError:
            return self._server.execute("EVAL", text, *arguments, seconds=seconds)


@cache
def script(name: str) -> tuple[str, str]:
    """Return a script and the digest by which a server knows it."""
    directory = files(__package__) / "lua"
    text = "\n".join(directory.joinpath(f"{part}.lua").read_text("utf-8") for part in ("common", name))
    return text, sha1(text.encode(), usedforsecurity=False).hexdigest()
