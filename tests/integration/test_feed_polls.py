"""Polls of feeds: nothing is missed between two, and nothing told again and again."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import httpx
import pytest

from livejobs import transitions
from livejobs.database import AsyncDatabase
from livejobs.models import db_now
from livejobs.statements import change, jobs
from livejobs_server.api import bookmark

from ..support.led_jobs import LedJob, MakeJob
from ..support.live_server import LiveServer, Message, kinds, on_sqlite
from ..support.waiting import wait_until_async

pytest_plugins = ["tests.support.live_stack"]


class Poller:
    """A client that polls feeds and hands back what it is given.

    Attributes:
        since: The `since` of the last answer.
        told: All messages of the last answer.
    """

    def __init__(self, client: httpx.AsyncClient, *feeds: str) -> None:
        self.feeds = list(feeds) or ["mine"]
        self.since = ""
        self.told: list[Message] = []
        self._client = client

    async def poll(self, wait: float = 0, *more: dict[str, Any]) -> list[str]:
        """Poll once; what came about jobs, in short."""
        items: list[dict[str, Any]] = [{"feed": feed, "since": self.since} for feed in self.feeds]
        body = {"subscribe": [*items, *more], "wait": wait}
        response = await self._client.post("/v1/poll", json=body)
        assert response.status_code == 200, response.text
        answer = response.json()
        self.since, self.told = answer["since"], answer["messages"]
        assert {m["since"] for m in self.told if "feed" in m and m["type"] == "subscribed"} <= {
            self.since
        }
        return [about for message in self.told if (about := short(message))]

    async def timed(self, wait: float) -> tuple[list[str], float]:
        """Poll, and the seconds it took."""
        began = time.monotonic()
        told = await self.poll(wait)
        return told, time.monotonic() - began


def short(message: Message) -> str:
    if message["type"] == "job":
        return f"{message['job']['status']} {message['job']['job_id']}"
    if message["type"] == "progress":
        return f"{message['progress']['current']} {message['job_id']}"
    if message["type"] == "problem":
        return f"{message['code']} {message.get('job_id')}"
    return ""


async def held(server: LiveServer) -> None:
    """Wait until a poll follows its feed."""
    await wait_until_async(lambda: server.services.feeds.viewers, description="the poll is held")


async def test_first_poll_tells_the_open_jobs_and_later_ones_what_changed(
    server: LiveServer, make_job: MakeJob
) -> None:
    one, two = await make_job(), await make_job()
    async with server.client() as client:
        poller = Poller(client)
        assert await poller.poll() == [f"pending {one.id}", f"pending {two.id}"]
        assert kinds(poller.told)[0] == "subscribed"
        for _ in range(3):
            assert await poller.poll() == []
        await two.claim()
        assert await poller.poll(20) == [f"processing {two.id}"]
        assert await poller.poll() == []
        await two.progress(5)
        await two.save()
        assert await poller.poll() == [f"processing {two.id}"]
        assert await poller.poll() == []
        await two.complete()
        new = await make_job()
        assert await poller.poll() == [f"completed {two.id}", f"pending {new.id}"]
        assert await poller.poll() == []
    await server.has_forgotten_all()


async def test_poll_with_nothing_new_waits_for_the_first_change(
    server: LiveServer, make_job: MakeJob
) -> None:
    job = await make_job()
    await job.claim()
    async with server.client() as client:
        poller = Poller(client)
        await poller.poll()
        told, took = await poller.timed(0.7)
        assert told == []
        assert took >= 0.7
        waiting = asyncio.create_task(poller.poll(20))
        await held(server)
        await job.progress(3)
        told = await asyncio.wait_for(waiting, 10)
        # It may have come while the poll's own read was under way: then it is in the view.
        assert told in ([f"3 {job.id}"], [f"processing {job.id}"])
        # It is not told again, also when the row is saved, as progress at least.
        told, took = await poller.timed(0.7)
        assert told == []
        assert took >= 0.7
        await job.complete()
        assert await poller.poll(20) == [f"completed {job.id}"]
        told, took = await poller.timed(0.7)
        assert took >= 0.7


async def test_change_that_was_committed_late_is_told(
    server: LiveServer, make_job: MakeJob, async_database: AsyncDatabase
) -> None:
    early, late = await make_job(), await make_job()
    async with server.client() as client:
        poller = Poller(client)
        await poller.poll()
        # Its time lies before the answer, as if its transaction had taken long.
        await async_database.run(aged(early, 2))
        assert await poller.poll(20) == [f"cancelled {early.id}"]
        assert await poller.poll() == []
        await late.claim()
        assert await poller.poll() == [f"processing {late.id}"]


def aged(job: LedJob, seconds: float) -> Any:
    row = yield from transitions.cancel(job.id)
    yield change(jobs.c.id == job.id, updated_at=db_now(-seconds))
    return row


async def test_deleted_job_is_told_once(
    server: LiveServer, make_job: MakeJob, async_database: AsyncDatabase
) -> None:
    job = await make_job()
    await job.claim()
    await job.complete()
    async with server.client() as client:
        poller = Poller(client)
        await poller.poll()
        await async_database.run(transitions.remove(job.id))
        assert await poller.poll(20) == [f"unknown_job {job.id}"]
        told, took = await poller.timed(0.7)
        assert (told, took >= 0.7) == ([], True)


async def test_feed_that_joins_later_begins_with_its_open_jobs(
    server: LiveServer, make_job: MakeJob
) -> None:
    job = await make_job(tags={"k": "v"})
    async with server.client() as client:
        poller = Poller(client)
        await poller.poll()
        items = [{"feed": "mine", "since": poller.since}, {"feed": "tag:k=v"}]
        answer = (await client.post("/v1/poll", json={"subscribe": items})).json()
        assert [short(m) for m in answer["messages"] if short(m)] == [f"pending {job.id}"]
        poller.feeds, poller.since = ["mine", "tag:k=v"], answer["since"]
        assert await poller.poll() == []
        assert await poller.poll(0, {"feed": "ours"}) == ["unknown_feed None"]
        assert await poller.poll() == []


async def test_job_that_is_polled_too_is_answered_as_ever(
    server: LiveServer, make_job: MakeJob
) -> None:
    job = await make_job()
    async with server.client() as client:
        poller = Poller(client)
        await poller.poll()
        assert set(await poller.poll(0, {"job_id": job.id})) == {f"pending {job.id}"}


@on_sqlite
async def test_many_changes_end_a_wait_once(
    server: LiveServer, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bookmark, "MAX_FACTS", 3)
    many = [await make_job() for _ in range(10)]
    async with server.client() as client:
        poller = Poller(client)
        assert len(await poller.poll()) == 10
        told, took = await poller.timed(0.7)
        assert took >= 0.7
        assert len(told) < 10
        await many[0].claim()
        assert f"processing {many[0].id}" in await poller.poll(20)


@on_sqlite
async def test_answer_that_is_full_is_followed_by_the_rest(
    server: LiveServer, make_job: MakeJob
) -> None:
    server.services.settings = server.settings.model_copy(update={"viewer_buffer_bytes": 3000})
    many = [await make_job() for _ in range(40)]
    async with server.client() as client:
        poller = Poller(client)
        told = await poller.poll()
        assert 2 < len(told) < 30
        seen = set(told)
        for _ in range(40):
            told = await poller.poll()
            if not told:
                break
            seen |= set(told)
    assert seen == {f"pending {job.id}" for job in many}
