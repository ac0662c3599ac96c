"""What a proxy lets through decides how a page is told, and that it is told all of it."""

from __future__ import annotations

import asyncio

from ..support.browser import Context
from ..support.stage import Stage
from ..support.web_proxy import POLL, SSE, WEBSOCKET, WebProxy
from .conftest import MakeProxy
from .viewing import Viewing, of_all, time_passes_until, view


async def test_page_falls_back_step_by_step_and_up_again(
    stage: Stage, window: Context, proxy: WebProxy
) -> None:
    await window.call("clock.install")
    job = await stage.dictate()
    viewing = await view(window, proxy, job.id)
    way = [
        (set(), "websocket"),
        ({WEBSOCKET}, "sse"),
        ({WEBSOCKET, SSE}, "polling"),
        ({WEBSOCKET}, "sse"),
        (set(), "websocket"),
    ]
    for refused, transport in way:
        is_less = refused > proxy.refused
        proxy.refused = refused
        if is_less:
            await proxy.sever()
        await are_live_by(window, [viewing], transport)
        job.say(5)
        await viewing.has_all_of(job)
    job.end()
    await viewing.ends_right(job, stage)


async def test_proxy_keeps_answers_back_until_they_are_complete(
    stage: Stage, window: Context, make_proxy: MakeProxy
) -> None:
    """One lets no socket through, another keeps a socket's beginning back as well."""
    await window.call("clock.install")
    job = await stage.dictate()
    proxies = [await make_proxy(), await make_proxy()]
    proxies[0].refused = {WEBSOCKET}
    for proxy in proxies:
        proxy.held_back = {WEBSOCKET, SSE, POLL}
    viewings = await asyncio.gather(*(view(window, proxy, job.id) for proxy in proxies))
    job.say(5)
    await are_live_by(window, viewings, "polling")
    await of_all(viewings, lambda viewing: viewing.has_all_of(job))
    job.say(5)
    await of_all(viewings, lambda viewing: viewing.has_all_of(job))
    job.end()
    await of_all(viewings, lambda viewing: viewing.ends_right(job, stage))


async def are_live_by(window: Context, viewings: list[Viewing], transport: str) -> None:
    """Let the pages' time pass until they are."""
    await time_passes_until(
        window, lambda: of_all(viewings, lambda viewing: viewing.is_live_by(transport, seconds=0))
    )
