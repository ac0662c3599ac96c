"""A FastAPI app as Celery's users write it, with livejobs mounted beside its own endpoints."""

from __future__ import annotations

from fastapi import FastAPI, HTTPException
from fastapi.requests import HTTPConnection

from livejobs_server import Viewer, mount

from .jobs_app import add, flaky, process
from .jobs_app import app as celery_app

USERS = {"key-of-ada": "ada", "key-of-bob": "bob"}


def authenticate(connection: HTTPConnection) -> Viewer | None:
    """The app's own users, by a header or, where a browser cannot send one, the query."""
    key = connection.headers.get("x-user-key") or connection.query_params.get("key", "")
    return Viewer(owner=USERS[key]) if key in USERS else None


app = FastAPI()
mount(app, authenticate=authenticate, celery=celery_app)


@app.post("/process/{items}")
def start_process(items: int) -> dict[str, str]:
    """The endpoint of every tutorial."""
    if items > 10_000:
        raise HTTPException(422, "too many")
    return {"job_id": process.delay(items).id}


@app.post("/flaky/{failures}")
async def start_flaky(failures: int) -> dict[str, str]:
    """An async endpoint that uses `delay` all the same."""
    return {"job_id": flaky.delay(failures).id}


@app.post("/add")
def start_chain() -> dict[str, str]:
    """A chain."""
    return {"job_id": (add.s(1, 2) | add.s(3)).apply_async().id}


@app.get("/v2/hello")
def hello() -> dict[str, str]:
    """The app's own route, declared after livejobs was mounted."""
    return {"hello": "world"}
