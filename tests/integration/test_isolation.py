"""Nobody sees or touches a job they have no right to: every route and every op is tried.

The routes come from the app itself and the ops from the protocol's types, so a new one fails here
until this file knows how to try it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any, get_args

import httpx
import pytest
import websockets
from fastapi.routing import iter_route_contexts
from starlette.routing import WebSocketRoute

from livejobs import transitions
from livejobs.database import AsyncDatabase
from livejobs.documents import NewChunk, NewDocument, replace_document
from livejobs.live import AsyncLive
from livejobs.settings import Settings, configure
from livejobs.statements import JobRow
from livejobs.usage import NewUsage, record
from livejobs.usage_batches import take
from livejobs.views import ClientOp
from livejobs.webhook_settings import new_secret, owner_secret
from livejobs_server import Viewer, create_key, revoke_key, sign_token
from livejobs_server.endpoints import build_endpoints
from livejobs_server.sessions import SESSION_COOKIE, NewSession, SignIn, open_session
from livejobs_server.tickets import issue_ticket
from livejobs_server.tokens import STREAM_AUDIENCE, sign_viewer
from tests.support.clients import new_job
from tests.support.led_jobs import LedJob, MakeJob
from tests.support.live_server import LiveServer, running_server
from tests.support.route_tries import HTTP, SECRET, SHARED_KEY, UNKNOWN, WRONG_KEY, Try

pytest_plugins = ["tests.support.live_stack"]

CREATING = ("/v1/jobs", "/v1/rag/ingest", "/v1/documents", "/v1/emails", "/v1/webhooks/default")
"""Their answers hold the id of what they made, or the time."""
WEBHOOKS = new_secret()
HERS = owner_secret(WEBHOOKS, "alice")
SOCKETS = {"/v1/ws", "/v1/jobs/{job_id}/ws"}
OPS = {"auth", "subscribe", "unsubscribe", "ping"}


def routes() -> tuple[set[tuple[str, str]], set[str]]:
    """Method and path of every HTTP route, and the path of every WebSocket, of the server."""
    http, sockets = set(), set()
    for context in iter_route_contexts(build_endpoints(Settings(), documented=True).routes):
        assert context.path is not None
        if isinstance(context.original_route, WebSocketRoute):
            sockets.add(context.path)
        else:
            assert context.methods, f"a route of an unknown kind: {context.original_route}"
            http |= {(method, context.path) for method in context.methods}
    return http, sockets


def test_every_route_and_op_is_tried_below() -> None:
    http, sockets = routes()
    assert http == set(HTTP)
    assert sockets == SOCKETS
    ops = get_args(get_args(ClientOp)[0])
    assert {get_args(op.model_fields["op"].annotation)[0] for op in ops} == OPS


# -- what there is to be seen ----------------------------------------------------------------------


@dataclass(frozen=True)
class World:
    """A server, a job of Alice's, and credentials of people who have no right to it.

    Attributes:
        document_id: A document of Alice's.
        strangers: Headers and query parameters, by what they are.
    """

    server: LiveServer
    job: LedJob
    document_id: str
    strangers: dict[str, dict[str, dict[str, str]]]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.port}"


@pytest.fixture
async def world(
    settings: Settings, async_database: AsyncDatabase, live: AsyncLive
) -> AsyncIterator[World]:
    """Alice's job, told about everywhere, and everybody else."""
    settings = configure(**settings.model_dump() | {"webhook_secret": WEBHOOKS})
    async with running_server(settings) as server:
        async with server.client("alice") as alice:
            webhook = {"url": f"https://{SECRET}.example.com/hook"}
            (await alice.put("/v1/webhooks/default", json=webhook)).raise_for_status()
            job_id = await new_job(alice, key=SHARED_KEY, args=[SECRET], tags={SECRET: SECRET})
        job = LedJob(job_id, async_database, live)
        await job.claim()
        await job.say(SECRET, SECRET)
        await job.progress(1)
        await job.fail(SECRET)
        new = NewDocument(
            owner="alice", name=SECRET, media_type="text/plain", size=1, sha256="0", title=SECRET,
            pages=None, chunks=1, job_id=job.id,
        )  # fmt: skip
        document_id = await async_database.run(replace_document(new, [NewChunk(0, None, SECRET)]))
        used = NewUsage(customer=SECRET, meter=SECRET, value=1, key=SECRET, owner="alice")
        await async_database.run(record(used))
        assert await async_database.run(take()) is not None
        credentials = await strangers(async_database, job.id, server.port)
        yield World(server, job, document_id, credentials)


async def strangers(
    database: AsyncDatabase, job_id: str, port: int
) -> dict[str, dict[str, dict[str, str]]]:
    key, _ = await create_key(database, "bob", ["read", "write"])
    alices, revoked = await create_key(database, "alice", ["admin"])
    soon = time.time() + 600
    cookie = sign_viewer(
        Viewer("alice", frozenset({"read"}), frozenset({"another"}), expires_at=soon),
        database.settings,
        STREAM_AUDIENCE,
    )
    ticket = await database.run(issue_ticket(replace(Viewer("alice"), expires_at=1.0)))

    bobs = await database.run(open_session(SignIn(Viewer("bob"), None), 600))
    ended = await database.run(open_session(SignIn(Viewer("alice"), None), 0))

    def session(made: NewSession) -> dict[str, dict[str, str]]:
        return {"headers": {"Cookie": f"{SESSION_COOKIE}_{port}={made.secret}"}}

    def bearer(token: str) -> dict[str, dict[str, str]]:
        return {"headers": {"Authorization": f"Bearer {token}"}}

    assert await revoke_key(database, revoked)
    return {
        "nobody": {},
        "a wrong key": bearer(key[:-4] + "AAAA"),
        "a revoked key": bearer(alices),
        "an expired token": bearer(sign_token(jobs=[job_id], ttl_seconds=-1)),
        "an expired ticket": {"params": {"ticket": ticket.ticket}},
        "a cookie for another job": {"headers": {"Cookie": f"livejobs_stream={cookie}"}},
        "an ended session": session(ended),
        "another owner's key": bearer(key),
        "another owner's session": session(bobs),
        "another owner's token": bearer(sign_token(owner="bob")),
        "a token for another job": bearer(sign_token(jobs=["another"], owner="alice")),
    }


KNOWN = {
    "another owner's key",
    "another owner's session",
    "another owner's token",
    "a token for another job",
}


def merged(*parts: dict[str, Any]) -> dict[str, Any]:
    """Arguments of a request out of several; headers and parameters are joined."""
    found: dict[str, Any] = {}
    for part in parts:
        for name, value in part.items():
            joined = name in ("headers", "params")
            found[name] = {**found.get(name, {}), **value} if joined else value
    return found


# -- HTTP ------------------------------------------------------------------------------------------


async def test_no_route_shows_or_changes_a_job_of_another(world: World) -> None:
    before = await world.job.read()
    async with httpx.AsyncClient(base_url=world.url, timeout=20, trust_env=False) as client:
        for name, credentials in world.strangers.items():
            for (method, path), attempt in HTTP.items():
                what = f"{method} {path} by {name}"
                url = path.replace("{job_id}", world.job.id)
                url = url.replace("{document_id}", world.document_id)
                more = merged(credentials, attempt.more(world.job.id))
                response = await client.request(method, url, **more)
                client.cookies.clear()
                told = response.text.replace(f'"q":"{SECRET}"', "")
                assert SECRET not in told, what
                assert HERS not in told, what
                check_status(response, attempt, name, what)
                assert await world.job.read() == before, what


def check_status(response: httpx.Response, attempt: Try, name: str, what: str) -> None:
    if attempt.public:
        assert response.status_code in attempt.statuses, what
    elif name not in KNOWN:
        assert response.status_code == 401, f"{what}: {response.text}"
    elif (attempt.empty or attempt.whole) and name == "a token for another job":
        assert response.status_code in (403, 200), f"{what}: {response.text}"
    else:
        assert response.status_code == attempt.status, f"{what}: {response.text}"


async def test_a_foreign_job_looks_the_same_as_an_unknown_one(world: World) -> None:
    async with httpx.AsyncClient(base_url=world.url, timeout=20, trust_env=False) as client:
        for name in sorted(KNOWN):
            credentials = world.strangers[name]
            for (method, path), attempt in HTTP.items():
                asks = "{job_id}" in path or not attempt.public
                if not asks or path in CREATING:
                    continue
                looks = []
                for job_id, document_id in ((world.job.id, world.document_id), (UNKNOWN, UNKNOWN)):
                    more = merged(credentials, attempt.more(job_id))
                    url = path.replace("{job_id}", job_id).replace("{document_id}", document_id)
                    response = await client.request(method, url, **more)
                    looks.append(look(response, job_id))
                assert looks[0] == looks[1], f"{method} {path} by {name}"


def look(response: httpx.Response, job_id: str) -> tuple[int, list[tuple[str, str]], str]:
    """An answer without what differs from one to the next anyway."""
    headers = [(k, v) for k, v in response.headers.items() if k not in ("date", "content-length")]
    lines = [line for line in response.text.splitlines() if not line.startswith("retry:")]
    text = "\n".join(lines).replace(job_id, "ID")
    if '"since"' in text:
        text = text[: text.index('"since"')]
    return response.status_code, headers, text


async def test_key_of_another_does_not_find_the_answer_to_an_idempotency_key(world: World) -> None:
    async with world.server.client("bob") as bob:
        assert await new_job(bob, key=SHARED_KEY) != world.job.id


# -- WebSocket -------------------------------------------------------------------------------------


async def test_no_op_shows_or_changes_a_job_of_another(world: World) -> None:
    before = await world.job.read()
    for name, credentials in world.strangers.items():
        for path in sorted(SOCKETS):
            for op in sorted(OPS):
                said = await said_to(world, path, credentials, request(op, world.job.id))
                what = f"{op} over {path} by {name}"
                assert SECRET not in said, what
                assert '"type":"job"' not in said, what
                assert '"type":"subscribed"' not in said, what
                foreign = steady(path, said).replace(world.job.id, "ID")
                same = await said_to(world, path, credentials, request(op, UNKNOWN), job_id=UNKNOWN)
                assert foreign == steady(path, same).replace(UNKNOWN, "ID"), what
    assert await world.job.read() == before


def request(op: str, job_id: str) -> dict[str, Any]:
    """A request of each op that tries to reach the job."""
    return {
        "auth": {"op": "auth", "token": WRONG_KEY, "ref": 1},
        "subscribe": {"op": "subscribe", "job_id": job_id, "after": "0-0", "ref": 1},
        "unsubscribe": {"op": "unsubscribe", "job_id": job_id, "ref": 1},
        "ping": {"op": "ping", "ref": 1},
    }[op]


async def said_to(
    world: World,
    path: str,
    credentials: dict[str, dict[str, str]],
    op: dict[str, Any],
    job_id: str | None = None,
) -> str:
    """All that a WebSocket says until it has answered the op, or is closed, with its close code."""
    url = path.replace("{job_id}", job_id or world.job.id)
    query = "".join(f"?{k}={v}" for k, v in credentials.get("params", {}).items())
    said: list[str] = []
    async with websockets.connect(
        f"ws://127.0.0.1:{world.server.port}{url}{query}",
        additional_headers=credentials.get("headers", {}),
        proxy=None,
        close_timeout=1,
    ) as socket:
        try:
            await socket.send(json.dumps(op))
            while not is_over(path, said):
                said.append(str(await asyncio.wait_for(socket.recv(), 10)))
        except websockets.ConnectionClosed as closed:
            said.append(f"closed {closed.rcvd.code if closed.rcvd else None}")
    # What the hub tells and what the socket answers by itself may come in either order.
    return "\n".join(sorted(said))


def steady(path: str, said: str) -> str:
    """What is said each time: a job's own socket may be closed before the op is answered."""
    lines = said.splitlines()
    return "\n".join(line for line in lines if path == "/v1/ws" or '"ref"' not in line)


def is_over(path: str, said: list[str]) -> bool:
    """Whether nothing more is to come: over a job's own socket the server closes it by itself."""
    if path == "/v1/ws":
        ended = '"type":"end"' if any('"type":"subscribed"' in text for text in said) else '"ref":1'
        return any(ended in text for text in said)
    return False


# -- feeds ----------------------------------------------------------------------------------------


def feeds(job_id: str) -> list[str]:
    """Every kind of feed, each of which would show the job to somebody with a right to it."""
    return ["mine", "all", f"tag:{SECRET}={SECRET}", f"children:{job_id}"]


async def said_of(
    world: World, credentials: dict[str, dict[str, str]], item: dict[str, str]
) -> str:
    """All that a WebSocket says of a feed within two seconds, or until it is closed."""
    query = "".join(f"?{k}={v}" for k, v in credentials.get("params", {}).items())
    said: list[str] = []
    async with websockets.connect(
        f"ws://127.0.0.1:{world.server.port}/v1/ws{query}",
        additional_headers=credentials.get("headers", {}),
        proxy=None,
        close_timeout=1,
    ) as socket:
        with contextlib.suppress(websockets.ConnectionClosed, TimeoutError):
            await socket.send(json.dumps({"op": "subscribe", **item}))
            async with asyncio.timeout(2):
                while True:
                    said.append(str(await socket.recv()))
    return "\n".join(said)


async def test_no_feed_shows_a_job_of_another(world: World, make_job: MakeJob) -> None:
    child = await make_job(parent_id=world.job.id, tags={SECRET: SECRET})
    since = "2024-01-01T00:00:00.000000Z"

    async def look(name: str, feed: str) -> None:
        credentials = world.strangers[name]
        item = {"feed": feed, "since": since}
        said = await said_of(world, credentials, item)
        more = merged(credentials, {"json": {"subscribe": [item]}})
        async with httpx.AsyncClient(base_url=world.url, timeout=20, trust_env=False) as client:
            answer = await client.request("POST", "/v1/poll", **more)
        for told in (said, answer.text):
            told = told.replace(f'"tag:{SECRET}={SECRET}"', "")
            assert SECRET not in told, f"{feed} by {name}"
            assert child.id not in told, f"{feed} by {name}"

    async with asyncio.TaskGroup() as group:
        for name in world.strangers:
            for feed in feeds(world.job.id):
                group.create_task(look(name, feed))


async def test_token_for_a_feed_opens_no_route_to_a_job(world: World) -> None:
    token = sign_token(owner="alice", feed="tag:a=b", settings=world.server.settings)
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(base_url=world.url, timeout=20, trust_env=False) as client:
        for (method, path), attempt in HTTP.items():
            url = path.replace("{job_id}", world.job.id)
            more = merged({"headers": headers}, attempt.more(world.job.id))
            response = await client.request(method, url, **more)
            if not attempt.public:
                assert response.status_code in (200, 401, 403, 404), f"{method} {path}"
                assert SECRET not in response.text.replace(f'"q":"{SECRET}"', ""), path


async def test_the_owner_sees_it_in_feeds(world: World, make_job: MakeJob) -> None:
    child = await make_job(parent_id=world.job.id, tags={SECRET: SECRET})
    alice = {"headers": world.server.headers("alice")}

    async def look(feed: str) -> None:
        item = {"feed": feed, "since": "2024-01-01T00:00:00.000000Z"}
        assert child.id in await said_of(world, alice, item)
        more = merged(alice, {"json": {"subscribe": [{"feed": feed}]}})
        async with httpx.AsyncClient(base_url=world.url, timeout=20, trust_env=False) as client:
            answer = await client.request("POST", "/v1/poll", **more)
        assert child.id in answer.text

    async with asyncio.TaskGroup() as group:
        for feed in ("mine", f"tag:{SECRET}={SECRET}", f"children:{world.job.id}"):
            group.create_task(look(feed))


# -- and with a right ------------------------------------------------------------------------------


async def test_the_owner_sees_it_on_every_one_of_these_ways(world: World) -> None:
    """So that the tests above do not hold because nothing is ever shown."""
    shown = 0
    async with world.server.client("alice") as alice:
        for (method, path), attempt in HTTP.items():
            if attempt.public or attempt.admin:
                continue
            if method != "GET" and path not in ("/v1/events", "/v1/poll"):
                continue
            url = path.replace("{job_id}", world.job.id)
            url = url.replace("{document_id}", world.document_id)
            response = await alice.request(method, url, **attempt.more(world.job.id))
            kept = HERS if path == "/v1/webhooks/secret" else SECRET
            assert kept in response.text, path
            shown += 1
    assert shown == 17
    token = {"headers": {"Authorization": f"Bearer {sign_token(jobs=[world.job.id])}"}}
    for path in SOCKETS:
        said = await said_to(world, path, token, request("subscribe", world.job.id))
        assert SECRET in said, path


async def test_rows_are_compared_whole(world: World, async_database: AsyncDatabase) -> None:
    """The comparison above notices a change of any column."""
    before = await world.job.read()
    row: JobRow | None = await async_database.run(transitions.requeue(world.job.id))
    assert row is not None
    assert row != before
