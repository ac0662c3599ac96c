"""livejobs inside a user's own FastAPI app: neither disturbs the other."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse, PlainTextResponse
from starlette.requests import HTTPConnection
from starlette.websockets import WebSocket

from livejobs.database import AsyncDatabase
from livejobs.errors import MigrationsNeeded
from livejobs.settings import Settings
from livejobs_server import Viewer, create_app, create_key, get_api_key, mount, sign_token
from livejobs_server.services import services
from tests.support.clients import changed, client_of, code_of, running
from tests.support.led_jobs import MakeJob

pytest_plugins = ["tests.support.live_stack"]

ALICE, BOB = {"X-User": "alice"}, {"X-User": "bob"}


def by_header(connection: HTTPConnection) -> Viewer | None:
    """A user's own way to know people."""
    name = connection.headers.get("x-user")
    return Viewer(name) if name else None


async def by_header_async(connection: HTTPConnection) -> Viewer | None:
    """The same, async."""
    return by_header(connection)


# -- the app stays its own -------------------------------------------------------------------------


async def test_lifespan_of_the_app_runs_inside_and_keeps_its_state(settings: Settings) -> None:
    steps: list[str] = []

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, int]]:
        steps.append("begins with livejobs" if hasattr(app.state, "livejobs") else "begins alone")
        yield {"answer": 42}
        steps.append("ends with livejobs" if hasattr(app.state, "livejobs") else "ends alone")

    app = FastAPI(lifespan=lifespan)
    mount(app)
    for _ in range(2):
        async with app.router.lifespan_context(app) as state:
            assert state == {"answer": 42}
            assert services(HTTPConnection({"type": "http", "app": app})).settings == settings
    assert steps == ["begins with livejobs", "ends with livejobs"] * 2
    assert not hasattr(app.state, "livejobs")


async def test_failing_lifespan_of_the_app_still_ends_livejobs(settings: Settings) -> None:
    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        raise ValueError("the user's")
        yield

    app = FastAPI(lifespan=lifespan)
    mount(app)
    with pytest.raises(ValueError, match="the user's"):
        async with running(app):
            pass
    left = [task for task in asyncio.all_tasks() if task.get_name().startswith("livejobs")]
    assert not left


async def test_routes_and_errors_of_the_app_stay_its_own(settings: Settings) -> None:
    app = FastAPI()

    async def handle(_request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"theirs": str(error)}, 418)

    app.add_exception_handler(KeyError, handle)
    mount(app, authenticate=by_header)

    @app.get("/v1/jobs/mine/special")
    @app.get("/after/{number}")
    async def after(number: int = 0) -> int:
        if number > 9:
            raise HTTPException(404, "theirs")
        if number > 8:
            raise KeyError("nine")
        return number

    async with running(app), client_of(app, **ALICE) as client:
        assert (await client.get("/after/3")).json() == 3
        assert (await client.get("/v1/jobs/mine/special")).json() == 0
        assert (await client.get("/after/x")).json()["detail"][0]["type"] == "int_parsing"
        assert (await client.get("/after/10")).json() == {"detail": "theirs"}
        assert (await client.get("/after/9")).status_code == 418
        assert (await client.get("/nowhere")).json() == {"detail": "Not Found"}
        assert (await client.get("/v1/nowhere")).json() == {"detail": "Not Found"}
        assert (await client.post("/after/3")).json() == {"detail": "Method Not Allowed"}
        assert code_of(await client.get("/v1/jobs/nope")) == (404, "unknown_job")
        assert code_of(await client.get("/v1/jobs?limit=x")) == (422, "invalid_request")
        assert code_of(await client.put("/v1/jobs")) == (405, "method_not_allowed")
        assert (await client.get("/v1/jobs/")).status_code == 307


async def test_documentation_of_the_app_stays_its_own(settings: Settings) -> None:
    plain, prefixed = FastAPI(title="Theirs"), FastAPI(openapi_url=None)
    mount(plain)
    mount(prefixed, "/background/")
    async with running(plain), client_of(plain) as client:
        document = (await client.get("/openapi.json")).json()
        assert (document["info"]["title"], document["paths"]) == ("Theirs", {})
    async with running(prefixed), client_of(prefixed) as client:
        assert (await client.get("/openapi.json")).status_code == 404
        assert (await client.get("/docs")).status_code == 404
        document = (await client.get("/background/openapi.json")).json()
        assert document["servers"] == [{"url": "/background"}]
        assert "/v1/jobs" in document["paths"]
        assert "/background/openapi.json" in (await client.get("/background/docs")).text


async def test_prefix_is_part_of_every_address(settings: Settings) -> None:
    app = FastAPI()
    mount(app, "/background", by_header)
    async with running(app), client_of(app, **ALICE) as client:
        made = await client.post("/background/v1/jobs", json={"task": "demo.led"})
        assert made.headers["location"] == f"/background/v1/jobs/{made.json()['job_id']}"
        assert (await client.get(made.headers["location"])).status_code == 200
        await client.post("/background/v1/jobs", json={"task": "demo.led"})
        page = await client.get("/background/v1/jobs?limit=1")
        assert page.links["next"]["url"].startswith("/background/v1/jobs?limit=1&page=")
        put = await client.put("/background/v1/jobs")
        assert put.headers["allow"] == "GET, POST"
        assert (await client.get("/background/healthz")).status_code == 200
        assert (await client.get("/v1/jobs")).json() == {"detail": "Not Found"}


async def test_mounting_twice_is_refused(settings: Settings) -> None:
    app = FastAPI()
    mount(app)
    with pytest.raises(RuntimeError, match="already"):
        mount(app, "/again")


async def test_request_before_the_lifespan_says_what_is_missing(settings: Settings) -> None:
    app = FastAPI()
    mount(app)
    with pytest.raises(RuntimeError, match="lifespan"):
        services(HTTPConnection({"type": "http", "app": app}))


# -- the users' own people -------------------------------------------------------------------------


@pytest.mark.parametrize("authenticate", [by_header, by_header_async])
async def test_users_function_decides_who_sees_what(
    settings: Settings, make_job: MakeJob, authenticate: Any
) -> None:
    app = FastAPI()
    mount(app, authenticate=authenticate)
    job = await make_job("alice")
    async with running(app), client_of(app) as client:
        assert (await client.get(f"/v1/jobs/{job.id}", headers=ALICE)).status_code == 200
        response = await client.get(f"/v1/jobs/{job.id}", headers=BOB)
        assert code_of(response) == (404, "unknown_job")
        assert code_of(await client.get(f"/v1/jobs/{job.id}")) == (401, "unauthenticated")


async def test_keys_are_good_for_nothing_beside_a_users_function(
    settings: Settings, async_database: AsyncDatabase
) -> None:
    app = FastAPI()
    mount(app, authenticate=by_header)
    key, _ = await create_key(async_database, "alice", ["admin"])
    async with running(app), client_of(app) as client:
        for headers in ({"X-API-Key": key}, {"Authorization": f"Bearer {key}"}):
            assert code_of(await client.get("/v1/jobs", headers=headers))[0] == 401


async def test_tokens_and_tickets_come_from_the_users_people(settings: Settings) -> None:
    app = FastAPI()
    mount(app, authenticate=by_header)
    async with running(app), client_of(app) as client:
        made = await client.post("/v1/jobs", json={"task": "demo.led"}, headers=ALICE)
        url = made.headers["location"]
        bearer = {"Authorization": f"Bearer {made.json()['token']}"}
        assert (await client.get(url, headers=bearer)).status_code == 200
        ticket = (await client.post("/v1/tickets", headers=ALICE)).json()["ticket"]
        assert (await client.get(url, params={"ticket": ticket})).status_code == 200
        assert (await client.get(url, params={"ticket": ticket})).status_code == 401
        # A spent ticket does not lock out whom the user's function knows.
        again = await client.get(url, params={"ticket": ticket}, headers=ALICE)
        assert again.status_code == 200


@pytest.mark.parametrize(("status", "expected"), [(401, 401), (403, 401), (429, 429)])
async def test_users_function_may_refuse_by_an_error(
    settings: Settings, status: int, expected: int
) -> None:
    def refuse(_connection: HTTPConnection) -> Viewer | None:
        raise HTTPException(status)

    app = FastAPI()
    mount(app, authenticate=refuse)
    async with running(app), client_of(app) as client:
        response = await client.get("/v1/jobs")
        assert response.status_code == expected
        assert response.headers["content-type"] == "application/problem+json"


async def test_users_function_that_breaks_is_a_500_that_tells_nothing(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_connection: HTTPConnection) -> Viewer | None:
        raise ZeroDivisionError("hush")

    app = FastAPI()
    mount(app, authenticate=broken)
    async with running(app), client_of(app) as client:
        response = await client.get("/v1/jobs")
        assert code_of(response) == (500, "internal_error")
        assert "hush" not in response.text
    assert "hush" in caplog.text


async def test_page_of_another_origin_changes_nothing_by_cookies(settings: Settings) -> None:
    """The browser sends the user's cookies with a form of any page."""
    app = FastAPI()
    mount(app, authenticate=lambda connection: Viewer("alice"))
    sent = {"files": {"files": ("a.txt", b"x")}}
    async with running(app), client_of(app) as client:
        for origin, expected in (
            ("https://evil.example", 403),
            ("null", 403),
            ("http://livejobs.test", 202),
        ):
            response = await client.post("/v1/rag/ingest", headers={"Origin": origin}, **sent)  # type: ignore[arg-type]
            assert response.status_code == expected, response.text
        token = {"Authorization": f"Bearer {sign_token(owner='alice')}"}
        foreign = {"Origin": "https://evil.example"}
        response = await client.post("/v1/rag/ingest", headers=token | foreign, **sent)  # type: ignore[arg-type]
        assert response.status_code == 202, "what a page must know it may use"


# -- get_api_key in users' endpoints ---------------------------------------------------------------


async def test_users_endpoint_is_guarded_by_get_api_key(
    settings: Settings, async_database: AsyncDatabase, make_job: MakeJob
) -> None:
    app = FastAPI()
    mount(app)

    @app.get("/mine")
    async def mine(viewer: Annotated[Viewer, Depends(get_api_key)]) -> str:
        return viewer.owner

    job = await make_job("alice")
    key, _ = await create_key(async_database, "alice", ["read"])
    async with running(app), client_of(app) as client:
        assert (await client.get("/mine", headers={"X-API-Key": key})).json() == "alice"
        refused = await client.get("/mine")
        assert code_of(refused) == (401, "unauthenticated")
        assert "www-authenticate" in refused.headers
        token = sign_token(jobs=[job.id], owner="alice")
        limited = await client.get("/mine", headers={"Authorization": f"Bearer {token}"})
        assert code_of(limited) == (403, "limited_token")
        security = (await client.get("/openapi.json")).json()["paths"]["/mine"]["get"]["security"]
        assert security == [{"bearer": []}, {"api_key": []}]


async def test_users_websocket_is_guarded_by_get_api_key(settings: Settings) -> None:
    app = FastAPI()
    mount(app, authenticate=by_header)

    @app.websocket("/theirs")
    async def theirs(websocket: WebSocket, viewer: Annotated[Viewer, Depends(get_api_key)]) -> None:
        await websocket.accept()
        await websocket.send_text(viewer.owner)
        await websocket.close()

    async with running(app):
        assert (await heard(app, b"alice"))[1]["text"] == "alice"
        assert (await heard(app, b""))[0]["type"] == "websocket.http.response.start"


async def heard(app: FastAPI, user: bytes) -> list[Any]:
    """What the app says on a WebSocket to its path."""
    said: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        said.append(message)

    scope = {
        "type": "websocket",
        "path": "/theirs",
        "root_path": "",
        "query_string": b"",
        "headers": [(b"x-user", user)],
        "subprotocols": [],
        "extensions": {"websocket.http.response": {}},
    }
    await app(scope, receive, send)
    return said


# -- origins ---------------------------------------------------------------------------------------


async def test_cors_is_for_allowed_origins_and_livejobs_paths_alone(settings: Settings) -> None:
    known = changed(settings, allowed_origins=("https://page.example",))
    app = FastAPI()

    @app.get("/theirs")
    async def theirs() -> PlainTextResponse:
        return PlainTextResponse("x")

    mount(app, authenticate=by_header, settings=known)
    async with running(app), client_of(app) as client:
        asked = {
            "Origin": "https://page.example",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization",
        }
        preflight = await client.options("/v1/jobs", headers=asked)
        assert preflight.status_code == 200
        assert preflight.headers["access-control-allow-origin"] == "https://page.example"
        assert preflight.headers["access-control-allow-credentials"] == "true"
        evil = await client.options("/v1/jobs", headers=asked | {"Origin": "https://evil.example"})
        assert "access-control-allow-origin" not in evil.headers
        refused = await client.get("/v1/jobs", headers={"Origin": "https://page.example"})
        assert refused.status_code == 401
        assert refused.headers["access-control-allow-origin"] == "https://page.example"
        assert "ETag" in refused.headers["access-control-expose-headers"]
        own = await client.get("/theirs", headers={"Origin": "https://page.example"})
        assert "access-control-allow-origin" not in own.headers


async def test_cors_for_any_origin_takes_no_cookies(settings: Settings) -> None:
    app = create_app(changed(settings, allowed_origins=("*",)))
    async with running(app), client_of(app) as client:
        response = await client.get("/healthz", headers={"Origin": "https://any.example"})
        assert response.headers["access-control-allow-origin"] == "*"
        assert "access-control-allow-credentials" not in response.headers


async def test_without_allowed_origins_there_is_no_cors(settings: Settings) -> None:
    app = create_app(settings)
    async with running(app), client_of(app) as client:
        response = await client.get("/healthz", headers={"Origin": "https://any.example"})
        assert "access-control-allow-origin" not in response.headers


# -- start and end ---------------------------------------------------------------------------------


async def test_start_without_tables_says_what_to_do(settings: Settings, tmp_path: Any) -> None:
    empty = changed(settings, database_url=f"sqlite:///{tmp_path}/empty.db")
    app = create_app(empty)
    with pytest.raises(MigrationsNeeded, match=r"empty\.db.*livejobs migrate"):
        async with running(app):
            pass
