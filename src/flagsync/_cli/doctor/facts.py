"""What the checks look at, asked once: the environment, and both services.

Guarantee: each request is announced before it is made, and changes nothing.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple

from flagsmith import Flagsmith
from flagsmith.mappers import map_environment_document_to_context
from flagsmith.models import Flags

from flagsync._cli.settings import flagsmith_options, options_of
from flagsync._cli.stores import shown_url
from flagsync._delivery.answers import Reply
from flagsync._delivery.failures import reason_of
from flagsync._delivery.mixpanel import IMPORT, MixpanelApi
from flagsync._encoding.evaluation import Context
from flagsync._environment import Environment, read_environment
from flagsync._messages import CHECK_KEY_AND_URL
from flagsync._options import HOSTS, Options
from flagsync.cohorts.environment import SERVER_KEY_PREFIX

REQUEST_SECONDS = 10.0


class Fetched(NamedTuple):
    """What Flagsmith's API, or a file, has given.

    Attributes:
        where: The file, or the URL that was asked.
        document: The environment document; None if there is none.
        flags: How many flags a client-side key sees; None if it was not asked.
        fault: Why there is no answer that can be used; empty if there is one.
        remedy: What to do about that.
        date: The time on the server's clock, as HTTP writes it.
    """

    where: str
    document: Mapping[str, Any] | None = None
    flags: int | None = None
    fault: str = ""
    remedy: str = "check FLAGSMITH_API_URL and the network"
    date: str = ""

    @property
    def context(self) -> Context | None:
        """The document as Flagsmith's engine takes it."""
        return None if self.document is None else map_environment_document_to_context(self.document)  # type: ignore[arg-type,return-value]


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the checks look at.

    Attributes:
        environment: What the environment variables say.
        options: The options that a client would have.
        fetched: What Flagsmith has answered; None if it was not asked.
        asked: What Mixpanel has answered, or why it has not; None if it was not asked.
    """

    environment: Environment
    options: Options
    fetched: Fetched | None = None
    asked: Reply | str | None = None

    @property
    def key(self) -> str:
        """The key of the Flagsmith environment; empty with an environment document in a file."""
        return self.environment.flagsmith.get("environment_key") or ""

    @property
    def has_server_key(self) -> bool:
        """Whether the key is a server-side one."""
        return self.key.startswith(SERVER_KEY_PREFIX)

    @property
    def is_local(self) -> bool:
        """Whether flags are evaluated by this process."""
        flagsmith = self.environment.flagsmith
        return bool(flagsmith.get("enable_local_evaluation") or flagsmith.get("offline_mode"))


def gather(document: Path | None, announce: Callable[[str], None], *, offline: bool) -> Facts:
    """Read the environment, and ask both services as far as they are known.

    Args:
        document: A file with an environment document, in place of Flagsmith's API.
        announce: Called with a sentence before each request.
        offline: Whether to make no request.
    """
    given = flagsmith_options(document)
    environment = read_environment(given)
    facts = Facts(environment=environment, options=options_of(environment))
    fetched, asked = None, None
    if document is not None:
        fetched = Fetched(f"{document}", given["offline_handler"].get_environment())  # type: ignore[union-attr]
    elif not offline and facts.key and not _broken(environment, "FLAGSMITH"):
        fetched = _fetch(facts, announce)
    rules = facts.options.rules().values()
    if not offline and facts.options.token and all(rules) and not _broken(environment, "MIXPANEL"):
        asked = _ask(facts.options, facts.options.token, announce)
    return Facts(environment=environment, options=facts.options, fetched=fetched, asked=asked)


def mixpanel_url(options: Options) -> str:
    """Return the host or proxy of Mixpanel, without an endpoint."""
    return (options.mixpanel_url or HOSTS[options.region]).rstrip("/")


def _broken(environment: Environment, prefix: str) -> bool:
    return any(rule.startswith(prefix) and not holds for rule, holds in environment.rules.items())


def _fetch(facts: Facts, announce: Callable[[str], None]) -> Fetched:
    """Get the environment document; with a client-side key, which may not see it, the flags of the environment."""
    flagsmith = Flagsmith(**{**facts.environment.flagsmith, "enable_local_evaluation": False})
    url = flagsmith.environment_url if facts.has_server_key else flagsmith.environment_flags_url
    where = shown_url(url)
    announce(f"Asking Flagsmith: GET {where}")
    with flagsmith.session as session:
        try:
            response = session.get(url, timeout=REQUEST_SECONDS)
        except OSError as error:  # all exceptions of requests are OSErrors
            why = reason_of(error, is_unsent=False)
            return Fetched(where, fault=f"Flagsmith cannot be reached ({why})")
    date = response.headers.get("Date", "")
    if response.status_code != HTTPStatus.OK:
        fault = f"Flagsmith's API answered with HTTP status {response.status_code}"
        return Fetched(where, fault=fault, remedy=CHECK_KEY_AND_URL, date=date)
    try:
        answer = response.json()
        if facts.has_server_key:
            map_environment_document_to_context(answer)  # it raises if the answer is something else
            return Fetched(where, answer, date=date)
        return Fetched(where, flags=len(Flags.from_api_flags([*answer], None, None).flags), date=date)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        return Fetched(where, fault=f"the answer is not Flagsmith's ({type(error).__name__})", date=date)


def _ask(options: Options, token: str, announce: Callable[[str], None]) -> Reply | str:
    """Ask Mixpanel whether it accepts the token."""
    url = mixpanel_url(options)
    announce(f"Asking Mixpanel whether it accepts the token, without any data: POST {shown_url(url)}{IMPORT}")
    api = MixpanelApi()
    try:
        return api.ask(url, token, REQUEST_SECONDS)
    finally:
        api.close()
