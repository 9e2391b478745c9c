"""A FastAPI application whose flags appear in Mixpanel: ``python examples/fastapi_app.py``, without an account.

Flagsmith evaluates offline, in an environment recorded from a real server; Mixpanel is a server on loopback.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from fastapi import FastAPI, Request
from flagsmith import Flagsmith
from flagsmith.offline_handlers import LocalFileHandler
from starlette.routing import Route

from flagsync import FlagSync
from flagsync.cohorts import CohortWebhook, SQLiteStore
from flagsync.testing import MixpanelServer

# Feature -> Mixpanel property, for the flags that are mirrored; without property_name, all flags are.
PROPERTIES = {"str_on": "Checkout button", "seg_override": "Customer tier"}
DOCUMENT = Path(__file__).with_name("environment-document.json")
cohorts = SQLiteStore(Path(mkdtemp()) / "cohorts.db")  # in production: a place that stays
webhook = CohortWebhook(cohorts, credentials=[("mixpanel", "a long password")])


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, Any]]:
    """Build the client when the process starts to serve, close it when it ends."""
    # Each worker, of uvicorn as of gunicorn, runs this after its fork and has a client of its own.
    # In production:  async with FlagSync.from_env(property_name=PROPERTIES.get, cohorts=cohorts) as client:
    flagsmith = Flagsmith(offline_mode=True, offline_handler=LocalFileHandler(str(DOCUMENT)))
    with MixpanelServer() as mixpanel:
        async with FlagSync(
            flagsmith,
            "any-token",
            mixpanel_url=mixpanel.url,
            property_name=PROPERTIES.get,
            cohorts=cohorts,
        ) as client:
            yield {"client": client, "mixpanel": mixpanel}


app = FastAPI(lifespan=lifespan)
app.routes.append(Route("/mixpanel/cohorts", webhook.asgi))  # app.mount() would redirect to …/cohorts/


@app.get("/checkout")
async def checkout(request: Request, user: str, plan: str = "free") -> dict[str, Any]:
    """Let flags decide how the user's checkout looks."""
    client: FlagSync = request.state.client
    # Never blocks the event loop: what has to wait, for Flagsmith or for the store of cohorts, runs in a thread.
    flags = await client.aget_identity_flags(user, {"plan": plan})
    tier = flags.get_feature_value("seg_override") if flags.is_feature_enabled("seg_override") else "standard"
    # The user meets an experiment here, so Mixpanel's experiment report learns which variant they got.
    layout = flags.get_flag("mv_keyed")
    client.track_exposure(user, layout)
    return {"button": flags.get_feature_value("str_on"), "tier": tier, "layout": layout.value}


if __name__ == "__main__":
    from fastapi.testclient import TestClient  # here, since only the demonstration needs it, and httpx2 with it

    with TestClient(app) as browser:
        for url in ("/checkout?user=user_1&plan=premium", "/checkout?user=user_2"):
            print(f"GET {url}\n    {browser.get(url).text}")
        parameters = {"mixpanel_cohort_id": "7", "members": [{"mixpanel_distinct_id": "user_1"}]}
        update = {"action": "add_members", "parameters": parameters}
        answer = browser.post("/mixpanel/cohorts", json=update, auth=("mixpanel", "a long password"))
        print(f"POST /mixpanel/cohorts\n    {answer.text}")
        state = browser.app_state
        state["client"].flush()
        for distinct_id, properties in state["mixpanel"].profiles.items():
            print(f"Mixpanel profile {distinct_id}\n    {properties}")
        print(f"Mixpanel experiments\n    {state['mixpanel'].experiments}")
