"""How many jobs there are, and how long the oldest waits: counted seldom, since that costs time."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, func, or_, select

from livejobs.database import AsyncDatabase, Steps
from livejobs.errors import DatabaseUnavailable
from livejobs.models import db_now
from livejobs.statements import Rows, jobs
from livejobs.views import Status

from .samples import Sample

OPEN_SECONDS: Final = 5.0
"""Open jobs are counted that often at most; an index leads to them."""
FINISHED_SECONDS: Final = 60.0
"""Finished ones, for which the whole table is read."""
SHARE: Final = 0.02
"""Counting may take this share of the time: the longer it takes, the less often it is done."""
PATIENCE_SECONDS: Final = 1.0
"""So long somebody who asks waits for a count; then the one before has to do."""

_log = logging.getLogger("livejobs.server")


class _Count:
    """One query, and what it found last.

    Args:
        which: What is counted.
        every: Seconds between two counts, at least.
    """

    def __init__(
        self, which: str, every: float, database: AsyncDatabase, ask: Callable[[], Steps[Rows]]
    ) -> None:
        self.which = which
        self.rows: Rows = []
        self.counted_at: float | None = None
        self.answered = False
        self._every = every
        self._database = database
        self._ask = ask
        self._due_at = 0.0
        self._task: asyncio.Task[None] | None = None

    async def refresh(self) -> None:
        """Count where that is due, and wait for it a while."""
        if self._task is None and time.monotonic() >= self._due_at:
            self._task = asyncio.create_task(self._count(), name=f"livejobs-count-{self.which}")
        if self._task is not None:
            await asyncio.wait([self._task], timeout=PATIENCE_SECONDS)

    async def stop(self) -> None:
        """Count no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _count(self) -> None:
        began = time.monotonic()
        try:
            self.rows = await self._database.read(self._ask())
            self.counted_at = time.monotonic()
            self.answered = True
        except DatabaseUnavailable as error:
            self.answered = False
            _log.info("jobs cannot be counted now: %s", error)
        finally:
            now = time.monotonic()
            self._due_at = now + max(self._every, (now - began) / SHARE)
            self._task = None


class JobNumbers:
    """What the database says of all jobs together.

    Args:
        database: The job records.
    """

    def __init__(self, database: AsyncDatabase) -> None:
        self._open = _Count("open", OPEN_SECONDS, database, _count_open)
        self._finished = _Count("finished", FINISHED_SECONDS, database, _count_finished)
        self._oldest = _Count("oldest", OPEN_SECONDS, database, _find_oldest)

    async def samples(self) -> list[Sample]:
        """The numbers, as new as they may be."""
        counts = (self._open, self._finished, self._oldest)
        for count in counts:
            await count.refresh()
        return list(self._samples())

    async def stop(self) -> None:
        """Count no more."""
        for count in (self._open, self._finished, self._oldest):
            await count.stop()

    def _samples(self) -> Iterator[Sample]:
        now = time.monotonic()
        for count in (self._open, self._finished):
            for row in count.rows:
                yield Sample("jobs", (row.status, row.queue), row.number)
            if count.counted_at is not None:
                yield Sample("jobs_counted_seconds", (count.which,), now - count.counted_at)
        for row in self._oldest.rows:
            # It has grown since.
            since = now - (self._oldest.counted_at or now)
            age = max(0.0, (row.now - row.since).total_seconds())
            yield Sample("oldest_pending_seconds", (row.queue,), age + since)
        yield Sample("database_up", (), self._open.answered)


def _count_open() -> Steps[Rows]:
    return (yield _grouped(jobs.c.completed_at.is_(None)))


def _count_finished() -> Steps[Rows]:
    return (yield _grouped(jobs.c.completed_at.is_not(None)))


def _grouped(condition: ColumnElement[bool]) -> Select[Any]:
    return (
        select(jobs.c.status, jobs.c.queue, func.count().label("number"))
        .where(condition)
        .group_by(jobs.c.status, jobs.c.queue)
    )


def _find_oldest() -> Steps[Rows]:
    since = func.min(func.coalesce(jobs.c.run_at, jobs.c.created_at)).label("since")
    return (
        yield select(jobs.c.queue, since, db_now().label("now"))
        .where(
            jobs.c.completed_at.is_(None),
            jobs.c.status == Status.PENDING,
            jobs.c.held.is_(False),
            or_(jobs.c.run_at.is_(None), jobs.c.run_at <= db_now()),
        )
        .group_by(jobs.c.queue)
    )
