"""A hub with its relay at work, beside a real Redis and a database that does as it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff

from livejobs.entries import channel
from livejobs.errors import DatabaseUnavailable
from livejobs.settings import Settings
from livejobs_server.push.exchange import Entry, Read, Snapshot
from livejobs_server.push.feed_exchange import Changes, Glance, Listing, ListJobs, ReadJobs
from livejobs_server.push.feeds import Feeds
from livejobs_server.push.hub import Hub
from livejobs_server.push.relay import Relay

from ..support.waiting import wait_until_async
from ..unit.hub_stage import Recorder, entries, published

NOTICED_SECONDS = 3.0
"""A connection that is dead is found out within this time."""


@dataclass
class Truth:
    """Stands for the database: answers reads, unless told to fail."""

    last: dict[str, int] = field(default_factory=dict)
    reads: int = 0
    most_at_once: int = 0
    failures: int = 0
    poison: str | None = None
    hangs: bool = False
    _at_once: int = 0

    async def read(self, reads: Sequence[Read]) -> Mapping[int, Snapshot]:
        self.reads += len(reads)
        self._at_once += len(reads)
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            await (asyncio.Event().wait() if self.hangs else asyncio.sleep(0))
            if self.failures:
                self.failures -= 1
                raise DatabaseUnavailable("the database is away")
            return {read.ticket: self._snapshot(read) for read in reads}
        finally:
            self._at_once -= len(reads)

    async def list_jobs(self, read: ListJobs) -> Listing:
        """No feed has any job."""
        return Listing(0)

    async def read_jobs(self, read: ReadJobs) -> Mapping[str, Snapshot]:
        """No feed has any job."""
        return {}

    async def changes(
        self, since: int | None, seconds: float, after: Glance | None = None
    ) -> Changes:
        """What a round finds: all jobs."""
        return Changes(0, [self._glance(job_id, last) for job_id, last in self.last.items()])

    def _glance(self, job_id: str, last: int) -> Glance:
        return Glance(job_id, "me", None, False, 1, 1, 0, last, 0, 0)

    def _snapshot(self, read: Read) -> Snapshot:
        if read.job_id == self.poison:
            raise LookupError("a row that cannot be read")
        last = self.last.get(read.job_id, 0)
        stored: list[Entry] = []
        if read.after is not None:
            stored = entries(*range(read.after.n + 1, last + 1))
        return Snapshot(
            job_id=read.job_id,
            owner="me",
            attempt=1,
            version=1,
            view=b"{}",
            entries=stored,
            last=last,
        )


class Bench:
    """A hub with its relay at work, and Redis beside it."""

    def __init__(self, url: str, cluster: bool = False) -> None:
        self.settings = Settings(redis_url=url, redis_cluster=cluster)
        self.hub = Hub()
        self.feeds = Feeds()
        self.truth = Truth()
        self.relay = Relay(self.hub, self.feeds, self.truth, self.settings)
        self.task = asyncio.create_task(self.relay.run())
        make = redis.asyncio.RedisCluster if cluster else redis.asyncio.Redis
        self.redis: Any
        # Its idle connections may have been cut.
        self.redis = make.from_url(url, retry=Retry(ConstantBackoff(0.05), 20))

    def watch(self, viewer: Recorder, job_id: str) -> None:
        self.hub.subscribe(viewer, job_id)
        self.relay.kick()

    async def publish(self, job_id: str, n: int) -> None:
        """A worker appends entry `n`."""
        self.truth.last[job_id] = n
        command = "SPUBLISH" if self.settings.redis_cluster else "PUBLISH"
        await self.redis.execute_command(command, channel(job_id), published("log", n=n))

    async def connected(self, state: bool = True, seconds: float = 10.0) -> None:
        await wait_until_async(
            lambda: self.relay.connected is state, description="connected", seconds=seconds
        )

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.wait([self.task], timeout=5)
        assert self.task.done(), "the relay did not end"
        await self.redis.aclose()


async def told(viewer: Recorder, *expected: str) -> None:
    """Wait until the viewer has been told this much, and check that it is this."""
    await wait_until_async(
        lambda: len(viewer.frames) >= len(expected), description=f"told {expected}"
    )
    assert viewer.told() == list(expected)
