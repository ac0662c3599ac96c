"""sse-starlette, a queue for each viewer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from sse_starlette import EventSourceResponse

from .channel import HELLO, messages

queues: set[asyncio.Queue[str]] = set()


async def relay() -> None:
    """Put each message into every queue."""
    async for message in messages():
        for queue in queues:
            queue.put_nowait(message)


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    """The relay runs as long as the server."""
    task = asyncio.create_task(relay())
    yield
    task.cancel()


app = FastAPI(lifespan=lifespan)


async def events() -> AsyncIterator[dict[str, str]]:
    """What one viewer is sent."""
    queue: asyncio.Queue[str] = asyncio.Queue()
    queues.add(queue)
    try:
        yield {"data": HELLO}
        while True:
            yield {"data": await queue.get()}
    finally:
        queues.discard(queue)


@app.get("/events", response_model=None)
async def watch() -> EventSourceResponse:
    """One viewer."""
    return EventSourceResponse(events())
