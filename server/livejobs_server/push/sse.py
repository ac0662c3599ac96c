"""Server-sent events: a connection's frames as the chunks of one endless response."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Sequence
from typing import Final

from sse_starlette.sse import EventSourceResponse, SendTimeoutError
from starlette.types import Message, Receive, Scope, Send

from ..services import Services
from .connection import Connection, Ending
from .detached import Detached
from .fleet import STALLED_SECONDS
from .takeover import find_takeover
from .wire import DEGRADED, PING, Frame, http_chunk

HEADERS: Final = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}

RETRY_MS: Final = (1000, 3000)
"""When a browser is to come back after its connection broke: anywhere between, in milliseconds."""
TROUBLE_RETRY_MS: Final = (2000, 8000)
"""The same where the server cannot serve it now: not all at the same moment."""
CLOSE_SECONDS: Final = 2.0
"""Time for a peer to take the last bytes where the server goes away."""

logger = logging.getLogger("livejobs.sse")


def retry_hint(between: tuple[int, int]) -> bytes:
    """The field that tells a browser when to come back, different for each.

    It is heeded as soon as its line is read. Without an empty line after it, it is part of the
    event that follows, and parsers that make an event of every block see no empty one.
    """
    return b"retry: %d\n" % random.randint(*between)


class EventStream(EventSourceResponse):
    """Everything a connection is told, until all it watches is over.

    Where the server lets it, it goes on without the request, as its transport alone.

    Args:
        server: What goes on then is a viewer of its.
        connection: Has its subscriptions already.
        frames: What it was told before the response began.
        headers: Beside those of every event stream.
    """

    def __init__(
        self,
        server: Services,
        connection: Connection,
        frames: Sequence[Frame] = (),
        headers: dict[str, str] | None = None,
    ) -> None:
        self._server = server
        self._connection = connection
        self._beginning = b": livejobs\n" + retry_hint(RETRY_MS) + _joined(frames)
        # The connection sends its own pings, after silence only, and hears of shutdown itself.
        super().__init__(
            _chunks(server, connection, self._beginning),
            headers=HEADERS | (headers or {}),
            ping=0,
            send_timeout=STALLED_SECONDS,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response; whatever ends it, the hub forgets the connection."""
        logger.debug("an event stream opened")
        detached = False
        try:
            take = find_takeover(scope)
            if take is not None:
                # Its end is the connection's too: the peer must not ask for anything else on it.
                headers = [*self.raw_headers, (b"connection", b"close")]
                head = {"type": "http.response.start", "status": 200, "headers": headers}
                await send(head)
                send = _without_head(send)
                stream = _DetachedStream(self._server, None)
                if (transport := take(stream)) is not None:
                    detached = True
                    stream.go_on(self._connection, transport, self._beginning)
                    return
            async with self._server.departure.limiting(CLOSE_SECONDS):
                await super().__call__(scope, receive, send)
        except SendTimeoutError:
            self._server.counts.stalled += 1
            self._connection.end(Ending.STALLED)
        except TimeoutError:
            # The server goes away, and the peer takes nothing: its bytes are not waited for.
            self._connection.end(Ending.GONE)
        finally:
            if not detached:
                logger.debug("an event stream ended: %s", self._connection.ending)
                self._connection.close()


async def _chunks(
    server: Services, connection: Connection, beginning: bytes
) -> AsyncIterator[bytes]:
    """What a connection is told, over ASGI.

    No method: a response that its own generator knows would stay until the garbage collector
    comes by, and the connection with it.
    """
    counts = server.counts
    counts.sse_viewers += 1
    try:
        # A comment at once, so that proxies pass the head.
        yield beginning
        while not connection.has_told_all:
            frame = await connection.next()
            if frame is None:
                break
            frames = [frame, *connection.outbox.take()]
            counts.sse_deliveries += len(frames)
            yield _joined(frames)
        else:
            connection.end(Ending.OVER)
        if connection.ending is Ending.LEAVING:
            yield server.departure.drain().sse
    finally:
        counts.sse_viewers -= 1


class _DetachedStream(Detached):
    """An event stream of which nothing is left but its transport."""

    __slots__ = ()

    def go_on(self, connection: Connection, transport: asyncio.Transport, begin: bytes) -> None:
        """Take the place of a connection, whose transport this is.

        Args:
            begin: What comes before all frames that wait in its outbox.
        """
        self._server.counts.sse_viewers += 1
        transport.write(http_chunk(begin + _joined(connection.outbox.take())))
        self.go_on_from(connection)
        # Perhaps it was: the hub knows.
        self._lag()
        ending = connection.ending
        connection.close()
        self.begin(transport)
        if ending is not None:
            self.end(ending)

    def deliver(self, frame: Frame) -> bool:
        """Send a frame; False: full, the frame was not taken. One that has ended drops it."""
        if not self._shut:
            self._transport.write(frame.chunk)
        elif not self._deliver_slowly(frame.chunk):
            return False
        server = self._server
        self._told_at = server.wheel.now
        server.counts.sse_deliveries += 1
        if frame.ends:
            self.wake()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """The peer is gone."""
        self._server.counts.sse_viewers -= 1
        super().connection_lost(exc)

    def _bytes_of(self, frame: Frame) -> bytes:
        return frame.chunk

    def _say_goodbye(self) -> None:
        if self.ending is Ending.LEAVING:
            self._transport.write(self._server.departure.drain().chunk)
        self._transport.write(http_chunk(b""))
        self._transport.close()

    def _end_if_over(self) -> None:
        if self.has_told_all:
            self.end(Ending.OVER)


def _without_head(send: Send) -> Send:
    """A `send` for a response whose head has been sent already."""

    async def send_body(message: Message) -> None:
        if message["type"] != "http.response.start":
            await send(message)

    return send_body


class TroubleStream(EventSourceResponse):
    """An event stream that says only when to come back.

    A browser's own EventSource never tries again after an error status, so trouble that passes is
    answered like this once the viewer is known.

    Args:
        headers: Beside those of every event stream.
        hint: When to come back; None: in a while.
    """

    def __init__(self, headers: dict[str, str] | None = None, hint: bytes | None = None) -> None:
        hint = retry_hint(TROUBLE_RETRY_MS) if hint is None else hint
        super().__init__(_not_now(hint), headers=HEADERS | (headers or {}), ping=0)


async def _not_now(hint: bytes) -> AsyncIterator[bytes]:
    yield b": not now\n" + hint


async def first_frames(connection: Connection, seconds: float) -> list[Frame]:
    """What the hub first tells a new connection; empty where that takes too long.

    Args:
        seconds: How long to wait for it.
    """
    try:
        async with asyncio.timeout(seconds):
            # Where the state takes longer than the ping interval, a ping comes before it.
            state: list[Frame] = []
            while (frame := await connection.next()) is not None:
                if frame.kind != PING:
                    state.append(frame)
                if frame.kind not in (PING, DEGRADED):
                    return [*state, *connection.outbox.take()]
    except TimeoutError:
        pass
    return []


def _joined(frames: Sequence[Frame]) -> bytes:
    return b"".join(frame.sse for frame in frames)
