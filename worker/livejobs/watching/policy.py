"""When to reconnect, by which transport, and what was already seen: decisions without I/O."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from enum import StrEnum

from ..entries import START, Cursor
from ..views import JobMessage, JobView, LogMessage, OutputMessage, ProgressMessage, ServerMessage

FIRST_CEILING = 0.5
"""Longest delay before the second reconnect in a row, in seconds; it doubles from there on."""

LAST_CEILING = 30.0
"""Longest delay ever, in seconds."""

STABLE_AFTER = 1.0
"""Life of a connection, in seconds, after which the next reconnect counts as the first again.

Without it a server that accepts and hangs up at once would be called in a tight loop; much longer,
and viewers of a server that restarts twice would stay away for half a minute.
"""

REFUSALS = 2
"""Failures to open, one after the other, after which a transport is given up for a while."""

UPWARD_FIRST = 60.0
"""Time on a lower transport before a better one is tried again, in seconds; doubles each time."""

UPWARD_LAST = 960.0
"""Longest time between two such tries, in seconds."""

_BUSY_STEP = 4
"""Steps of doubling skipped when the server said that it has too much to do."""


class Transport(StrEnum):
    """A way messages come in, best first."""

    WEBSOCKET = "websocket"
    SSE = "sse"
    POLL = "poll"


class Reconnection:
    """Decides the next transport and the delay before it; the caller does both.

    The caller connects by `transport`, says `opened()` at the first message and `closed()` when
    the connection ended or could not be opened, and sleeps for what that returns. On a lower
    transport it hangs up once `upward_at` has passed and says `upward()`.

    The delays are "full jitter": https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/

    Args:
        transports: Those allowed, best first.
        clock: Monotonic time in seconds.
        chance: A random number in [0, 1).
    """

    def __init__(
        self,
        transports: Sequence[Transport] = tuple(Transport),
        *,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._transports = tuple(transports)
        self._clock = clock
        self._chance = chance
        self._level = 0
        self._refusals = 0
        self._tries = 0
        self._opened_at: float | None = None
        self._trying_upward = False
        self._upward_interval = UPWARD_FIRST
        self._upward_at: float | None = None

    @property
    def transport(self) -> Transport:
        """The transport to connect by."""
        return self._transports[self._level]

    def upward_in(self) -> float | None:
        """Seconds until a better transport is due a try, None on the best one."""
        return None if self._upward_at is None else max(0.0, self._upward_at - self._clock())

    def opened(self) -> None:
        """The connection works: its first message came."""
        if self._opened_at is not None:
            return
        self._opened_at = self._clock()
        self._refusals = 0
        if self._trying_upward:
            self._trying_upward = False
            self._upward_interval = UPWARD_FIRST
        self._plan_upward()

    def upward(self) -> None:
        """Hang up and try the next better transport at once."""
        self._opened_at = None
        self._begin_upward()

    def closed(self, *, after: float | None = None, busy: bool = False) -> float:
        """The connection ended, or could not be opened.

        Args:
            after: Seconds that the server asked to wait, None where it did not.
            busy: The server has too much to do: never come back at once.

        Returns:
            Seconds to wait before connecting by `transport`, which may have changed.
        """
        refused = self._opened_at is None
        if self._opened_at is not None and self._clock() - self._opened_at >= STABLE_AFTER:
            self._tries = 0
        self._opened_at = None
        if refused and self._trying_upward:
            self._back_down()
            return 0.0
        if refused:
            self._refuse()
        elif self._upward_at is not None and self._clock() >= self._upward_at:
            self._begin_upward()
        if busy:
            self._tries = max(self._tries, _BUSY_STEP)
        delay = self._jitter() if after is None else after
        self._tries += 1
        return delay

    def _jitter(self) -> float:
        if self._tries == 0:
            return 0.0
        steps = min(self._tries - 1, 16)
        return self._chance() * min(LAST_CEILING, FIRST_CEILING * 2.0**steps)

    def _refuse(self) -> None:
        self._refusals += 1
        if self._refusals < REFUSALS:
            return
        self._refusals = 0
        # When even the last one fails it is not the transports' fault: start again at the best.
        self._level = (self._level + 1) % len(self._transports)
        self._plan_upward()

    def _begin_upward(self) -> None:
        self._level -= 1
        self._refusals = 0
        self._trying_upward = True
        self._upward_at = None

    def _back_down(self) -> None:
        self._trying_upward = False
        self._level += 1
        self._upward_interval = min(UPWARD_LAST, self._upward_interval * 2)
        self._plan_upward()

    def _plan_upward(self) -> None:
        if self._level == 0:
            self._upward_at = None
        elif self._upward_at is None:
            self._upward_at = self._clock() + self._upward_interval


class Bookmark:
    """How far a viewer has read; lets each entry pass once, and nothing older than what it saw.

    Args:
        after: The last entry already seen.
    """

    def __init__(self, after: Cursor = START) -> None:
        self.cursor = after
        self._view: JobView | None = None
        self._progress = (0, 0)

    def accept(self, message: ServerMessage) -> bool:
        """Whether `message` is news; if so, it counts as seen from now on."""
        match message:
            case LogMessage() | OutputMessage():
                return self._accept_entry(Cursor.parse(message.id))
            case ProgressMessage():
                return self._accept_progress(message.attempt, message.seq)
            case JobMessage():
                return self._accept_view(message.job)
            case _:
                return True

    # Only entries move the cursor: a view that was read before the entries in front of it came
    # in must not make a reconnect skip them.
    def _accept_entry(self, cursor: Cursor) -> bool:
        if cursor <= self.cursor:
            return False
        self.cursor = cursor
        return True

    def _accept_progress(self, attempt: int, seq: int) -> bool:
        if (attempt, seq) <= self._progress:
            return False
        self._progress = (attempt, seq)
        return True

    def _accept_view(self, view: JobView) -> bool:
        seen = self._view
        if seen is not None and (view.version < seen.version or view == seen):
            return False
        self._view = view
        # What an older attempt still says is over.
        self._progress = max(self._progress, (view.attempt, 0))
        return True
