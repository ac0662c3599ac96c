"""The round: what is watched is compared with the database, again and again.

It brings what no message brought: a worker that died between COMMIT and PUBLISH, a message that
was lost, a feed that could not be told. While Redis is away, it is where everything comes from.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Final, Protocol

from .feed_exchange import OVERLAP_SECONDS, Changes, Glance
from .feeds import Feeds
from .hub import Hub
from .outage import Outage

ROUND_SECONDS: Final = 5.0
"""Between two rounds."""
OFFLINE_ROUND_SECONDS: Final = 1.0
"""The same while Redis is away."""
READ_SECONDS: Final = 10.0
"""A page of a round that takes longer has failed."""
_MICROSECONDS: Final = 1_000_000

logger = logging.getLogger("livejobs.rounds")


class ChangesReader(Protocol):
    """Where changes are read."""

    async def changes(
        self, since: int | None, seconds: float, after: Glance | None = None
    ) -> Changes:
        """What changed since a moment of the database's clock, in microseconds since the epoch.

        Args:
            since: The moment; None: `seconds` ago.
            after: The last job of the page before; None: this is the first page.

        Raises:
            DatabaseUnavailable: The database is away.
        """
        ...


class Rounds:
    """Rounds for as long as anybody watches anything.

    Args:
        hub: Who watches which job.
        feeds: Who follows which feed.
        reader: Where changes are read.
        outage: Whether Redis is away.
        kick: Has done what hub and feeds want.
    """

    def __init__(
        self,
        hub: Hub,
        feeds: Feeds,
        reader: ChangesReader,
        outage: Outage,
        kick: Callable[[], None],
    ) -> None:
        self._hub = hub
        self._feeds = feeds
        self._reader = reader
        self._outage = outage
        self._kick = kick
        self._wake = asyncio.Event()
        # When the last good round was, by the database; else how long somebody may be watching.
        self._since: int | None = None
        self._unwatched_at = 0.0
        self._fails = False
        self._stopped = False

    def hurry(self) -> None:
        """Make a round now: the connection has changed."""
        self._wake.set()

    def stop(self) -> None:
        """End after the round under way."""
        self._stopped = True
        self._wake.set()

    async def run(self) -> None:
        """Make rounds until stopped."""
        self._unwatched_at = asyncio.get_running_loop().time()
        self._since, self._stopped = None, False
        self._outage.listen(self.hurry)
        try:
            while not self._stopped:
                await self.round()
                await self._pause()
        finally:
            self._outage.forget(self.hurry)

    async def round(self) -> None:
        """Compare everything that is watched with what has changed."""
        now = asyncio.get_running_loop().time()
        self._hub.let_go()
        if not (self._hub.topics or self._feeds.feeds):
            self._since, self._unwatched_at = None, now
            return
        since = None if self._since is None else self._since - int(OVERLAP_SECONDS * _MICROSECONDS)
        seconds = now - self._unwatched_at + OVERLAP_SECONDS
        try:
            self._since = await self._look(since, seconds)
            self._feeds.renew(self._since)
        except Exception as error:
            if not self._fails:
                reason = str(error) or type(error).__name__
                logger.warning("what changed cannot be read, trying again: %s", reason)
            self._fails = True
        else:
            self._fails = False

    async def _look(self, since: int | None, seconds: float) -> int:
        """Compare all that changed; returns the time of the first page."""
        began: int | None = None
        after: Glance | None = None
        while True:
            async with asyncio.timeout(READ_SECONDS):
                page = await self._reader.changes(since, seconds, after)
            began = page.at if began is None else began
            self._hub.look(page)
            self._feeds.look(page)
            self._kick()
            if not page.more:
                return began
            after = page.jobs[-1]

    async def _pause(self) -> None:
        seconds = OFFLINE_ROUND_SECONDS if self._outage.lasts else ROUND_SECONDS
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        self._wake.clear()
