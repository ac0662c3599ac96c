"""The messages of the measured job, as an application without livejobs would take them."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

from redis.asyncio import Redis

HELLO = '{"type":"job"}'
"""A new viewer is told something at once, as livejobs tells it the job's state."""


async def messages() -> AsyncIterator[str]:
    """What is published from now on, without the line that is for livejobs' own servers."""
    async with Redis(port=int(os.environ["BENCH_REDIS_PORT"])) as client, client.pubsub() as pubsub:
        await pubsub.subscribe(os.environ["BENCH_CHANNEL"])
        async for message in pubsub.listen():
            if message["type"] == "message":
                yield message["data"].partition(b"\n")[2].decode()
