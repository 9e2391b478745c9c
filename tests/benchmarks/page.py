"""The page of the benchmark ``web``: a Flask application that asks for the flags of the user in the path."""

import gc
import os

from flask import Flask

from flagsync import FlagSync
from tests.benchmarks.inputs import environment_client

application = Flask(__name__)
side, outbox, url, *environment = os.environ["PAGE"].split(" ")
bare = environment_client(*map(int, environment))
client = bare if side == "bare" else FlagSync(bare, "token", mixpanel_url=url, outbox=outbox or None)
names = sorted(flag.feature_name for flag in bare.get_environment_flags().all_flags())[::70]
collections = [0]


def _count(phase: str, info: dict[str, int]) -> None:
    collections[0] += phase == "stop" and info["generation"] == 2


gc.callbacks.append(_count)


@application.get("/<user>")
def page(user: str) -> str:
    """Read three flags, as a page does."""
    flags = client.get_identity_flags(user, {"plan": "pro", "age": len(user) * 9})
    return ",".join(str(flags.is_feature_enabled(name)) for name in names)


@application.get("/full/collections")
def full_collections() -> str:
    """How many full collections there were."""
    return str(collections[0])
