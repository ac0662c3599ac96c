"""What is the same for every WebSocket, whoever writes to it: when it ends, and with which code."""

from __future__ import annotations

import time
from typing import Final

from .closes import (
    DONE,
    INVALID,
    NO_CREDENTIALS,
    RESTART,
    STALLED,
    UNKNOWN,
    UNWATCHED,
    Close,
)
from .watcher import Ending, Watcher
from .wire import END, MISSING, PROBLEM, UNSUBSCRIBED, Frame

AUTH_SECONDS: Final = 10.0
"""Time for the first `auth` of a connection whose handshake carried no credentials."""

_CLOSES: Final = {
    Ending.EXPIRED: NO_CREDENTIALS,
    Ending.LEAVING: RESTART,
    Ending.STALLED: STALLED,
}
_CLOSES_AFTER: Final = {END: DONE, MISSING: UNKNOWN, UNSUBSCRIBED: UNWATCHED}
"""How one job's own socket is closed after the message that ended its watch."""


def auth_deadline() -> float:
    """When a connection that begins now has to have had credentials, by the monotonic clock."""
    return time.monotonic() + AUTH_SECONDS


class SocketWatcher(Watcher):
    """A WebSocket that has been accepted. It has a `job_id` where that is all it may watch."""

    __slots__ = ()

    @property
    def auth_until(self) -> float:
        """How long there may be no credentials, by the monotonic clock."""
        raise TypeError(type(self))

    def seconds_left(self) -> float:
        """How long the credentials are good, or how long there may be none yet."""
        if self.viewer is None:
            return self.auth_until - time.monotonic()
        return super().seconds_left()

    @property
    def farewell(self) -> Close:
        """How it is to be closed, once it is to end."""
        found = None if self.ending is None else _CLOSES.get(self.ending)
        return found or self._outcome or DONE

    def end_with(self, close: Close) -> None:
        """End it, for the first reason given."""
        if self.ending is None:
            self._outcome = close
            self.end(Ending.OVER)

    def note(self, frame: Frame) -> None:
        """Remember what ended the watch of one job's own socket; other answers may follow it."""
        if self.job_id is None or self.ending is not None:
            return
        if frame.kind == PROBLEM:
            # It is about the watch only where there has been none.
            if self._outcome is None and not self.watching:
                self._outcome = INVALID
        else:
            self._outcome = _CLOSES_AFTER.get(frame.kind, self._outcome)

    def end_if_over(self) -> None:
        """End one job's own socket where everything about that job has been sent."""
        if self._outcome is not None and self.has_told_all:
            self.end_with(self._outcome)
