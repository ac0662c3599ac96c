"""A viewer that comes, drops and resumes at any moment ends with the truth.

A thousand viewers on each transport watch jobs whose every step (entries, progress, retries, the
end) comes at a random moment, as do the viewers' arrivals and the breaks of their connections. Each
must end with the view of the database and with every entry of the last attempt, each once and in
order. `LIVEJOBS_TEST_SEED` takes another seed.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from httpx_sse import aconnect_sse
from websockets.asyncio.client import connect

from livejobs.database import AsyncDatabase
from livejobs.live import AsyncLive
from livejobs.models import view_of
from livejobs.settings import Settings
from livejobs_server import sign_token
from tests.support.led_jobs import LedJob, MakeJob, entry_text
from tests.support.live_stack import async_database, live, make_job
from tests.support.server import http_server

__all__ = ["async_database", "live", "make_job"]  # fixtures

SEED = int(os.environ.get("LIVEJOBS_TEST_SEED", "20260817"))
VIEWERS = 500
"""On each transport and each database, so a thousand on each transport."""
JOBS = 50
JOBS_AT_ONCE = 10
LIFE_SECONDS = 1.0
"""About how long a job lives; viewers come up to half of it before and after."""

Message = dict[str, Any]


class Picture:
    """What a viewer has been told, folded as every client has to: the larger version, the larger
    seq, each entry once. On one connection nothing may go back at all.
    """

    def __init__(self) -> None:
        self.view: Message | None = None
        self.attempt = 0
        self.texts: list[str] = []
        self.cursor: str | None = None
        self.seq = 0
        self.ended = False
        self.breaks = 0
        self._told = (0, 0, 0)

    def connect(self) -> None:
        """A new connection begins."""
        self._told = (0, 0, 0)

    def take(self, message: Message) -> None:
        """Fold in one message."""
        kind = message["type"]
        assert not self.ended, f"{kind} after the end"
        if kind == "subscribed":
            assert message["recovered"], "nothing was thrown away by retention"
        if kind in ("job", "progress", "log", "output"):
            self._move(message["id"], is_entry=kind in ("log", "output"))
        if kind == "job":
            self._goes_on(message["job"]["version"], 0)
            if self.view is None or message["job"]["version"] >= self.view["version"]:
                self.view = message["job"]
        elif kind == "progress":
            assert message["attempt"] == self.attempt
            self._goes_on(self._told[1], message["seq"])
            self.seq = max(self.seq, message["seq"])
        elif kind in ("log", "output"):
            self.texts.append(entry_text(message))
        self.ended = kind == "end"

    def _move(self, cursor: str, *, is_entry: bool) -> None:
        attempt, n = (int(part) for part in cursor.split("-"))
        assert attempt >= self.attempt, "an attempt went back"
        if attempt > self.attempt:
            self.attempt, self.texts, self.seq = attempt, [], 0
        assert n == len(self.texts) + is_entry, f"{cursor} after {len(self.texts)} entries"
        self.cursor = cursor

    def _goes_on(self, version: int, seq: int) -> None:
        attempt, told_version, told_seq = self._told
        if attempt != self.attempt:
            told_seq = 0
        assert version >= told_version, "the version went back on one connection"
        assert seq == 0 or seq > told_seq, "the progress went back on one connection"
        self._told = (self.attempt, version, max(seq, told_seq))


class Viewer:
    """A client of one transport, whose connection breaks at random moments."""

    MOST = 12
    """So many messages, or polls, are read before a break, at most."""

    def __init__(self, url: str, client: httpx.AsyncClient, job_id: str, chance: random.Random):
        self.url = url
        self.client = client
        self.job_id = job_id
        self.picture = Picture()
        # After these the connection stays.
        self.patience: list[int] = [
            chance.randint(0, self.MOST) for _ in range(chance.choice([0, 1, 1, 3]))
        ]
        self.pauses = [chance.random() * LIFE_SECONDS / 4 for _ in self.patience]

    async def watch(self) -> Picture:
        """Watch until the end."""
        while not self.picture.ended:
            most = self.patience.pop() if self.patience else None
            self.picture.connect()
            await self.connect(most)
            if most is not None:
                self.picture.breaks += 1
                await asyncio.sleep(self.pauses.pop())
        return self.picture

    async def connect(self, most: int | None) -> None:
        """One connection, broken off after `most` messages."""
        raise AssertionError("each transport has its own")


class WebSocketViewer(Viewer):
    async def connect(self, most: int | None) -> None:
        address = f"{self.url.replace('http', 'ws')}/v1/ws"
        headers = {"Authorization": self.client.headers["Authorization"]}
        async with connect(address, additional_headers=headers, compression=None) as socket:
            op = {"op": "subscribe", "job_id": self.job_id, "after": self.picture.cursor}
            await socket.send(json.dumps({k: v for k, v in op.items() if v is not None}))
            read = 0
            try:
                while not self.picture.ended and (most is None or read < most):
                    self.picture.take(json.loads(await socket.recv()))
                    read += 1
            finally:
                if not self.picture.ended:
                    socket.transport.abort()


class EventsViewer(Viewer):
    async def connect(self, most: int | None) -> None:
        headers = {"Last-Event-ID": self.picture.cursor} if self.picture.cursor else {}
        path = f"{self.url}/v1/jobs/{self.job_id}/events"
        async with aconnect_sse(self.client, "GET", path, headers=headers) as source:
            source.response.raise_for_status()
            read = 0
            async for event in source.aiter_sse():
                if most is not None and read >= most:
                    return
                self.picture.take(json.loads(event.data))
                read += 1


class PollingViewer(Viewer):
    MOST = 3

    async def connect(self, most: int | None) -> None:
        picture = self.picture
        polls = 0
        while not picture.ended and (most is None or polls < most):
            item = {"job_id": self.job_id, "after": picture.cursor, "seq": picture.seq}
            if picture.view is not None:
                item["version"] = picture.view["version"]
            body = {"subscribe": [{k: v for k, v in item.items() if v is not None}], "wait": 20}
            answer = await self.client.post(f"{self.url}/v1/poll", json=body)
            for message in answer.raise_for_status().json()["messages"]:
                picture.take(message)
            polls += 1


TRANSPORTS = {
    "websocket": WebSocketViewer,
    "sse": EventsViewer,
    "polling": PollingViewer,
}


async def live_a_life(job: LedJob, chance: random.Random) -> None:
    """Lead a job through one to three attempts to its end."""
    steps = chance.randint(0, 30)
    pause = LIFE_SECONDS / (steps + 1)
    await asyncio.sleep(chance.random() * pause)
    await job.claim()
    for step in range(steps):
        await asyncio.sleep(chance.random() * 2 * pause)
        what = chance.random()
        if what < 0.6:
            await job.say(*(f"{step}.{i}" for i in range(chance.choice([1, 1, 1, 2, 20]))))
        elif what < 0.85:
            await job.progress(step, steps)
        elif what < 0.95:
            await job.save()
        else:
            await job.retry()
            await asyncio.sleep(chance.random() * pause)
            await job.claim()
    if chance.random() < 0.8:
        await job.complete({"steps": steps})
    else:
        await job.fail()


@pytest.fixture
def server(settings: Settings, tmp_path: Path) -> Iterator[str]:
    """The server of its own, in a process of its own."""
    with http_server(settings, tmp_path / "server.log") as url:
        yield url


@pytest.fixture
async def client(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """Alice's, for as many connections as she likes."""
    async with httpx.AsyncClient(
        headers={"Authorization": f"Bearer {sign_token(owner='alice', settings=settings)}"},
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
        timeout=40,
        verify=False,
    ) as client:
        yield client


@pytest.mark.timeout(300)
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_viewers_at_random_moments_end_with_the_truth(
    transport: str,
    server: str,
    client: httpx.AsyncClient,
    make_job: MakeJob,
    async_database: AsyncDatabase,
    live: AsyncLive,
) -> None:
    chance = random.Random(f"{SEED}-{transport}")
    places = asyncio.Semaphore(JOBS_AT_ONCE)
    breaks = 0

    async def arrive(viewer: Viewer, after: float) -> Picture:
        await asyncio.sleep(after)
        return await viewer.watch()

    async def one_job(own: random.Random) -> None:
        nonlocal breaks
        async with places:
            job = await make_job("alice")
            async with asyncio.TaskGroup() as group:
                watching = [
                    group.create_task(
                        arrive(
                            TRANSPORTS[transport](server, client, job.id, own),
                            own.random() * LIFE_SECONDS * 1.5,
                        )
                    )
                    for _ in range(VIEWERS // JOBS)
                ]
                group.create_task(live_a_life(job, own))
            row = await job.read()
            truth = view_of(row).model_dump(mode="json")
            for task in watching:
                picture = task.result()
                assert picture.view == truth
                assert picture.texts == job.said
                breaks += picture.breaks

    async with asyncio.TaskGroup() as group:
        for _ in range(JOBS):
            group.create_task(one_job(random.Random(chance.random())))
    assert breaks > VIEWERS / 4, "connections did break"


async def test_viewer_in_the_millisecond_of_the_end(
    server: str, client: httpx.AsyncClient, make_job: MakeJob
) -> None:
    """The subscription and the last transition race each other, again and again."""
    chance = random.Random(SEED)
    for turn in range(60):
        job = await make_job("alice")
        await job.claim()
        await job.say("one", "two")
        viewers = [
            kind(server, client, job.id, random.Random(turn)) for kind in TRANSPORTS.values()
        ]
        for viewer in viewers:
            viewer.patience, viewer.pauses = [], []
        watching = [asyncio.create_task(viewer.watch()) for viewer in viewers]
        await asyncio.sleep(chance.random() * 0.02)
        await job.say("three")
        row = await job.complete(turn)
        for task in watching:
            picture = await asyncio.wait_for(task, 20)
            assert picture.view == view_of(row).model_dump(mode="json")
            assert picture.texts == ["one", "two", "three"]
