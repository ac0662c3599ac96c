"""What breaks between a page and its job, on each transport: the page ends right, by itself.

Each test has three pages on the same job, one by WebSocket, one by an event stream, one by polling.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Sequence

from ..support.browser import Context
from ..support.stage import Stage
from .conftest import ViewByEach
from .viewing import Viewing, of_all, time_passes_until

CUT_SECONDS = float(os.environ.get("LIVEJOBS_TESTS_CUT_SECONDS", "2"))
"""How long the network is really away; the page's own clock makes a minute of it."""
MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS


async def are_back(window: Context, viewings: Sequence[Viewing]) -> None:
    """Let the pages' time pass until they are."""
    await time_passes_until(
        window, lambda: of_all(viewings, lambda viewing: viewing.is_back(seconds=0))
    )


async def test_server_is_killed_and_started_again_while_a_job_runs(
    stage: Stage, window: Context, view_by_each: ViewByEach
) -> None:
    job = await stage.dictate()
    await window.call("clock.install")
    viewings = await view_by_each(job.id)
    job.say(5)
    await of_all(viewings, lambda viewing: viewing.has_all_of(job))
    stage.server.kill()
    job.say(5)
    await of_all(viewings, Viewing.is_not_live)
    await asyncio.to_thread(stage.server.start)
    await are_back(window, viewings)
    job.say(5)
    await of_all(viewings, lambda viewing: viewing.has_all_of(job))
    job.end()
    await of_all(viewings, lambda viewing: viewing.ends_right(job, stage))


async def test_job_ends_while_the_server_is_away(
    stage: Stage, window: Context, view_by_each: ViewByEach
) -> None:
    job = await stage.dictate()
    await window.call("clock.install")
    viewings = await view_by_each(job.id)
    await asyncio.to_thread(stage.server.stop)
    job.say(20)
    job.end()
    await of_all(viewings, Viewing.is_not_live)
    await asyncio.to_thread(stage.server.start)
    await are_back(window, viewings)
    await of_all(viewings, lambda viewing: viewing.ends_right(job, stage))


async def test_valkey_is_killed_and_started_again_while_a_job_runs(
    stage: Stage, view_by_each: ViewByEach
) -> None:
    job = await stage.dictate()
    viewings = await view_by_each(job.id)
    job.say(5)
    await of_all(viewings, lambda viewing: viewing.has_all_of(job))
    stage.valkey.kill()
    try:
        job.say(5)
        # By way of the database, which the worker writes to every two seconds.
        await of_all(viewings, lambda viewing: viewing.has_all_of(job))
    finally:
        stage.valkey.start()
    job.say(5)
    await of_all(viewings, lambda viewing: viewing.has_all_of(job))
    job.end()
    await of_all(viewings, lambda viewing: viewing.ends_right(job, stage))
    # Kombu gives a worker up where its broker dies with a task unacknowledged.
    await asyncio.to_thread(stage.start_worker)


async def test_network_is_cut_for_a_minute(
    stage: Stage, window: Context, view_by_each: ViewByEach
) -> None:
    job = await stage.dictate()
    await window.call("clock.install")
    viewings = await view_by_each(job.id)
    job.say(5)
    await of_all(viewings, lambda viewing: viewing.has_all_of(job))
    for viewing in viewings:
        await viewing.proxy.cut()
    job.say(5)
    await of_all(viewings, Viewing.is_not_live)
    await asyncio.sleep(CUT_SECONDS)
    await window.call("clock.fastForward", MINUTE_MS)
    for viewing in viewings:
        await viewing.proxy.open()
    await are_back(window, viewings)
    await of_all(viewings, lambda viewing: viewing.has_all_of(job))
    job.end()
    await of_all(viewings, lambda viewing: viewing.ends_right(job, stage))


async def test_browser_says_that_the_network_is_back(
    stage: Stage, window: Context, view_by_each: ViewByEach
) -> None:
    job = await stage.dictate()
    await window.call("clock.install")
    viewings = await view_by_each(job.id)
    await window.call("setOffline", True)
    for viewing in viewings:
        await viewing.proxy.cut()
    await of_all(viewings, Viewing.is_not_live)
    job.say(5)
    await window.call("clock.runFor", MINUTE_MS)
    for viewing in viewings:
        await viewing.proxy.open()
    await window.call("setOffline", False)
    await of_all(viewings, lambda viewing: viewing.has_all_of(job))
    job.end()
    await of_all(viewings, lambda viewing: viewing.ends_right(job, stage))


async def test_network_swallows_everything_without_a_word(
    stage: Stage, window: Context, view_by_each: ViewByEach
) -> None:
    job = await stage.dictate()
    await window.call("clock.install")
    viewings = await view_by_each(job.id)
    for viewing in viewings:
        viewing.proxy.swallow()
    job.say(5)
    await window.call("clock.fastForward", MINUTE_MS / 2)
    await of_all(viewings, Viewing.is_not_live)
    for viewing in viewings:
        viewing.proxy.flowing.set()
    await are_back(window, viewings)
    await of_all(viewings, lambda viewing: viewing.has_all_of(job))
    job.end()
    await of_all(viewings, lambda viewing: viewing.ends_right(job, stage))


async def test_laptop_sleeps_while_the_job_ends(
    stage: Stage, window: Context, view_by_each: ViewByEach
) -> None:
    job = await stage.dictate()
    await window.call("clock.install")
    viewings = await view_by_each(job.id)
    # Its time stands still, and what is sent to it is lost.
    await window.call("clock.pauseAt", await viewings[0].page.evaluate("Date.now() + 1000"))
    for viewing in viewings:
        viewing.proxy.swallow()
    job.say(5)
    job.end()
    await stage.is_over(job.id)
    for viewing in viewings:
        viewing.proxy.flowing.set()
    await window.call("clock.fastForward", HOUR_MS)
    await window.call("clock.resume")
    await of_all(viewings, lambda viewing: viewing.ends_right(job, stage))


async def test_tokens_that_expire_are_replaced(stage: Stage, view_by_each: ViewByEach) -> None:
    made = itertools.count()

    def token() -> str:
        next(made)
        return stage.token(ttl_seconds=1.5)

    job = await stage.dictate()
    viewings = await view_by_each(job.id, token=token)
    for _ in range(40):
        job.say()
        await asyncio.sleep(0.1)
    job.end()
    await of_all(viewings, lambda viewing: viewing.ends_right(job, stage))
    assert next(made) > 2 * len(viewings)
