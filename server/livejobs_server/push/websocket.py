"""WebSocket: any number of jobs over ``/v1/ws``, or one over ``/v1/jobs/{id}/ws``.

Where the server lets it, a connection goes on without the endpoint, as its transport alone; see
`takeover`. Elsewhere each has one reader, the endpoint's own coroutine, and one writer task. The
writer alone sends, and alone closes; whichever of the two ends first ends the other.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Final

from fastapi import APIRouter
from starlette.websockets import WebSocket, WebSocketDisconnect

from ..problems import PROBLEMS, problem_response
from ..services import Services, services
from .closes import BUSY, Close, Closing
from .connection import Connection, Ending
from .detached_socket import DetachedSocket
from .dialogue import Dialogue
from .fleet import STALLED_SECONDS
from .gate import Refused
from .socket_watcher import SocketWatcher, auth_deadline
from .takeover import find_takeover

router = APIRouter()

CLOSE_SECONDS: Final = 2.0
"""Time to hand the close frame to a peer that may not be reading."""

logger = logging.getLogger("livejobs.websocket")


@router.websocket("/v1/ws")
async def watch_jobs(websocket: WebSocket) -> None:
    """Any number of jobs over one connection."""
    await serve(websocket, None)


@router.websocket("/v1/jobs/{job_id}/ws")
async def watch_job(websocket: WebSocket, job_id: str) -> None:
    """One job, subscribed at once; `after` and `entries` in the query are those of `subscribe`."""
    await serve(websocket, job_id)


async def serve(websocket: WebSocket, job_id: str | None) -> None:
    """Accept a WebSocket, and tell it of one job, or of any; None."""
    server = services(websocket)
    if not server.access.origin_allowed(websocket):
        await _deny(websocket)
        return
    try:
        await websocket.accept()
    except WebSocketDisconnect:
        logger.debug("a WebSocket was gone before it was open", extra={"job_id": job_id})
        return
    logger.debug("a WebSocket opened", extra={"job_id": job_id})
    try:
        if not await _detach(websocket, server, job_id):
            await _Socket(websocket, server, job_id).serve()
    except Refused as refused:
        await _send_away(websocket, Close(BUSY.code, str(refused)))


async def _send_away(websocket: WebSocket, close: Close) -> None:
    with contextlib.suppress(TimeoutError, WebSocketDisconnect, RuntimeError):
        async with asyncio.timeout(CLOSE_SECONDS):
            await websocket.close(close.code, close.reason)


async def _detach(websocket: WebSocket, server: Services, job_id: str | None) -> bool:
    """Let a connection go on as its transport alone; False: the server does not give it away."""
    take = find_takeover(websocket.scope)
    if take is None:
        return False
    socket = DetachedSocket(server, job_id)
    server.gate.enter(socket, websocket)
    transport = take(socket)
    if transport is None:
        server.gate.leave(socket)
        return False
    socket.begin(transport)
    await socket.greet(websocket)
    return True


async def _deny(websocket: WebSocket) -> None:
    if "websocket.http.response" in websocket.scope.get("extensions", {}):
        meaning = PROBLEMS["origin_not_allowed"].meaning
        await websocket.send_denial_response(problem_response("origin_not_allowed", meaning))
    else:
        await websocket.close()


class _Socket(SocketWatcher, Connection):
    """One WebSocket over ASGI."""

    def __init__(self, websocket: WebSocket, server: Services, job_id: str | None) -> None:
        super().__init__(server, None, job_id)
        self._websocket = websocket
        self._auth_until = auth_deadline()

    @property
    def auth_until(self) -> float:
        """How long there may be no credentials, by the monotonic clock."""
        return self._auth_until

    async def serve(self) -> None:
        """Read and write until either ends; whatever ends it, the hub forgets it."""
        counts = self._server.counts
        counts.websocket_viewers += 1
        try:
            self._server.gate.enter(self, self._websocket)
            await self._run()
            logger.debug("a WebSocket ended: %s", self.ending, extra={"job_id": self.job_id})
        finally:
            counts.websocket_viewers -= 1
            self.close()

    async def _run(self) -> None:
        writer = asyncio.create_task(self._write())
        try:
            async with self._server.departure.limiting(CLOSE_SECONDS):
                await self._read_beside(writer)
                if self.ending is not Ending.GONE:
                    await asyncio.wait([writer], timeout=CLOSE_SECONDS)
        except TimeoutError:
            self.end(Ending.GONE)  # The server goes away, and the peer takes nothing.
        finally:
            writer.cancel()
            await asyncio.wait([writer])
        if not writer.cancelled() and (error := writer.exception()) is not None:
            raise error

    # -- the reader -----------------------------------------------------------------------------

    async def _read_beside(self, writer: asyncio.Task[None]) -> None:
        """Read until the peer leaves, the connection is to end, or the writer has ended."""
        loop = asyncio.get_running_loop()
        reads = True

        def stop(_writer: asyncio.Task[None]) -> None:
            if reads:
                reading.reschedule(loop.time())

        try:
            async with asyncio.timeout(None) as reading:
                writer.add_done_callback(stop)
                try:
                    await self._read()
                finally:
                    reads = False
        except TimeoutError:
            if not reading.expired():
                raise

    async def _read(self) -> None:
        # No attribute, which would keep both until the garbage collector comes by.
        dialogue = Dialogue(self, self._server.access, self._server.settings.max_payload_bytes)
        try:
            await dialogue.greet(self._websocket)
            while self.ending is None:
                message = await self._websocket.receive()
                if message["type"] == "websocket.disconnect":
                    self.end(Ending.GONE)
                else:
                    await dialogue.hear(message.get("text"), self._websocket)
        except Closing as closing:
            self.end_with(closing.close)

    # -- the writer -----------------------------------------------------------------------------

    async def _write(self) -> None:
        """Send what comes until the connection is to end, then close it."""
        try:
            while (frame := await self.next()) is not None:
                async with asyncio.timeout(STALLED_SECONDS):
                    await self._websocket.send({"type": "websocket.send", "text": frame.text})
                self._server.counts.websocket_deliveries += 1
                self.note(frame)
                self.end_if_over()
        except TimeoutError:
            self._server.counts.stalled += 1
            self.end(Ending.STALLED)
        except (WebSocketDisconnect, RuntimeError):
            # The peer has left, or the server has closed the connection by itself.
            self.end(Ending.GONE)
        if self.ending is not Ending.GONE:
            await self._send_close()

    async def _send_close(self) -> None:
        close = self.farewell
        with contextlib.suppress(TimeoutError, WebSocketDisconnect, RuntimeError):
            async with asyncio.timeout(CLOSE_SECONDS):
                if self.ending is Ending.LEAVING:
                    drain = self._server.departure.drain()
                    await self._websocket.send({"type": "websocket.send", "text": drain.text})
                await self._websocket.close(close.code, close.reason)
