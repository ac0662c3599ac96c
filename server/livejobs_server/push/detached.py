"""A viewer of whom nothing is left but its transport: no task, no queue, no request.

What the hub delivers goes straight into the transport. When that has to keep any of it, the viewer
is slow; when it keeps as much as it may, frames are refused until all of it has been taken.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import Final

from ..services import Services
from ..viewer import Viewer
from .watcher import Ending, Watcher
from .wire import Frame, degraded_frame, ping_frame

CLOSE_SECONDS: Final = 2.0
"""Time for a peer to take the last bytes, and to close too."""

UNSENT_BYTES: Final = 128 * 1024
"""What the kernel takes for a peer beyond what is on its way. By itself it takes 2.5 MB where the
peer is on the same machine, as a proxy may be: for that long nobody would know that a viewer is
slow, and all that is written for it would cost time and memory."""

_RESET: Final = struct.pack("ii", 1, 0)
"""As SO_LINGER: to be closed at once, with a reset."""

_PING: Final = ping_frame()


class Detached(Watcher, asyncio.Protocol):
    """One connection as its transport. Subclasses say what bytes go over it, in `deliver` too."""

    __slots__ = ("_refused", "_room", "_shut", "_told_at", "_transport")

    def __init__(
        self, services: Services, viewer: Viewer | None, job_id: str | None = None
    ) -> None:
        super().__init__(services, viewer, job_id)
        self._transport: asyncio.Transport
        # Something waits for the peer, or it has ended: `deliver` has to look closer.
        self._shut = False
        self._refused = False
        self._room: asyncio.Future[None] | None = None
        self._told_at = services.wheel.now

    def begin(self, transport: asyncio.Transport) -> None:
        """Begin to write; the transport calls this protocol already."""
        self._transport = transport
        # As soon as anything waits; with a limit of 0, TLS would never say that nothing does.
        transport.set_write_buffer_limits(high=1, low=0)
        _limit_unsent(transport)
        self._server.fleet.add(self, self._next_look(self._server.wheel.now))
        self._server.departure.listen(self)
        self.wake()

    # -- what it is told --------------------------------------------------------------------------

    def _deliver_slowly(self, data: bytes) -> bool:
        """`deliver` where something waits for the peer, or where it has ended."""
        if self.ending is not None:
            return True
        if self._refused or not self._server.fleet.has_room(self):
            self._lag()
            return False
        self._transport.write(data)
        self._server.fleet.note(self)
        return True

    def _lag(self) -> None:
        if not self._refused:
            self._refused = True
            self._server.counts.lagging += 1

    async def put(self, frame: Frame) -> None:
        """Send a frame, waiting for room; only one caller may wait at a time."""
        while self.ending is None and self._shut and not self._server.fleet.has_room(self):
            self._room = asyncio.get_running_loop().create_future()
            await self._room
        if self.ending is None:
            self._transport.write(self._bytes_of(frame))
            self._server.fleet.note(self)

    def has_drained(self) -> bool:
        """Whether a frame was refused and there is room again; true once for each refusal."""
        if not self._refused or self._shut:
            return False
        self._refused = False
        self._server.counts.lagging -= 1
        return True

    @property
    def is_empty(self) -> bool:
        """All that was taken is on its way."""
        return True

    @property
    def waiting_bytes(self) -> int:
        """What waits for the peer in this process, in bytes."""
        return self._transport.get_write_buffer_size()

    @property
    def lags(self) -> bool:
        """Whether it is told nothing more until all that waits has been taken."""
        return self._refused

    # -- how it ends ------------------------------------------------------------------------------

    def give_up(self, at_once: bool) -> None:
        """Its peer takes too little; `at_once`: what waits for it is to be freed now."""
        # When it is closed, the kernel would go on offering what it has for minutes, and the peer
        # would not hear of the end before it has taken all of that.
        _set_option(self._transport, socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.end(Ending.STALLED)
        if at_once:
            self._transport.abort()

    def _end(self) -> None:
        self._shut = True
        if self.ending is not Ending.GONE:
            self._say_goodbye()
        self._make_room()
        # A peer that takes nothing must not keep it.
        asyncio.get_running_loop().call_later(CLOSE_SECONDS, self._transport.abort)

    # -- the transport ----------------------------------------------------------------------------

    def pause_writing(self) -> None:
        """Something waits."""
        self._shut = True
        self._server.fleet.fell_behind(self)

    def resume_writing(self) -> None:
        """Nothing waits any more."""
        self._server.fleet.recovered(self)
        if self.ending is None:
            self._shut = False
            self._make_room()
            self.resume_if_drained()

    def connection_lost(self, exc: Exception | None) -> None:
        """The peer is gone."""
        self._shut = True
        self.ending = self.ending or Ending.GONE
        self._make_room()
        if self._refused:
            self._refused = False
            self._server.counts.lagging -= 1
        self._server.fleet.discard(self)
        self.close()

    def _make_room(self) -> None:
        room, self._room = self._room, None
        if room is not None and not room.done():
            room.set_result(None)

    # -- now and then -----------------------------------------------------------------------------

    def wake(self) -> None:
        """Look soon whether there is anything to say that is no frame, or nothing more."""
        asyncio.get_running_loop().call_soon(self._settle)

    def look(self, now: float) -> float | None:
        """Show a sign of life; see `Spoke`."""
        if self.ending is not None:
            return None
        if self.seconds_left() <= 0:
            self.end(Ending.EXPIRED)
        elif not self._shut and now - self._told_at >= self._server.settings.ping_interval:
            self.deliver(_PING)
        return self._next_look(now)

    def _next_look(self, now: float) -> float:
        if self.viewer is None:
            return now  # How long its credentials are good is known soon.
        silent_since = now if self._shut else self._told_at
        return min(silent_since + self._server.settings.ping_interval, now + self.seconds_left())

    def _settle(self) -> None:
        """Say what is no frame of the hub's, and end where all is told."""
        if self.ending is not None:
            return
        self.resume_if_drained()
        lasts = self.outage_news()
        if lasts is not None:
            self.deliver(degraded_frame(lasts))
        self._end_if_over()

    # -- for subclasses ---------------------------------------------------------------------------

    def _bytes_of(self, frame: Frame) -> bytes:
        """A frame as it is written."""
        raise TypeError(type(self))

    def _say_goodbye(self) -> None:
        """Write the last bytes."""
        raise TypeError(type(self))

    def _end_if_over(self) -> None:
        """End the connection where nothing more is to come."""
        raise TypeError(type(self))


def _limit_unsent(transport: asyncio.Transport) -> None:
    """Let the kernel say early that it has enough, where it can."""
    option = getattr(socket, "TCP_NOTSENT_LOWAT", None)
    if option is not None:
        _set_option(transport, socket.IPPROTO_TCP, option, UNSENT_BYTES)


def _set_option(transport: asyncio.Transport, level: int, option: int, value: int | bytes) -> None:
    connection = transport.get_extra_info("socket")
    if connection is not None:
        with contextlib.suppress(OSError):  # It is no TCP, as over a Unix socket.
            connection.setsockopt(level, option, value)
