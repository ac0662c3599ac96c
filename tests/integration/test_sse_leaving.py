"""Event streams that are silent, whose peer reads too slowly or nothing, or leaves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from livejobs.settings import Settings
from livejobs_server.push import fleet, sse

from ..support.led_jobs import MakeJob
from ..support.live_server import (
    LiveServer,
    Message,
    event_messages,
    event_stream,
    on_sqlite,
    raw_peer,
    running_server,
    silent_peer,
    texts,
)
from ..support.waiting import wait_until_async

pytest_plugins = ["tests.support.live_stack"]


@asynccontextmanager
async def quick_server(settings: Settings, seam: dict[str, Any]) -> AsyncIterator[LiveServer]:
    """It pings after a moment, and little may wait for a viewer."""
    quick = settings.model_copy(update={"ping_interval": 0.2, "viewer_buffer_bytes": 64 * 1024})
    async with running_server(quick, **seam) as server:
        yield server


@on_sqlite
async def test_silence_is_filled_with_comments(
    settings: Settings, seam: dict[str, Any], make_job: MakeJob
) -> None:
    job = await make_job()
    async with (
        quick_server(settings, seam) as server,
        server.client() as client,
        client.stream("GET", f"/v1/jobs/{job.id}/events") as response,
    ):
        pings = 0
        async with asyncio.timeout(10):
            async for line in response.aiter_lines():
                pings += line == ": ping"
                if pings == 3:
                    break


async def test_viewer_that_takes_nothing_is_given_up_and_delays_nobody(
    settings: Settings, seam: dict[str, Any], make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (sse, fleet):
        monkeypatch.setattr(module, "STALLED_SECONDS", 0.5)
    job = await make_job()
    await job.claim()
    async with (
        quick_server(settings, seam) as server,
        server.client() as client,
        event_stream(client, f"/v1/jobs/{job.id}/events") as healthy,
        silent_peer(server, f"/v1/jobs/{job.id}/events", ""),
    ):
        hub = server.services.hub
        async with asyncio.timeout(60):
            while hub.viewers == 2:
                # Once it is told nothing more, it is only a matter of time.
                await job.say("x" if hub.lagging else "x" * 100_000)
                await event_messages(healthy, "log" if len(job.said) % 2 else "output")
                await asyncio.sleep(0.01)
        await job.complete()
        await event_messages(healthy, "end")
        await server.has_forgotten_all()


async def test_viewer_that_lagged_gets_everything_once_when_it_reads_again(
    settings: Settings, seam: dict[str, Any], make_job: MakeJob
) -> None:
    job = await make_job()
    await job.claim()
    async with (
        quick_server(settings, seam) as server,
        silent_peer(server, f"/v1/jobs/{job.id}/events", "") as reader,
    ):
        hub = server.services.hub
        for n in range(200):
            await job.say(*(f"{n}.{i} " + "x" * 20_000 for i in range(10)))
            if hub.lagging:
                break
        assert hub.lagging == 1
        await job.complete()
        told: list[Message] = []
        async with asyncio.timeout(60):
            while not told or told[-1]["type"] != "end":
                line = (await read_line(reader)).strip()
                if line.startswith(b"data: "):
                    told.append(json.loads(line.removeprefix(b"data: ")))
        assert texts(told) == job.said
        await server.has_forgotten_all()


async def read_line(reader: asyncio.StreamReader) -> bytes:
    """A line of any length."""
    parts: list[bytes] = []
    while True:
        try:
            return b"".join([*parts, await reader.readuntil(b"\n")])
        except asyncio.LimitOverrunError as overrun:
            parts.append(await reader.readexactly(overrun.consumed))


# -- leaving -------------------------------------------------------------------------------------


def own_tasks() -> list[asyncio.Task[Any]]:
    """All tasks but the one that sse-starlette keeps for all streams of an event loop."""
    return [task for task in asyncio.all_tasks() if "_shutdown_watcher" not in repr(task)]


@on_sqlite
async def test_streams_that_were_left_in_any_way_leave_nothing_behind(
    server: LiveServer, make_job: MakeJob
) -> None:
    job = await make_job()
    await job.claim()

    async def leave_politely() -> None:
        async with (
            server.client() as client,
            event_stream(client, f"/v1/jobs/{job.id}/events") as source,
        ):
            await event_messages(source, "job")

    async def leave_without_a_word() -> None:
        async with silent_peer(server, f"/v1/jobs/{job.id}/events", ""):
            pass

    async def leave_many() -> None:
        body = {"subscribe": [{"job_id": job.id}, {"job_id": "nobody"}]}
        async with (
            server.client() as client,
            event_stream(client, "/v1/events", "POST", json=body) as source,
        ):
            await event_messages(source, "problem")

    async def leave_before_the_head() -> None:
        async with raw_peer(server, f"/v1/jobs/{job.id}/events"):
            pass

    ways = [leave_politely, leave_without_a_word, leave_many, leave_before_the_head]
    await leave_politely()
    await server.has_forgotten_all()
    before = len(own_tasks())
    for _ in range(5):
        await asyncio.gather(*(ways[number % len(ways)]() for number in range(20)))
    await server.has_forgotten_all()
    await wait_until_async(
        lambda: len(own_tasks()) <= before, description="no task is left of them"
    )
