"""A thousand entries to pages whose connections are cut all the time: each comes once, in order.

The idea is AnyCable's. https://github.com/anycable/anycable-client
"""

from __future__ import annotations

import asyncio
import random

from ..support.stage import Stage
from ..support.web_proxy import WebProxy
from .conftest import ViewByEach
from .viewing import of_all

ENTRIES = 1000
AT_ONCE = 10
BETWEEN_SECONDS = 0.1
CUT_SECONDS = (0.5, 2.0)


async def test_thousand_entries_come_once_and_in_order_over_connections_that_are_cut(
    stage: Stage, view_by_each: ViewByEach
) -> None:
    job = await stage.dictate(ENTRIES)
    viewings = await view_by_each(job.id)
    cutting = [asyncio.create_task(cut_again_and_again(viewing.proxy)) for viewing in viewings]
    try:
        while len(job.said) < ENTRIES:
            job.say(AT_ONCE)
            await asyncio.sleep(BETWEEN_SECONDS)
        job.end()
        await stage.is_over(job.id)
    finally:
        for task in cutting:
            task.cancel()
    assert all(len(viewing.proxy.exchanges) > 5 for viewing in viewings)
    await of_all(viewings, lambda viewing: viewing.ends_right(job, stage, seconds=60))


async def cut_again_and_again(proxy: WebProxy) -> None:
    while True:
        await asyncio.sleep(random.uniform(*CUT_SECONDS))
        await proxy.sever()
