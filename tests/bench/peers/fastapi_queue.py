"""FastAPI, a queue for each socket, and `await send_text` in its endpoint."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, WebSocket, WebSocketDisconnect

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


@app.websocket("/ws")
async def watch(websocket: WebSocket) -> None:
    """One viewer."""
    await websocket.accept()
    queue: asyncio.Queue[str] = asyncio.Queue()
    queues.add(queue)
    try:
        await websocket.send_text(HELLO)
        while True:
            await websocket.send_text(await queue.get())
    except WebSocketDisconnect:
        pass
    finally:
        queues.discard(queue)
