"""`/metrics`: what is counted, who may read it, and several processes on one port."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

import livejobs_server
from livejobs.database import AsyncDatabase
from livejobs.settings import Settings
from livejobs_server import create_app, create_key, job_numbers
from livejobs_server.samples import FAMILIES

from ..support.clients import client_of, code_of, running
from ..support.led_jobs import MakeJob
from ..support.live_server import (
    LiveServer,
    RemoteServer,
    event_messages,
    event_stream,
    on_sqlite,
    receive_until,
    subscribe,
)
from ..support.proxy import proxied
from ..support.servers import child, free_port
from ..support.waiting import wait_until, wait_until_async
from ..support.worker import environment

pytest_plugins = ["tests.support.live_stack"]

Numbers = dict[tuple[str, ...], float]


def numbers_in(text: str) -> Numbers:
    """Samples by name and the values of their labels, sorted by the labels' names."""
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def read(server: RemoteServer) -> Numbers:
    async with server.client(owner=None) as client:
        response = await client.get("/metrics")
        assert response.status_code == 200, response.text
        assert response.headers["content-type"].startswith("text/plain")
        return numbers_in(response.text)


@on_sqlite
async def test_numbers_tell_of_viewers_and_what_they_are_told(
    server: LiveServer, make_job: MakeJob
) -> None:
    job = await make_job()
    await job.claim()
    async with (
        server.socket() as socket,
        server.client() as client,
        event_stream(client, f"/v1/jobs/{job.id}/events") as events,
    ):
        await subscribe(socket, job.id)
        await event_messages(events, "job")
        item = {"job_id": job.id, "version": 2}
        held = asyncio.create_task(client.post("/v1/poll", json={"subscribe": [item], "wait": 30}))
        counts = server.services.counts
        await wait_until_async(lambda: counts.poll_viewers == 1, description="the poll is held")
        await job.say("hello")
        await receive_until(socket, "log")
        await event_messages(events, "log")
        await held
        told = await read(server)
        assert told["livejobs_viewers", "1", "websocket"] == 1
        assert told["livejobs_viewers", "1", "sse"] == 1
        assert told["livejobs_viewers", "1", "poll"] == 0
        for transport in ("websocket", "sse", "poll"):
            assert told["livejobs_deliveries_total", "1", transport] >= 1, transport
        assert told["livejobs_watched_jobs", "1"] == 1
        assert told["livejobs_relay_messages_total", "1"] >= 1
        assert told["livejobs_fanouts_total", "1"] >= 1
        assert told["livejobs_reads_total", "1"] >= 1
        assert told["livejobs_redis_connected", "1"] == 1
        assert told["livejobs_redis_connects_total", "1"] == 1
        assert told["livejobs_degraded", "1"] == 0
        assert 0 <= told["livejobs_relay_lag_seconds", "1"] < 60
        assert told["livejobs_open_files", "1"] > 5
    await server.has_forgotten_all()
    await wait_until_async(
        lambda: (counts.websocket_viewers, counts.sse_viewers) == (0, 0),
        description="nobody is left",
    )


async def test_numbers_tell_of_jobs_by_status_and_queue(
    settings: Settings, make_job: MakeJob
) -> None:
    pending, running_job, done = await make_job(), await make_job(), await make_job()
    await make_job()
    await running_job.claim()
    await done.claim()
    await done.complete()
    async with running(create_app(settings)) as app, client_of(app) as client:
        told = numbers_in((await client.get("/metrics", headers=LOCAL)).text)
    found = {key[1:]: value for key, value in told.items() if key[0] == "livejobs_jobs"}
    assert found == {
        ("led-by-hand", "pending"): 2,
        ("led-by-hand", "processing"): 1,
        ("led-by-hand", "completed"): 1,
    }
    assert 0 <= told["livejobs_oldest_pending_seconds", "led-by-hand"] < 60
    assert told["livejobs_database_up",] == 1
    assert pending.id


LOCAL = {"Host": "127.0.0.1:8000"}


async def test_jobs_are_not_counted_at_each_reading(
    settings: Settings, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    await make_job()
    async with running(create_app(settings)) as app, client_of(app) as client:
        await client.get("/metrics", headers=LOCAL)
        await make_job()
        for _ in range(5):
            told = numbers_in((await client.get("/metrics", headers=LOCAL)).text)
            assert told["livejobs_jobs", "led-by-hand", "pending"] == 1
    monkeypatch.setattr(job_numbers, "OPEN_SECONDS", 0.0)
    monkeypatch.setattr(job_numbers, "SHARE", 1e9)
    async with running(create_app(settings)) as app, client_of(app) as client:
        for number in (2, 3):
            told = numbers_in((await client.get("/metrics", headers=LOCAL)).text)
            assert told["livejobs_jobs", "led-by-hand", "pending"] == number
            await make_job()


async def test_numbers_are_told_while_the_database_is_away(
    settings: Settings, make_database: Any
) -> None:
    async with proxied(make_database("postgresql")) as (proxy, url):
        behind = settings.model_copy(update={"database_url": url})
        async with running(create_app(behind)) as app, client_of(app) as client:
            await proxy.cut()
            response = await client.get("/metrics", headers=LOCAL)
            assert response.status_code == 200
            assert numbers_in(response.text)["livejobs_database_up",] == 0
            assert ("livejobs_viewers", "1", "websocket") in numbers_in(response.text)


@on_sqlite
async def test_every_number_is_told_and_explained(settings: Settings) -> None:
    accept = {"Accept": "application/openmetrics-text; version=1.0.0"} | LOCAL
    async with running(create_app(settings)) as app, client_of(app) as client:
        response = await client.get("/metrics", headers=accept)
    assert response.headers["content-type"].startswith("application/openmetrics-text")
    parse: Any = openmetrics.text_string_to_metric_families
    families = {family.name: family for family in parse(response.text)}
    # There are no jobs, so nothing is told of them.
    missing = FAMILIES.keys() - {name.removeprefix("livejobs_") for name in families}
    assert missing == {"jobs", "oldest_pending_seconds"}
    assert all(family.documentation for family in families.values())


# -- who may read it -----------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def client_for(settings: Settings, **changes: Any) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(settings.model_copy(update=changes))
    async with running(app), client_of(app) as client:
        yield client


@on_sqlite
@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        (LOCAL, True),
        ({"Host": "localhost"}, True),
        ({"Host": "[::1]:8000"}, True),
        ({"Host": "jobs.example.com"}, False),
        (LOCAL | {"X-Forwarded-For": "10.0.0.1"}, False),
        (LOCAL | {"Via": "1.1 proxy"}, False),
    ],
)
async def test_whoever_is_on_the_same_machine_may_read_but_no_proxy_on_it(
    settings: Settings, headers: dict[str, str], allowed: bool
) -> None:
    async with client_for(settings) as client:
        response = await client.get("/metrics", headers=headers)
    assert response.status_code == (200 if allowed else 401)


@on_sqlite
async def test_elsewhere_scope_admin_or_the_token_is_needed(
    settings: Settings, async_database: AsyncDatabase
) -> None:
    token = "a-token-for-metrics"
    changed = Settings(**settings.model_dump() | {"metrics_token": token, "metrics_local": False})

    async def key(*scopes: str) -> str:
        return (await create_key(async_database, "ops", scopes)).key

    keys = {scope: await key(scope) for scope in ("admin", "read")}
    async with client_for(changed) as client:

        async def ask(credentials: str | None) -> httpx.Response:
            shown = {} if credentials is None else {"Authorization": f"Bearer {credentials}"}
            return await client.get("/metrics", headers=LOCAL | shown)

        assert (await ask(token)).status_code == 200
        assert (await ask(keys["admin"])).status_code == 200
        assert code_of(await ask(keys["read"])) == (403, "scope_missing")
        for wrong in (None, "a-token-for-metricz", ""):
            assert code_of(await ask(wrong)) == (401, "unauthenticated")


@on_sqlite
async def test_app_of_a_users_keeps_its_own_metrics_at_the_root(settings: Settings) -> None:
    for prefix, found in (("", 404), ("/jobs", 200)):
        app = FastAPI()
        livejobs_server.mount(app, prefix=prefix, settings=settings)
        async with running(app), client_of(app) as client:
            response = await client.get(f"{prefix}/metrics", headers=LOCAL)
            assert response.status_code == found


# -- several processes ---------------------------------------------------------------------------


@on_sqlite
async def test_any_of_several_processes_tells_the_numbers_of_all(
    settings: Settings, make_job: MakeJob, tmp_path: Path
) -> None:
    port, log = free_port(), tmp_path / "server.log"
    command = [sys.executable, "-m", "livejobs_server.cli", "server", "--workers", "2"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    with child(command, log, environment(settings)):
        wait_until(
            lambda: log.read_text().count("Application startup complete") == 2,
            description="both listen",
            seconds=40,
        )
        server, job = RemoteServer(settings, port), await make_job()
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(12):
                socket = await stack.enter_async_context(server.socket())
                await subscribe(socket, job.id)
            # Whichever is asked.
            for _ in range(6):
                told = await read(server)
                viewers = [told["livejobs_viewers", str(each), "websocket"] for each in (1, 2)]
                assert sum(viewers) == 12
                assert all(told["livejobs_process_up", str(each)] == 1 for each in (1, 2))
                assert told["livejobs_jobs", "led-by-hand", "pending"] == 1
