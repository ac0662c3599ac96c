"""Nothing is left of viewers that have gone, and no garbage collector is needed for that.

It would come by the less the longer a viewer was here: of hundreds that come and go a second, those
of many minutes would be kept.
"""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

from livejobs.settings import Settings
from livejobs_server.push import fleet, websocket
from livejobs_server.push.dialogue import Dialogue
from livejobs_server.push.watcher import Watcher

from ..support.led_jobs import LedJob, MakeJob
from ..support.live_server import (
    SEAMS,
    LiveServer,
    event_messages,
    event_stream,
    on_sqlite,
    raw_peer,
    receive_until,
    running_server,
    send,
    silent_peer,
)
from ..support.waiting import wait_until_async

pytest_plugins = ["tests.support.live_stack"]

pytestmark = on_sqlite

VIEWERS = 3
"""That come and go in each way."""
UPGRADE = (
    "Upgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
)

Visit = Callable[[LiveServer, LedJob], Awaitable[None]]


@pytest.fixture
async def quick_server(settings: Settings, seam: dict[str, Any]) -> AsyncIterator[LiveServer]:
    """The wheel, which keeps who has gone until it would look at them, does so after a moment."""
    quick = settings.model_copy(update={"ping_interval": 0.2, "viewer_buffer_bytes": 64 * 1024})
    async with running_server(quick, **seam) as server:
        yield server


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Without a garbage collector what is part of a cycle stays."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()
    gc.collect()


async def _close(server: LiveServer, job: LedJob) -> None:
    async with server.socket(f"/v1/jobs/{job.id}/ws") as socket:
        await receive_until(socket, "job")


async def _ask_and_close(server: LiveServer, job: LedJob) -> None:
    async with server.socket() as socket:
        await send(socket, op="subscribe", job_id=job.id)
        await receive_until(socket, "job")
        await send(socket, op="subscribe", feed="mine")
        await receive_until(socket, "subscribed")


async def _break_off(server: LiveServer, job: LedJob) -> None:
    async with server.socket(f"/v1/jobs/{job.id}/ws") as socket:
        await receive_until(socket, "job")
        socket.transport.abort()


async def _break_off_in_a_frame(server: LiveServer, job: LedJob) -> None:
    async with raw_peer(server, f"/v1/jobs/{job.id}/ws", UPGRADE) as (reader, writer):
        await reader.readuntil(b'"type":"job"')
        writer.write(b"\x81\xfe\x01\x00half of it")
        await writer.drain()


async def _break_the_rules(server: LiveServer, job: LedJob) -> None:
    async with raw_peer(server, f"/v1/jobs/{job.id}/ws", UPGRADE) as (reader, writer):
        await reader.readuntil(b'"type":"job"')
        writer.write(b"\x81\x02{}")  # without a mask
        await reader.read()


async def _talk_nonsense(server: LiveServer, job: LedJob) -> None:
    async with server.socket() as socket:
        await send(socket, op="subscribe", job_id=job.id)
        await receive_until(socket, "job")
        await socket.send("nonsense")
        await socket.wait_closed()


async def _take_nothing(server: LiveServer, job: LedJob) -> None:
    hub = server.services.hub
    async with silent_peer(server, f"/v1/jobs/{job.id}/ws", UPGRADE):
        await wait_until_async(lambda: hub.viewers, description="it is subscribed")
        while hub.viewers:
            await job.say("x" * 100_000)


async def _leave_a_stream(server: LiveServer, job: LedJob) -> None:
    async with raw_peer(server, f"/v1/jobs/{job.id}/events") as (reader, _writer):
        await reader.readuntil(b'"type":"job"')


async def _leave_a_list_of_jobs(server: LiveServer, job: LedJob) -> None:
    async with (
        server.client() as client,
        event_stream(
            client, "/v1/events", "POST", json={"subscribe": [{"job_id": job.id}]}
        ) as events,
    ):
        await event_messages(events, "job")


SOCKETS: dict[str, Visit] = {
    "closes": _close,
    "asks and closes": _ask_and_close,
    "breaks off": _break_off,
    "breaks off in a frame": _break_off_in_a_frame,
    "breaks the rules": _break_the_rules,
    "talks nonsense": _talk_nonsense,
    "takes nothing": _take_nothing,
}
STREAMS: dict[str, Visit] = {"of a job": _leave_a_stream, "of many": _leave_a_list_of_jobs}


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("visit", SOCKETS.values(), ids=SOCKETS)
async def test_websocket_that_has_gone_leaves_nothing(
    visit: Visit, quick_server: LiveServer, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (websocket, fleet):
        monkeypatch.setattr(module, "STALLED_SECONDS", 0.5)
    await _come_and_go(visit, quick_server, make_job)


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("seam", [SEAMS["takeover"]], ids=["takeover"])
@pytest.mark.parametrize("visit", STREAMS.values(), ids=STREAMS)
async def test_event_stream_that_has_gone_leaves_nothing(
    visit: Visit, quick_server: LiveServer, make_job: MakeJob
) -> None:
    # Over ASGI, what sse-starlette makes for each has cycles of its own.
    await _come_and_go(visit, quick_server, make_job)


async def _come_and_go(visit: Visit, server: LiveServer, make_job: MakeJob) -> None:
    job = await make_job()
    await job.claim()
    for _ in range(VIEWERS):
        await visit(server, job)
    await server.has_forgotten_all()
    await wait_until_async(lambda: not _left(), description="nothing is left of the viewers")


def _left() -> list[object]:
    # By their types: a weak proxy would be asked for its object.
    return [it for it in gc.get_objects() if issubclass(type(it), Watcher | Dialogue)]
