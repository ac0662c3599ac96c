"""Several apps in one event loop, after each other and at the same time."""

from __future__ import annotations

import httpx

from livejobs.settings import Settings

from ..support.led_jobs import LedJob, MakeJob
from ..support.live_server import (
    LiveServer,
    closed,
    event_messages,
    event_stream,
    kinds,
    on_sqlite,
    receive_until,
    running_server,
)

pytest_plugins = ["tests.support.live_stack"]


async def poll(client: httpx.AsyncClient, job: LedJob) -> list[str]:
    """The kinds of the messages of one poll."""
    response = await client.post("/v1/poll", json={"subscribe": [{"job_id": job.id}]})
    return kinds(response.json()["messages"])


async def serves(server: LiveServer, job: LedJob) -> None:
    """See a job over every transport."""
    path = f"/v1/jobs/{job.id}"
    async with server.client() as client:
        assert "job" in await poll(client, job)
        async with event_stream(client, f"{path}/events") as events:
            assert kinds(await event_messages(events, "job")) == ["subscribed", "job"]
    async with server.socket(f"{path}/ws") as socket:
        assert kinds(await receive_until(socket, "job")) == ["subscribed", "job"]


@on_sqlite
async def test_app_serves_after_another_one_has_ended(
    settings: Settings, make_job: MakeJob
) -> None:
    job = await make_job()
    for _ in range(2):
        async with running_server(settings) as server:
            await serves(server, job)


@on_sqlite
async def test_end_of_one_app_ends_no_stream_of_another(
    settings: Settings, make_job: MakeJob
) -> None:
    job = await make_job()
    path = f"/v1/jobs/{job.id}/ws"
    async with running_server(settings) as staying, staying.socket(path) as kept:
        await receive_until(kept, "job")
        async with running_server(settings) as ending, ending.socket(path) as leaving:
            await receive_until(leaving, "job")
            ending.services.departure.begin()
            assert (await closed(leaving))[0] == 1012
        await serves(staying, job)
        await job.claim()
        assert kinds(await receive_until(kept, "job")) == ["job"]
