"""One viewer on the plain ASGI path: what it is told waits in its outbox, and a task sends it."""

from __future__ import annotations

import time
from typing import Final

from ..services import Services
from ..viewer import Viewer
from .outbox import Outbox
from .watcher import Ending, Watcher
from .wire import Frame, degraded_frame, ping_frame

__all__ = ["Connection", "Ending"]

_PING: Final = ping_frame()


class Connection(Watcher):
    """A viewer whose frames are taken from its outbox.

    Attributes:
        outbox: Where its frames wait.
        buffer_bytes: So much may wait there.
        ping_interval: Seconds of silence after which it is sent a sign of life.
    """

    def __init__(
        self, services: Services, viewer: Viewer | None, job_id: str | None = None
    ) -> None:
        super().__init__(services, viewer, job_id)
        self.buffer_bytes = services.settings.viewer_buffer_bytes
        self.ping_interval = services.settings.ping_interval
        self.outbox = Outbox(self.buffer_bytes)
        services.relay.outage.listen(self.wake)
        services.departure.listen(self)

    def deliver(self, frame: Frame) -> bool:
        """Take a frame for the peer; False: full. One that has ended takes and drops."""
        taken = self.outbox.deliver(frame)
        if taken and frame.ends:
            self.wake()
        return taken

    async def put(self, frame: Frame) -> None:
        """Take a frame, waiting for room; only one caller may wait at a time."""
        await self.outbox.put(frame)

    def wake(self) -> None:
        """Let `next` look whether there is anything to say that is no frame, or nothing more."""
        self.outbox.wake()

    def has_drained(self) -> bool:
        """Whether a frame was refused and there is room again; true once for each refusal."""
        return self.outbox.has_drained()

    @property
    def is_empty(self) -> bool:
        """Whether all that was taken is on its way."""
        return not self.outbox

    async def next(self) -> Frame | None:
        """The next frame to send, a ping after silence; None: it ends, see `ending`."""
        silent_until = time.monotonic() + self.ping_interval
        while self.ending is None:
            self.resume_if_drained()
            if (lasts := self.outage_news()) is not None:
                return degraded_frame(lasts)
            if (left := self.seconds_left()) <= 0:
                self.end(Ending.EXPIRED)
                break
            silence = silent_until - time.monotonic()
            if (frame := await self.outbox.next(min(silence, left))) is not None:
                return frame
            if time.monotonic() >= silent_until and not self.has_ended:
                return _PING
        return None

    @property
    def has_ended(self) -> bool:
        """Whether it is to end, or has."""
        return self.ending is not None

    async def queued(self, seconds: float) -> Frame | None:
        """The next frame of the outbox; None after `seconds` without one, at its end or `wake`."""
        return await self.outbox.next(seconds)

    def close(self) -> None:
        """Forget everything about it."""
        super().close()
        self._server.relay.outage.forget(self.wake)

    def _end(self) -> None:
        self.outbox.close()
