"""How much an owner may start by REST: so many jobs in a time, and so many that are not over.

The rate is counted in Redis, for all servers together. What Redis does not answer is let through.
"""

from __future__ import annotations

import logging
import math
import random
import time
from typing import Any, Final

from limits import RateLimitItem, parse
from limits.aio.storage import RedisClusterStorage, RedisStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from sqlalchemy import Table, func, literal, select

from livejobs.database import AsyncDatabase, Steps
from livejobs.live import ASYNC_OUTAGES, TIMEOUT_SECONDS, AsyncLive
from livejobs.models import SCHEMA_TOKEN, Job
from livejobs.settings import Settings
from livejobs.statements import WEBHOOK_TASK

from .problems import ApiProblem

PREFIX: Final = "lj:rate"
RETRY_SECONDS: Final = (5, 30)
"""When an owner with too many open jobs may try again: anywhere between, in whole seconds."""
SILENT_SECONDS: Final = 60.0
"""So long nothing more is said of a Redis that does not answer."""

_jobs: Final[Table] = Job.metadata.tables[f"{SCHEMA_TOKEN}.livejobs_jobs"]
_log = logging.getLogger("livejobs.api")


class Quotas:
    """What owners may start.

    Args:
        settings: The limits.
        database: Knows the open jobs.
        live: Redis.
    """

    def __init__(self, settings: Settings, database: AsyncDatabase, live: AsyncLive) -> None:
        self._most_open = settings.max_open_jobs
        self._rate = None if settings.enqueue_rate is None else parse(settings.enqueue_rate)
        self._database = database
        self._limiter = None
        if self._rate is not None:
            self._limiter = SlidingWindowCounterRateLimiter(_storage(settings, live))
        self._silent_until = 0.0

    async def take(self, owner: str, jobs: int = 1) -> None:
        """Count jobs that are about to be started.

        Args:
            owner: Whose they are.
            jobs: How many.

        Raises:
            ApiProblem: 429: they are too many, or come too soon.
            DatabaseUnavailable: The database is away.
        """
        if self._most_open:
            await self._check_open(owner, jobs)
        if self._rate is not None:
            await self._hit(self._rate, owner, jobs)

    async def _check_open(self, owner: str, jobs: int) -> None:
        opened = await self._database.read(_count_open(owner, self._most_open))
        if opened + jobs > self._most_open:
            raise ApiProblem(
                "too_many_open_jobs",
                f"You have {opened} jobs that are not over; {self._most_open} may be.",
                headers={"Retry-After": str(random.randint(*RETRY_SECONDS))},
            )

    async def _hit(self, rate: RateLimitItem, owner: str, jobs: int) -> None:
        assert self._limiter is not None
        try:
            if await self._limiter.hit(rate, owner, cost=jobs):
                return
            window = await self._limiter.get_window_stats(rate, owner)
        except ASYNC_OUTAGES as error:
            self._let_through(error)
            return
        later = max(1, math.ceil(window.reset_time - time.time()))
        raise ApiProblem(
            "rate_limited",
            f"You may start {rate.amount} jobs in {rate.get_expiry()} s.",
            headers={"Retry-After": str(later)},
        )

    def _let_through(self, error: Exception) -> None:
        now = time.monotonic()
        if now >= self._silent_until:
            self._silent_until = now + SILENT_SECONDS
            _log.warning("jobs are started without counting them, Redis is away: %s", error)


def _storage(settings: Settings, live: AsyncLive) -> Any:
    if settings.redis_cluster:
        address = settings.redis_url.partition("://")[2].partition("/")[0]
        return RedisClusterStorage(
            f"async+redis+cluster://{address}",
            implementation="redispy",
            key_prefix=PREFIX,
            socket_timeout=TIMEOUT_SECONDS,
            socket_connect_timeout=TIMEOUT_SECONDS,
        )
    # The connections that are there anyway, with their short time-outs.
    pool: Any = live.client.connection_pool
    return RedisStorage(
        "async+redis://", implementation="redispy", key_prefix=PREFIX, connection_pool=pool
    )


def _count_open(owner: str, most: int) -> Steps[int]:
    """How many jobs of an owner are not over; no more than `most` are counted."""
    opened = (
        select(literal(1).label("one"))
        .where(
            _jobs.c.owner == owner,
            _jobs.c.completed_at.is_(None),
            # They wait for somebody else's server, for hours.
            _jobs.c.task != WEBHOOK_TASK,
        )
        .limit(most)
        .subquery()
    )
    rows = yield select(func.count().label("number")).select_from(opened)
    return int(rows[0].number)
