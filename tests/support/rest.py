"""Fixtures of the REST tests: the app in this process, and clients of several people."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI

from livejobs.database import AsyncDatabase
from livejobs.settings import Settings
from livejobs_server import create_app, create_key

from .clients import MakeClient, client_of, running
from .patient import wait_for_rows


@pytest.fixture
async def app(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FastAPI]:
    """The server of its own, running; the database may take its time."""
    wait_for_rows(monkeypatch)
    async with running(create_app(settings)) as app:
        yield app


@pytest.fixture
async def make_client(app: FastAPI, async_database: AsyncDatabase) -> AsyncIterator[MakeClient]:
    """``await make_client("alice", "read")``: a client with a key of its own."""
    async with contextlib.AsyncExitStack() as clients:

        async def make(owner: str, *scopes: str) -> httpx.AsyncClient:
            made = await create_key(async_database, owner, scopes or ("read", "write"))
            client = client_of(app, Authorization=f"Bearer {made.key}")
            return await clients.enter_async_context(client)

        yield make


@pytest.fixture
async def nobody(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client without credentials."""
    async with client_of(app) as client:
        yield client


@pytest.fixture
async def alice(make_client: MakeClient) -> httpx.AsyncClient:
    """A client of Alice's."""
    return await make_client("alice")


@pytest.fixture
async def bob(make_client: MakeClient) -> httpx.AsyncClient:
    """A client of somebody else's."""
    return await make_client("bob")


@pytest.fixture
async def admin(make_client: MakeClient) -> httpx.AsyncClient:
    """A client that may see everything."""
    return await make_client("root", "admin")
