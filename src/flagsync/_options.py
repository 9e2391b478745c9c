"""The options of a client and their rules; the environment that they may come from.

Guarantee: a wrong option is a ``ValueError``; all that is wrong is in one message, with what is accepted.
"""

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from types import NoneType

from flagsmith.models import Flag

from flagsync._delivery.sender import Sending
from flagsync._encoding.encoder import GATHER_SECONDS
from flagsync._encoding.profile import Mapping as NameMapping
from flagsync._encoding.properties import PropertyValue
from flagsync._outbox.contract import Destination
from flagsync._outbox.options import FileBounds, Staging
from flagsync._process import EXIT_SECONDS
from flagsync._rules import is_number, is_url, require
from flagsync.cohorts.store import MembershipReader
from flagsync.exceptions import DeliveryError

# https://docs.mixpanel.com/docs/privacy/eu-residency: a host takes the data of its own region only.
HOSTS = {
    "us": "https://api.mixpanel.com",
    "eu": "https://api-eu.mixpanel.com",
    "in": "https://api-in.mixpanel.com",
}
BOOLEANS = {"": False, "0": False, "false": False, "no": False, "1": True, "true": True, "yes": True}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """How the parts behave: what users do not choose, and tests do.

    Attributes:
        gather_seconds: How long calls gather before they are encoded.
        exit_seconds: How long a caller waits for room while Python exits.
        sending: Requests, retries and pauses.
        staging: How messages get from memory into a shared store.
        file: How large an outbox file gets.
    """

    gather_seconds: float = GATHER_SECONDS
    exit_seconds: float = EXIT_SECONDS
    sending: Sending = field(default_factory=Sending)
    staging: Staging = field(default_factory=Staging)
    file: FileBounds = field(default_factory=FileBounds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options that ``FlagSync`` documents. Without a token nothing is mirrored."""

    token: str | None = field(repr=False)
    region: str
    mixpanel_url: str | None = field(repr=False)  # it may contain a password
    distinct_id: Callable[[str], str | None]
    property_name: Callable[[str], str | None]
    property_value: Callable[[Flag], PropertyValue]
    flush_interval_seconds: float
    resend_after_seconds: float
    max_pending: int
    when_full: str
    outbox: str | os.PathLike[str] | None
    cohorts: MembershipReader | None
    on_error: Callable[[DeliveryError], None] | None
    tuning: Tuning

    def rules(self) -> dict[str, bool]:
        """Return what must hold: a sentence for each option, and whether it does."""
        interval, resend, pending = self.flush_interval_seconds, self.resend_after_seconds, self.max_pending
        rules = {
            "mixpanel_token must be the project token of Mixpanel's project settings, or None to mirror nothing": (
                self.token is None or (isinstance(self.token, str) and self.token != "")
            ),
            "region must be 'us', 'eu' or 'in', where the Mixpanel project's data lives": self.region
            in [*HOSTS],
            "mixpanel_url must be a whole URL, such as 'https://mixpanel.example.com'": (
                self.mixpanel_url is None or is_url(self.mixpanel_url)
            ),
            "flush_interval_seconds must be a number above 0": is_number(interval) and interval > 0,
            "resend_after_seconds must be a number above 0, or 0 to send always": is_number(resend)
            and resend >= 0,
            "max_pending must be a whole number above 0": type(pending) is int and pending > 0,
            "when_full must be 'drop' or 'wait'": self.when_full in ("drop", "wait"),
            "outbox must be the path of a file, or None": isinstance(self.outbox, (str, os.PathLike, NoneType)),
            "cohorts must be a store, such as flagsync.cohorts.SQLiteStore, or None": (
                self.cohorts is None or isinstance(self.cohorts, MembershipReader)
            ),
        }
        for name in ("distinct_id", "property_name", "property_value", "on_error"):
            option = getattr(self, name)
            rules[f"{name} must be a function"] = callable(option) or (option is None and name == "on_error")
        return rules

    @property
    def bound(self) -> int:
        """How many messages may wait before the oldest is dropped."""
        return self.max_pending if self.when_full == "drop" else sys.maxsize

    @property
    def names(self) -> NameMapping:
        """How identities and flags are named in Mixpanel."""
        return NameMapping(
            distinct_id=self.distinct_id, property_name=self.property_name, property_value=self.property_value
        )

    def destination(self, token: str) -> Destination:
        """Return where profile updates of a project go."""
        url = (self.mixpanel_url or HOSTS[self.region]).rstrip("/") + "/engage"
        return Destination(url, blake2b(token.encode(), digest_size=8).hexdigest())


def read_environment(options: Mapping[str, object]) -> tuple[dict[str, object], dict[str, object]]:
    """Return the arguments of ``Flagsmith`` and of ``FlagSync``: the options, else what the environment holds."""
    names = "ENVIRONMENT_KEY API_URL LOCAL_EVALUATION".split()
    key, api_url, local = (os.environ.get(f"FLAGSMITH_{name}", "").strip() for name in names)
    token, region, url = (os.environ.get(f"MIXPANEL_{name}", "").strip() for name in ("TOKEN", "REGION", "URL"))
    require(
        {
            "FLAGSMITH_ENVIRONMENT_KEY must be set to an SDK key of the environment": bool(key),
            "FLAGSMITH_API_URL must be a whole URL": not api_url or is_url(api_url),
            "FLAGSMITH_LOCAL_EVALUATION must be true or false": local.lower() in BOOLEANS,
            "MIXPANEL_TOKEN must be set to the project token": bool(token) or "mixpanel_token" in options,
            "MIXPANEL_REGION must be us, eu or in": not region or region in HOSTS,
            "MIXPANEL_URL must be a whole URL": not url or is_url(url),
        }
    )
    flagsmith: dict[str, object] = {
        "environment_key": key,
        "api_url": api_url or None,
        "enable_local_evaluation": BOOLEANS[local.lower()],
    }
    defaults = {"mixpanel_token": token, "region": region or "us", "mixpanel_url": url or None}
    return flagsmith, {**defaults, **options}
