"""The server loses its Redis: viewers are told, shown what the database says, and live again."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator

import pytest
from websockets.asyncio.client import ClientConnection

from livejobs.live import AsyncLive
from livejobs.settings import Settings

from ..support.led_jobs import LedJob, MakeJob
from ..support.live_server import (
    LiveServer,
    Message,
    event_messages,
    event_stream,
    kinds,
    on_sqlite,
    receive,
    running_server,
    send,
    texts,
)
from ..support.servers import ValkeyProcess

pytest_plugins = ["tests.support.live_stack"]

NOTICED_SECONDS = 3.0


@pytest.fixture
def valkey() -> Iterator[ValkeyProcess]:
    """A server of this test's own, to be killed and frozen."""
    server = ValkeyProcess()
    server.start()
    yield server
    server.close()


@pytest.fixture
def own_settings(settings: Settings, valkey: ValkeyProcess) -> Settings:
    return settings.model_copy(update={"redis_url": valkey.url})


@pytest.fixture
async def live(own_settings: Settings) -> AsyncIterator[AsyncLive]:
    """That Redis, as the jobs' workers use it."""
    live = AsyncLive(own_settings)
    yield live
    await live.close()


@pytest.fixture
async def server(own_settings: Settings) -> AsyncIterator[LiveServer]:
    """A server on the Redis that will be lost."""
    async with running_server(own_settings) as server:
        yield server


async def until(socket: ClientConnection, kind: str, seconds: float, **wanted: object) -> Message:
    """The first message of a type that has these fields."""
    async with asyncio.timeout(seconds):
        while True:
            message: Message = json.loads(await socket.recv())
            if message["type"] == kind and message.items() >= wanted.items():
                return message


async def until_current(socket: ClientConnection, current: int) -> None:
    """Wait for this progress, in a view or alone."""
    async with asyncio.timeout(10):
        while True:
            message = json.loads(await socket.recv())
            shown = message.get("job", message).get("progress")
            if shown is not None and shown["current"] == current:
                return


async def test_viewers_are_told_and_kept_up_to_date_while_redis_is_away(
    server: LiveServer, make_job: MakeJob, valkey: ValkeyProcess, live: AsyncLive
) -> None:
    job = await make_job()
    await job.claim()
    async with server.socket() as socket, server.socket() as follower:
        await send(socket, op="subscribe", job_id=job.id)
        await send(follower, op="subscribe", feed="mine")
        await until(socket, "job", 5)
        await until(follower, "job", 5)
        valkey.kill()
        began = time.monotonic()
        for each in (socket, follower):
            await until(each, "degraded", NOTICED_SECONDS, degraded=True)
        assert time.monotonic() - began < NOTICED_SECONDS
        await work_in_the_database(socket, follower, job)
        async with server.socket() as late:
            await send(late, op="subscribe", feed="mine")
            told = [await receive(late) for _ in range(3)]
            assert sorted(kinds(told)) == ["degraded", "job", "subscribed"]
        valkey.start()
        for each in (socket, follower):
            await until(each, "degraded", 10, degraded=False)
        await live.client.connection_pool.disconnect()  # its connections are dead
        await job.progress(9)
        for each in (socket, follower):
            await until_current(each, 9)
        await job.complete()
        await until(socket, "end", 10)
        assert (await until(follower, "job", 10))["job"]["status"] == "completed"


async def work_in_the_database(
    socket: ClientConnection, follower: ClientConnection, job: LedJob
) -> None:
    """What a worker saves while it cannot publish is told within seconds."""
    await job.say("only", "saved", stored=False)
    job.note_progress(7)
    await job.save()
    await until_current(socket, 7)
    entries = [await until(socket, "log", 5), await until(socket, "output", 5)]
    assert texts(entries) == ["only", "saved"]
    await until_current(follower, 7)


@on_sqlite
async def test_redis_that_hangs_is_an_outage_within_seconds(
    server: LiveServer, make_job: MakeJob, valkey: ValkeyProcess
) -> None:
    job = await make_job()
    async with server.socket() as socket:
        await send(socket, op="subscribe", job_id=job.id)
        await until(socket, "job", 5)
        valkey.freeze()
        await until(socket, "degraded", NOTICED_SECONDS + 0.5, degraded=True)
        valkey.thaw()
        await until(socket, "degraded", 10, degraded=False)


@on_sqlite
async def test_connection_that_is_back_at_once_is_no_outage(
    server: LiveServer, make_job: MakeJob, live: AsyncLive
) -> None:
    job = await make_job()
    await job.claim()
    async with server.socket() as socket:
        await send(socket, op="subscribe", job_id=job.id)
        await until(socket, "job", 5)
        await live.client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        await job.say("one")
        async with asyncio.timeout(10):
            message = await receive(socket)
            while message["type"] != "log":
                assert message["type"] != "degraded"
                message = await receive(socket)


@on_sqlite
async def test_streams_and_polls_are_told_too(
    server: LiveServer, make_job: MakeJob, valkey: ValkeyProcess
) -> None:
    job = await make_job()
    body = {"subscribe": [{"job_id": job.id}]}
    async with server.client() as client:
        assert "degraded" not in kinds(
            (await client.post("/v1/poll", json=body)).json()["messages"]
        )
        async with event_stream(client, "/v1/events", "POST", json=body) as events:
            await event_messages(events, "job")
            valkey.kill()
            assert (await event_messages(events, "degraded"))[-1]["degraded"] is True
            told = (await client.post("/v1/poll", json=body)).json()["messages"]
            assert told[-1] == {"type": "degraded", "degraded": True}
            valkey.start()
            assert (await event_messages(events, "degraded"))[-1]["degraded"] is False
        told = (await client.post("/v1/poll", json=body)).json()["messages"]
        assert told[-1] == {"type": "degraded", "degraded": False}
        # Nobody is answered earlier for it.
        view = next(message["job"] for message in told if message["type"] == "job")
        item = {"job_id": job.id, "version": view["version"], "after": "0-0"}
        began = time.monotonic()
        await client.post("/v1/poll", json={"subscribe": [item], "wait": 0.5})
        assert time.monotonic() - began >= 0.5
