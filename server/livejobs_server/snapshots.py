"""What a new or returning viewer is shown: the row, the newest progress, the entries it lacks.

The order matters and is that of every read here: the row first, then what Redis knows newest, then
the entries. The caller has subscribed to the job's channel before, so whatever happens after the
row was read reaches it as a message.

Redis is asked first for everything it keeps, the database for what Redis lost. Where Redis does
not answer, everything comes from the database.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from sqlalchemy import select

from livejobs.database import AsyncDatabase, Steps
from livejobs.entries import Cursor, view_report
from livejobs.errors import RedisUnavailable
from livejobs.live import AsyncLive, Head
from livejobs.models import EntryRow, view_of
from livejobs.settings import Settings
from livejobs.statements import JobRow, Rows, jobs
from livejobs.views import JobView, Progress, Status, storable_text

from .push.exchange import Entry, Read, Snapshot

PAGE_ENTRIES: Final = 500
"""Entries in one page, at most."""
PAGE_BYTES: Final = 200_000
"""A page ends with the entry that reaches this size, in bytes."""
CHUNK_ENTRIES: Final = 100
"""Entries fetched at a time, so that large ones do not fill the memory before they are counted."""
ROWS_AT_ONCE: Final = 500
"""Rows in one query; databases limit the values of one statement."""
ROW_READS: Final = 3
"""So often a row is read again that was overtaken by a new attempt while it was read."""
CONCURRENT_JOBS: Final = 8
"""Jobs read at the same time; it leaves the database's pool to others too."""

logger = logging.getLogger("livejobs.snapshots")


class Current(NamedTuple):
    """A job as it is now.

    Attributes:
        row: Its row.
        view: The view of the row, with the newest progress.
        cursor: Its last entry.
        seq: Seq of that progress.
    """

    row: JobRow
    view: JobView
    cursor: Cursor
    seq: int


def entry_message(job_id: str, attempt: int, n: int, kind: str, body: str) -> bytes:
    """The wire message of an entry out of its row, the same bytes that Redis was given.

    Args:
        body: `EntryRow.body`: the message's fields after `job_id`, with the closing brace.
    """
    text = f'{{"type":"{kind}","id":"{attempt}-{n}","job_id":{json.dumps(job_id)},{body}'
    return text.encode()


def shape_of(row: JobRow) -> int:
    """Stands for all of a row's view that saving reports does not change; within this process."""
    children = (
        row.children_total, row.children_completed, row.children_failed, row.children_cancelled,
    )  # fmt: skip
    # A job that was cancelled and run again looks as before; but it is due at another time.
    times = row.due_at, row.run_at, row.cancel_requested_at, row.started_at, row.completed_at
    return hash((row.status, row.task, row.queue, row.max_attempts, times, children)) or 1


def can_exist(job_id: str) -> bool:
    """Whether a job may have this id: databases and Redis do not take every text."""
    return 0 < len(job_id) <= 255 and storable_text(job_id) == job_id


@dataclass(slots=True)
class _Sources:
    """What one batch of reads has learnt about Redis: after one failure it is left alone."""

    live: AsyncLive
    redis: bool = True

    async def head(self, job_id: str) -> Head | None:
        """What Redis knows newest; None where it knows nothing or does not answer."""
        if not self.redis:
            return None
        try:
            return await self.live.read_head(job_id)
        except RedisUnavailable as error:
            self._leave(error)
            return None

    async def entries(self, job_id: str, after: Cursor) -> list[Entry]:
        """Entries that Redis has after a cursor; there may be holes."""
        if not self.redis:
            return []
        try:
            stored = await self.live.read_entries(job_id, after, CHUNK_ENTRIES)
        except RedisUnavailable as error:
            self._leave(error)
            return []
        return [Entry(cursor.n, payload, kind) for cursor, kind, payload in stored]

    def _leave(self, error: Exception) -> None:
        if self.redis:
            logger.warning("snapshots come from the database alone: %s", error)
        self.redis = False


@dataclass(slots=True)
class _Page:
    """A page of entries while it grows; it stands after entry `at`."""

    at: int
    entries: list[Entry] = field(default_factory=list)
    size: int = 0
    complete: bool = True

    @property
    def full(self) -> bool:
        return len(self.entries) >= PAGE_ENTRIES or self.size >= PAGE_BYTES

    def take(self, found: Iterable[Entry], target: int) -> bool:
        """Take what follows without a hole, up to the target; whether that was anything."""
        before = self.at
        for entry in found:
            if entry.n != self.at + 1 or entry.n > target or self.full:
                break
            self.entries.append(entry)
            self.size += len(entry.payload)
            self.at = entry.n
        return self.at > before


class SnapshotReader:
    """Reads jobs for the relay and for REST.

    Args:
        database: Where the truth is.
        live: Redis.
        settings: Of this process.
    """

    def __init__(self, database: AsyncDatabase, live: AsyncLive, settings: Settings) -> None:
        self._database = database
        self._live = live
        self._settings = settings
        self._slots = asyncio.Semaphore(CONCURRENT_JOBS)

    async def read(self, reads: Sequence[Read]) -> dict[int, Snapshot]:
        """Answer many reads, by ticket.

        Raises:
            DatabaseUnavailable: The database is away.
        """
        rows = await self._rows({read.job_id for read in reads})
        sources = _Sources(self._live)
        snapshots = await asyncio.gather(
            *(self._snapshot(read, rows.get(read.job_id), sources) for read in reads)
        )
        return {read.ticket: snapshot for read, snapshot in zip(reads, snapshots, strict=True)}

    async def view(self, job_id: str) -> Current | None:
        """A job as it is now; None: there is none with this id.

        Raises:
            DatabaseUnavailable: The database is away.
        """
        row = (await self._rows({job_id})).get(job_id)
        if row is None:
            return None
        row, head = await self._with_head(row, _Sources(self._live))
        if row is None:
            return None
        view = view_of(row)
        progress, seq = _newest_progress(row, head)
        if progress is not None:
            newest = Progress.model_validate_json(progress)
            view = view.model_copy(update={"progress": newest})
        return Current(row, view, Cursor(row.attempt, _last_entry(row, head)), seq)

    async def present(self, rows: Rows) -> list[Snapshot]:
        """Jobs as they are now, without entries; what Redis knows of all comes in one go.

        Args:
            rows: Their rows, just read.
        """
        heads: dict[str, Head] = {}
        try:
            heads = await self._live.read_heads([row.id for row in rows]) if rows else {}
        except RedisUnavailable as error:
            logger.info("feeds are read from the database alone: %s", error)
        found = []
        for row in rows:
            now: JobRow | None = row
            head = heads.get(row.id)
            if head is not None and head.attempt > row.attempt:
                now, head = await self._with_head(row, _Sources(self._live))
            if now is None:
                found.append(Snapshot(job_id=row.id, found=False))
            else:
                found.append(_snapshot(now, head, last=_last_entry(now, head)))
        return found

    async def _rows(self, job_ids: set[str]) -> dict[str, JobRow]:
        wanted = [job_id for job_id in job_ids if can_exist(job_id)]
        rows: dict[str, JobRow] = {}
        for start in range(0, len(wanted), ROWS_AT_ONCE):
            found = await self._database.read(_select_rows(wanted[start : start + ROWS_AT_ONCE]))
            rows |= {row.id: row for row in found}
        return rows

    async def _snapshot(self, read: Read, row: JobRow | None, sources: _Sources) -> Snapshot:
        async with self._slots:
            row, head = await self._with_head(row, sources)
            if row is None:
                return Snapshot(job_id=read.job_id, found=False)
            last = _last_entry(row, head)
            page = _Page(_first_wanted(read, row.attempt, last))
            await self._fill(page, row, last, sources)
        more = page.full and page.at < last
        return _snapshot(
            row,
            head,
            entries=page.entries,
            # What neither side has yet is left to a later read.
            last=last if more else page.at,
            more=more,
            complete=page.complete,
            sure=sources.redis or Status(row.status).is_final,
        )

    async def _with_head(
        self, row: JobRow | None, sources: _Sources
    ) -> tuple[JobRow | None, Head | None]:
        """The row and what Redis knows newest, of one attempt.

        Where Redis speaks of a newer attempt than the row, that one was claimed after the row was
        read, and nothing here would tell how far the row's attempt came: the row is read again.
        """
        for _ in range(ROW_READS):
            head = None if row is None else await sources.head(row.id)
            if row is None or head is None or head.attempt <= row.attempt:
                return row, head
            row = (await self._rows({row.id})).get(row.id)
        return row, None

    async def _fill(self, page: _Page, row: JobRow, last: int, sources: _Sources) -> None:
        """Entries up to `last`, as long as the page has room and either side has them."""
        while page.at < last and not page.full:
            after = Cursor(row.attempt, page.at)
            newest = await sources.entries(row.id, after)
            if page.take(newest, last):
                continue
            saved = await self._database.read(_select_entries(row.id, after))
            if page.take((_stored(row, entry) for entry in saved), last):
                continue
            if not self._skip(page, row, newest, saved):
                break

    def _skip(self, page: _Page, row: JobRow, newest: Sequence[Entry], saved: Rows) -> bool:
        """Step over entries that are gone for good; False: the next one is only not there yet.

        The database gets the entries of an attempt in order, so what is missing below one that
        it has, or below the row's last, never comes.
        """
        if not saved and page.at >= row.last_n:
            return False
        if page.entries:
            # A page has no holes: the next one begins behind this one.
            page.size = PAGE_BYTES
            return True
        known = [*(entry.n for entry in newest), *(entry.n for entry in saved)]
        page.at = max(page.at, min(known) - 1 if known else row.last_n)
        page.complete = False
        return True


def _snapshot(
    row: JobRow,
    head: Head | None,
    *,
    last: int,
    entries: Sequence[Entry] = (),
    more: bool = False,
    complete: bool = True,
    sure: bool = True,
) -> Snapshot:
    view, seq = _view_json(row, head)
    return Snapshot(
        job_id=row.id,
        owner=row.owner,
        final=Status(row.status).is_final,
        attempt=row.attempt,
        version=row.version,
        seq=seq,
        view=view,
        entries=entries,
        last=last,
        more=more,
        complete=complete,
        shape=shape_of(row),
        sure=sure,
    )


def _select_rows(job_ids: Sequence[str]) -> Steps[Rows]:
    return (yield select(jobs).where(jobs.c.id.in_(job_ids)))


def _select_entries(job_id: str, after: Cursor) -> Steps[Rows]:
    return (
        yield select(EntryRow.n, EntryRow.kind, EntryRow.body)
        .where(EntryRow.job_id == job_id, EntryRow.attempt == after.attempt, EntryRow.n > after.n)
        .order_by(EntryRow.n)
        .limit(CHUNK_ENTRIES)
    )


def _stored(row: JobRow, entry: Any) -> Entry:
    return Entry(
        entry.n, entry_message(row.id, row.attempt, entry.n, entry.kind, entry.body), entry.kind
    )


def _last_entry(row: JobRow, head: Head | None) -> int:
    """The last entry of the row's attempt that anybody knows of."""
    saved: int = row.last_n
    return max(saved, head.n) if head is not None and head.attempt == row.attempt else saved


def _first_wanted(read: Read, attempt: int, last: int) -> int:
    """The entry after which a page begins."""
    if read.tail is not None:
        return max(0, last - read.tail)
    if read.after is None:
        return last
    return min(read.after.n, last) if read.after.attempt == attempt else 0


def _newest_progress(row: JobRow, head: Head | None) -> tuple[bytes | None, int]:
    """Progress in Redis that is newer than the row's, or None, and the seq of the newest.

    A job that is over shows what its row says: that is what it ended with.
    """
    if head is None or head.progress is None or head.attempt != row.attempt:
        return None, row.progress_seq
    if head.seq <= row.progress_seq or Status(row.status).is_final:
        return None, row.progress_seq
    return head.progress, head.seq


def _view_json(row: JobRow, head: Head | None) -> tuple[bytes, int]:
    """The view as JSON, with the newest progress as it came, and that progress' seq."""
    progress, seq = _newest_progress(row, head)
    report = view_report(view_of(row), row.progress_seq)
    shown = report.progress.encode() if progress is None else progress
    return report.before.encode() + shown + report.after.encode(), seq
