"""What holds on every transport: who comes, drops and comes back at any moment gets the truth.

Each job is led through a random life while a viewer of it arrives, loses its connection and
resumes at random moments. In the end it has the view that the database has, and every entry once.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from livejobs.entries import START, Cursor
from livejobs.live import AsyncLive
from livejobs.models import view_of

from ..support.led_jobs import LedJob, MakeJob, entry_text
from ..support.live_server import LiveServer, Message, event_stream, send

pytest_plugins = ["tests.support.live_stack"]

JOBS = 30
"""On each database, where they live other lives; so 60 on each transport of each kind of server."""
AT_ONCE = 12
"""Jobs alive at the same time; two cores do not take more without stretching every moment."""
SEED = 20240615


class Picture:
    """What a viewer knows, put together from messages; wrong ones fail at once.

    Attributes:
        cursor: Where it resumes.
        version: Version of its view; 0: it has none.
        seq: Seq of the newest progress.
        ended: Whether it was told the end.
    """

    def __init__(self) -> None:
        self.cursor = START
        self.view: dict[str, Any] = {}
        self.version = 0
        self.seq = 0
        self.texts: list[str] = []
        self.ended = False

    def apply(self, message: Message) -> None:
        """Take in one message."""
        kind = message["type"]
        if kind in ("ping", "subscribed"):
            assert message.get("recovered", True)
            return
        assert kind != "problem", message
        cursor = Cursor.parse(message["id"])
        if cursor.attempt != self.cursor.attempt:
            assert cursor.attempt > self.cursor.attempt, (message, self.cursor)
            self.texts, self.seq = [], 0
            self.cursor = Cursor(cursor.attempt, 0)
        if kind in ("log", "output"):
            assert cursor.n == self.cursor.n + 1, (message, self.cursor)
            self.texts.append(entry_text(message))
        assert cursor == Cursor(cursor.attempt, len(self.texts)), (message, len(self.texts))
        self.cursor = cursor
        if kind == "job" and message["job"]["version"] >= self.version:
            self.view, self.version = message["job"], message["job"]["version"]
        if kind == "progress":
            assert message["seq"] > self.seq, (message, self.seq)
            self.seq = message["seq"]
        self.ended = kind == "end"


class Visit:
    """One connection of a viewer: how many messages it lasts."""

    def __init__(self, picture: Picture, chance: random.Random) -> None:
        self.picture = picture
        self.chance = chance
        self._left = chance.choice([1, 2, 3, 5, 8, 13, 10_000])

    def take(self, message: Message) -> bool:
        """Take in a message; whether the connection goes on after it."""
        self.picture.apply(message)
        self._left -= 1
        return self._left > 0 and not self.picture.ended


Watch = Callable[[LiveServer, str, Visit], Awaitable[None]]


async def by_websocket(server: LiveServer, job_id: str, visit: Visit) -> None:
    async with server.socket() as socket:
        await send(socket, op="subscribe", job_id=job_id, after=str(visit.picture.cursor))
        while visit.take(json.loads(await socket.recv())):
            pass
        if visit.chance.random() < 0.5:
            socket.transport.abort()


async def by_own_websocket(server: LiveServer, job_id: str, visit: Visit) -> None:
    path = f"/v1/jobs/{job_id}/ws?after={visit.picture.cursor}"
    async with server.socket(path) as socket:
        with suppress(ConnectionClosed):
            while visit.take(json.loads(await socket.recv())):
                pass
        if visit.chance.random() < 0.5:
            socket.transport.abort()


async def by_event_stream(server: LiveServer, job_id: str, visit: Visit) -> None:
    headers = {"Last-Event-ID": str(visit.picture.cursor)}
    async with (
        server.client() as client,
        event_stream(client, f"/v1/jobs/{job_id}/events", headers=headers) as source,
    ):
        async for event in source:
            if event.data and not visit.take(json.loads(event.data)):
                break


async def by_shared_stream(server: LiveServer, job_id: str, visit: Visit) -> None:
    body = {"subscribe": [{"job_id": job_id, "after": str(visit.picture.cursor)}]}
    async with (
        server.client() as client,
        event_stream(client, "/v1/events", "POST", json=body) as source,
    ):
        async for event in source:
            if event.data and not visit.take(json.loads(event.data)):
                break


async def by_poll(server: LiveServer, job_id: str, visit: Visit) -> None:
    async with server.client() as client:
        going_on = True
        while going_on:
            # An answer that is on its way when the connection breaks is lost as a whole.
            patience = visit.chance.choice([0.02, 5.0, 5.0])
            messages: list[Message] = []
            with suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    messages = await poll(client, job_id, visit.picture)
            going_on = all(visit.take(message) for message in messages)


async def poll(client: httpx.AsyncClient, job_id: str, picture: Picture) -> list[Message]:
    item = {
        "job_id": job_id,
        "after": str(picture.cursor),
        "version": picture.version,
        "seq": picture.seq,
    }
    response = await client.post("/v1/poll", json={"subscribe": [item], "wait": 2})
    assert response.status_code == 200, response.text
    messages: list[Message] = response.json()["messages"]
    return messages


async def moment(chance: random.Random) -> None:
    """Let a random bit of time pass, often none."""
    await asyncio.sleep(chance.choice([0, 0, 0.001, 0.005, 0.02]))


async def live_through(job: LedJob, chance: random.Random) -> None:
    """Lead a job through a random life to its end."""
    for attempt in range(chance.choice([1, 1, 2, 3])):
        if attempt:
            await job.retry()
            await moment(chance)
        await job.claim()
        for step in range(chance.randrange(8)):
            await moment(chance)
            match chance.randrange(4):
                case 0:
                    await job.progress(step)
                case 1:
                    await job.save()
                case _:
                    texts = (f"{attempt}.{step}.{n}" for n in range(chance.randrange(1, 6)))
                    await job.say(*texts)
    await moment(chance)
    if chance.random() < 0.5:
        await job.complete({"done": True})
    else:
        await job.fail()


async def watch_through(
    server: LiveServer, job: LedJob, watch: Watch, chance: random.Random
) -> Picture:
    """Watch a job from a random moment on, through random losses of the connection."""
    picture = Picture()
    await asyncio.sleep(chance.choice([0, 0.01, 0.05, 0.1, 0.2, 0.4]))
    while not picture.ended:
        await watch(server, job.id, Visit(picture, chance))
        await moment(chance)
    return picture


@pytest.mark.parametrize(
    "watch", [by_websocket, by_own_websocket, by_event_stream, by_shared_stream, by_poll]
)
async def test_viewer_ends_with_the_right_view_and_all_entries_whenever_it_comes_and_drops(
    server: LiveServer, make_job: MakeJob, watch: Watch, database_url: str
) -> None:
    chance = random.Random(SEED + database_url.startswith("sqlite"))
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> None:
        async with slots:
            job = await make_job()
            async with asyncio.timeout(60), asyncio.TaskGroup() as both:
                both.create_task(live_through(job, random.Random(SEED + number)))
                watching = both.create_task(
                    watch_through(server, job, watch, random.Random(number))
                )
            picture, row = watching.result(), await job.read()
            assert picture.view == view_of(row).model_dump(mode="json"), number
            assert picture.texts == job.said, number

    async with asyncio.TaskGroup() as tasks:
        for _ in range(JOBS):
            tasks.create_task(one(chance.randrange(10**6)))
    await server.has_forgotten_all()


async def test_viewers_get_everything_though_redis_loses_its_data_and_its_connections(
    server: LiveServer, make_job: MakeJob, live: AsyncLive
) -> None:
    job = await make_job()
    await job.claim()
    early, late = Picture(), Picture()
    async with server.socket() as first, server.socket() as second:
        await send(first, op="subscribe", job_id=job.id)
        await job.say("saved 1", "saved 2")
        await job.save()
        await job.say("not saved yet")
        await apply_until(first, early, lambda: len(early.texts) == 3)
        await live.client.flushall()
        await job.say("after the loss")
        await apply_until(first, early, lambda: len(early.texts) == 4)
        # A newcomer cannot have the third before the database does.
        await send(second, op="subscribe", job_id=job.id)
        await job.save()
        await apply_until(second, late, lambda: len(late.texts) == 4)
        await live.client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        await job.say("while nobody listens")
        await job.progress(99)
        await job.complete()
        for socket, picture in ((first, early), (second, late)):
            await apply_until(socket, picture, partial(getattr, picture, "ended"))
            assert picture.texts == job.said
            assert picture.view == view_of(await job.read()).model_dump(mode="json")


async def apply_until(socket: ClientConnection, picture: Picture, done: Callable[[], bool]) -> None:
    """Take in messages until the picture is as wanted."""
    async with asyncio.timeout(15):
        while not done():
            picture.apply(json.loads(await socket.recv()))
