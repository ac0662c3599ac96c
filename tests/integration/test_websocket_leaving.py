"""WebSockets whose peer reads too slowly, reads nothing, or leaves, in whatever way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from livejobs.settings import Settings
from livejobs_server.push import fleet, websocket
from livejobs_server.push.relay import Relay

from ..support.led_jobs import LedJob, MakeJob
from ..support.live_server import (
    SEAMS,
    LiveServer,
    closed,
    on_sqlite,
    raw_peer,
    receive_until,
    running_server,
    send,
    silent_peer,
    subscribe,
    texts,
)
from ..support.waiting import wait_until_async

pytest_plugins = ["tests.support.live_stack"]


@pytest.fixture
async def quick_server(settings: Settings, seam: dict[str, Any]) -> AsyncIterator[LiveServer]:
    """It pings after a moment, and little may wait for a viewer."""
    quick = settings.model_copy(update={"ping_interval": 0.2, "viewer_buffer_bytes": 64 * 1024})
    async with running_server(quick, **seam) as server:
        yield server


async def test_viewer_that_lagged_gets_everything_once_when_it_reads_again(
    quick_server: LiveServer, make_job: MakeJob
) -> None:
    job = await make_job()
    await job.claim()
    async with quick_server.socket(max_queue=1, narrow=True) as socket:
        await subscribe(socket, job.id)
        hub = quick_server.services.hub
        for n in range(200):
            await job.say(*(f"{n}.{i} " + "x" * 8000 for i in range(10)))
            if hub.lagging:
                break
        assert hub.lagging == 1
        await job.save()
        await job.say("after it lagged")
        await job.complete()
        told = [m for m in await receive_until(socket, "end", 30) if m["type"] != "ping"]
        assert texts(told) == job.said
        views = [message["job"] for message in told if message["type"] == "job"]
        assert views[-1]["status"] == "completed"
    await quick_server.has_forgotten_all()


async def test_viewer_that_takes_nothing_is_given_up_and_delays_nobody(
    quick_server: LiveServer, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (websocket, fleet):
        monkeypatch.setattr(module, "STALLED_SECONDS", 0.5)
    job = await make_job()
    await job.claim()
    async with (
        quick_server.socket() as healthy,
        silent_peer(quick_server, f"/v1/jobs/{job.id}/ws", UPGRADE),
    ):
        await subscribe(healthy, job.id)
        hub = quick_server.services.hub
        await wait_until_async(lambda: hub.subscriptions == 2, description="both are subscribed")
        said = 0
        async with asyncio.timeout(30):
            while hub.viewers == 2:
                await job.say("x" * 100_000)
                said += 1
                await receive_until(healthy, "log" if said % 2 else "output")
        await job.complete()
        await receive_until(healthy, "end")
    await quick_server.has_forgotten_all()


@on_sqlite
@pytest.mark.parametrize("seam", [SEAMS["takeover"]], ids=["takeover"])
async def test_kernel_takes_little_for_a_viewer_that_reads_nothing(
    quick_server: LiveServer, make_job: MakeJob
) -> None:
    job = await make_job()
    await job.claim()
    server = quick_server.services
    said = 0
    async with silent_peer(quick_server, f"/v1/jobs/{job.id}/ws", UPGRADE):
        await wait_until_async(
            lambda: server.counts.websocket_deliveries > 1, description="it is told how the job is"
        )
        while not server.hub.lagging:
            await job.say("x" * 50_000)
            said += 1
            await _has_heard(server.relay, said)
    # By itself it takes 2.5 MB, of which nobody knows that they wait.
    assert said <= 10


@on_sqlite
@pytest.mark.parametrize("seam", [SEAMS["takeover"]], ids=["takeover"])
async def test_viewer_that_took_nothing_hears_of_its_end_at_once(
    quick_server: LiveServer, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet, "STALLED_SECONDS", 0.5)
    job = await make_job()
    await job.claim()
    server = quick_server.services
    async with silent_peer(quick_server, f"/v1/jobs/{job.id}/ws", UPGRADE) as reader:
        await wait_until_async(lambda: server.hub.viewers, description="it is subscribed")
        while server.hub.viewers:
            await job.say("x" * 50_000)
        await wait_until_async(
            lambda: not server.counts.websocket_viewers, description="its connection is closed"
        )
        with pytest.raises(ConnectionResetError):
            await reader.read()


async def _has_heard(relay: Relay, messages: int) -> None:
    await wait_until_async(lambda: relay.messages >= messages, description="it is told")


UPGRADE = (
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)


# -- leaving -------------------------------------------------------------------------------------


async def leave_politely(server: LiveServer, job: LedJob) -> None:
    async with server.socket() as socket:
        await subscribe(socket, job.id)


async def leave_without_a_word(server: LiveServer, job: LedJob) -> None:
    async with server.socket() as socket:
        await subscribe(socket, job.id)
        socket.transport.abort()


async def leave_while_subscribing(server: LiveServer, job: LedJob) -> None:
    async with server.socket() as socket:
        await send(socket, op="subscribe", job_id=job.id)
        socket.transport.abort()


async def leave_unauthenticated(server: LiveServer, _job: LedJob) -> None:
    async with server.socket(owner=None) as socket:
        socket.transport.abort()


async def leave_by_rubbish(server: LiveServer, job: LedJob) -> None:
    async with server.socket() as socket:
        await subscribe(socket, job.id)
        await socket.send("rubbish")
        await closed(socket)


async def leave_before_the_handshake_ends(server: LiveServer, job: LedJob) -> None:
    async with raw_peer(server, f"/v1/jobs/{job.id}/ws", UPGRADE):
        pass


async def leave_while_lagging(server: LiveServer, job: LedJob) -> None:
    async with silent_peer(server, f"/v1/jobs/{job.id}/ws", UPGRADE):
        await job.say("x" * 20_000)


WAYS_TO_LEAVE = [
    leave_politely,
    leave_without_a_word,
    leave_while_subscribing,
    leave_unauthenticated,
    leave_by_rubbish,
    leave_before_the_handshake_ends,
    leave_while_lagging,
]


@on_sqlite
async def test_connections_that_left_in_any_way_leave_nothing_behind(
    server: LiveServer, make_job: MakeJob
) -> None:
    job = await make_job()
    await job.claim()
    await leave_politely(server, job)
    await server.has_forgotten_all()
    before = len(asyncio.all_tasks())
    ways = [WAYS_TO_LEAVE[number % len(WAYS_TO_LEAVE)] for number in range(200)]
    for start in range(0, len(ways), 20):
        await asyncio.gather(*(way(server, job) for way in ways[start : start + 20]))
    await server.has_forgotten_all()
    await wait_until_async(
        lambda: len(asyncio.all_tasks()) <= before, description="no task is left of them"
    )
