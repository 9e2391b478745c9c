"""Checks of the options, proxies, certificates and the outbox. Each returns None if there is nothing to check."""

import os
import ssl
from pathlib import Path

from flagsync._cli.doctor.check import Check, fine, wrong
from flagsync._cli.doctor.facts import Facts, mixpanel_url
from flagsync._cli.failure import Failure
from flagsync._cli.settings import CONFIGURATION
from flagsync._cli.stores import opened, shown_url
from flagsync._cli.terminal import age, count
from flagsync._delivery.failures import CA_BUNDLE
from flagsync._delivery.http import proxy_for
from flagsync._files.place import check_directory
from flagsync._outbox.place import URL, absolute

OLD_SECONDS = 300.0
CA_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")  # in the order in which requests looks at them


def configuration(facts: Facts) -> Check:
    """Check the rules of the environment variables and of the options that they set."""
    rules = {**facts.environment.rules, **facts.options.rules()}
    if broken := [rule for rule, holds in rules.items() if not holds]:
        return wrong("configuration", "; ".join(broken), f"set these variables; see {CONFIGURATION}")
    return fine("configuration", "the environment variables follow the rules of FlagSync.from_env()")


def mirroring(facts: Facts) -> Check | None:
    """Check whether mirroring is switched off."""
    if facts.options.token is None and all(facts.environment.rules.values()):
        return wrong(
            "mirroring",
            "FLAGSYNC_ENABLED=false switches it off",
            "unset FLAGSYNC_ENABLED to mirror flags",
        )
    return None


def network(facts: Facts) -> Check:
    """Check the proxy and the CA bundle of requests to Mixpanel."""
    proxy = proxy_for(mixpanel_url(facts.options))
    bundle = next((path for name in CA_VARIABLES if (path := os.environ.get(name))), None)
    via = f"proxy {shown_url(proxy)}" if proxy else "no proxy"
    trusted = f"CA bundle {bundle}" if bundle else "the CA bundle of requests"
    if bundle is not None and (fault := _bundle_fault(bundle)):
        return wrong("network", f"the CA bundle {bundle} cannot be read: {fault}", f"check {CA_BUNDLE}")
    return fine("network", f"{via}, {trusted}")


def outbox(facts: Facts) -> Check | None:
    """Check whether the outbox can be used, and how long its oldest message has waited."""
    place = facts.options.outbox
    if not isinstance(place, str):
        return None
    try:
        if not URL.match(place) and not Path(place).exists():
            check_directory(f"{absolute(place)}")
            return fine("outbox", f"{place} does not exist yet; a client creates it")
        with opened(place) as store:
            status = store.status
    except (Failure, OSError) as error:
        return wrong("outbox", f"{error}", "name another outbox in FLAGSYNC_OUTBOX, or make this one usable")
    if status.pending and status.oldest_seconds > OLD_SECONDS:
        detail = f"{count(status.pending, 'message')} pending, the oldest for {age(status.oldest_seconds)}"
        return wrong(
            "outbox",
            detail,
            "look at the log of a process that uses it; flagsync outbox drain delivers the pending messages",
        )
    return fine("outbox", f"{shown_url(place)}: {count(status.pending, 'message')} pending")


def _bundle_fault(path: str) -> str:
    """Return why a CA bundle cannot be used; empty if it can."""
    try:
        ssl.create_default_context(**{"capath" if Path(path).is_dir() else "cafile": path})  # type: ignore[arg-type]
    except OSError as error:  # so is ssl.SSLError
        return error.strerror or type(error).__name__
    return ""
