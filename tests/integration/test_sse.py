"""Server-sent events over a real server: one job for a browser, many jobs in one request."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from livejobs_server.api import events

from ..support.led_jobs import MakeJob
from ..support.live_server import (
    LiveServer,
    Message,
    event_messages,
    event_stream,
    kinds,
    on_sqlite,
    raw_peer,
    texts,
)

pytest_plugins = ["tests.support.live_stack"]


async def whole_stream(
    client: httpx.AsyncClient, path: str, method: str = "GET", **options: Any
) -> list[Message]:
    """All messages of a stream that the server closes."""
    async with asyncio.timeout(20), event_stream(client, path, method, **options) as source:
        return [json.loads(event.data) async for event in source if event.data]


# -- one job -------------------------------------------------------------------------------------


async def test_stream_tells_a_job_from_its_start_to_its_end_and_closes(
    server: LiveServer, make_job: MakeJob
) -> None:
    job = await make_job()
    async with (
        server.client() as client,
        event_stream(client, f"/v1/jobs/{job.id}/events") as source,
    ):
        assert kinds(await event_messages(source, "job")) == ["subscribed", "job"]
        await job.claim()
        await job.say("one", "two")
        await job.progress(50)
        await job.complete({"pages": 2})
        told = await event_messages(source, "end")
        assert kinds(told) == ["job", "log", "output", "progress", "job", "end"]
        assert [event async for event in source] == []
    await server.has_forgotten_all()


async def test_head_says_whether_the_connection_ends_with_the_stream(
    server: LiveServer, make_job: MakeJob
) -> None:
    job = await make_job()
    await job.claim()
    path = f"/v1/jobs/{job.id}/events"
    async with asyncio.timeout(20), raw_peer(server, path) as (reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        await job.complete()
        await reader.readuntil(b"\r\n0\r\n\r\n")
        if b"\r\nconnection: close\r\n" not in head.lower():
            # A client that was not warned asks for the next thing over the same connection.
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert (await reader.readline()).split()[1] == b"200"
        else:
            assert await reader.read() == b""
    await server.has_forgotten_all()


async def test_stream_carries_cursors_as_event_ids_and_no_event_names(
    server: LiveServer, make_job: MakeJob
) -> None:
    job = await make_job()
    await job.claim()
    await job.say("one")
    await job.complete()
    async with (
        server.client() as client,
        event_stream(client, f"/v1/jobs/{job.id}/events") as source,
    ):
        seen = [event async for event in source if event.data]
    assert [event.id for event in seen if event.id] == ["1-0", "1-1", "1-1-end"]
    assert all(event.event == "message" for event in seen)
    assert all(json.loads(event.data).get("id", event.id) == event.id for event in seen[1:])


async def test_stream_begins_with_a_comment_and_when_to_come_back(
    server: LiveServer, make_job: MakeJob
) -> None:
    job = await make_job()
    async with (
        server.client() as client,
        client.stream("GET", f"/v1/jobs/{job.id}/events") as response,
    ):
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["cache-control"] == "no-store"
        assert response.headers["x-accel-buffering"] == "no"
        lines = response.aiter_lines()
        assert (await anext(lines)).startswith(":")
        field, _, value = (await anext(lines)).partition(": ")
        assert field == "retry"
        assert 1000 <= int(value) <= 3000


@pytest.mark.parametrize("by_header", [True, False])
async def test_stream_resumes_after_its_cursor(
    server: LiveServer, make_job: MakeJob, by_header: bool
) -> None:
    job = await make_job()
    await job.claim()
    await job.say("one", "two", "three")
    await job.complete()
    path = f"/v1/jobs/{job.id}/events"
    # A browser that reconnects sends the header, with the URL it began with.
    url = f"{path}?after=1-1" if by_header else f"{path}?after=1-2"
    headers = {"Last-Event-ID": "1-2"} if by_header else {}
    async with server.client() as client:
        told = await whole_stream(client, url, headers=headers)
    assert kinds(told) == ["subscribed", "job", "log", "end"]
    assert texts(told) == ["three"]


@pytest.mark.parametrize(
    ("entries", "expected"), [("none", []), ("tail:1", ["three"]), ("all", ["one", "two", "three"])]
)
async def test_stream_takes_only_the_entries_it_asks_for(
    server: LiveServer, make_job: MakeJob, entries: str, expected: list[str]
) -> None:
    job = await make_job()
    await job.claim()
    await job.say("one", "two", "three")
    await job.complete()
    async with server.client() as client:
        told = await whole_stream(client, f"/v1/jobs/{job.id}/events?entries={entries}")
    assert texts(told) == expected


async def test_reconnect_after_the_end_is_204_while_the_job_is_over(
    server: LiveServer, make_job: MakeJob
) -> None:
    job = await make_job()
    await job.claim()
    await job.say("one")
    await job.fail()
    path = f"/v1/jobs/{job.id}/events"
    async with server.client() as client:
        told = await whole_stream(client, path)
        seen = {"Last-Event-ID": told[-1]["id"]}
        assert seen == {"Last-Event-ID": "1-1-end"}
        assert (await client.get(path, headers=seen)).status_code == 204
        assert (await client.get(f"{path}?after=1-1-end")).status_code == 204
        # Without the -end, or with a cursor that lacks entries, there is something to tell.
        assert (
            kinds(await whole_stream(client, path, headers={"Last-Event-ID": "1-1"}))[-1] == "end"
        )
        assert texts(await whole_stream(client, path, headers={"Last-Event-ID": "1-0-end"})) == [
            "one"
        ]
        # It runs again, so there is more to come; then it is over once more.
        await job.requeue()
        async with event_stream(client, path, headers=seen) as source:
            assert (await event_messages(source, "job"))[-1]["job"]["status"] == "pending"
            await job.claim()
            await job.complete()
            await event_messages(source, "end")
        assert kinds(await whole_stream(client, path, headers=seen))[-1] == "end"
        assert (await client.get(path, headers={"Last-Event-ID": "2-0-end"})).status_code == 204
    await server.has_forgotten_all()


async def test_unknown_and_foreign_jobs_are_the_same_404(
    server: LiveServer, make_job: MakeJob
) -> None:
    foreign = await make_job(owner="bob")
    answers = []
    async with server.client() as client:
        for job_id in (foreign.id, "0" * len(foreign.id)):
            response = await client.get(f"/v1/jobs/{job_id}/events")
            assert response.headers["content-type"] == "application/problem+json"
            answers.append(json.loads(response.text.replace(job_id, "")))
        assert (await client.get("/v1/jobs/a%00b/events")).status_code == 404
        assert (await client.get(f"/v1/jobs/{'x' * 300}/events")).status_code == 404
    assert answers[0] == answers[1]
    assert (answers[0]["status"], answers[0]["code"]) == (404, "unknown_job")
    await server.has_forgotten_all()


@on_sqlite
@pytest.mark.parametrize(
    ("query", "headers", "code"),
    [
        ("?after=rubbish", {}, "invalid_cursor"),
        ("", {"Last-Event-ID": "rubbish"}, "invalid_cursor"),
        ("", {"Last-Event-ID": "1-1" * 100}, "invalid_request"),
        ("?entries=some", {}, "invalid_request"),
    ],
)
async def test_what_cannot_be_served_is_a_problem_before_the_stream(
    server: LiveServer, make_job: MakeJob, query: str, headers: dict[str, str], code: str
) -> None:
    job = await make_job()
    async with server.client() as client:
        response = await client.get(f"/v1/jobs/{job.id}/events{query}", headers=headers)
    assert (response.status_code, response.json()["code"]) == (422, code)


@on_sqlite
async def test_empty_last_event_id_is_none(server: LiveServer, make_job: MakeJob) -> None:
    job = await make_job()
    await job.claim()
    await job.complete()
    async with server.client() as client:
        path = f"/v1/jobs/{job.id}/events"
        assert kinds(await whole_stream(client, path, headers={"Last-Event-ID": ""}))[-1] == "end"


# -- who is asking -------------------------------------------------------------------------------


async def test_without_credentials_it_is_401_before_the_stream(
    server: LiveServer, make_job: MakeJob
) -> None:
    job = await make_job()
    async with server.client(owner=None) as client:
        for headers in ({}, {"Authorization": "Bearer rubbish"}):
            response = await client.get(f"/v1/jobs/{job.id}/events", headers=headers)
            assert (response.status_code, response.json()["code"]) == (401, "unauthenticated")
        body = {"subscribe": [{"job_id": job.id}]}
        assert (await client.post("/v1/events", json=body)).status_code == 401


async def test_ticket_opens_a_stream_once_and_its_cookie_reconnects(
    server: LiveServer, make_job: MakeJob
) -> None:
    job, other = await make_job(), await make_job()
    async with server.client() as client:
        ticket = (await client.post("/v1/tickets", json={"jobs": [job.id]})).json()["ticket"]
    path = f"/v1/jobs/{job.id}/events"
    async with server.client(owner=None) as browser:
        async with event_stream(browser, f"{path}?ticket={ticket}") as source:
            await event_messages(source, "job")
        cookie = browser.cookies.jar
        assert [(entry.path, entry.has_nonstandard_attr("HttpOnly")) for entry in cookie] == [
            (path, True)
        ]
        # The browser comes back with the same URL; the ticket is spent, the cookie counts.
        async with event_stream(browser, f"{path}?ticket={ticket}") as source:
            await event_messages(source, "job")
        assert (await browser.get(f"/v1/jobs/{other.id}/events")).status_code == 401
    async with server.client(owner=None) as stranger:
        assert (await stranger.get(f"{path}?ticket={ticket}")).status_code == 401


async def test_stream_ends_when_its_credentials_do(server: LiveServer, make_job: MakeJob) -> None:
    job = await make_job()
    headers = {"Authorization": f"Bearer {server.token(ttl_seconds=2)}"}
    async with server.client(owner=None) as client:
        told = await whole_stream(client, f"/v1/jobs/{job.id}/events", headers=headers)
        assert kinds(told) == ["subscribed", "job"]
        response = await client.get(f"/v1/jobs/{job.id}/events", headers=headers)
        assert response.status_code == 401
    await server.has_forgotten_all()


# -- passing trouble, silence, and slow ones -------------------------------------------------------


@on_sqlite
async def test_trouble_that_passes_answers_200_and_when_to_come_back(
    server: LiveServer, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "FIRST_FRAME_SECONDS", 0.2)
    # Nothing reaches the hub any more, as while the database is away.
    monkeypatch.setattr(
        type(server.services.hub), "snapshot", lambda hub, read, _s: hub.read_failed(read)
    )
    job = await make_job()
    async with server.client() as client:
        response = await client.get(f"/v1/jobs/{job.id}/events")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/event-stream")
    assert "data:" not in response.text
    retry = [line for line in response.text.splitlines() if line.startswith("retry: ")]
    assert 2000 <= int(retry[0].removeprefix("retry: ")) <= 8000
    await server.has_forgotten_all()


# -- many jobs -----------------------------------------------------------------------------------


async def test_many_jobs_share_one_stream_which_closes_after_the_last(
    server: LiveServer, make_job: MakeJob
) -> None:
    jobs = [await make_job() for _ in range(4)]
    await jobs[0].claim()
    await jobs[0].say("one", "two")
    body = {"subscribe": [{"job_id": job.id} for job in jobs]}
    body["subscribe"][0]["after"] = "1-1"
    async with (
        server.client() as client,
        event_stream(client, "/v1/events", "POST", json=body) as source,
    ):
        await event_messages(source, "job")
        for job in jobs[1:]:
            await job.claim()
            await job.say("said")
        for job in jobs:
            await job.complete()
        told = [json.loads(event.data) async for event in source if event.data]
    ended = {message["job_id"] for message in told if message["type"] == "end"}
    assert ended == {job.id for job in jobs}
    assert sorted(texts(told)) == ["said", "said", "said", "two"]
    await server.has_forgotten_all()


async def test_items_that_cannot_be_served_are_problems_beside_the_others(
    server: LiveServer, make_job: MakeJob
) -> None:
    job, foreign = await make_job(), await make_job(owner="bob")
    await job.claim()
    await job.complete()
    items: list[dict[str, str]] = [
        {"job_id": foreign.id},
        {"job_id": "nobody"},
        {"job_id": "a\0b"},
        {"job_id": job.id, "after": "rubbish"},
        {"feed": "mine", "since": "now"},
        {"feed": "ours"},
        {"job_id": job.id},
    ]
    async with server.client() as client:
        told = await whole_stream(client, "/v1/events", "POST", json={"subscribe": items})
    problems = {(m["code"], m.get("job_id")) for m in told if m["type"] == "problem"}
    assert problems == {
        ("unknown_job", foreign.id),
        ("unknown_job", "nobody"),
        ("unknown_job", "a\0b"),
        ("invalid_cursor", job.id),
        ("invalid_cursor", None),
        ("unknown_feed", None),
    }
    assert kinds(told)[-1] == "end"


@on_sqlite
@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        {"subscribe": []},
        {"subscribe": {}},
        {"subscribe": [{}]},
        {"subscribe": [{"job_id": 7}]},
        {"subscribe": [{"job_id": "j", "feed": "mine"}]},
        {"subscribe": [{"job_id": "j", "entries": "some"}]},
        {"subscribe": [{"job_id": "j", "version": -1}]},
        {"subscribe": [{"job_id": "j"}] * 1001},
    ],
    ids=str,
)
@pytest.mark.parametrize("path", ["/v1/events", "/v1/poll"])
async def test_bodies_that_are_not_as_documented_are_422(
    server: LiveServer, path: str, body: Any
) -> None:
    async with server.client() as client:
        response = await client.post(path, json=body)
    assert (response.status_code, response.json()["code"]) == (422, "invalid_request")
