"""What feeds and rounds read: which jobs there are, how far they are, and what was deleted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Select, and_, exists, literal, not_, select, tuple_
from sqlalchemy.sql.expression import ColumnElement

from livejobs.database import Steps
from livejobs.models import UtcDateTime, db_now
from livejobs.statements import DELETIONS_KEPT_SECONDS, JobRow, Rows, deletions, jobs
from livejobs.views import Status

from .push.exchange import Snapshot
from .push.feed_exchange import (
    MAX_MEMBERS,
    OVERLAP_SECONDS,
    Changes,
    Deleted,
    Glance,
    Listing,
    ListJobs,
    ReadJobs,
)
from .push.scope import Scope
from .push.times import microseconds_of, moment_of
from .snapshots import SnapshotReader, can_exist, shape_of
from .tagging import has_tag

PAGE_CHANGES: Final = 5_000
"""Changed jobs in one page of a round."""
MAX_DELETIONS: Final = 10_000
"""Deletions told at a time."""
_SHAPED: Final = (
    jobs.c.id, jobs.c.owner, jobs.c.parent_id, jobs.c.status, jobs.c.attempt, jobs.c.version,
    jobs.c.progress_seq, jobs.c.last_n, jobs.c.updated_at, jobs.c.max_attempts, jobs.c.due_at,
    jobs.c.run_at, jobs.c.cancel_requested_at, jobs.c.started_at, jobs.c.completed_at,
    jobs.c.children_total, jobs.c.children_completed, jobs.c.children_failed,
    jobs.c.children_cancelled, jobs.c.task, jobs.c.queue,
)  # fmt: skip


class FeedReader(SnapshotReader):
    """Reads jobs one by one as its base does, and many at a time for feeds and rounds."""

    async def list_jobs(self, read: ListJobs) -> Listing:
        """Which jobs a feed begins with.

        Raises:
            DatabaseUnavailable: The database is away.
        """
        since = None if read.since is None else moment_of(read.since)
        return await self._database.read(_listing(read.scope, read.open, since, self._dialect))

    async def read_jobs(self, read: ReadJobs) -> Mapping[str, Snapshot]:
        """Jobs of a feed as they are now; those that are not in its scope are left out.

        Raises:
            DatabaseUnavailable: The database is away.
        """
        wanted = [job_id for job_id in read.job_ids if can_exist(job_id)]
        where = and_(jobs.c.id.in_(wanted), _in_scope(read.scope, self._dialect))
        rows = await self._database.read(_read(select(jobs).where(where)))
        snapshots = await self.present(rows)
        return {snapshot.job_id: snapshot for snapshot in snapshots if snapshot.found}

    async def changes(
        self, since: int | None, seconds: float, after: Glance | None = None
    ) -> Changes:
        """What changed since a moment; see `rounds.ChangesReader`.

        Raises:
            DatabaseUnavailable: The database is away.
        """
        moment = None if since is None else moment_of(since)
        return await self._database.read(_changes(moment, seconds, after))

    @property
    def _dialect(self) -> str:
        return self._database.dialect


def _listing(
    scope: Scope, wants_open: bool, since: datetime | None, dialect: str
) -> Steps[Listing]:
    now = (yield select(db_now().label("now")))[0].now
    where = _in_scope(scope, dialect)
    rows: list[JobRow] = []
    if wants_open:
        rows += yield _newest(and_(where, jobs.c.completed_at.is_(None)))
    if since is not None:
        rows += yield _newest(and_(where, jobs.c.updated_at >= since))
    glances = {row.id: _glance(row) for row in rows}
    listed = sorted(glances.values(), key=lambda glance: (glance.changed, glance.job_id))
    complete = len(listed) <= MAX_MEMBERS
    deleted: list[Deleted] = []
    if since is not None:
        found = yield _deleted(since, _deleted_in(scope))
        deleted = list(map(_deletion, found))
        # What was deleted earlier is not known any more.
        is_known = (now - since).total_seconds() < DELETIONS_KEPT_SECONDS - OVERLAP_SECONDS
        complete = complete and len(deleted) < MAX_DELETIONS and is_known
    parents: Rows = ()
    if scope.parent_id is not None:
        parents = yield select(jobs.c.owner).where(jobs.c.id == scope.parent_id)
    return Listing(
        microseconds_of(now),
        listed[-MAX_MEMBERS:],
        deleted,
        complete,
        parents[0].owner if parents else None,
    )


def _changes(since: datetime | None, seconds: float, after: Glance | None) -> Steps[Changes]:
    clock = (yield select(db_now().label("now"), db_now(-seconds).label("since")))[0]
    since = since or clock.since
    statement = select(*_SHAPED).where(jobs.c.updated_at >= literal(since, UtcDateTime()))
    if after is not None:
        last = tuple_(literal(moment_of(after.changed), UtcDateTime()), literal(after.job_id))
        statement = statement.where(tuple_(jobs.c.updated_at, jobs.c.id) > last)
    rows = yield statement.order_by(jobs.c.updated_at, jobs.c.id).limit(PAGE_CHANGES)
    gone: Rows = ()
    if after is None:
        gone = yield _deleted(since, literal(True))
    return Changes(
        microseconds_of(clock.now),
        [_glance(row) for row in rows],
        list(map(_deletion, gone)),
        len(rows) == PAGE_CHANGES,
    )


def _newest(where: ColumnElement[bool]) -> Select[Any]:
    """Jobs, those that changed last first; one more than are wanted shows that there are more."""
    return select(*_SHAPED).where(where).order_by(jobs.c.updated_at.desc()).limit(MAX_MEMBERS + 1)


def _deleted(since: datetime, where: ColumnElement[bool]) -> Select[Any]:
    """Jobs deleted since, but for ids that are in use again."""
    again = exists().where(jobs.c.id == deletions.c.job_id)
    return (
        select(deletions.c.job_id, deletions.c.owner, deletions.c.parent_id)
        .where(deletions.c.at >= literal(since, UtcDateTime()), where, not_(again))
        .limit(MAX_DELETIONS)
    )


def _in_scope(scope: Scope, dialect: str) -> ColumnElement[bool]:
    conditions: list[ColumnElement[bool]] = []
    if scope.owner is not None:
        conditions.append(jobs.c.owner == scope.owner)
    if scope.parent_id is not None:
        conditions.append(jobs.c.parent_id == scope.parent_id)
    if scope.tag is not None:
        conditions.append(has_tag(*scope.tag, dialect))
    return and_(literal(True), *conditions)


def _deleted_in(scope: Scope) -> ColumnElement[bool]:
    conditions: list[ColumnElement[bool]] = []
    if scope.owner is not None:
        conditions.append(deletions.c.owner == scope.owner)
    if scope.parent_id is not None:
        conditions.append(deletions.c.parent_id == scope.parent_id)
    return and_(literal(True), *conditions)


def _read(statement: Select[Any]) -> Steps[Sequence[JobRow]]:
    return (yield statement)


def _deletion(row: JobRow) -> Deleted:
    return Deleted(row.job_id, row.owner, row.parent_id)


def _glance(row: JobRow) -> Glance:
    return Glance(
        job_id=row.id,
        owner=row.owner,
        parent_id=row.parent_id,
        final=Status(row.status).is_final,
        attempt=row.attempt,
        version=row.version,
        seq=row.progress_seq,
        last=row.last_n,
        shape=shape_of(row),
        changed=microseconds_of(row.updated_at),
    )
