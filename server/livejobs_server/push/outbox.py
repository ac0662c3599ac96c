"""What waits to be sent to one viewer on the plain ASGI path: bounded, and without a task.

The hub puts frames in and never waits; the connection's writer takes them out at the speed of its
peer. Frames are shared by all viewers, so a full outbox holds references, not copies.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

from .wire import Frame


class Outlet(Protocol):
    """Where a connection's frames go: to a queue, or straight to the peer."""

    def __len__(self) -> int:
        """Frames that wait and can be taken."""
        ...

    def deliver(self, frame: Frame) -> bool:
        """Take a frame; False: full, the frame was not taken. A closed one takes and drops."""
        ...

    async def put(self, frame: Frame) -> None:
        """Take a frame, waiting for room."""
        ...

    def take(self) -> list[Frame]:
        """All frames that wait."""
        ...

    def wake(self) -> None:
        """Have it looked at whether there is anything to say that is no frame, or nothing more."""
        ...

    def has_drained(self) -> bool:
        """Whether a frame was refused and there is room again; true once for each refusal."""
        ...

    def close(self) -> None:
        """Take nothing more."""
        ...


class Outbox:
    """A buffer between the hub and one writer.

    Args:
        limit: Frames are taken until so many bytes wait, so the last one may exceed it: a frame
            larger than the limit gets through too.

    Attributes:
        limit: The same.
        closed: It takes nothing more.
    """

    __slots__ = ("_frames", "_reader", "_refused", "_size", "_writer", "closed", "limit")

    def __init__(self, limit: int) -> None:
        self.closed = False
        self.limit = limit
        self._frames: deque[Frame] = deque()
        self._size = 0
        self._refused = False
        # Who waits: the writer for frames, the connection's reader for room.
        self._writer: asyncio.Future[None] | None = None
        self._reader: asyncio.Future[None] | None = None

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def size(self) -> int:
        """Bytes that wait."""
        return self._size

    @property
    def is_full(self) -> bool:
        """Whether no more is taken for now."""
        return self._size >= self.limit

    def deliver(self, frame: Frame) -> bool:
        """Take a frame; False: full, the frame was not taken. A closed outbox takes and drops."""
        if self.closed:
            return True
        if self.is_full:
            self._refused = True
            return False
        self._take(frame)
        return True

    async def put(self, frame: Frame) -> None:
        """Take a frame, waiting for room: who asks and does not read the answers waits too.

        Only one caller may wait at a time.
        """
        while not self.closed and self.is_full:
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        if not self.closed:
            self._take(frame)

    async def next(self, seconds: float) -> Frame | None:
        """The next frame; None after `seconds` without one, at once when closed, at `wake`.

        Only one caller may wait at a time.
        """
        if not self._frames and not self.closed:
            loop = asyncio.get_running_loop()
            self._writer = loop.create_future()
            timer = loop.call_later(seconds, _wake, self._writer)
            try:
                await self._writer
            finally:
                timer.cancel()
        if self.closed or not self._frames:
            return None
        return self._pop()

    def take(self) -> list[Frame]:
        """All frames that wait, without waiting for any."""
        return [] if self.closed else [self._pop() for _ in range(len(self._frames))]

    def wake(self) -> None:
        """Let `next` return now, without a frame if there is none."""
        _wake(self._writer)

    def has_drained(self) -> bool:
        """Whether a frame was refused and less than half is left; true once for each refusal."""
        if not self._refused or self._size > self.limit // 2:
            return False
        self._refused = False
        return True

    def close(self) -> None:
        """Drop what waits, take nothing more, and wake whoever waits."""
        self.closed = True
        self._frames.clear()
        self._size = 0
        _wake(self._writer)
        _wake(self._reader)

    def _take(self, frame: Frame) -> None:
        self._frames.append(frame)
        self._size += frame.size
        _wake(self._writer)

    def _pop(self) -> Frame:
        frame = self._frames.popleft()
        self._size -= frame.size
        _wake(self._reader)
        return frame


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
