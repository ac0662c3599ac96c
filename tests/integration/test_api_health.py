"""Alive, ready, without Redis, and what a mistake or the end of the server looks like."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import delete

from livejobs.database import AsyncDatabase
from livejobs.models import Beat
from livejobs.settings import Settings
from livejobs_server import create_app, create_key, sign_token
from tests.support.clients import changed, client_of, code_of, readiness, running, until_parts
from tests.support.led_jobs import MakeJob
from tests.support.servers import ValkeyProcess, free_port

pytest_plugins = ["tests.support.live_stack", "tests.support.rest"]


# -- ready and alive -------------------------------------------------------------------------------


async def test_server_is_ready_when_all_parts_are_there(nobody: httpx.AsyncClient) -> None:
    await until_parts(nobody, database="ok", migrations="ok", redis="ok", keeper="ok")
    response = await nobody.get("/readyz")
    assert response.status_code == 200
    assert response.json()["status"] == "ready"
    assert (await nobody.get("/healthz")).json() == {"status": "ok"}


async def test_server_without_a_live_keeper_is_not_ready(
    nobody: httpx.AsyncClient, async_database: AsyncDatabase
) -> None:
    await until_parts(nobody, keeper="ok")
    async with async_database.begin() as connection:
        await connection.execute(delete(Beat))
    assert (await readiness(nobody))["keeper"] == "missing"


async def test_server_is_asked_for_its_health_without_credentials_or_secrets(
    nobody: httpx.AsyncClient, settings: Settings
) -> None:
    for path in ("/healthz", "/readyz"):
        text = (await nobody.get(path)).text
        assert settings.database_url not in text
        assert settings.redis_url not in text


# -- Redis is away ---------------------------------------------------------------------------------


async def test_server_starts_and_works_without_redis(
    settings: Settings, async_database: AsyncDatabase
) -> None:
    gone = changed(settings, redis_url=f"redis://127.0.0.1:{free_port()}/0")
    key, _ = await create_key(async_database, "alice", ["read", "write"])
    async with running(create_app(gone)) as app, client_of(app, **{"X-API-Key": key}) as client:
        await until_parts(client, redis="away", database="ok", keeper="ok")
        made = await client.post("/v1/jobs", json={"task": "demo.led"})
        assert made.status_code == 202, "the keeper sends it later"
        url = made.headers["location"]
        assert (await client.get(url)).json()["status"] == "pending"
        assert (await client.get(f"{url}/entries")).json()["items"] == []
        cancelled = await client.post(f"{url}/cancel")
        assert cancelled.json()["status"] == "cancelled"
        assert (await client.delete(url)).status_code == 204


async def test_server_is_ready_again_when_redis_is(settings: Settings) -> None:
    valkey = ValkeyProcess()
    app = create_app(changed(settings, redis_url=valkey.url))
    try:
        async with running(app), client_of(app) as client:
            await until_parts(client, redis="away")
            await asyncio.to_thread(valkey.start)
            await until_parts(client, redis="ok")
    finally:
        valkey.close()


# -- mistakes and the end --------------------------------------------------------------------------


async def test_mistake_of_the_server_is_logged_and_told_to_nobody(
    app: FastAPI,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def broken(_program: Any) -> Any:
        raise ZeroDivisionError("hush")

    monkeypatch.setattr(app.state.livejobs.database, "read", broken, raising=False)
    token = sign_token(owner="alice")
    async with client_of(app, Authorization=f"Bearer {token}") as client:
        response = await client.get("/v1/jobs")
    assert code_of(response) == (500, "internal_error")
    assert "hush" not in response.text
    assert "hush" in caplog.text
    assert "GET /v1/jobs failed" in caplog.text
    assert token not in caplog.text


async def test_held_request_ends_when_the_server_goes_away(
    app: FastAPI, nobody: httpx.AsyncClient, make_job: MakeJob
) -> None:
    job = await make_job()
    nobody.headers["Authorization"] = f"Bearer {sign_token(jobs=[job.id])}"
    tag = (await nobody.get(f"/v1/jobs/{job.id}")).headers["etag"]
    held = asyncio.create_task(
        nobody.get(f"/v1/jobs/{job.id}", params={"wait": 60}, headers={"If-None-Match": tag})
    )
    await asyncio.sleep(0.2)
    assert not held.done()
    app.state.livejobs.departure.begin()
    assert (await asyncio.wait_for(held, 5)).status_code == 304
