"""Checks of Mixpanel's host, the token and the clock. Each returns None if there is nothing to check."""

from email.utils import parsedate_to_datetime

from flagsync._cli.doctor.check import Check, fine, wrong
from flagsync._cli.doctor.facts import Facts, mixpanel_url
from flagsync._cli.stores import shown_url
from flagsync._cli.terminal import age, masked
from flagsync._clock import time
from flagsync._delivery.answers import Misconfiguration, Outcome, Reply, judge
from flagsync._delivery.mixpanel import MIXPANEL_IMPORT

SET = "set MIXPANEL_TOKEN and MIXPANEL_REGION to what Mixpanel's project settings say"
CLOCK_SECONDS = 60.0  # Mixpanel counts behaviour from the time of an exposure on


def host(facts: Facts) -> Check:
    """Say where updates go."""
    options = facts.options
    where = "instead of a region's host" if options.mixpanel_url else f"region {options.region}"
    advice = (
        ""
        if options.mixpanel_url
        else "; it must be where the project's data lives, and the US host drops other data"
    )
    return fine("mixpanel_host", f"{shown_url(mixpanel_url(options))}, {where}{advice}")


def token(facts: Facts) -> Check | None:
    """Check whether Mixpanel refuses the token."""
    if facts.asked is None:
        return None
    answer = judge(MIXPANEL_IMPORT, facts.asked)
    # Without data, Mixpanel refuses the batch, if it does not refuse the token before.
    if answer.outcome in (Outcome.ACCEPTED, Outcome.REFUSED):
        return fine(
            "mixpanel_token",
            f"Mixpanel does not refuse {masked(facts.options.token or '')} for this region",
        )
    if isinstance(facts.asked, Misconfiguration):
        return wrong("mixpanel_token", answer.reason, "correct what the result names")
    is_refused = answer.outcome is Outcome.MISCONFIGURED
    return wrong(
        "mixpanel_token", answer.reason, SET if is_refused else "try again when Mixpanel and the network work"
    )


def clock(facts: Facts) -> Check | None:
    """Compare this machine's clock with those of the services."""
    asked = facts.asked.date if isinstance(facts.asked, Reply) else ""
    dates = [date for date in (asked, facts.fetched.date if facts.fetched else "") if date]
    if not dates:
        return None
    try:
        seconds = time() - parsedate_to_datetime(dates[0]).timestamp()
    except ValueError:
        return None
    if abs(seconds) <= CLOCK_SECONDS:
        return fine("clock", "agrees with that of the server")
    direction = "ahead of" if seconds > 0 else "behind"
    return wrong(
        "clock",
        f"{age(abs(seconds))} {direction} that of the server",
        "synchronise it, for example with NTP",
    )
