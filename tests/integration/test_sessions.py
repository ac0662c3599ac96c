"""Signing in to the pages: by a ticket, by an API key, out again; and what a session may."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import text

from livejobs.database import AsyncDatabase
from livejobs.settings import Settings
from livejobs_server import Viewer, create_app, create_key, revoke_key
from livejobs_server.sessions import SESSION_COOKIE, SignIn, find_session, open_session
from livejobs_server.tickets import issue_sign_in, issue_ticket
from tests.support.clients import changed, client_of, code_of, new_job, running

pytest_plugins = ["tests.support.live_stack", "tests.support.rest"]

HERE = {"Origin": "http://livejobs.test", "Sec-Fetch-Site": "same-origin"}
EVIL = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
ALICE = SignIn(Viewer("alice", frozenset({"read", "write"})), None)


@pytest.fixture
async def browser(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A browser at the server's own pages, signed in as nobody."""
    async with client_of(app, **HERE) as client:
        yield client


async def sign_in(browser: httpx.AsyncClient, key: str) -> httpx.Response:
    return await browser.post("/v1/session", json={"key": key})


async def count_sessions(database: AsyncDatabase) -> int:
    async with database.engine.connect() as connection:
        found = await connection.execute(text("SELECT count(*) FROM livejobs_sessions"))
        count: int = found.scalar_one()
        return count


# -- signing in ------------------------------------------------------------------------------------


async def test_key_signs_in(browser: httpx.AsyncClient, async_database: AsyncDatabase) -> None:
    made = await create_key(async_database, "alice", ["read"])
    answer = await sign_in(browser, f" {made.key}\n")
    assert answer.status_code == 201
    assert answer.json()["owner"] == "alice"
    assert answer.json()["scopes"] == ["read"]
    assert answer.headers["cache-control"] == "no-store"
    cookie = answer.headers["set-cookie"]
    assert re.fullmatch(
        rf"{SESSION_COOKIE}=[\w-]{{43}}; Path=/; Max-Age=4319\d; HttpOnly; SameSite=Lax", cookie
    )
    assert (await browser.get("/v1/jobs")).status_code == 200


async def test_database_keeps_nothing_that_signs_in(
    browser: httpx.AsyncClient, async_database: AsyncDatabase
) -> None:
    made = await create_key(async_database, "alice", ["read"])
    await sign_in(browser, made.key)
    async with async_database.engine.connect() as connection:
        rows = str((await connection.execute(text("SELECT * FROM livejobs_sessions"))).all())
    assert browser.cookies[SESSION_COOKIE] not in rows
    assert made.key not in rows
    assert made.key_id in rows


@pytest.mark.parametrize("key", ["lj_000000000000_" + "x" * 43, "rubbish", "é"])
async def test_wrong_key_signs_nobody_in(browser: httpx.AsyncClient, key: str) -> None:
    answer = await sign_in(browser, key)
    assert code_of(answer) == (401, "unauthenticated")
    assert "set-cookie" not in answer.headers


async def test_cookie_over_https_is_sent_over_nothing_else(
    app: FastAPI, async_database: AsyncDatabase
) -> None:
    made = await create_key(async_database, "alice", ["read"])
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="https://livejobs.test") as client:
        assert (await sign_in(client, made.key)).headers["set-cookie"].endswith("; Secure")


async def test_servers_on_two_ports_have_two_cookies(
    app: FastAPI, async_database: AsyncDatabase
) -> None:
    made = await create_key(async_database, "alice", ["read"])
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8001") as client:
        answer = await sign_in(client, made.key)
        assert answer.headers["set-cookie"].startswith(f"{SESSION_COOKIE}_8001=")
        assert (await client.get("/v1/jobs")).status_code == 200


async def test_ticket_signs_in_once_and_leaves_the_url(
    browser: httpx.AsyncClient, async_database: AsyncDatabase
) -> None:
    made = await async_database.run(issue_sign_in(ALICE))
    answer = await browser.get(f"/jobs/some?ticket={made.ticket}")
    assert (answer.status_code, answer.headers["location"]) == (303, "/jobs/some")
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert SESSION_COOKIE in browser.cookies
    assert (await browser.get("/")).status_code == 200
    # Once more, by somebody else.
    browser.cookies.clear()
    again = await browser.get(f"/?ticket={made.ticket}")
    assert (again.status_code, again.headers["location"]) == (303, "/sign-in?next=%2F&used=1")
    assert "set-cookie" not in again.headers


async def test_used_ticket_does_not_hold_up_who_is_signed_in(
    browser: httpx.AsyncClient, async_database: AsyncDatabase
) -> None:
    made = await async_database.run(issue_sign_in(ALICE))
    await browser.get(f"/?ticket={made.ticket}")
    again = await browser.get(f"/?ticket={made.ticket}")
    assert (again.status_code, again.headers["location"]) == (303, "/")


async def test_head_request_does_not_use_up_a_ticket(
    browser: httpx.AsyncClient, async_database: AsyncDatabase
) -> None:
    made = await async_database.run(issue_sign_in(ALICE))
    assert (await browser.head(f"/?ticket={made.ticket}")).status_code == 200
    await browser.get(f"/?ticket={made.ticket}")
    assert SESSION_COOKIE in browser.cookies


async def test_tickets_for_signing_in_and_for_streams_do_not_pass_for_each_other(
    browser: httpx.AsyncClient, async_database: AsyncDatabase
) -> None:
    for_streams = await async_database.run(issue_ticket(ALICE.viewer))
    for_signing_in = await async_database.run(issue_sign_in(ALICE))
    answer = await browser.get(f"/?ticket={for_streams.ticket}")
    assert answer.headers["location"].startswith("/sign-in")
    assert "set-cookie" not in answer.headers
    answer = await browser.get(f"/v1/jobs?ticket={for_signing_in.ticket}")
    assert code_of(answer) == (401, "unauthenticated")


# -- what it may -----------------------------------------------------------------------------------


async def test_session_sees_its_owners_jobs_and_no_others(
    browser: httpx.AsyncClient, alice: httpx.AsyncClient, bob: httpx.AsyncClient,
    async_database: AsyncDatabase,
) -> None:  # fmt: skip
    hers, his = await new_job(alice), await new_job(bob)
    made = await create_key(async_database, "alice", ["read", "write"])
    await sign_in(browser, made.key)
    assert (await browser.get(f"/v1/jobs/{hers}")).status_code == 200
    assert (await browser.get(f"/v1/jobs/{his}")).status_code == 404
    assert (await browser.post(f"/v1/jobs/{hers}/cancel")).status_code == 202


async def test_session_has_no_more_scopes_than_its_key(
    browser: httpx.AsyncClient, async_database: AsyncDatabase
) -> None:
    made = await create_key(async_database, "alice", ["read"])
    await sign_in(browser, made.key)
    answer = await browser.post("/v1/jobs", json={"task": "demo.led"})
    assert code_of(answer) == (403, "scope_missing")


@pytest.mark.parametrize(
    "headers",
    [
        EVIL,
        {"Origin": "null"},
        {"Origin": "http://livejobs.test:81"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
async def test_page_of_another_origin_changes_nothing_by_a_session(
    app: FastAPI, async_database: AsyncDatabase, headers: dict[str, str]
) -> None:
    session = await async_database.run(open_session(ALICE, 60))
    cookies = {SESSION_COOKIE: session.secret}
    async with client_of(app, **headers) as page:
        page.cookies.update(cookies)
        for method, path in (("POST", "/v1/jobs"), ("DELETE", "/v1/session")):
            answer = await page.request(method, path, json={"task": "demo.led"})
            assert code_of(answer) == (403, "origin_not_allowed"), path
    assert await async_database.read(find_session(session.secret)) is not None


async def test_page_of_another_origin_signs_nobody_in(
    app: FastAPI, async_database: AsyncDatabase
) -> None:
    made = await create_key(async_database, "mallory", ["read"])
    async with client_of(app, **EVIL) as page:
        answer = await sign_in(page, made.key)
    assert code_of(answer) == (403, "origin_not_allowed")


async def test_session_is_for_pages_that_are_named_where_every_page_is_let_in(
    settings: Settings, async_database: AsyncDatabase
) -> None:
    both = changed(settings, allowed_origins=("*", "https://app.example"))
    session = await async_database.run(open_session(ALICE, 60))
    async with running(create_app(both)) as app:
        for origin, status in (
            ("https://evil.example", 401),
            ("https://app.example", 202),
            ("http://livejobs.test", 202),
        ):
            async with client_of(app, Origin=origin) as page:
                page.cookies[SESSION_COOKIE] = session.secret
                answer = await page.post("/v1/jobs", json={"task": "demo.led"})
                assert answer.status_code == status, origin


async def test_credentials_that_a_request_shows_outdo_its_session(
    browser: httpx.AsyncClient, bob: httpx.AsyncClient, async_database: AsyncDatabase
) -> None:
    made = await create_key(async_database, "alice", ["read", "write"])
    await sign_in(browser, made.key)
    assert (await browser.get("/v1/jobs", headers={"X-API-Key": "wrong"})).status_code == 401
    his = await new_job(bob)
    answer = await browser.get(
        f"/v1/jobs/{his}", headers={"Authorization": bob.headers["authorization"]}
    )
    assert answer.status_code == 200


# -- its end ---------------------------------------------------------------------------------------


async def test_signing_out_ends_the_session(
    browser: httpx.AsyncClient, async_database: AsyncDatabase
) -> None:
    made = await create_key(async_database, "alice", ["read"])
    await sign_in(browser, made.key)
    secret = browser.cookies[SESSION_COOKIE]
    answer = await browser.delete("/v1/session")
    assert answer.status_code == 204
    assert answer.headers["set-cookie"].startswith(f"{SESSION_COOKIE}=; Path=/; Max-Age=0;")
    assert await async_database.read(find_session(secret)) is None
    browser.cookies[SESSION_COOKIE] = secret
    assert (await browser.get("/v1/jobs")).status_code == 401
    assert (await browser.delete("/v1/session")).status_code == 204


async def test_session_ends_by_itself_and_is_cleared_away_by_the_next(
    browser: httpx.AsyncClient, async_database: AsyncDatabase
) -> None:
    ended = await async_database.run(open_session(ALICE, -1))
    browser.cookies[SESSION_COOKIE] = ended.secret
    assert (await browser.get("/v1/jobs")).status_code == 401
    assert (await browser.get("/")).headers["location"] == "/sign-in?next=%2F"
    assert await count_sessions(async_database) == 1
    session = await async_database.run(open_session(ALICE, 60))
    assert await count_sessions(async_database) == 1
    viewer = await async_database.read(find_session(session.secret))
    assert viewer is not None
    assert viewer.expires_at is not None
    assert 0 < viewer.expires_at - datetime.now(UTC).timestamp() < 61


async def test_session_ends_with_its_key(
    browser: httpx.AsyncClient, async_database: AsyncDatabase
) -> None:
    made = await create_key(async_database, "alice", ["read"])
    await sign_in(browser, made.key)
    assert (await browser.get("/v1/jobs")).status_code == 200
    assert await revoke_key(async_database, made.key_id)
    assert (await browser.get("/v1/jobs")).status_code == 401


async def test_session_lasts_no_longer_than_its_key(
    browser: httpx.AsyncClient, async_database: AsyncDatabase
) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=90)
    made = await create_key(async_database, "alice", ["read"], soon)
    answer = await sign_in(browser, made.key)
    assert abs(datetime.fromisoformat(answer.json()["expires_at"]) - soon) < timedelta(seconds=1)
    assert re.search(r"Max-Age=(8\d|90);", answer.headers["set-cookie"])
