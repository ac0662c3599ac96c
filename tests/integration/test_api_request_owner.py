"""Whose job a `.delay()` in a user's endpoint makes, and by whose Celery app it goes out."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from celery import Celery
from fastapi import FastAPI, HTTPException
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from livejobs.database import AsyncDatabase
from livejobs.dispatch import enqueue
from livejobs.owners import resolve_owner
from livejobs.settings import Settings
from livejobs_server import Viewer, create_key, mount, sign_token
from tests.support.clients import client_of, running
from tests.support.patient import wait_for_rows

pytest_plugins = ["tests.support.live_stack"]

ALICE, BOB = {"X-User": "alice"}, {"X-User": "bob"}


def by_header(connection: HTTPConnection) -> Viewer | None:
    """A user's own way to know people."""
    name = connection.headers.get("x-user")
    return Viewer(name) if name else None


async def by_header_async(connection: HTTPConnection) -> Viewer | None:
    """The same, async."""
    return by_header(connection)


class Login:
    """A user's middleware: it finds out who is there and tells by the scope."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope["login"] = HTTPConnection(scope).cookies.get("login")
        await self._app(scope, receive, send)


def app_that_enqueues() -> FastAPI:
    """Its endpoints answer whose job a `.delay()` in them would make."""
    app = FastAPI(middleware=[Middleware(Login)])

    @app.get("/async")
    async def from_async() -> str:
        return resolve_owner(None)

    @app.get("/sync")
    def from_sync() -> str:
        return resolve_owner(None)

    return app


@pytest.mark.parametrize("authenticate", [by_header, by_header_async])
async def test_job_made_in_an_endpoint_belongs_to_the_viewer_of_the_request(
    settings: Settings, authenticate: Any
) -> None:
    app = app_that_enqueues()
    mount(app, authenticate=authenticate)
    async with running(app), client_of(app) as client:
        for path in ("/async", "/sync"):
            assert (await client.get(path, headers=ALICE)).json() == "alice"
            assert (await client.get(path)).json() == ""
        answers = await asyncio.gather(
            *(client.get("/sync", headers=ALICE if n % 2 else BOB) for n in range(10))
        )
        assert [answer.json() for answer in answers] == ["bob", "alice"] * 5
    assert resolve_owner(None) == ""


async def test_job_made_in_an_endpoint_belongs_to_the_owner_of_the_key(
    settings: Settings, async_database: AsyncDatabase
) -> None:
    app = app_that_enqueues()
    mount(app)
    key, _ = await create_key(async_database, "alice", ["write"])
    token = sign_token(owner="bob")
    async with running(app), client_of(app) as client:
        for path in ("/async", "/sync"):
            for headers, owner in (
                ({"X-API-Key": key}, "alice"),
                ({"Authorization": f"Bearer {key}"}, "alice"),
                ({"Authorization": f"Bearer {token}"}, "bob"),
                ({"Authorization": "Bearer rubbish"}, ""),
                ({}, ""),
            ):
                assert (await client.get(path, headers=headers)).json() == owner


async def test_users_function_is_asked_only_when_a_job_is_made(settings: Settings) -> None:
    asked = 0

    def count(_connection: HTTPConnection) -> Viewer | None:
        nonlocal asked
        asked += 1
        return None

    app = app_that_enqueues()
    mount(app, authenticate=count)

    @app.get("/plain")
    async def plain() -> str:
        return "x"

    async with running(app), client_of(app) as client:
        await client.get("/plain")
        assert asked == 0
        await client.get("/sync")
        assert asked == 1


async def test_users_function_that_fails_makes_a_job_of_nobody_and_breaks_nothing(
    settings: Settings,
) -> None:
    async def broken(_connection: HTTPConnection) -> Viewer | None:
        raise HTTPException(401)

    def broken_sync(_connection: HTTPConnection) -> Viewer | None:
        raise ZeroDivisionError

    for authenticate in (broken, broken_sync):
        app = app_that_enqueues()
        mount(app, authenticate=authenticate)
        async with running(app), client_of(app) as client:
            for path in ("/async", "/sync"):
                assert (await client.get(path)).json() == ""


async def test_users_function_sees_what_the_apps_middleware_did(settings: Settings) -> None:
    def by_login(connection: HTTPConnection) -> Viewer | None:
        return Viewer(connection.scope["login"]) if connection.scope["login"] else None

    async def by_login_async(connection: HTTPConnection) -> Viewer | None:
        return by_login(connection)

    for authenticate in (by_login, by_login_async):
        app = app_that_enqueues()
        mount(app, authenticate=authenticate)
        async with running(app), client_of(app, Cookie="login=alice") as client:
            assert (await client.get("/async")).json() == "alice"
            assert (await client.get("/v1/jobs")).status_code == 200


async def test_jobs_are_sent_by_the_apps_own_celery_app(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait_for_rows(monkeypatch)
    theirs = Celery("theirs", broker="memory://", set_as_current=False)
    app = FastAPI()
    mount(app, authenticate=by_header, celery=theirs)
    soon = datetime.now(UTC) + timedelta(seconds=0.5)
    view = await enqueue("demo.led", [7], app=theirs, owner="alice", run_at=soon)

    def receive() -> Any:
        with theirs.connection_for_read() as connection:
            message = connection.SimpleQueue("celery").get(timeout=20)
            message.ack()
            return message

    async with running(app), client_of(app, **ALICE) as client:
        message = await asyncio.to_thread(receive)
        assert (message.headers["id"], message.payload[0]) == (view.job_id, [7])
        made = await client.post("/v1/jobs", json={"task": "demo.led", "args": [8]})
        message = await asyncio.to_thread(receive)
        assert (message.headers["id"], message.payload[0]) == (made.json()["job_id"], [8])
