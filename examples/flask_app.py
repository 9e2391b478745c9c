"""A Flask application whose feature flags appear in Mixpanel, runnable without any account.

``python examples/flask_app.py`` shows two checkouts and ends; ``gunicorn --chdir examples flask_app:app`` serves.
"""

import atexit
import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from flagsmith import Flagsmith
from flagsmith.offline_handlers import LocalFileHandler
from flask import Flask, request

from flagsync import FlagSync
from flagsync.testing import MixpanelServer

# Feature -> Mixpanel property; other features stay out. Without this option all of them are mirrored.
PROPERTIES = {"str_on": "Checkout button", "seg_override": "Customer tier"}

# Until "client", the stage: Flagsmith offline, Mixpanel on loopback. In production all of it is one line:
#     client = FlagSync.from_env(property_name=PROPERTIES.get)
# At module level each process has one client. gunicorn's workers import the module, so they build it after the
# fork; with --preload build it in gunicorn's post_fork hook: the thread that keeps Flagsmith's flags fresh does
# not survive a fork. Python's exit closes the client: what is pending is still delivered.
stage = ExitStack()
atexit.register(stage.close)
mixpanel = stage.enter_context(MixpanelServer())
document = Path(__file__).with_name("environment-document.json")
flagsmith = Flagsmith(offline_mode=True, offline_handler=LocalFileHandler(str(document)))
client = stage.enter_context(
    FlagSync(flagsmith, "any-token", mixpanel_url=mixpanel.url, property_name=PROPERTIES.get)
)

app = Flask(__name__)


@app.get("/checkout")
def checkout() -> dict[str, Any]:
    """Decide by flags what the user's checkout looks like."""
    flags = client.get_identity_flags(request.args["user"], {"plan": request.args.get("plan", "free")})
    tier = flags.get_feature_value("seg_override") if flags.is_feature_enabled("seg_override") else "standard"
    return {"button": flags.get_feature_value("str_on"), "tier": tier}


if __name__ == "__main__":
    for query in ("user=user_1&plan=premium", "user=user_2&plan=free"):
        answer = app.test_client().get(f"/checkout?{query}")
        print(f"GET /checkout?{query}\n  answer   {answer.status_code} {json.dumps(answer.json)}")
    client.flush()
    for distinct_id, properties in mixpanel.profiles.items():
        print(f"  profile  {distinct_id}: {properties}")
