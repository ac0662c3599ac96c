"""Held polls over a real server: at once, at the first change, or after the wait."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import httpx
import pytest
from starlette.requests import Request

from livejobs.entries import Cursor
from livejobs_server.api import poll as poll_module
from livejobs_server.api.poll import wait_for_change
from livejobs_server.push.exchange import Read, Snapshot
from livejobs_server.push.hub import Hub
from livejobs_server.viewer import Viewer

from ..support.led_jobs import MakeJob, entry_text
from ..support.live_server import LiveServer, Message, kinds, on_sqlite
from ..support.waiting import wait_until_async

pytest_plugins = ["tests.support.live_stack"]

ALICE = Viewer("alice")


async def poll(client: httpx.AsyncClient, *items: dict[str, Any], wait: float = 0) -> list[Message]:
    """The messages of one poll."""
    response = await client.post("/v1/poll", json={"subscribe": list(items), "wait": wait})
    assert response.status_code == 200, response.text
    assert response.headers["cache-control"] == "no-store"
    answer = response.json()
    assert set(answer) == {"messages", "since"}
    messages: list[Message] = answer["messages"]
    return messages


def known(job_id: str, messages: list[Message]) -> dict[str, Any]:
    """An item that says what a client has after these messages."""
    item: dict[str, Any] = {"job_id": job_id}
    for message in messages:
        if message["type"] == "job":
            item["version"] = message["job"]["version"]
        if message["type"] == "progress":
            item["seq"] = message["seq"]
        if "id" in message:
            item["after"] = message["id"]
    return item


def job_of(message: Message) -> str:
    """The id of the job that a message is about."""
    job_id: str = message["job"]["job_id"] if message["type"] == "job" else message["job_id"]
    return job_id


class Poll:
    """A poll under way, and how long it takes."""

    def __init__(self, client: httpx.AsyncClient, *items: dict[str, Any], wait: float) -> None:
        self._began = time.monotonic()
        self._task = asyncio.create_task(poll(client, *items, wait=wait))

    async def answer(self) -> tuple[list[Message], float]:
        """Messages, and the seconds they took."""
        messages = await self._task
        return messages, time.monotonic() - self._began


async def held(server: LiveServer, viewers: int = 1) -> None:
    """Wait until the hub has so many viewers, none of which waits for a read."""
    hub = server.services.hub
    await wait_until_async(lambda: hub.viewers == viewers, description="the poll is held")


async def test_poll_answers_at_once_with_everything_new(
    server: LiveServer, make_job: MakeJob
) -> None:
    job = await make_job()
    await job.claim()
    await job.say("one", "two")
    async with server.client() as client:
        told, took = await Poll(client, {"job_id": job.id}, wait=20).answer()
        assert kinds(told) == ["subscribed", "job", "log", "output"]
        assert took < 10
        await job.say("three")
        await job.complete()
        told = await poll(client, known(job.id, told))
        assert kinds(told) == ["subscribed", "job", "log", "end"]
    await server.has_forgotten_all()


@pytest.mark.parametrize("change", ["progress", "entry", "status"])
async def test_poll_with_nothing_new_answers_at_the_first_change(
    server: LiveServer, make_job: MakeJob, change: str
) -> None:
    job = await make_job()
    await job.claim()
    async with server.client() as client:
        have = known(job.id, await poll(client, {"job_id": job.id}))
        waiting = Poll(client, have, wait=20)
        await held(server)
        if change == "progress":
            await job.progress(3)
        elif change == "entry":
            await job.say("one")
        else:
            await job.complete()
        told, took = await waiting.answer()
        assert took < 10
        if change == "progress":
            # It may have come while the poll's own read was under way: then it is in the view.
            newest = told[-1]["job"] if told[-1]["type"] == "job" else told[-1]
            assert newest["progress"]["current"] == 3
        else:
            assert {"entry": "log", "status": "job"}[change] in kinds(told)
    await server.has_forgotten_all()


async def test_poll_with_nothing_new_answers_after_its_wait(
    server: LiveServer, make_job: MakeJob
) -> None:
    job = await make_job()
    await job.claim()
    await job.say("one")
    await job.progress(3)
    async with server.client() as client:
        told = await poll(client, {"job_id": job.id})
        have = known(job.id, told) | {"seq": 1}
        told, took = await Poll(client, have, wait=0.5).answer()
        assert kinds(told) == ["subscribed"]
        assert 0.4 < took < 5
        # What it does not say it has, it gets.
        assert kinds(await poll(client, {"job_id": job.id, "after": have["after"]})) == [
            "subscribed",
            "job",
        ]
    await server.has_forgotten_all()


async def test_poll_of_a_job_that_is_over_always_answers_at_once(
    server: LiveServer, make_job: MakeJob
) -> None:
    job = await make_job()
    await job.claim()
    await job.complete()
    async with server.client() as client:
        told = await poll(client, {"job_id": job.id})
        assert kinds(told) == ["subscribed", "job", "end"]
        told, took = await Poll(client, known(job.id, told), wait=20).answer()
        assert kinds(told) == ["subscribed", "end"]
        assert took < 10


async def test_poll_of_many_jobs_answers_for_each(server: LiveServer, make_job: MakeJob) -> None:
    jobs = [await make_job() for _ in range(3)]
    foreign = await make_job(owner="bob")
    items = [{"job_id": job.id} for job in jobs]
    async with server.client() as client:
        told = await poll(
            client,
            *items,
            {"job_id": foreign.id},
            {"job_id": "nobody"},
            {"job_id": "a\0b"},
            {"job_id": jobs[0].id, "after": "rubbish"},
            {"feed": "ours"},
            wait=20,
        )
    assert {m["job"]["job_id"] for m in told if m["type"] == "job"} == {job.id for job in jobs}
    assert {(m["code"], m.get("job_id")) for m in told if m["type"] == "problem"} == {
        ("unknown_job", foreign.id),
        ("unknown_job", "nobody"),
        ("unknown_job", "a\0b"),
        ("invalid_cursor", jobs[0].id),
        ("unknown_feed", None),
    }
    await server.has_forgotten_all()


async def test_polls_in_a_row_bring_every_entry_once(server: LiveServer, make_job: MakeJob) -> None:
    job = await make_job()
    await job.claim()
    texts: list[str] = []
    have: dict[str, Any] = {"job_id": job.id}
    async with server.client() as client:
        for step in range(30):
            if step < 25:
                await job.say(*(f"{step}.{number}" for number in range(step % 4)))
            if step == 25:
                await job.complete()
            told = await poll(client, have, wait=5 if step >= 25 else 0)
            texts += [entry_text(m) for m in told if m["type"] in ("log", "output")]
            have = have | known(job.id, told)
            if kinds(told)[-1] == "end":
                break
    assert texts == job.said


@on_sqlite
async def test_poll_that_is_full_answers_at_once_and_the_next_ones_bring_the_rest(
    server: LiveServer, make_job: MakeJob
) -> None:
    jobs = [await make_job() for _ in range(4)]
    for job in jobs:
        await job.claim()
    for job in jobs[:3]:
        await job.say(*(f"{number} {'x' * 50_000}" for number in range(6)))
    have: dict[str, dict[str, Any]] = {job.id: {"job_id": job.id} for job in jobs}
    texts: dict[str, list[str]] = {job.id: [] for job in jobs}
    limit = server.settings.viewer_buffer_bytes
    async with server.client() as client:
        while not all(texts[job.id] == job.said and "version" in have[job.id] for job in jobs):
            told, took = await Poll(client, *have.values(), wait=20).answer()
            assert took < 4, "it has news, and waits for nothing else"
            assert sum(len(str(message)) for message in told) < 2 * limit
            for message in told:
                if message["type"] in ("log", "output"):
                    texts[message["job_id"]].append(entry_text(message))
            for job_id, item in have.items():
                item.update(known(job_id, [m for m in told if job_of(m) == job_id]))
    await server.has_forgotten_all()


@on_sqlite
async def test_poll_waits_for_news_also_where_the_answers_to_its_items_fill_it(
    server: LiveServer, make_job: MakeJob
) -> None:
    server.services.settings = server.settings.model_copy(update={"viewer_buffer_bytes": 300})
    jobs = [await make_job() for _ in range(10)]
    async with server.client() as client:
        have = [known(job.id, await poll(client, {"job_id": job.id})) for job in jobs]
        told, _took = await Poll(client, *have, wait=1).answer()
        assert kinds(told) == ["subscribed"] * 10
        waiting = Poll(client, *have, wait=20)
        await held(server)
        await jobs[0].claim()
        told, took = await waiting.answer()
        assert "job" in kinds(told)
        assert took < 10
    await server.has_forgotten_all()


@on_sqlite
@pytest.mark.parametrize("wait", [-1, 30.1, "long", None])
async def test_wait_is_bounded(server: LiveServer, wait: Any) -> None:
    body = {"subscribe": [{"job_id": "j"}], "wait": wait}
    async with server.client() as client:
        response = await client.post("/v1/poll", json=body)
    assert (response.status_code, response.json()["code"]) == (422, "invalid_request")


@on_sqlite
async def test_poll_without_credentials_is_401(server: LiveServer) -> None:
    async with server.client(owner=None) as client:
        response = await client.post("/v1/poll", json={"subscribe": [{"job_id": "j"}]})
    assert response.status_code == 401


@on_sqlite
async def test_poll_says_when_the_state_cannot_be_read(
    server: LiveServer, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(poll_module, "ANSWER_SECONDS", 0.2)
    hub = type(server.services.hub)
    monkeypatch.setattr(hub, "snapshot", lambda hub, read, _snapshot: hub.read_failed(read))
    job = await make_job()
    async with server.client() as client:
        response = await client.post("/v1/poll", json={"subscribe": [{"job_id": job.id}]})
    assert (response.status_code, response.json()["code"]) == (503, "database_unavailable")
    assert response.headers["retry-after"]
    await server.has_forgotten_all()


@on_sqlite
async def test_poll_whose_client_left_is_not_held_any_longer(
    server: LiveServer, make_job: MakeJob
) -> None:
    job = await make_job()
    async with server.client() as client:
        have = known(job.id, await poll(client, {"job_id": job.id}))
        before = len(asyncio.all_tasks())
        waiting = asyncio.create_task(poll(client, have, wait=30))
        await held(server)
        waiting.cancel()
        await asyncio.wait([waiting])
    await server.has_forgotten_all()
    await wait_until_async(
        lambda: len(asyncio.all_tasks()) <= before, description="no task is left of it"
    )


@on_sqlite
async def test_poll_is_answered_when_the_server_goes_away(
    server: LiveServer, make_job: MakeJob
) -> None:
    job = await make_job()
    async with server.client() as client:
        have = known(job.id, await poll(client, {"job_id": job.id}))
        body = {"subscribe": [have], "wait": 30}
        waiting = asyncio.create_task(client.post("/v1/poll", json=body))
        await held(server)
        server.services.departure.begin()
        answers = [await asyncio.wait_for(waiting, 10)]
        # Who asks only now is told the same.
        answers += [await client.post("/v1/poll", json=body) for _ in range(30)]
    assert {(a.status_code, a.json()["code"]) for a in answers} == {(503, "server_leaving")}
    # They come back, but not all at the same moment.
    later = {int(answer.headers["retry-after"]) for answer in answers}
    assert later <= set(range(1, 11))
    assert len(later) > 1


@on_sqlite
async def test_poll_that_has_news_tells_it_also_when_the_server_goes_away(
    server: LiveServer, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, slow = await make_job(), await make_job()
    answer, answered = Hub.snapshot, asyncio.Event()

    def snapshot(hub: Hub, read: Read, snapshot: Snapshot) -> None:
        if read.job_id == job.id:
            answer(hub, read, snapshot)
            answered.set()

    monkeypatch.setattr(Hub, "snapshot", snapshot)
    async with server.client() as client:
        waiting = Poll(client, {"job_id": job.id}, {"job_id": slow.id}, wait=30)
        await asyncio.wait_for(answered.wait(), 10)
        server.services.departure.begin()
        messages, took = await waiting.answer()
    assert kinds(messages) == ["subscribed", "job", "drain"]
    assert took < 10


@on_sqlite
async def test_wait_for_one_job_ends_when_its_client_leaves(
    server: LiveServer, make_job: MakeJob
) -> None:
    job = await make_job()
    async with server.client() as client:
        url = f"/v1/jobs/{job.id}"
        tag = (await client.get(url)).headers["etag"]
        before = len(asyncio.all_tasks())
        gets = [
            asyncio.create_task(client.get(f"{url}?wait=60", headers={"If-None-Match": tag}))
            for _ in range(3)
        ]
        await held(server, len(gets))
        for get in gets:
            get.cancel()
        await asyncio.wait(gets)
    await server.has_forgotten_all()
    await wait_until_async(
        lambda: len(asyncio.all_tasks()) <= before, description="no task is left of them"
    )


# -- wait_for_change -----------------------------------------------------------------------------


async def wait_for(server: LiveServer, job_id: str, wait: float, **have: Any) -> bool:
    known: dict[str, Any] = {"version": 2, "cursor": Cursor(1, 0), "seq": 0} | have
    request = Request({"type": "http"}, receive=asyncio.Queue[Any]().get)
    return await wait_for_change(server.services, ALICE, request, job_id, **known, wait=wait)


async def test_wait_for_change_ends_with_the_first_change(
    server: LiveServer, make_job: MakeJob
) -> None:
    job = await make_job()
    await job.claim()
    assert not await wait_for(server, job.id, 0.1)
    waiting = asyncio.create_task(wait_for(server, job.id, 20))
    await held(server)
    await job.say("one")
    assert await asyncio.wait_for(waiting, 10)
    await server.has_forgotten_all()


async def test_wait_for_change_knows_what_is_newer_already(
    server: LiveServer, make_job: MakeJob
) -> None:
    job = await make_job()
    await job.claim()
    await job.say("one")
    assert await wait_for(server, job.id, 20)
    assert not await wait_for(server, job.id, 0.1, cursor=Cursor(1, 1))
    await job.progress(1)
    assert await wait_for(server, job.id, 20, cursor=Cursor(1, 1))
    assert not await wait_for(server, job.id, 0.1, cursor=Cursor(1, 1), seq=1)
    await job.complete()
    assert await wait_for(server, job.id, 20, cursor=Cursor(1, 1), seq=1)


async def test_wait_for_change_of_a_job_that_cannot_be_seen_ends_at_once(
    server: LiveServer, make_job: MakeJob
) -> None:
    foreign = await make_job(owner="bob")
    for job_id in (foreign.id, "nobody", "a\0b"):
        assert await wait_for(server, job_id, 20)
