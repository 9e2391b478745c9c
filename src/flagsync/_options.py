"""The options of a client and their rules.

Guarantee: a wrong option is a ``ValueError``; all that is wrong is in one message, with what is accepted.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Generic, TypeVar
from urllib.parse import urlsplit

from flagsmith.models import Flag

from flagsync._delivery.sender import Sending
from flagsync._encoding.encoder import GATHER_SECONDS
from flagsync._encoding.exposure import ExposureNames
from flagsync._encoding.profile import Mapping as NameMapping
from flagsync._encoding.properties import PropertyValue, served_value
from flagsync._encoding.variant import served_variant
from flagsync._outbox.contract import MAX_BATCH_MESSAGES, Destination, Limits
from flagsync._outbox.options import Staging, StoreBounds
from flagsync._outbox.place import PLACES, Place, is_place
from flagsync._process import EXIT_SECONDS
from flagsync._rules import call_fault, is_instance_of, is_number, is_url, key_fault, shown
from flagsync._thresholds import Thresholds
from flagsync.cohorts.store import MembershipReader
from flagsync.exceptions import DeliveryError

# https://docs.mixpanel.com/docs/privacy/eu-residency: a host takes the data of its own region only.
HOSTS = {
    "us": "https://api.mixpanel.com",
    "eu": "https://api-eu.mixpanel.com",
    "in": "https://api-in.mixpanel.com",
}
ENDPOINTS = ("engage", "track", "import", "groups")
PLACEHOLDER_TOKEN = "mixpanel-project-token"  # noqa: S105 - stands for one in examples
ARGUMENTS = {
    "distinct_id": ("one argument, the identifier", 1),
    "property_name": ("one argument, the name of a feature", 1),
    "property_value": ("one argument, a Flag", 1),
    "experiment_name": ("one argument, the name of a feature", 1),
    "variant_name": ("one argument, a Flag", 1),
    "exposure_properties": ("two arguments, the identifier and a Flag", 2),
    "on_error": ("one argument, a DeliveryError", 1),
}
MAY_BE_NONE = ("exposure_properties", "on_error")
A = TypeVar("A")
R = TypeVar("R")


class Default(Generic[A, R]):
    """A function that is the default of an option, and that ``help()`` shows in words.

    Args:
        function: What is called.
        words: What it returns.
    """

    def __init__(self, function: Callable[[A], R], words: str) -> None:
        self.function, self._words = function, words

    def __call__(self, argument: A) -> R:
        """Call the function."""
        return self.function(argument)

    def __repr__(self) -> str:
        return f"<{self._words}>"


SAME_IDENTIFIER = Default[str, str](str, "the identifier itself")
SAME_NAME = Default[str, str](str, "the feature's own name")
SERVED_VALUE = Default(served_value, "what Flagsmith's own server sends")
SERVED_VARIANT = Default[Flag, str | None](served_variant, "the variant's key, else what was served")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """How the parts behave: what users do not choose, and tests do.

    Attributes:
        gather_seconds: How long calls gather before they are encoded.
        exit_seconds: How long a caller waits for room while Python exits.
        max_callers: How many callers may have added one message each and wait for room, so that none is dropped.
        sending: Requests, retries and pauses.
        staging: How messages get from memory into a shared store.
        store: How large a shared store gets.
        thresholds: What a health check tolerates.
    """

    gather_seconds: float = GATHER_SECONDS
    exit_seconds: float = EXIT_SECONDS
    max_callers: int = 10_000
    sending: Sending = field(default_factory=Sending)
    staging: Staging = field(default_factory=Staging)
    store: StoreBounds = field(default_factory=StoreBounds)
    thresholds: Thresholds = field(default_factory=Thresholds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options that ``FlagSync`` documents. Without a token nothing is mirrored."""

    token: str | None = field(repr=False)
    region: str
    mixpanel_url: str | None = field(repr=False)  # it may contain a password
    distinct_id: Callable[[str], str | None]
    property_name: Callable[[str], str | None]
    property_value: Callable[[Flag], PropertyValue]
    experiment_name: Callable[[str], str | None]
    variant_name: Callable[[Flag], str | None]
    exposure_properties: Callable[[str, Flag], Mapping[str, PropertyValue]] | None
    flush_interval_seconds: float
    resend_after_seconds: float
    unset_deleted: bool
    max_pending: int
    when_full: str
    outbox: Place | None = field(repr=False)  # a URL may contain a password
    cohorts: MembershipReader | None
    on_error: Callable[[DeliveryError], None] | None
    tuning: Tuning

    def rules(self) -> dict[str, bool]:
        """Return what must hold: a sentence for each option, and whether it does."""
        interval, resend, pending = self.flush_interval_seconds, self.resend_after_seconds, self.max_pending
        token = "the one from the examples" if self.token == PLACEHOLDER_TOKEN else key_fault(self.token)
        rules = {
            "mixpanel_token must be the project token of Mixpanel's project settings, or None to mirror nothing, "
            f"not {token}": self.token is None or not token,
            "region must be 'us', 'eu' or 'in', where the Mixpanel project's data lives, "
            f"not {_choice(self.region)}": self.region in [*HOSTS],
            "mixpanel_url must be a complete URL of a host or proxy, such as 'https://mixpanel.example.com', without "
            "/engage or /track, which are added, and without '?' and '#'": self.mixpanel_url is None
            or _is_base_url(self.mixpanel_url),
            "region must be left out when mixpanel_url is given, which replaces the region's host": (
                self.mixpanel_url is None or self.region not in ("eu", "in")
            ),
            f"flush_interval_seconds must be a number above 0, not {shown(interval)}": is_number(interval)
            and interval > 0,
            f"resend_after_seconds must be a number above 0, or 0 to send always, not {shown(resend)}": (
                is_number(resend) and resend >= 0
            ),
            f"unset_deleted must be True or False, not {shown(self.unset_deleted)}": type(self.unset_deleted)
            is bool,
            f"max_pending must be a whole number above 0, not {shown(pending)}": type(pending) is int
            and pending > 0,
            f"when_full must be 'drop' or 'wait', not {_choice(self.when_full)}": self.when_full
            in ("drop", "wait"),
            f"outbox must be {PLACES}, or None, not {shown(self.outbox)}": self.outbox is None
            or is_place(self.outbox),
            f"cohorts must be a store, such as flagsync.cohorts.SQLiteStore, or None, not {shown(self.cohorts)}": (
                self.cohorts is None or is_instance_of(self.cohorts, MembershipReader)
            ),
        }
        for name, (arguments, count) in ARGUMENTS.items():
            option = getattr(self, name)
            fault = "" if option is None and name in MAY_BE_NONE else call_fault(option, count)
            rules[f"{name} must be a function of {arguments}, not {fault}"] = not fault
        return rules

    @property
    def bound(self) -> int:
        """How many messages may wait before the oldest is dropped."""
        return self.max_pending + (self.tuning.max_callers if self.when_full == "wait" else 0)

    @property
    def limits(self) -> Limits:
        """How much waits, and how much goes into one request."""
        return Limits(
            max_pending=self.bound,
            # A message may have a second record, which removes properties.
            max_batch_messages=MAX_BATCH_MESSAGES // 2 if self.unset_deleted else MAX_BATCH_MESSAGES,
            flush_interval_seconds=self.flush_interval_seconds,
        )

    @property
    def names(self) -> NameMapping:
        """How identities and flags are named in Mixpanel."""
        return NameMapping(
            distinct_id=_plain(self.distinct_id),
            property_name=_plain(self.property_name),
            property_value=_plain(self.property_value),
        )

    @property
    def exposure_names(self) -> ExposureNames:
        """How experiments and variants are named in Mixpanel."""
        return ExposureNames(
            experiment_name=_plain(self.experiment_name),
            variant_name=_plain(self.variant_name),
            exposure_properties=self.exposure_properties or _no_properties,
        )

    def destination(self, token: str, endpoint: str = "engage") -> Destination:
        """Return where profile updates of a project go, or its events with the endpoint ``track``."""
        url = (self.mixpanel_url or HOSTS[self.region]).rstrip("/") + f"/{endpoint}"
        return Destination(url, blake2b(token.encode(), digest_size=8).hexdigest())


def _no_properties(_: str, __: Flag) -> Mapping[str, PropertyValue]:
    return {}


def _is_base_url(value: object) -> bool:
    is_whole = isinstance(value, str) and is_url(value)
    return is_whole and urlsplit(f"{value}").path.rstrip("/").rpartition("/")[2].lower() not in ENDPOINTS


def _choice(value: object) -> str:
    """Return a value that is no secret, as it is; cut, if it is long."""
    return f"{value!r:.40}" if type(value) is str else shown(value)


def _plain(function: Callable[[A], R]) -> Callable[[A], R]:
    """Return the function behind a default, which is called for each flag."""
    return function.function if isinstance(function, Default) else function
