# mypy: disable-error-code="import-untyped, untyped-decorator"
# Django is not typed.
"""A Django application whose flags appear in Mixpanel: ``python examples/django_app.py``, without an account.

Flagsmith evaluates offline, in an environment recorded from a real server; Mixpanel is a server on loopback.
"""

from base64 import b64encode
from io import BytesIO
from pathlib import Path
from tempfile import mkdtemp

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.test import Client
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from flagsmith import Flagsmith
from flagsmith.offline_handlers import LocalFileHandler

from flagsync import FlagSync, close_on_sigterm
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
webhook = CohortWebhook(cohorts, credentials=[("mixpanel", "a long password")])

# A normal exit of Python delivers pending updates, so nothing needs to close the client under gunicorn. uvicorn ends
# by the signal that it gets, without a normal exit, and Django has no lifespan: this line delivers at SIGTERM, too.
# It belongs in asgi.py, which servers import in their main thread.
close_on_sigterm()


def checkout(request: HttpRequest) -> JsonResponse:
    """Let flags decide how the user's checkout looks."""
    user = request.GET["user"]
    flags = client.get_identity_flags(user, {"plan": request.GET.get("plan", "free")})
    tier = flags.get_feature_value("seg_override") if flags.is_feature_enabled("seg_override") else "standard"
    # The user meets an experiment here, so Mixpanel's experiment report learns which variant they got.
    layout = flags.get_flag("mv_keyed")
    client.track_exposure(user, layout)
    return JsonResponse({"button": flags.get_feature_value("str_on"), "tier": tier, "layout": layout.value})


@csrf_exempt
def mixpanel_cohorts(request: HttpRequest) -> HttpResponse:
    """Pass a call of Mixpanel on to the webhook, under WSGI as under ASGI."""
    response = HttpResponse()

    def start_response(status: str, headers: list[tuple[str, str]]) -> None:
        response.status_code = int(status[:3])
        for name, value in headers:
            response[name] = value

    environ = {**request.META, "wsgi.input": BytesIO(request.body)}
    response.content = b"".join(webhook.wsgi(environ, start_response))
    return response


settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["localhost", "testserver"])
urlpatterns = [path("checkout", checkout), path("mixpanel/cohorts", mixpanel_cohorts)]
application = get_wsgi_application()


def demonstrate() -> None:
    """Print two requests, their answers, and the profiles and experiments in Mixpanel afterwards."""
    browser = Client()
    for url in ("/checkout?user=user_1&plan=premium", "/checkout?user=user_2"):
        print(f"GET {url}\n    {browser.get(url).text}")
    parameters = {"mixpanel_cohort_id": "7", "members": [{"mixpanel_distinct_id": "user_1"}]}
    update = {"action": "add_members", "parameters": parameters}
    password = f"Basic {b64encode(b'mixpanel:a long password').decode()}"
    answer = browser.post("/mixpanel/cohorts", update, "application/json", headers={"authorization": password})
    print(f"POST /mixpanel/cohorts\n    {answer.text}")
    client.flush()
    for distinct_id, properties in mixpanel.profiles.items():
        print(f"Mixpanel profile {distinct_id}\n    {properties}")
    print(f"Mixpanel experiments\n    {mixpanel.experiments}")


if __name__ == "__main__":
    with mixpanel, client:
        demonstrate()
