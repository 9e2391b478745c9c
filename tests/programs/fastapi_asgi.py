"""A FastAPI application for uvicorn: it evaluates for the user in the query.

``LIFESPAN`` says whether the application closes its client: ``closes``, ``closes_by_event`` or nothing.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from application import build
from fastapi import FastAPI

from flagsync import close_on_sigterm

HOW = os.environ["LIFESPAN"]
client = build()


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    yield
    await client.aclose()


if HOW == "closes":
    app = FastAPI(lifespan=lifespan)
else:
    app = FastAPI(on_shutdown=[client.close] if HOW == "closes_by_event" else [])
if "FORGETFUL" not in os.environ:
    close_on_sigterm()


@app.get("/")
async def evaluate(user: str) -> str:
    await client.aget_identity_flags(user)
    return "ok"
