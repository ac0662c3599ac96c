"""The server goes away: every open stream and every held request is told, and ends by itself.

ASGI servers wait for their requests before they end an app's lifespan, and close WebSockets
without a word of ours. So viewers are told as soon as the signal comes that asks the server to
stop; its own handler is called when they have left, or have taken too long. A second signal ends
all waiting.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import math
import random
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable
from types import FrameType
from typing import Any, Final, Protocol
from weakref import WeakSet

from .wire import Frame, drain_frame

STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
SPREAD_SECONDS: Final = 10.0
"""Over so long viewers are told to come back, unless the settings say otherwise."""
FIRST_LEAVE_SECONDS: Final = 1.0
"""How long connections may take to end before the server's own handler is called."""
LEAVE_SECONDS: Final = 2.5
"""How long they may take at the app's end."""
SAME_SECONDS: Final = 1.0
"""Signals that follow so soon are the same one: a terminal or systemd sends it to all processes of
a group, and their parent sends it on to them."""
TOLD_AT_ONCE: Final = 500
"""So many are told before the event loop does something else."""

Handler = Callable[[int, FrameType | None], Any]

logger = logging.getLogger("livejobs.departure")


class Leaver(Protocol):
    """An open stream or a held request."""

    def warn(self) -> None:
        """Tell its peer when to move to another server; it goes on until `leave`."""
        ...

    def leave(self) -> None:
        """Tell its peer when to come back, and end."""
        ...


class Departure:
    """Whether one app is going away, with its server or alone, and whom to tell.

    Args:
        spread: Over how many seconds viewers are to come back.
        linger: How many seconds those who were warned are served on.

    Attributes:
        begun: It is going away; what opens now is to end at once.
        asked: A signal has asked for it, which a moment later lets it begin.
    """

    def __init__(self, spread: float = SPREAD_SECONDS, linger: float = 0.0) -> None:
        self.begun = False
        self.asked = False
        self._spread = spread
        self._linger = linger
        self._listeners: dict[Leaver, None] = {}
        # Those that were told, and have not ended yet.
        self._leaving: dict[Leaver, None] = {}
        self._nobody_listens = asyncio.Event()
        self._all_left = asyncio.Event()
        self._all_left.set()
        self._hastened = asyncio.Event()
        self._hears_signals = False

    def delay(self) -> float:
        """After how many seconds a viewer is to come back: another time for each."""
        return random.uniform(0.0, self._spread)

    def drain(self) -> Frame:
        """What tells a viewer that."""
        return drain_frame(round(self.delay() * 1000))

    def retry_after(self) -> str:
        """The same for the header of an answer, which knows whole seconds only."""
        return str(max(1, math.ceil(self.delay())))

    def listen(self, leaver: Leaver) -> None:
        """Tell `leaver` when the app goes away; at once where it already does.

        The first call begins to hear the signals that ask the running event loop's server to
        stop: not earlier, since a server may set its handlers after the app has started.
        """
        if not self._hears_signals:
            self._hears_signals = True
            _hear_signals(asyncio.get_running_loop(), self)
        if self.begun:
            self._tell(leaver)
        else:
            self._listeners[leaver] = None

    def forget(self, leaver: Leaver) -> None:
        """Do not tell `leaver` any more: the connection has ended."""
        self._listeners.pop(leaver, None)
        self._leaving.pop(leaver, None)
        self._look_who_is_left()

    def begin(self) -> None:
        """The app is going away now; safe to call again."""
        self.begun = True
        if self._listeners:
            logger.info("the server goes away: %d connections are ended", len(self._listeners))
        self._tell_some(len(self._listeners))

    async def depart(self) -> None:
        """Let all go: warn them, serve them for a while, tell them; it ends in time."""
        self.begun = True
        if self._linger and self._listeners:
            await self._warn_all()
            await self._within(self._linger, self._nobody_listens)
        if self._listeners:
            logger.info("the server goes away: %d connections are ended", len(self._listeners))
        while self._listeners:
            self._tell_some(TOLD_AT_ONCE)
            await asyncio.sleep(0)
        await self._within(FIRST_LEAVE_SECONDS, self._all_left)

    async def wait_for_all(self) -> None:
        """Wait until all connections have ended, but not for those that take too long."""
        await self._within(LEAVE_SECONDS, self._all_left)

    def hasten(self) -> None:
        """Wait for nobody any more."""
        self._hastened.set()

    @contextlib.asynccontextmanager
    async def limiting(self, seconds: float) -> AsyncIterator[None]:
        """A block that may go on for so long at most once the app goes away.

        Raises:
            TimeoutError: It has taken longer.
        """
        async with asyncio.timeout(None) as limit:
            limited = _Limited(limit, seconds)
            self.listen(limited)
            try:
                yield
            finally:
                self.forget(limited)

    async def _warn_all(self) -> None:
        warned = list(self._listeners)
        logger.info(
            "the server goes away: %d connections have %g s to move", len(warned), self._linger
        )
        for start in range(0, len(warned), TOLD_AT_ONCE):
            for leaver in warned[start : start + TOLD_AT_ONCE]:
                if leaver in self._listeners:
                    _try(leaver.warn)
            await asyncio.sleep(0)
        self._look_who_is_left()

    async def _within(self, seconds: float, event: asyncio.Event) -> None:
        """Wait for an event, not longer than that, and not if all is to go faster."""
        waits = [asyncio.create_task(each.wait()) for each in (event, self._hastened)]
        try:
            await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waits:
                task.cancel()
            await asyncio.wait(waits)

    def _tell_some(self, count: int) -> None:
        for _ in range(min(count, len(self._listeners))):
            if not self._listeners:
                break  # One may have forgotten others.
            leaver, _ = self._listeners.popitem()
            self._tell(leaver)
        self._look_who_is_left()

    def _tell(self, leaver: Leaver) -> None:
        self._leaving[leaver] = None
        self._all_left.clear()
        _try(leaver.leave)

    def _look_who_is_left(self) -> None:
        if self.begun and not self._listeners:
            self._nobody_listens.set()
        if not self._leaving:
            self._all_left.set()


class _Limited:
    """A block of `limiting`."""

    def __init__(self, limit: asyncio.Timeout, seconds: float) -> None:
        self._limit = limit
        self._seconds = seconds

    def warn(self) -> None:
        """It goes on for now."""

    def leave(self) -> None:
        """Its time begins."""
        self._limit.reschedule(asyncio.get_running_loop().time() + self._seconds)


def _try(tell: Callable[[], None]) -> None:
    """Tell one; what goes wrong with it must not keep the others."""
    try:
        tell()
    except Exception:
        logger.exception("a connection could not be told that the server goes away")


class _Stop:
    """What happens in an event loop when its server is asked to stop.

    Attributes:
        loop: The event loop.
        departures: Those of the apps that run in it.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.departures: WeakSet[Departure] = WeakSet()
        # Calls of the server's own handlers that are put off.
        self._put_off: list[Callable[[], Any]] = []
        self._departing: asyncio.Task[None] | None = None
        self._asked_at = 0.0

    def hear(self, tell_server: Callable[[], Any]) -> None:
        """A signal came; its handler calls this."""
        staying = [leaving for leaving in self.departures if not leaving.asked]
        for leaving in staying:
            leaving.asked = True
        if staying and not self.loop.is_closed():
            self._asked_at = time.monotonic()
            self._put_off.append(tell_server)
            self.loop.call_soon_threadsafe(self._begin, staying)
        elif not self.departures or time.monotonic() - self._asked_at >= SAME_SECONDS:
            if not self.loop.is_closed():
                self.loop.call_soon_threadsafe(self._hasten)
            self._tell_server()
            tell_server()

    def _begin(self, staying: list[Departure]) -> None:
        self._departing = self.loop.create_task(self._depart(staying), name="livejobs-departure")

    async def _depart(self, staying: list[Departure]) -> None:
        try:
            async with asyncio.TaskGroup() as apps:
                for leaving in staying:
                    apps.create_task(leaving.depart())
        finally:
            # Whatever went wrong, the server has to hear of it.
            self._tell_server()

    def _tell_server(self) -> None:
        while self._put_off:
            self._put_off.pop(0)()

    def _hasten(self) -> None:
        for leaving in list(self.departures):
            leaving.hasten()


class _StopHandler:
    """A signal handler that lets apps depart, and then calls the server's own.

    Attributes:
        then: The server's own handler.
        stop: What it does.
    """

    def __init__(self, then: Handler, stop: _Stop) -> None:
        self.then = then
        self.stop = stop

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.stop.hear(functools.partial(self.then, number, None))


def _hear_signals(loop: asyncio.AbstractEventLoop, leaving: Departure) -> None:
    """Begin a departure with the signals by which the server is asked to stop."""
    if threading.current_thread() is not threading.main_thread():
        return  # Python hears signals on its main thread only; so does any server.
    handlers = {number: _living(signal.getsignal(number)) for number in STOP_SIGNALS}
    known = [handler.stop for handler in handlers.values() if isinstance(handler, _StopHandler)]
    stop = next((stop for stop in known if stop.loop is loop), None) or _Stop(loop)
    for number, handler in handlers.items():
        # Without a server's handler, the signal ends the process or is nobody's business.
        if not callable(handler) or handler is signal.default_int_handler:
            continue
        if not isinstance(handler, _StopHandler) or handler.stop is not stop:
            signal.signal(number, _StopHandler(handler, stop))
        stop.departures.add(leaving)


def _living(handler: Any) -> Any:
    """A handler, without what event loops that are gone have left in front of it."""
    while isinstance(handler, _StopHandler) and handler.stop.loop.is_closed():
        handler = handler.then
    return handler
