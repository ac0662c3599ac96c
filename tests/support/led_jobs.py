"""A job that is led by hand: the test calls the transitions and publishes as a worker does.

So each step comes exactly when the test wants it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

from livejobs import attempts, reads, transitions
from livejobs.database import AsyncDatabase
from livejobs.entries import Entry, ProgressReport, feed_channels
from livejobs.errors import RedisUnavailable
from livejobs.live import AsyncLive, Publication
from livejobs.statements import JobRow, Program, Reported

MESSAGE: dict[str, Any] = {
    "body": "[[], {}, {}]",
    "binary": False,
    "content_type": "application/json",
    "content_encoding": "utf-8",
    "headers": {},
    "properties": {},
    "exchange": "",
    "routing_key": "led-by-hand",
    "queue": "led-by-hand",
}
"""What a keeper may send to the broker when the job is due; no worker takes it from there."""
PUBLISH_AGAIN_SECONDS = (0.1, 1.0, 5.0)
"""As workers do where Redis does not answer in time: on a busy machine it may not."""


class LedJob:
    """A job whose worker is the test.

    Attributes:
        id: Its id.
        said: Texts of all entries of the running attempt, in order.
    """

    def __init__(self, job_id: str, database: AsyncDatabase, live: AsyncLive) -> None:
        self.id = job_id
        self.said: list[str] = []
        self._database = database
        self._live = live
        self._attempt = 0
        self._feeds: list[str] = []
        self._seq = 0
        self._progress: dict[str, Any] | None = None
        self._unsaved: list[Entry] = []

    async def claim(self) -> JobRow:
        """A worker begins: a new attempt."""
        row = await self._change(attempts.claim(self.id, None, uuid4().hex, 60.0))
        self._attempt = row.attempt
        self._feeds = feed_channels(row.owner, row.parent_id)
        self.said, self._seq, self._progress, self._unsaved = [], 0, None, []
        return row

    async def say(self, *texts: str, stored: bool = True) -> None:
        """Publish entries, log and output in turn; `stored` False: Redis never hears of them."""
        entries = []
        for text in texts:
            self.said.append(text)
            entries.append(_entry(len(self.said), text))
        self._unsaved += entries
        if stored:
            await self._publish(entries=entries)

    async def progress(self, current: int, total: int = 100) -> None:
        """Publish progress."""
        self.note_progress(current, total)
        report = ProgressReport(self._seq, json.dumps(self._progress))
        await self._publish(progress=report)

    def note_progress(self, current: int, total: int = 100) -> None:
        """Progress that Redis never hears of."""
        self._seq += 1
        self._progress = {"current": current, "total": total, "data": {}}

    def forget(self, n: int) -> None:
        """Entry `n` never reaches the database."""
        self._unsaved = [entry for entry in self._unsaved if entry.n != n]

    async def save(self, keep: int = 10_000) -> JobRow:
        """Write to the database what was reported; nobody is told."""
        row = await self._database.run(
            attempts.report(self.id, self._attempt, self._reported(keep))
        )
        assert row is not None
        self._unsaved = []
        return row

    async def complete(self, result: Any = None, *, tell: bool = True) -> JobRow:
        """The job has its result; `tell` False: the worker dies between COMMIT and PUBLISH."""
        program = attempts.complete(self.id, self._attempt, result, self._reported())
        return await self._change(program, tell=tell)

    async def fail(self, message: str = "It broke.") -> JobRow:
        """The job fails."""
        error = {"type": "ValueError", "message": message}
        return await self._change(attempts.fail(self.id, self._attempt, error, self._reported()))

    async def retry(self) -> JobRow:
        """The attempt fails, the next one may begin at once."""
        return await self._change(
            attempts.retry(
                self.id,
                self._attempt,
                delay=0,
                error=None,
                message=MESSAGE,
                reported=self._reported(),
            )
        )

    async def requeue(self) -> JobRow:
        """A person wants it run again."""
        return await self._change(transitions.requeue(self.id))

    async def read(self) -> JobRow:
        """The row as the database has it."""
        row = await self._database.read(reads.job(self.id))
        assert row is not None
        return row

    async def _change(self, program: Program, tell: bool = True) -> JobRow:
        row = await self._database.run(program)
        assert row is not None, "the job is not in the state this change starts from"
        self._unsaved = []
        if tell:
            await self._live.publish_view(row)
        return row

    async def _publish(self, **what: Any) -> None:
        publication = Publication(self.id, self._attempt, len(self.said), feeds=self._feeds, **what)
        for pause in PUBLISH_AGAIN_SECONDS:
            try:
                await self._live.publish(publication)
            except RedisUnavailable:
                await asyncio.sleep(pause)
            else:
                return
        await self._live.publish(publication)

    def _reported(self, keep: int = 10_000) -> Reported:
        return Reported(
            progress=self._progress,
            seq=self._seq,
            entries=list(self._unsaved),
            last_n=len(self.said),
            keep=keep,
        )


def _entry(n: int, text: str) -> Entry:
    if n % 2:
        line = {"at": "2024-11-15T10:30:00.000Z", "level": "info", "text": text}
        return Entry(n, "log", f'"lines":{json.dumps([line])}}}')
    return Entry(n, "output", f'"text":{json.dumps(text)}}}')


def entry_text(message: dict[str, Any]) -> str:
    """The text of an entry that `LedJob.say` published."""
    text: str = message["lines"][0]["text"] if message["type"] == "log" else message["text"]
    return text


MakeJob = Callable[..., Awaitable[LedJob]]
