"""Tabs of one browser that share a connection."""

from __future__ import annotations

from ..support.browser import Context
from ..support.stage import Stage
from ..support.waiting import wait_until_async
from ..support.web_proxy import POLL, SSE, WEBSOCKET, WebProxy
from .viewing import of_all, view

TABS = 6
SUCCESSION_SECONDS = 5.0
"""A new leader is there within a second, on a machine that has nothing else to do."""


async def test_six_tabs_share_one_connection_and_go_on_when_tabs_close(
    stage: Stage, window: Context, proxy: WebProxy
) -> None:
    jobs = [await stage.dictate(), await stage.dictate()]
    shown = [
        (await view(window, proxy, jobs[number % 2].id, share=True), jobs[number % 2])
        for number in range(TABS)
    ]

    async def all_have_all() -> None:
        for job in jobs:
            job.say(3)
        for viewing, job in shown:
            await viewing.has_all_of(job)
        assert len(proxy.open_exchanges(WEBSOCKET, SSE, POLL)) == 1

    await all_have_all()
    assert len(proxy.exchanges_of(WEBSOCKET, SSE, POLL)) == 1, "there was never another one"
    # The first leads; those after it follow in the order in which they came.
    while len(shown) > 2:
        leader, _ = shown.pop(0)
        before = len(proxy.exchanges_of(WEBSOCKET))
        await leader.page.call("close")
        await another_connects(proxy, before)
        await all_have_all()
    for job in jobs:
        job.end()
    await of_all([viewing for viewing, _ in shown], lambda viewing: viewing.is_back())
    for viewing, job in shown:
        await viewing.ends_right(job, stage)


async def another_connects(proxy: WebProxy, before: int) -> None:
    await wait_until_async(
        lambda: len(proxy.exchanges_of(WEBSOCKET)) > before,
        description="another tab leads",
        seconds=SUCCESSION_SECONDS,
    )
