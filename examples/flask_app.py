"""A Flask application whose flags appear in Mixpanel: ``python examples/flask_app.py``, without an account.

Flagsmith evaluates offline, in an environment recorded from a real server; Mixpanel is a server on loopback.
"""

from pathlib import Path
from tempfile import mkdtemp

from flagsmith import Flagsmith
from flagsmith.offline_handlers import LocalFileHandler
from flask import Flask, request
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from flagsync import FlagSync
from flagsync.cohorts import CohortWebhook, SQLiteStore
from flagsync.testing import MixpanelServer

# Feature -> Mixpanel property, for the flags that are mirrored; without property_name, all flags are.
PROPERTIES = {"str_on": "Checkout button", "seg_override": "Customer tier"}

mixpanel = MixpanelServer()  # of the demonstration, which starts it at the end of this file
document = Path(__file__).with_name("environment-document.json")
flagsmith = Flagsmith(offline_mode=True, offline_handler=LocalFileHandler(str(document)))

# One client per process, at module level: each worker of gunicorn imports this module and builds its own, after
# the fork. Not with --preload: the thread that refreshes Flagsmith's flags does not survive a fork.
# In production:  client = FlagSync.from_env(property_name=PROPERTIES.get, cohorts=cohorts)
cohorts = SQLiteStore(Path(mkdtemp()) / "cohorts.db")  # in production: a place that stays
client = FlagSync(
    flagsmith, "any-token", mixpanel_url=mixpanel.url, property_name=PROPERTIES.get, cohorts=cohorts
)

app = Flask(__name__)
webhook = CohortWebhook(cohorts, credentials=[("mixpanel", "a long password")])
app.wsgi_app = DispatcherMiddleware(app.wsgi_app, {"/mixpanel/cohorts": webhook.wsgi})  # type: ignore[method-assign]


@app.get("/checkout")
def checkout() -> dict[str, object]:
    """Let flags decide how the user's checkout looks."""
    user = request.args["user"]
    flags = client.get_identity_flags(user, {"plan": request.args.get("plan", "free")})
    tier = flags.get_feature_value("seg_override") if flags.is_feature_enabled("seg_override") else "standard"
    # The user meets an experiment here, so Mixpanel's experiment report learns which variant they got.
    layout = flags.get_flag("mv_keyed")
    client.track_exposure(user, layout)
    return {"button": flags.get_feature_value("str_on"), "tier": tier, "layout": layout.value}


def demonstrate() -> None:
    """Print two requests, their answers, and the profiles and experiments in Mixpanel afterwards."""
    browser = app.test_client()
    for url in ("/checkout?user=user_1&plan=premium", "/checkout?user=user_2"):
        print(f"GET {url}\n    {browser.get(url).text.strip()}")
    parameters = {"mixpanel_cohort_id": "7", "members": [{"mixpanel_distinct_id": "user_1"}]}
    update = {"action": "add_members", "parameters": parameters}
    answer = browser.post("/mixpanel/cohorts", json=update, auth=("mixpanel", "a long password"))
    print(f"POST /mixpanel/cohorts\n    {answer.text}")
    client.flush()
    for distinct_id, properties in mixpanel.profiles.items():
        print(f"Mixpanel profile {distinct_id}\n    {properties}")
    print(f"Mixpanel experiments\n    {mixpanel.experiments}")


if __name__ == "__main__":
    # In production nothing needs to close the client: Python's exit delivers what is pending.
    with mixpanel, client:
        demonstrate()
