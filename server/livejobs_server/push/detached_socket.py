"""A WebSocket of which nothing is left but its transport."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Coroutine
from typing import Any, Final

from starlette.requests import HTTPConnection
from websockets.frames import Close as CloseFrame
from websockets.frames import Frame as WebSocketFrame
from websockets.frames import Opcode

from ..services import Services
from .closes import BROKEN, Closing
from .detached import Detached
from .dialogue import Dialogue
from .incoming import Incoming
from .socket_watcher import SocketWatcher, auth_deadline
from .watcher import Ending
from .wire import Frame

REQUESTS_AHEAD: Final = 32
"""Requests that may wait for their turn before nothing more is read."""

logger = logging.getLogger("livejobs.websocket")


class _Talk:
    """What there is while a peer says something, or has just done so."""

    __slots__ = ("auth_until", "dialogue", "handshake", "inbox", "incoming", "task")

    def __init__(self, dialogue: Dialogue, incoming: Incoming) -> None:
        self.dialogue = dialogue
        self.incoming = incoming
        self.inbox: deque[str | None] = deque()
        self.task: asyncio.Task[None] | None = None
        # The request that opened the connection, until its viewer is known.
        self.handshake: HTTPConnection | None = None
        self.auth_until = auth_deadline()

    @property
    def is_over(self) -> bool:
        """Whether there is nothing in it that is not made again."""
        is_silent = self.task is None and not self.inbox and self.incoming.idle
        return is_silent and self.handshake is None and self.dialogue.is_fresh


class DetachedSocket(SocketWatcher, Detached):
    """One WebSocket after its handshake.

    Args:
        job_id: The only job it may watch; None: any number of jobs.
    """

    __slots__ = ("_talk",)

    def __init__(self, services: Services, job_id: str | None) -> None:
        super().__init__(services, None, job_id)
        self._talk: _Talk | None = None

    def begin(self, transport: asyncio.Transport) -> None:
        """Begin to write; the transport calls this protocol already."""
        self._server.counts.websocket_viewers += 1
        super().begin(transport)

    # -- what the peer asks -----------------------------------------------------------------------

    async def greet(self, handshake: HTTPConnection) -> None:
        """Look at the credentials of the handshake; requests wait until that is done."""
        talk = self._begin_talk()
        talk.handshake, talk.task = handshake, asyncio.current_task()
        try:
            await self._within(talk.dialogue.greet(handshake))
        finally:
            talk.task = None
            if self.job_id is not None and self.watches is not None:
                self.job_id = self.watches.topic.job_id  # The same for all of its viewers.
            self._go_on(talk)

    @property
    def auth_until(self) -> float:
        """How long there may be no credentials, by the monotonic clock."""
        return time.monotonic() if self._talk is None else self._talk.auth_until

    def data_received(self, data: bytes) -> None:
        """Read what the peer sends."""
        talk = self._begin_talk()
        heard = talk.incoming.feed(data)
        if heard.answer and self.ending is None:
            self._transport.write(heard.answer)
        if heard.messages and self.ending is None:
            talk.inbox.extend(heard.messages)
        if heard.closed:
            # Its own close frame has been answered, or was the answer.
            self.end(Ending.GONE)
            self._transport.close()
        self._go_on(talk)

    def look(self, now: float) -> float | None:
        """Show a sign of life, and forget what was said; see `Spoke`."""
        if self._talk is not None and self._talk.is_over:
            self._talk = None
        return super().look(now)

    def _begin_talk(self) -> _Talk:
        if self._talk is None:
            # The dialogue refuses messages that are too long, and says so; the parser, those far
            # longer.
            most = self._server.settings.max_payload_bytes
            dialogue = Dialogue(self, self._server.access, most)
            self._talk = _Talk(dialogue, Incoming(2 * most))
        return self._talk

    def _go_on(self, talk: _Talk) -> None:
        """Answer what waits, one after another."""
        if self.viewer is not None:
            talk.handshake = None
        if self.ending is not None:
            talk.inbox.clear()
        if talk.inbox and talk.task is None:
            talk.task = asyncio.create_task(self._answer_all(talk))
        if talk.is_over:
            self._talk = None

    async def _answer_all(self, talk: _Talk) -> None:
        inbox = talk.inbox
        if len(inbox) > REQUESTS_AHEAD:
            self._transport.pause_reading()
        try:
            while inbox and self.ending is None:
                await self._within(talk.dialogue.hear(inbox.popleft(), talk.handshake))
        finally:
            talk.task = None
            if not self._transport.is_closing():
                self._transport.resume_reading()
            self._go_on(talk)

    async def _within(self, talk: Coroutine[Any, Any, None]) -> None:
        """Run a part of the dialogue; it may end the connection."""
        try:
            await talk
        except Closing as closing:
            self.end_with(closing.close)
        except Exception:
            logger.exception("a request of a WebSocket could not be served")
            self.end_with(BROKEN)
        if self.ending is None:
            # The answer may have been the last word.
            self.end_if_over()

    # -- what the peer is told --------------------------------------------------------------------

    def deliver(self, frame: Frame) -> bool:
        """Send a frame; False: full, the frame was not taken. One that has ended drops it."""
        if not self._shut:
            self._transport.write(frame.websocket)
        elif not self._deliver_slowly(frame.websocket):
            return False
        server = self._server
        self._told_at = server.wheel.now
        server.counts.websocket_deliveries += 1
        if frame.ends:
            self.note(frame)
            self.wake()
        return True

    async def put(self, frame: Frame) -> None:
        """Send a frame, waiting for room; only one caller may wait at a time."""
        await super().put(frame)
        self.note(frame)

    def _bytes_of(self, frame: Frame) -> bytes:
        return frame.websocket

    def _say_goodbye(self) -> None:
        if self.ending is Ending.LEAVING:
            self._transport.write(self._server.departure.drain().websocket)
        code, reason = self.farewell
        goodbye = WebSocketFrame(Opcode.CLOSE, CloseFrame(code, reason).serialize())
        # The peer's own close frame ends the connection, or the time that it may take.
        self._transport.write(goodbye.serialize(mask=False))

    def _end_if_over(self) -> None:
        self.end_if_over()

    def connection_lost(self, exc: Exception | None) -> None:
        """The peer is gone."""
        self._server.counts.websocket_viewers -= 1
        super().connection_lost(exc)
        # It knows this object, and so its transport: such cycles wait for the garbage collector,
        # which comes by the less the longer a viewer was here.
        self._talk = None
