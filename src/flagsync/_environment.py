"""Reads the options of a client from environment variables.

Guarantee: an option that the application passes wins over the environment; ``FLAGSYNC_ENABLED=false`` wins over both.
"""

import inspect
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

from flagsmith import Flagsmith
from flagsmith.models import DefaultFlag, Flag
from flagsmith.offline_handlers import OfflineHandler
from flagsmith.types import ApplicationMetadata
from requests.adapters import Retry

from flagsync._encoding.properties import PropertyValue
from flagsync._options import HOSTS
from flagsync._outbox.place import Place
from flagsync._rules import is_url, key_fault
from flagsync.cohorts.store import MembershipReader
from flagsync.exceptions import DeliveryError

BOOLEANS = {
    "0": False,
    "false": False,
    "no": False,
    "off": False,
    "1": True,
    "true": True,
    "yes": True,
    "on": True,
}


class EnvironmentOptions(TypedDict, total=False):
    """What ``from_env`` takes: the options of ``FlagSync`` and those of ``Flagsmith`` (flagsmith 6.3)."""

    mixpanel_token: str | None
    region: Literal["us", "eu", "in"]
    mixpanel_url: str | None
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
    when_full: Literal["drop", "wait"]
    outbox: Place | None
    cohorts: MembershipReader | None
    on_error: Callable[[DeliveryError], None] | None

    environment_key: str | None
    api_url: str | None
    realtime_api_url: str | None
    analytics_url: str | None
    custom_headers: dict[str, Any] | None
    request_timeout_seconds: int | None
    enable_local_evaluation: bool
    environment_refresh_interval_seconds: float
    retries: Retry | None
    enable_analytics: bool
    enable_events: bool
    event_processor_config: object
    default_flag_handler: Callable[[str], DefaultFlag] | None
    proxies: dict[str, str] | None
    offline_mode: bool
    offline_handler: OfflineHandler | None
    enable_realtime_updates: bool
    application_metadata: ApplicationMetadata | None


@dataclass(frozen=True, slots=True)
class Environment:
    """The arguments of two constructors.

    Attributes:
        flagsmith: Arguments of ``Flagsmith``.
        flagsync: Arguments of ``FlagSync``, without the client.
        rules: A rule in words for each variable -> whether it is met.
    """

    flagsmith: Mapping[str, Any]
    flagsync: Mapping[str, Any]
    rules: Mapping[str, bool]


def read_environment(options: Mapping[str, object]) -> Environment:
    """Return the given options, and for the others the values of the environment.

    Raises:
        TypeError: There is no such option.
    """
    of_flagsmith = inspect.signature(Flagsmith).parameters
    _refuse_unknown(options, EnvironmentOptions.__optional_keys__ | {*of_flagsmith})
    key, api_url, local = _variables("FLAGSMITH", "ENVIRONMENT_KEY", "API_URL", "LOCAL_EVALUATION")
    token, region, url = _variables("MIXPANEL", "TOKEN", "REGION", "URL")
    enabled, outbox = _variables("FLAGSYNC", "ENABLED", "OUTBOX")
    is_enabled = BOOLEANS.get(enabled.lower() or "true", True)
    needs_key = not (options.get("environment_key") or options.get("offline_mode"))
    needs_token = is_enabled and "mixpanel_token" not in options
    if options.get("mixpanel_url", url if is_url(url) else None) is not None:
        region = ""  # the URL replaces the region's host
        options = options if "mixpanel_url" in options else _without_region(options)
    fault = key_fault(key) if needs_key else ""
    wrong_key = f", not {fault}" if key else ""
    rules = {
        f"FLAGSMITH_ENVIRONMENT_KEY must be set to an SDK key of the environment{wrong_key}": not fault,
        "FLAGSMITH_API_URL must be a complete URL, such as https://edge.api.flagsmith.com/api/v1/": not api_url
        or is_url(api_url),
        f"FLAGSMITH_LOCAL_EVALUATION must be true or false, not {local!r:.40}": _is_boolean(local),
        "MIXPANEL_TOKEN must be set to the project token": not needs_token or bool(token),
        f"MIXPANEL_REGION must be us, eu or in, not {region!r:.40}": not region or region in HOSTS,
        "MIXPANEL_URL must be a complete URL, such as https://mixpanel.example.com": not url or is_url(url),
        f"FLAGSYNC_ENABLED must be true or false, not {enabled!r:.40}": _is_boolean(enabled),
    }
    flagsmith: dict[str, object] = {
        "environment_key": key or None,
        "api_url": api_url or None,
        "enable_local_evaluation": BOOLEANS.get(local.lower(), False),
    }
    # A value that breaks a rule above is left out here, so that only one rule reports it.
    flagsync: dict[str, object] = {
        "mixpanel_token": token or None,
        "region": region if region in HOSTS else "us",
        "mixpanel_url": url if is_url(url) else None,
        "outbox": outbox or None,
    }
    for name, value in options.items():
        (flagsmith if name in of_flagsmith else flagsync)[name] = value
    if not is_enabled:
        flagsync |= {"mixpanel_token": None, "outbox": None}
    return Environment(flagsmith, flagsync, rules)


def _is_boolean(variable: str) -> bool:
    return not variable or variable.lower() in BOOLEANS


def _refuse_unknown(options: Mapping[str, object], accepted: frozenset[str]) -> None:
    if unknown := sorted(options.keys() - accepted):
        names = ", ".join(sorted(accepted))
        raise TypeError(f"from_env() has no option named {', '.join(unknown)}; it accepts {names}")


def _without_region(options: Mapping[str, object]) -> dict[str, object]:
    """Return options for a URL of the environment, as tests set it for code that passes a region."""
    return {name: option for name, option in options.items() if name != "region" or option not in [*HOSTS]}


def _variables(prefix: str, *names: str) -> list[str]:
    return [os.environ.get(f"{prefix}_{name}", "").strip() for name in names]
