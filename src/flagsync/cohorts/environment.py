"""An environment of Flagsmith, as a configured client reaches it.

Guarantee: nothing is sent, and no ``repr()`` contains a key or a password.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from types import MappingProxyType

from flagsmith import Flagsmith

KEY_HEADER, SERVER_KEY_PREFIX = "X-Environment-Key", "ser."
TRAITS_MAY_BE_IGNORED = (
    "flagsmith evaluates remotely with a client-side key: in an environment where clients may not set traits, "
    "Flagsmith silently ignores those of cohorts=, and members get the same flags as everybody else. Use a server-side "
    "key ('ser.…'), or have a TraitWriter store the traits"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """Where an environment is, and how it is reached.

    Attributes:
        url: Of the API, with a slash at the end; empty in offline mode.
        headers: The headers of each request, with the key.
        proxies: As in ``requests``.
        verify: As in ``requests``: whether certificates are verified, or the path of those to trust.
        cert: As in ``requests``: the path of a client certificate, or the paths of it and of its key.
    """

    url: str = field(default="", repr=False)  # it may contain a password, as may that of a proxy
    headers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), repr=False)
    proxies: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), repr=False)
    verify: bool | str | None = True
    cert: str | tuple[str, str] | None = None

    @classmethod
    def of(cls, flagsmith: Flagsmith | str) -> "Environment":
        """Return the environment of a client, or of Flagsmith's cloud with a key."""
        client = Flagsmith(environment_key=flagsmith.strip()) if isinstance(flagsmith, str) else flagsmith
        session = getattr(client, "session", None)
        if session is None:  # as in offline mode
            return cls()
        return cls(
            url=client.api_url,
            headers={name: _text(value).strip() for name, value in session.headers.items()},
            proxies=session.proxies,
            verify=session.verify,
            cert=session.cert,
        )

    @property
    def has_server_key(self) -> bool:
        """Whether the key is a server-side one."""
        return self.headers.get(KEY_HEADER, "").startswith(SERVER_KEY_PREFIX)

    @property
    def name(self) -> str:
        """A digest of URL and key: the same for the same environment, and it reveals neither."""
        text = f"{self.url}\0{self.headers.get(KEY_HEADER, '')}"
        return blake2b(text.encode(), digest_size=16).hexdigest()


def ignored_traits(flagsmith: Flagsmith) -> str | None:
    """Return a warning if Flagsmith may ignore a client's traits, as far as that is known without a request."""
    is_local = getattr(flagsmith, "offline_mode", False) or getattr(flagsmith, "enable_local_evaluation", False)
    environment = Environment.of(flagsmith)
    is_remote = not is_local and KEY_HEADER in environment.headers
    return TRAITS_MAY_BE_IGNORED if is_remote and not environment.has_server_key else None


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value
