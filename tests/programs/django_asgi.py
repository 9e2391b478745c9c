# mypy: disable-error-code="import-untyped"
"""A Django application for uvicorn, without a lifespan: it evaluates for the user in the query.

With ``end`` in the query SIGTERM comes while the request is served.
"""

import asyncio
import os
import signal

from application import build
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path

from flagsync import close_on_sigterm

if "FORGETFUL" not in os.environ:
    close_on_sigterm()
client = build()


async def evaluate(request: HttpRequest) -> HttpResponse:
    user = request.GET["user"]
    client.get_identity_flags(user)
    if "end" in request.GET:
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(0.2)
        client.get_identity_flags(f"{user}, after SIGTERM")
    return HttpResponse("ok")


def evaluate_in_thread(request: HttpRequest) -> HttpResponse:
    client.get_identity_flags(request.GET["user"])
    return HttpResponse("ok")


urlpatterns = [path("", evaluate), path("thread", evaluate_in_thread)]
settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="of a test")
application = get_asgi_application()
