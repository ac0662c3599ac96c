"""Spans for the ends of jobs that are told to viewers; only where traces are taken."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Final

from livejobs import reads, traces
from livejobs.database import AsyncDatabase
from livejobs.errors import DatabaseUnavailable

UNDER_WAY: Final = 100
"""So many may wait for their job's trace; those beyond have no span."""

_log = logging.getLogger("livejobs.server")


class Deliveries:
    """Reads to which trace a job belongs, once its end has been told.

    Args:
        database: The job records: the context is in the message.
    """

    def __init__(self, database: AsyncDatabase) -> None:
        self._database = database
        self._tasks: set[asyncio.Task[None]] = set()

    def told(self, job_id: str, began: int) -> None:
        """The end of a job has just been told.

        Args:
            began: When it was heard, in nanoseconds since the epoch.
        """
        if len(self._tasks) < UNDER_WAY:
            task = asyncio.create_task(self._trace(job_id, began, time.time_ns()))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """Wait for no trace any more."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _trace(self, job_id: str, began: int, ended: int) -> None:
        try:
            row = await self._database.read(reads.job(job_id))
        except DatabaseUnavailable as error:
            _log.info("the delivery of job %s is not traced: %s", job_id, error)
            return
        if row is not None:
            headers = (row.message or {}).get("headers") or {}
            traces.delivered(row.task, job_id, began, ended, headers)
