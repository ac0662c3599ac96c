"""Feeds over a real server: what they begin with, what follows, and what nobody else sees."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection

from livejobs import transitions
from livejobs.database import AsyncDatabase
from livejobs_server import create_key
from livejobs_server.push import rounds

from ..support.led_jobs import MakeJob
from ..support.live_server import (
    LiveServer,
    Message,
    event_messages,
    event_stream,
    kinds,
    receive,
    receive_until,
    send,
    subscribe,
)

pytest_plugins = ["tests.support.live_stack"]


async def follow(
    socket: ClientConnection, feed: str = "mine", jobs: int = 0, **fields: Any
) -> list[Message]:
    """Subscribe to a feed; the messages up to the last of so many jobs."""
    await send(socket, op="subscribe", feed=feed, **fields)
    told = await receive_until(socket, "subscribed")
    while len([message for message in told if message["type"] == "job"]) < jobs:
        told.append(await receive(socket))
    return told


def ids(messages: list[Message]) -> list[str]:
    """The jobs whose views are among messages."""
    return [message["job"]["job_id"] for message in messages if message["type"] == "job"]


async def is_silent(socket: ClientConnection) -> bool:
    """Whether nothing but the answer to a ping comes, when all that is due has been told."""
    await asyncio.sleep(0.3)
    await send(socket, op="ping")
    return bool((await receive(socket))["type"] == "pong")


async def test_feed_begins_with_the_open_jobs_the_oldest_change_first(
    server: LiveServer, make_job: MakeJob
) -> None:
    over, first, second = [await make_job() for _ in range(3)]
    await make_job(owner="bob")
    await over.claim()
    await over.complete()
    await second.claim()
    await second.progress(7)
    await first.claim()
    async with server.socket() as socket:
        told = await follow(socket, jobs=2, ref=4)
        assert (told[0]["feed"], told[0]["recovered"], told[0]["ref"]) == ("mine", True, 4)
        assert ids(told) == [second.id, first.id]
        assert told[1]["job"]["progress"]["current"] == 7
        new = await make_job()
        told = await receive_until(socket, "job")
        assert ids(told) == [new.id]
        await second.progress(8)
        told = await receive_until(socket, "progress")
        assert (told[-1]["job_id"], told[-1]["progress"]["current"]) == (second.id, 8)
        await second.complete({"pages": 3})
        told = await receive_until(socket, "job")
        assert (told[-1]["job"]["status"], told[-1]["job"]["result"]) == ("completed", {"pages": 3})


async def test_feed_tells_at_most_four_messages_a_second_about_a_job(
    server: LiveServer, make_job: MakeJob
) -> None:
    job = await make_job()
    await job.claim()
    came: list[float] = []
    messages: list[Message] = []
    async with server.socket() as socket:
        await follow(socket, jobs=1)

        async def listen() -> None:
            while not messages or messages[-1]["type"] != "job":
                messages.append(json.loads(await socket.recv()))
                came.append(time.monotonic())

        listening = asyncio.create_task(listen())
        until = time.monotonic() + 2.2
        count = 0
        while time.monotonic() < until:
            count += 1
            await job.progress(count, 1000)
            await asyncio.sleep(0.01)
        await job.complete()
        await asyncio.wait_for(listening, 10)
    assert count > 60
    assert messages[-1]["job"]["status"] == "completed"
    assert messages[-1]["job"]["progress"]["current"] == count
    assert 8 <= len(messages) <= 12
    for start in came:
        assert len([at for at in came if start <= at < start + 0.95]) <= 4
    assert set(kinds(messages)) == {"progress", "job"}


async def test_feed_resumes_with_what_changed_meanwhile(
    server: LiveServer, make_job: MakeJob
) -> None:
    quiet, busy, over, doomed = [await make_job() for _ in range(4)]
    for job in (over, doomed):
        await job.claim()
    await doomed.fail()
    async with server.socket() as socket:
        since = (await follow(socket, jobs=3))[0]["since"]
    await busy.claim()
    await over.complete()
    async with server.client() as client:
        assert (await client.delete(f"/v1/jobs/{doomed.id}")).status_code == 204
    async with server.socket() as socket:
        told = await follow(socket, jobs=3, since=since)
        told += [] if told[1]["type"] == "problem" else [await receive(socket)]
        assert ids(told) == [quiet.id, busy.id, over.id]
        assert told[0]["since"] > since
        problems = [message for message in told if message["type"] == "problem"]
        assert [(m["code"], m["job_id"]) for m in problems] == [("unknown_job", doomed.id)]


async def test_deleted_job_is_told_at_once_and_once(
    server: LiveServer, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounds, "ROUND_SECONDS", 0.05)
    job = await make_job()
    await job.claim()
    async with server.socket() as socket, server.socket(owner="bob") as bobs:
        await follow(socket, jobs=1)
        await follow(bobs)
        await job.complete()
        await receive_until(socket, "job")
        async with server.client() as client:
            await client.delete(f"/v1/jobs/{job.id}")
        told = await receive(socket)
        assert (told["type"], told["code"], told["job_id"]) == ("problem", "unknown_job", job.id)
        assert await is_silent(socket)
        assert await is_silent(bobs)


async def test_round_tells_what_was_not_published(
    server: LiveServer, make_job: MakeJob, async_database: AsyncDatabase
) -> None:
    job, gone = await make_job(), await make_job()
    await job.claim()
    await gone.claim()
    await gone.complete()
    async with server.socket() as socket, server.socket() as single:
        await follow(socket, jobs=1)
        await subscribe(single, job.id)
        # The worker dies between COMMIT and PUBLISH; a job is deleted and nobody told.
        await job.complete({"n": 1}, tell=False)
        await async_database.run(transitions.remove(gone.id))
        told = [await receive(socket), await receive(socket)]
        assert sorted(kinds(told)) == ["job", "problem"]
        assert ids(told) == [job.id]
        assert kinds(await receive_until(single, "end")) == ["job", "end"]


async def test_tag_feed_holds_the_jobs_with_the_tag(server: LiveServer, make_job: MakeJob) -> None:
    one = await make_job(tags={"doc": "a=b", "x": "y"})
    other = await make_job(tags={"doc": "a"})
    foreign = await make_job(owner="bob", tags={"doc": "a=b"})
    for job in (one, other, foreign):
        await job.claim()
    async with server.socket() as socket:
        told = await follow(socket, "tag:doc=a=b", jobs=1)
        assert ids(told) == [one.id]
        for job in (other, foreign, one):
            await job.progress(1)
        assert (await receive(socket))["job_id"] == one.id
        late = await make_job(tags={"doc": "a=b"})
        await make_job(tags={"doc": "c"})
        assert ids([await receive(socket)]) == [late.id]
        assert await is_silent(socket)


async def test_children_feed_is_for_who_may_see_the_parent(
    server: LiveServer, make_job: MakeJob
) -> None:
    parent = await make_job()
    child = await make_job(parent_id=parent.id)
    foreign = await make_job(owner="bob", parent_id=parent.id)
    feed = f"children:{parent.id}"
    async with server.socket() as socket, server.socket(owner="bob") as bobs:
        assert ids(await follow(socket, feed, jobs=1)) == [child.id]
        await send(bobs, op="subscribe", feed=feed, ref=3)
        refused = await receive(bobs)
        assert (refused["code"], refused["feed"], refused["ref"]) == ("unknown_job", feed, 3)
        await foreign.claim()
        await child.claim()
        assert ids([await receive(socket)]) == [child.id]
        await child.progress(1)
        assert kinds([await receive(socket)]) == ["progress"]
        assert await is_silent(bobs)


async def test_all_is_for_admins(
    server: LiveServer, make_job: MakeJob, async_database: AsyncDatabase
) -> None:
    jobs = [await make_job(owner=owner) for owner in ("alice", "bob", "")]
    key, _ = await create_key(async_database, "carol", ["admin"])
    headers = {"X-API-Key": key}
    async with server.socket(owner=None, additional_headers=headers) as socket:
        assert ids(await follow(socket, "all", jobs=3)) == [job.id for job in jobs]
        await jobs[2].claim()
        assert ids([await receive(socket)]) == [jobs[2].id]
        assert ids(await follow(socket, "mine")) == []
    async with server.socket() as socket:
        await send(socket, op="subscribe", feed="all")
        assert (await receive(socket))["code"] == "forbidden_feed"


async def test_unsubscribed_feed_is_silent(server: LiveServer, make_job: MakeJob) -> None:
    job = await make_job()
    async with server.socket() as socket:
        await follow(socket, jobs=1)
        await send(socket, op="unsubscribe", feed="mine", ref=2)
        told = await receive(socket)
        assert told == {"type": "unsubscribed", "feed": "mine", "ref": 2}
        await job.claim()
        assert await is_silent(socket)
    await server.has_forgotten_all()


async def test_feed_never_moves_the_cursor_of_a_watched_job_ahead(
    server: LiveServer, make_job: MakeJob
) -> None:
    job = await make_job()
    await job.claim()
    async with server.socket() as socket:
        await follow(socket, jobs=1)
        await subscribe(socket, job.id)
        for number in range(30):
            await job.say(f"{number}")
            await job.progress(number)
        await job.complete()
        told = await receive_until(socket, "end")
        reached = 0
        for message in told:
            n = int(message["id"].split("-")[1])
            if message["type"] in ("log", "output"):
                assert n == reached + 1
                reached = n
            else:
                assert n <= reached
        assert reached == 30


# -- event streams and polls ---------------------------------------------------------------------


async def test_event_stream_carries_feeds_and_goes_on_when_jobs_are_over(
    server: LiveServer, make_job: MakeJob
) -> None:
    job = await make_job()
    await job.claim()
    body = {"subscribe": [{"feed": "mine"}, {"job_id": job.id}]}
    async with (
        server.client() as client,
        event_stream(client, "/v1/events", "POST", json=body) as events,
    ):
        await event_messages(events, "job")
        await job.complete()
        await event_messages(events, "end")
        new = await make_job()
        told = await event_messages(events, "job")
        while new.id not in ids(told):
            told = await event_messages(events, "job")
    await server.has_forgotten_all()
