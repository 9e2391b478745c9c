"""The quickstart: what three customers of a shop get, and what Mixpanel shows, without an account or a network.

Flagsmith evaluates offline, in the environment of shop.json; Mixpanel is a server on loopback.
"""

import json
import sys
from pathlib import Path

from flagsmith import Flagsmith
from flagsmith.models import Flag
from flagsmith.offline_handlers import LocalFileHandler

from flagsync import FlagSync
from flagsync.testing import MixpanelServer

CUSTOMERS = {"alice": {"plan": "free"}, "bob": {"plan": "free"}, "carol": {"plan": "premium"}}
ROW = "  {:18}  {:32}  {}"
NEXT = """\
What next:

  1. Set FLAGSMITH_ENVIRONMENT_KEY and MIXPANEL_TOKEN (and MIXPANEL_REGION=eu or in, if
     your Mixpanel project lives in the EU or in India), and evaluate in your application:

         client = FlagSync.from_env()
         flags = client.get_identity_flags("user_42", {"plan": "premium"})

  2. Open the profile of user_42 in Mixpanel, under Users: each flag is a property, by
     which you can break down reports.

  3. To see what your application sends, without sending it to Mixpanel, run

         python -m flagsync.testing

  4. Read on in README.md. Applications to start from are examples/django_app.py,
     examples/fastapi_app.py and examples/flask_app.py."""


def main() -> None:
    """Evaluate, deliver and show."""
    flagsmith = Flagsmith(
        offline_mode=True, offline_handler=LocalFileHandler(str(Path(__file__).with_name("shop.json")))
    )
    with MixpanelServer() as mixpanel, FlagSync(flagsmith, "any-token", mixpanel_url=mixpanel.url) as client:
        answers = {user: client.get_identity_flags(user, traits) for user, traits in CUSTOMERS.items()}
        if not client.flush():
            sys.exit("The Mixpanel on loopback did not get everything; what is logged above says why.")
        for user, flags in answers.items():
            print(f"{user}, on the plan {CUSTOMERS[user]['plan']!r}\n")
            print(ROW.format("flag", "what the user got", "what Mixpanel shows on the profile"))
            print(ROW.format("-" * 18, "-" * 32, "-" * 34))
            for flag in flags.all_flags():
                shown = json.dumps(mixpanel.profiles[user][flag.feature_name])
                print(ROW.format(flag.feature_name, got(flag), shown))
            print()
        stats = client.stats()
        print(f"Flagsmith answered {stats.accepted} calls; {stats.requests} request took them to Mixpanel.\n")
    print(NEXT)


def got(flag: Flag) -> str:
    """Say what a flag was for a user."""
    if not flag.enabled:
        return "off"
    value = "" if flag.value is None else f", {json.dumps(flag.value)}"
    return f"on{value} (variant {flag.variant})" if flag.variant else f"on{value}"


if __name__ == "__main__":
    main()
