"""The options of a client, checked: a wrong one is a ``ValueError`` that names the remedy."""

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import NoneType
from typing import Any
from urllib.parse import urlsplit

from flagsmith.models import Flag

from flagsync._properties import PropertyValue
from flagsync.exceptions import DeliveryError

# https://docs.mixpanel.com/docs/privacy/eu-residency: a host takes the data of its own region only.
HOSTS = {
    "us": "https://api.mixpanel.com",
    "eu": "https://api-eu.mixpanel.com",
    "in": "https://api-in.mixpanel.com",
}
BOOLEANS = {"": False, "0": False, "false": False, "no": False, "1": True, "true": True, "yes": True}


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The options that ``FlagSync`` documents; without a token nothing is mirrored."""

    token: str | None = field(repr=False)
    region: str
    mixpanel_url: str | None
    distinct_id: Callable[[str], str | None]
    property_name: Callable[[str], str | None]
    property_value: Callable[[Flag], PropertyValue]
    flush_interval_seconds: float
    resend_after_seconds: float
    max_pending: int
    when_full: str
    outbox: str | os.PathLike[str] | None
    cohorts: object
    on_error: Callable[[DeliveryError], None] | None

    def __post_init__(self) -> None:
        """Raise ``ValueError`` with every remedy that is needed."""
        interval, resend, pending = self.flush_interval_seconds, self.resend_after_seconds, self.max_pending
        rules = {
            "mixpanel_token is the project token of Mixpanel's project settings, or None to mirror nothing": (
                self.token is None or (isinstance(self.token, str) and self.token != "")
            ),
            "region is 'us', 'eu' or 'in', where the Mixpanel project's data lives": self.region in [*HOSTS],
            "mixpanel_url is a whole URL, such as 'https://mixpanel.example.com'": (
                self.mixpanel_url is None or is_url(self.mixpanel_url)
            ),
            "flush_interval_seconds is a number above 0": _is_number(interval) and interval > 0,
            "resend_after_seconds is a number above 0, or 0 to send always": _is_number(resend) and resend >= 0,
            "max_pending is a whole number above 0": type(pending) is int and pending > 0,
            "when_full is 'drop' or 'wait'": self.when_full in ("drop", "wait"),
            "outbox is the path of a file, or None": isinstance(self.outbox, (str, os.PathLike, NoneType)),
            "cohorts is a store, such as flagsync.cohorts.SQLiteStore, or None": (
                self.cohorts is None or hasattr(self.cohorts, "traits_of")
            ),
        }
        for name in ("distinct_id", "property_name", "property_value", "on_error"):
            option = getattr(self, name)
            rules[f"{name} is a function"] = callable(option) or (option is None and name == "on_error")
        require(rules)

    @property
    def bound(self) -> int:
        """How many profiles may wait before the oldest is dropped."""
        return self.max_pending if self.when_full == "drop" else sys.maxsize

    @property
    def url(self) -> str:
        """Where Mixpanel takes profile updates."""
        return (self.mixpanel_url or HOSTS[self.region]).rstrip("/") + "/engage"


def read_environment(options: Mapping[str, object]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arguments of ``Flagsmith`` and of ``FlagSync``: the options, else what the environment holds."""
    names = "ENVIRONMENT_KEY API_URL LOCAL_EVALUATION".split()
    key, api_url, local = (os.environ.get(f"FLAGSMITH_{name}", "").strip() for name in names)
    token, region, url = (os.environ.get(f"MIXPANEL_{name}", "").strip() for name in ("TOKEN", "REGION", "URL"))
    require(
        {
            "FLAGSMITH_ENVIRONMENT_KEY must be set to an SDK key of the environment": key,
            "FLAGSMITH_API_URL must be a whole URL": not api_url or is_url(api_url),
            "FLAGSMITH_LOCAL_EVALUATION must be true or false": local.lower() in BOOLEANS,
            "MIXPANEL_TOKEN must be set to the project token": token or "mixpanel_token" in options,
            "MIXPANEL_REGION must be us, eu or in": not region or region in HOSTS,
            "MIXPANEL_URL must be a whole URL": not url or is_url(url),
        }
    )
    flagsmith = {
        "environment_key": key,
        "api_url": api_url or None,
        "enable_local_evaluation": BOOLEANS[local.lower()],
    }
    defaults = {"mixpanel_token": token, "region": region or "us", "mixpanel_url": url or None}
    return flagsmith, {**defaults, **options}


def require(rules: Mapping[str, object]) -> None:
    """Raise ``ValueError`` with each rule that does not hold."""
    if broken := [rule for rule, holds in rules.items() if not holds]:
        raise ValueError("; ".join(broken))


def is_url(value: Any) -> bool:  # noqa: ANN401 - an option may be anything
    """Whether the value is an absolute HTTP(S) URL."""
    try:
        parts = urlsplit(value)
        whole = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        return whole and value.split() == [value] and not {"?", "#"} & {*value}
    except (AttributeError, TypeError, ValueError):  # no text, or no URL
        return False


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and abs(value) <= sys.float_info.max  # type: ignore[arg-type]
