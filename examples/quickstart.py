"""The quickstart: what four users get on their Mixpanel profiles, without an account and without a network.

Flagsmith evaluates offline, in an environment recorded from a real server; Mixpanel is a server on loopback.
"""

import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unicodedata import east_asian_width

from flagsmith import Flagsmith
from flagsmith.offline_handlers import LocalFileHandler

from flagsync import FlagSync
from flagsync.testing import MixpanelServer

# In this environment user_2 has an override of its own, and a segment holds who is on the plan "premium".
IDENTITIES = {"user_1": None, "user_2": None, "user_3": None, "premium_user": {"plan": "premium"}}
MAX_COLUMNS = 18  # one property, four identities and two spaces between them make 98


def main() -> None:
    """Evaluate, deliver and show; then evaluate again what has not changed."""
    # What flagsync could not do as asked, it logs: here, that a value is longer than Mixpanel keeps.
    logging.basicConfig(stream=sys.stdout, format="%(levelname)s from %(name)s: %(message)s\n")
    document = Path(__file__).with_name("environment-document.json")
    flagsmith = Flagsmith(offline_mode=True, offline_handler=LocalFileHandler(str(document)))
    with MixpanelServer() as mixpanel, FlagSync(flagsmith, "any-token", mixpanel_url=mixpanel.url) as client:
        for identifier, traits in IDENTITIES.items():
            client.get_identity_flags(identifier, traits)
        if not client.flush():
            sys.exit("The Mixpanel on loopback did not get everything; what is logged above says why.")
        print(table(mixpanel.profiles))
        stats = client.stats()
        print(f"\n{stats.accepted} calls wrote {stats.delivered} profiles in {stats.requests} request.")
        client.get_identity_flags("user_1")
        client.flush()
        stats = client.stats()
        print(f"user_1 again: {stats.unchanged} profile unchanged, not sent, still {stats.requests} request.")


def table(profiles: Mapping[str, Mapping[str, Any]]) -> str:
    """Properties as rows, profiles as columns: first what differs, then what is the same for all."""
    names = dict.fromkeys(name for profile in profiles.values() for name in profile)
    rows = [[name, *(repr(profile.get(name)) for profile in profiles.values())] for name in names]
    different = [row for row in rows if len(set(row[1:])) > 1]
    same = [row for row in rows if len(set(row[1:])) == 1]
    head = ["property", *profiles]
    widths = [min(MAX_COLUMNS, max(map(width, column))) for column in zip(head, *rows, strict=True)]
    rule = ["─" * columns for columns in widths]
    return "\n".join("  ".join(map(fit, row, widths)).rstrip() for row in (head, rule, *different, rule, *same))


def fit(text: str, columns: int) -> str:
    """Pad the text to the columns, or cut it with an ellipsis."""
    while width(text) > columns:
        text = text.removesuffix("…")[:-1] + "…"
    return text + " " * (columns - width(text))


def width(text: str) -> int:
    """Count the columns of a terminal: a wide character, as in 日本語, takes two."""
    return sum(2 if east_asian_width(character) in "FW" else 1 for character in text)


if __name__ == "__main__":
    main()
