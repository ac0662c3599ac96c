"""Calling an app that runs in this process."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import uuid4

import httpx
from fastapi import FastAPI

from livejobs.settings import Settings, configure

BASE_URL = "http://livejobs.test"

MakeClient = Callable[..., Awaitable[httpx.AsyncClient]]


@contextlib.asynccontextmanager
async def running(app: FastAPI) -> AsyncIterator[FastAPI]:
    """The app with its lifespan, as a server runs it."""
    async with app.router.lifespan_context(app):
        yield app


def client_of(app: FastAPI, **headers: str) -> httpx.AsyncClient:
    """A client that calls the app in this process; what the app raises is the test's failure."""
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url=BASE_URL, headers=headers, timeout=30
    )


def code_of(response: httpx.Response) -> tuple[int, str]:
    """Status and code of a problem document."""
    assert response.headers["content-type"] == "application/problem+json", response.text
    return response.status_code, response.json()["code"]


def changed(settings: Settings, **changes: Any) -> Settings:
    """The process configured anew, with some settings changed."""
    known: dict[str, Any] = settings.model_dump()
    return configure(**known | changes)


async def readiness(client: httpx.AsyncClient) -> dict[str, str]:
    """What `/readyz` says of each part."""
    response = await client.get("/readyz")
    if response.status_code != 200:
        assert code_of(response) == (503, "not_ready")
        assert "retry-after" in response.headers
    found: dict[str, str] = response.json()["parts"]
    return found


async def until_parts(client: httpx.AsyncClient, **expected: str) -> None:
    """Wait until `/readyz` says that of each part."""
    for _ in range(200):
        found = await readiness(client)
        if found.items() >= expected.items():
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"not within 20 s: {expected}, but {found}")


async def new_job(client: httpx.AsyncClient, key: str | None = None, **body: Any) -> str:
    """A job made over REST, under an idempotency key; returns its id.

    A machine that is busy may take longer for it than a request waits, and the answer is 503: like
    every client it then tries again, under the same key.
    """
    headers = {"Idempotency-Key": key or uuid4().hex}
    for _ in range(20):
        response = await client.post("/v1/jobs", json={"task": "demo.led"} | body, headers=headers)
        if response.status_code not in (409, 503):
            break
        await asyncio.sleep(float(response.headers["retry-after"]) / 4)
    assert response.status_code == 202, response.text
    job_id: str = response.json()["job_id"]
    return job_id
