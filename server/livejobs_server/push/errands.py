"""The reads that feeds want, a few at a time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from .exchange import Snapshot
from .feed_exchange import FeedRead, Listing, ListJobs, ReadJobs
from .feeds import Feeds

ERRANDS: Final = 3
"""Reads under way at a time."""
READ_SECONDS: Final = 10.0
"""A read that takes longer has failed."""

logger = logging.getLogger("livejobs.relay")


class FeedReader(Protocol):
    """Where feeds are read."""

    async def list_jobs(self, read: ListJobs) -> Listing:
        """Answer a `ListJobs`.

        Raises:
            DatabaseUnavailable: The database is away.
        """
        ...

    async def read_jobs(self, read: ReadJobs) -> Mapping[str, Snapshot]:
        """Answer a `ReadJobs`, by job; those that are not in the scope are left out.

        Raises:
            DatabaseUnavailable: The database is away.
        """
        ...


class Errands:
    """Reads for feeds, under way.

    Args:
        feeds: Who follows which feed.
        reader: Where they are read.
        kick: Has done what the feeds want.
    """

    def __init__(self, feeds: Feeds, reader: FeedReader, kick: Callable[[], None]) -> None:
        self._feeds = feeds
        self._reader = reader
        self._kick = kick
        self._fails = False
        self.under_way: set[asyncio.Task[None]] = set()

    @property
    def room(self) -> int:
        """Reads that can be begun now."""
        return ERRANDS - len(self.under_way)

    def begin(self, read: FeedRead) -> None:
        """Do a read and hand its answer over."""
        task = asyncio.create_task(self._do(read))
        self.under_way.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self.under_way.discard(task)
        self._kick()

    async def _do(self, read: FeedRead) -> None:
        listing: Listing | None = None
        snapshots: Mapping[str, Snapshot] | None = None
        try:
            async with asyncio.timeout(READ_SECONDS):
                if isinstance(read, ListJobs):
                    listing = await self._reader.list_jobs(read)
                else:
                    snapshots = await self._reader.read_jobs(read)
            self._fails = False
        except Exception as error:
            if not self._fails:
                logger.warning("feeds cannot be read, trying again: %s", str(error) or repr(error))
            self._fails = True
        finally:
            if isinstance(read, ListJobs):
                self._feeds.listed(read, listing)
            else:
                self._feeds.read(read, snapshots)
