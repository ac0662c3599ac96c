"""The JavaScript client in Node, against a real server over a network that is cut."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import Any

import pytest

from ..support.led_jobs import LedJob, MakeJob, entry_text
from ..support.live_server import LiveServer, on_sqlite
from ..support.proxy import Proxy

pytest_plugins = ["tests.support.live_stack"]

CLIENT = Path(__file__).resolve().parents[2] / "client-js"
ENTRIES = 1000
BATCH = 5
PAUSE_SECONDS = 0.05
"""Between two batches, so that it takes ten seconds."""
CUT_SECONDS = (0.5, 2.0)
SEED = 20240615


async def lead(job: LedJob) -> None:
    """A job that says a thousand things."""
    for first in range(0, ENTRIES, BATCH):
        await job.say(*(f"entry {number}" for number in range(first, first + BATCH)))
        await asyncio.sleep(PAUSE_SECONDS)
    await job.complete({"done": True})


async def cut_again_and_again(proxy: Proxy) -> None:
    """Break every connection now and then; new ones are let through at once."""
    chance = random.Random(SEED)
    while True:
        await asyncio.sleep(chance.uniform(*CUT_SECONDS))
        await proxy.cut()
        await proxy.open()


@on_sqlite
@pytest.mark.parametrize("transport", ["websocket", "sse", "polling"])
async def test_client_shows_every_entry_once_and_in_order_though_its_network_is_cut(
    server: LiveServer, make_job: MakeJob, transport: str
) -> None:
    node = shutil.which("node")
    assert node, "these tests need Node 20: install it, then run `make test`"
    job = await make_job()
    await job.claim()
    proxy = Proxy("127.0.0.1", server.port)
    await proxy.open()
    command = [node, "test/cuts.mjs", transport, f"http://127.0.0.1:{proxy.port}", job.id]
    process = await asyncio.create_subprocess_exec(
        *command, server.token(), cwd=CLIENT, stdout=PIPE, stderr=PIPE
    )
    cutting = asyncio.create_task(cut_again_and_again(proxy))
    try:
        async with asyncio.timeout(100):
            _, (output, errors) = await asyncio.gather(lead(job), process.communicate())
    finally:
        cutting.cancel()
        await asyncio.wait([cutting])
        if process.returncode is None:
            process.kill()
        await proxy.cut()
    assert process.returncode == 0, errors.decode()
    seen: dict[str, Any] = json.loads(output)
    assert [entry_text(entry) for entry in seen["entries"]] == job.said
    assert len(job.said) == ENTRIES
    assert (seen["final"]["status"], seen["final"]["result"]) == ("completed", {"done": True})
    # A poll may happen to be between two requests whenever the network is cut.
    assert seen["connections"] > (3 if transport != "polling" else 0)
