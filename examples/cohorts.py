"""Flagsmith flags target a Mixpanel cohort: a user before, in and after the cohort, without an account.

Flagsmith evaluates offline, in an environment recorded from a real server, with its segment put on the cohort;
Mixpanel is a server on loopback, and its calls of the webhook are made here, as it makes them.
"""

import json
import threading
import time
from base64 import b64encode
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.request import Request, urlopen
from wsgiref.simple_server import WSGIRequestHandler, make_server

from flagsmith import Flagsmith
from flagsmith.offline_handlers import LocalFileHandler

from flagsync import FlagSync
from flagsync.cohorts import CohortWebhook, SQLiteStore
from flagsync.testing import MixpanelServer

USERS = ("ann", "bob")
CREDENTIALS = ("mixpanel", "a long password")
TRAIT = "mixpanel_cohort_power_users"  # which flagsync makes of the cohort "Power users"


class QuietHandler(WSGIRequestHandler):
    """Logs nothing."""

    def log_message(self, *_: object) -> None:
        """Do nothing."""


def main() -> None:
    """Let ann join and leave a cohort, and print who gets what."""
    with (
        TemporaryDirectory() as directory,
        SQLiteStore(Path(directory) / "cohorts.db") as store,
        MixpanelServer() as mixpanel,
        FlagSync(
            offline_flagsmith(),
            "any-token",
            mixpanel_url=mixpanel.url,
            property_name={"seg_override": "Customer tier"}.get,
            cohorts=store,
        ) as client,
        make_server(
            "127.0.0.1",
            0,
            CohortWebhook(store, credentials=[CREDENTIALS]).wsgi,
            handler_class=QuietHandler,
        ) as server,
    ):
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/"
        print(table("what happens", "user", "flag", "Mixpanel profile"))
        show("nothing yet", client, mixpanel)
        for action in ("add_members", "remove_members"):
            show(post(url, action, "ann"), client, mixpanel)
        server.shutdown()


def offline_flagsmith() -> Flagsmith:
    """Return a client whose flag seg_override is "gold" for the members of the cohort."""
    handler = LocalFileHandler(str(Path(__file__).with_name("environment-document.json")))
    [segment] = handler.environment_document["project"]["segments"]
    [rule] = segment["rules"][0]["rules"]
    rule["conditions"] = [{"property_": TRAIT, "operator": "EQUAL", "value": "true"}]
    return Flagsmith(offline_mode=True, offline_handler=handler)


def post(url: str, action: str, user: str) -> str:
    """Call the webhook as Mixpanel does; say what came of it."""
    parameters = {
        "mixpanel_cohort_id": "2024",
        "mixpanel_cohort_name": "Power users",
        "page_info": {"total_pages": 1, "page_count": 1},
        "members": [{"mixpanel_distinct_id": user}],
    }
    body = json.dumps({"action": action, "parameters": parameters}).encode()
    authorization = f"Basic {b64encode(':'.join(CREDENTIALS).encode()).decode()}"
    headers = {"Authorization": authorization, "Content-Type": "application/json"}
    with urlopen(Request(url, body, headers)) as answer:
        status = json.load(answer)["status"]
    time.sleep(1)  # evaluations see the change within a second
    return f"webhook: {action} {user}: {status}"


def show(what: str, client: FlagSync, mixpanel: MixpanelServer) -> None:
    """Evaluate for each user; print what the flag is and what Mixpanel has."""
    for user in USERS:
        flags = client.get_identity_flags(user)
        client.flush()
        print(table(what, user, str(flags.get_feature_value("seg_override")), str(mixpanel.profiles[user])))
        what = ""


def table(*cells: str) -> str:
    """Return a line of the table."""
    widths = (36, 4, 4, 0)
    return "  ".join(map(str.ljust, cells, widths))


if __name__ == "__main__":
    main()
