"""Programs that read jobs and change nothing."""

from __future__ import annotations

from collections.abc import Generator
from typing import NamedTuple

from sqlalchemy import Select, and_, or_, select
from sqlalchemy.sql.base import Executable
from sqlalchemy.sql.expression import ColumnElement

from .children import Found, find
from .models import db_now
from .oversight import overdue, running, silent
from .statements import Batch, Program, Rows, jobs
from .views import Status


def job(job_id: str) -> Program:
    """The row as it is, or None."""
    rows = yield select(jobs).where(jobs.c.id == job_id)
    return rows[0] if rows else None


def job_by_key(job_id: str, owner: str, idempotency_key: str | None) -> Program:
    """The row that has this id, or that an owner's idempotency key created, or None."""
    where = jobs.c.id == job_id
    if idempotency_key is not None:
        key = and_(jobs.c.owner == owner, jobs.c.idempotency_key == idempotency_key)
        where = or_(where, key)
    rows = yield select(jobs).where(where)
    return rows[0] if rows else None


class Chores(NamedTuple):
    """What a keeper finds to do; jobs with their ids and claims.

    Attributes:
        due: Whether a job is due to be sent.
        overdue: Whether a job has to be ended in its worker, as it goes on after its cancel.
        expired: Pending jobs that are too old.
        lost: Running jobs whose leases ran out.
        overrun: Jobs that have been running for longer than they may.
        silent: Running jobs that have not reported for long.
        parents: Whose children there is something to do about.
    """

    due: bool
    overdue: bool
    expired: Rows
    lost: Rows
    overrun: Rows
    silent: Rows
    parents: Found


def chores(
    limit: int, *, grace: float, most: float, quiet: float
) -> Generator[Executable | Batch, Rows, Chores]:
    """What there is to do for a keeper, at most `limit` jobs of each kind.

    Args:
        grace: Seconds that a job has to stop after its cancel.
        most: Seconds that a job may run.
        quiet: Seconds after which a silent job is shown so.
    """
    pending = jobs.c.status == Status.PENDING
    return Chores(
        due=bool((yield _found(and_(pending, jobs.c.due_at <= db_now()), 1))),
        overdue=bool((yield _found(overdue(grace), 1))),
        expired=(yield _found(and_(pending, jobs.c.expires_at <= db_now()), limit)),
        lost=(yield _found(and_(running(), jobs.c.lease_until <= db_now()), limit)),
        overrun=(yield _found(and_(running(), jobs.c.started_at <= db_now(-most)), limit)),
        silent=(yield _found(silent(quiet), limit)),
        parents=(yield from find(limit)),
    )


def _found(where: ColumnElement[bool], limit: int) -> Select[tuple[str, str | None]]:
    return select(jobs.c.id, jobs.c.worker).where(where).limit(limit)
