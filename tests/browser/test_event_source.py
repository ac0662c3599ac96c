"""The browser's own EventSource, which sends no headers and dies of any error status."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from livejobs.settings import Settings
from livejobs_server import sign_token

from ..support.browser import Context, Page
from ..support.led_jobs import MakeJob
from ..support.proxy import proxied
from ..support.server import HttpServer
from ..support.stage import OWNER, Stage
from ..support.waiting import wait_until_async
from ..support.web_proxy import SSE, WebProxy, web_proxy
from .conftest import PAGE

pytest_plugins = ["tests.support.live_stack"]

OPEN_SOURCE = """(url) => {
  globalThis.seen = undefined;
  globalThis.heard = { entries: [], types: [], closed: false };
  globalThis.source = new EventSource(url);
  source.onmessage = ({ data }) => {
    const message = JSON.parse(data);
    heard.types.push(message.type);
    if (message.type === "log") heard.entries.push(...message.lines.map(({ text }) => text));
    if (message.type === "output") heard.entries.push(message.text);
  };
  source.onerror = () => {
    heard.closed ||= source.readyState === EventSource.CLOSED;
  };
}"""
RETRY_SECONDS = 30.0
"""The server asks for 2 to 8 s at most; a browser adds to it where connecting fails."""


async def test_event_source_survives_restarts_and_is_closed_after_the_end(
    stage: Stage, window: Context, proxy: WebProxy
) -> None:
    job = await stage.dictate()
    page = await listening(window, proxy, stage.token(), job.id)
    job.say(3)
    await hears(page, job.said)

    await asyncio.to_thread(stage.server.stop)
    job.say(3)
    await asyncio.to_thread(stage.server.start)
    job.say(3)
    await hears(page, job.said)

    stage.server.kill()
    job.say(3)
    await asyncio.to_thread(stage.server.start)
    job.say(3)
    await hears(page, job.said)

    job.end()
    await page.until("heard.closed", description="204 ends it", seconds=RETRY_SECONDS)
    heard = await page.evaluate("heard")
    assert heard["types"].count("end") == 1
    assert heard["entries"] == job.said


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_event_source_survives_a_server_that_cannot_serve_it_now(
    settings: Settings, make_job: MakeJob, window: Context, tmp_path: Path
) -> None:
    """That is answered 200 and when to come back: of 503 an EventSource would die."""
    job = await make_job(owner=OWNER)
    await job.claim()
    async with proxied(settings.database_url) as (database, address):
        broken = settings.model_copy(update={"database_url": address})
        server = HttpServer(broken, tmp_path / "server.log")
        try:
            await asyncio.to_thread(server.start)
            async with web_proxy(server.port, {"/page/": PAGE}) as proxy:
                page = await listening(
                    window, proxy, sign_token(owner=OWNER, settings=settings), job.id
                )
                await job.say("one", "two")
                await hears(page, job.said)
                await database.cut()
                before = len(proxy.exchanges_of(SSE))
                await proxy.sever()
                await answered(proxy, before + 1)
                await database.open()
                await job.say("three")
                await hears(page, job.said)
        finally:
            await asyncio.to_thread(server.stop)


async def listening(window: Context, proxy: WebProxy, token: str, job_id: str) -> Page:
    """A page with an EventSource, which begins with a ticket."""
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(base_url=proxy.url, headers=headers, trust_env=False) as client:
        answer = await client.post("/v1/tickets", json={"jobs": [job_id]})
    ticket = answer.raise_for_status().json()["ticket"]
    page = await window.page()
    await page.goto(f"{proxy.url}/page/index.html")
    await page.evaluate(OPEN_SOURCE, f"/v1/jobs/{job_id}/events?ticket={ticket}")
    return page


async def hears(page: Page, said: list[str]) -> None:
    """Wait until the page has heard all that was said, and nothing twice."""
    await page.until(
        "count => heard.closed || heard.entries.length >= count",
        len(said),
        description=f"all {len(said)} entries",
        seconds=RETRY_SECONDS,
    )
    heard: dict[str, Any] = await page.evaluate("heard")
    assert not heard["closed"]
    assert heard["entries"] == said


async def answered(proxy: WebProxy, count: int) -> None:
    """Wait until so many streams were begun, and none lasts."""
    await wait_until_async(
        lambda: len(proxy.exchanges_of(SSE)) >= count and not proxy.open_exchanges(SSE),
        description="the server has answered",
        seconds=RETRY_SECONDS,
    )
