"""What the server answers while the database is away, and when that comes back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends, FastAPI

from livejobs.database import AsyncDatabase
from livejobs.settings import Settings
from livejobs_server import Viewer, create_app, create_key, get_api_key, mount, sign_token
from tests.support.clients import changed, client_of, code_of, readiness, running, until_parts
from tests.support.led_jobs import MakeJob
from tests.support.proxy import proxied

pytest_plugins = ["tests.support.live_stack"]


@pytest.fixture
def database_url(make_database: Callable[[str], str]) -> str:
    """Only a database that is reached over a network can be away."""
    return make_database("postgresql")


REQUESTS: list[tuple[str, str, dict[str, Any]]] = [
    ("GET", "/v1/jobs", {}),
    ("GET", "/v1/jobs/x", {}),
    ("GET", "/v1/jobs/x/entries", {}),
    ("GET", "/v1/jobs/x/timeline", {}),
    ("POST", "/v1/jobs", {"json": {"task": "demo.led"}}),
    ("POST", "/v1/jobs", {"json": {"task": "demo.led"}, "headers": {"Idempotency-Key": "k"}}),
    ("POST", "/v1/jobs/x/cancel", {}),
    ("POST", "/v1/jobs/x/retry", {}),
    ("DELETE", "/v1/jobs/x", {}),
    ("POST", "/v1/tokens", {"json": {"jobs": ["x"]}}),
    ("POST", "/v1/tickets", {}),
    ("POST", "/v1/rag/ingest", {"files": {"files": ("a.txt", b"x")}}),
    ("GET", "/v1/rag/search?q=x", {}),
]


async def test_database_away_is_said_by_everything_that_needs_it(
    settings: Settings, async_database: AsyncDatabase, make_job: MakeJob
) -> None:
    """Also by keys, which are kept there; a signed token is known without it."""
    job = await make_job()
    key, _ = await create_key(async_database, "alice", ["read", "write"])
    async with proxied(settings.database_url) as (proxy, url):
        app = create_app(changed(settings, database_url=url))
        async with running(app), client_of(app) as client:
            token = {"Authorization": f"Bearer {sign_token(owner='alice')}"}
            address = f"/v1/jobs/{job.id}"
            assert (await client.get(address, headers=token)).status_code == 200
            await proxy.cut()
            for credentials in (token, {"X-API-Key": key}):
                client.headers.update(credentials)
                for method, path, more in REQUESTS:
                    await refused_for_now(client, method, path, more)
            assert (await client.get("/healthz")).status_code == 200
            assert (await readiness(client))["database"] == "away"
            await proxy.open()
            await until_parts(client, database="ok", keeper="ok")
            assert (await client.get(address, headers=token)).status_code == 200
    assert not list((settings.data_dir / "uploads").iterdir())


async def refused_for_now(
    client: httpx.AsyncClient, method: str, path: str, more: dict[str, Any]
) -> None:
    response = await client.request(method, path, **more)
    assert code_of(response) == (503, "database_unavailable"), (method, path, response.text)
    assert int(response.headers["retry-after"]) > 0
    assert "127.0.0.1" not in response.text


async def test_users_endpoint_says_so_too(
    settings: Settings, async_database: AsyncDatabase
) -> None:
    key, _ = await create_key(async_database, "alice", ["read"])
    async with proxied(settings.database_url) as (proxy, url):
        app = FastAPI()
        mount(app, settings=changed(settings, database_url=url))

        @app.get("/mine")
        async def mine(viewer: Annotated[Viewer, Depends(get_api_key)]) -> str:
            return viewer.owner

        async with running(app), client_of(app, **{"X-API-Key": key}) as client:
            assert (await client.get("/mine")).json() == "alice"
            await proxy.cut()
            await refused_for_now(client, "GET", "/mine", {})


async def test_server_starts_while_the_database_is_away_and_works_when_it_comes(
    settings: Settings,
) -> None:
    async with proxied(settings.database_url) as (proxy, url):
        await proxy.cut()
        app = create_app(changed(settings, database_url=url))
        async with running(app), client_of(app) as client:
            assert (await readiness(client))["database"] == "away"
            await proxy.open()
            await until_parts(client, database="ok", migrations="ok")
