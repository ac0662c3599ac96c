"""Posts what Redis publishes to nchan; it runs beside the publisher and is not measured."""

from __future__ import annotations

import asyncio
import sys

import httpx

from .channel import messages


async def feed(url: str) -> None:
    """Post until ended."""
    async with httpx.AsyncClient(trust_env=False) as client:
        async for message in messages():
            await client.post(url, content=message)


if __name__ == "__main__":
    asyncio.run(feed(sys.argv[1]))
