"""Every change of a job, as programs of SQL statements; nothing here executes one.

A program is a generator: it yields a statement, is sent the rows that came back, and returns the
job's new row, or None where the job was not (or no longer) in the state the change starts from:
somebody else was first, and the caller stops. `database` runs programs, sync or async, each in one
transaction. The heart of each is ONE compare-and-set ``UPDATE … WHERE … RETURNING``; around it
stand the timeline, the entries and the tally of a child at its parent. No transition locks a second
job's row, so that none can wait for another in a circle.

What the worker that runs the job does, from claim to cancelled below, is in `attempts`; what
keepers do about jobs that went wrong is in `oversight`; all else is here. What they are made of is
in `statements`.

======== ============================ =====================================================
name     from → to                    condition, effect
======== ============================ =====================================================
create   → pending                    key is new; due in 5 s
dispatch pending                      due; due again in 1, 2, 4 … 60 min
claim    pending → processing         the message's attempt matches; attempt += 1, lease set
renew    processing                   one statement for all jobs of a process
report   processing                   attempt matches
wait     processing, lease null       only while children are open
release  processing → pending         worker shuts down; the attempt is not counted
retry    processing → pending         attempt matches; cancel requested → cancelled
complete processing → completed       attempt matches
fail     processing → failed          attempt matches
cancelled processing → cancelled      attempt matches, requested
count    waiting parent → pending     tallies added up; none of its children is open
cancel   pending → cancelled          processing: requested
lose     processing → pending, failed lease ran out; requested → cancelled
overrun  processing → failed          ran for too long; requested → cancelled
silent   processing                   did not report for long
unknown  pending → failed             met only workers that do not know its task
expire   pending → failed             expires_at passed
requeue  failed, cancelled → pending  a person asked; one more attempt
======== ============================ =====================================================
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Sequence
from typing import Any, Final

from sqlalchemy import Table, and_, case, delete, func, literal, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.sql.base import Executable

from .children import settle
from .endings import conclude, end
from .models import Beat, Job, db_now
from .new_jobs import (
    FIRST_DISPATCH_SECONDS,
    NEW_EVENT,
    NEW_JOB,
    NEW_ROW,
    parameters,
)
from .new_jobs import NewJob as NewJob
from .statements import (
    AGAIN,
    LOOK,
    OVER,
    TOTAL,
    Batch,
    Program,
    Rows,
    begun_again,
    cancelling,
    change,
    change_perhaps_last,
    forget,
    idle,
    is_open,
    jobs,
    let_go,
    mark_children,
    note,
    picked,
    tallies,
    tally,
    unlocked,
)
from .views import Status

NO_MESSAGE: Final[dict[str, Any]] = {}
"""The message of a job that no Celery task stands behind: it cannot be sent."""

_beats: Final[Table] = Beat.metadata.tables[f"{Job.metadata.schema}.livejobs_beats"]


# -- a job begins ----------------------------------------------------------------------------------


def create(new: NewJob) -> Program:
    """A pending job, due in 5 s or after its delay; None if its id or idempotency key exists."""
    rows = yield NEW_ROW, parameters(new)
    if not rows:
        return None
    yield NEW_EVENT, {"job_id": new.id}
    if new.parent_id is not None:
        yield tally(new.parent_id, TOTAL)
    return rows[0]


def create_many(news: Sequence[NewJob]) -> Generator[Executable | Batch, Rows, Rows]:
    """Pending jobs, as `create` makes one; answers id, `created_at` and `run_at` of the new ones.

    What is not among them has an id or an idempotency key that exists, or came earlier in `news`.
    """
    if not news:
        return ()
    rows = yield NEW_JOB, [parameters(new) for new in news]
    if rows:
        yield NEW_EVENT, [{"job_id": row.id} for row in rows]
    found = {row.id for row in rows}
    children = Counter(new.parent_id for new in news if new.id in found)
    for parent_id, count in children.items():
        if parent_id is not None:
            yield tally(parent_id, TOTAL, count)
    return rows


def take_over(new: NewJob) -> Program:
    """A new message under the id of a job that is over, or was handed over: it begins again.

    Children that it has are those of its past: what it spawns now are further ones.
    """
    handed_over = and_(jobs.c.status == Status.PENDING, jobs.c.due_at.is_(None))
    before = yield select(jobs.c.status).where(jobs.c.id == new.id).with_for_update(key_share=True)
    child = jobs.alias()
    past = select(func.coalesce(func.max(child.c.ordinal) + 1, 0)).where(
        child.c.parent_id == jobs.c.id
    )
    due = new.delay if new.delay > 0 else FIRST_DISPATCH_SECONDS
    rows = yield change(
        and_(jobs.c.id == new.id, or_(jobs.c.status.in_(list(OVER)), handed_over)),
        **let_go(
            task=new.task,
            queue=new.queue,
            message=new.message,
            due_at=db_now(due),
            run_at=db_now(new.delay) if new.delay > 0 else None,
            expires_at=None if new.expires_in is None else db_now(new.expires_in),
            dispatches=0,
            completed_at=None,
            cancel_requested_at=None,
            result=None,
            error=None,
            max_attempts=None if new.max_attempts is None else jobs.c.attempt + new.max_attempts,
            rerun_when_lost=new.rerun_when_lost,
            webhook_url=jobs.c.webhook_url if new.webhook_url is None else new.webhook_url,
            children_from=past.correlate(jobs).scalar_subquery(),
            held=False,
        ),
    )
    if not rows:
        return None
    yield from note(rows[0], "created")
    if rows[0].parent_id is not None and before[0].status in OVER:
        yield tally(rows[0].parent_id, before[0].status, -1)
    return rows[0]


# -- a keeper sends --------------------------------------------------------------------------------


def dispatch(limit: int) -> Generator[Executable | Batch, Rows, Rows]:
    """Take up to `limit` due jobs for sending; each is due again in 1, 2, 4 … 60 minutes.

    The version stays: nothing that a viewer sees has changed.
    """
    is_due = and_(jobs.c.status == Status.PENDING, jobs.c.due_at <= db_now())
    due = (
        select(jobs.c.id)
        .where(is_due)
        .order_by(jobs.c.due_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    exponent = case((jobs.c.dispatches < 6, jobs.c.dispatches), else_=6)
    minutes = case((jobs.c.dispatches < 6, literal(1).bitwise_lshift(exponent)), else_=60)
    return (
        yield update(jobs)
        .where(jobs.c.id.in_(picked(due)), is_due)
        .values(due_at=db_now(minutes * 60.0), dispatches=jobs.c.dispatches + 1)
        .returning(jobs)
    )


def postpone(job_ids: Sequence[str], seconds: float) -> Generator[Executable | Batch, Rows, Rows]:
    """Jobs that were taken for sending could not be sent: they are due again soon."""
    return (
        yield update(jobs)
        .where(
            jobs.c.id.in_(job_ids),
            jobs.c.status == Status.PENDING,
            # Not those that somebody has claimed meanwhile and given a delay of their own.
            jobs.c.dispatches > 0,
            jobs.c.run_at.is_(None),
        )
        .values(due_at=db_now(seconds), dispatches=jobs.c.dispatches - 1)
        .returning(jobs.c.id)
    )


def sent(job_ids: Sequence[str], attempt: int = 0) -> Generator[Executable | Batch, Rows, Rows]:
    """The broker took the messages of jobs: they are due again in a minute, and not in 5 s."""
    return (
        yield update(jobs)
        .where(
            jobs.c.id.in_(job_ids),
            jobs.c.attempt == attempt,
            jobs.c.status == Status.PENDING,
            jobs.c.dispatches == 0,
            jobs.c.run_at.is_(None),
            # What is due is a keeper's already.
            jobs.c.due_at > db_now(),
        )
        .values(due_at=db_now(60.0), dispatches=1)
        .returning(jobs.c.id)
    )


# -- from outside ----------------------------------------------------------------------------------


def cancel(job_id: str) -> Program:
    """Cancel: a pending or waiting job at once, a running one by request."""
    this = and_(jobs.c.id == job_id, is_open())
    # While it still waits, for its progress is that of its children then.
    yield from settle(this)
    rows = yield change_perhaps_last(this, **cancelling(idle()))
    if not rows:
        return None
    over = rows[0].status == Status.CANCELLED
    yield from note(rows[0], "cancelled" if over else "cancel_requested")
    return (yield from conclude(rows[0]))


def requeue(job_id: str) -> Program:
    """A person wants a failed or cancelled job run again: one more attempt, cancel forgotten.

    Its children that were cancelled are run again too, by keepers; a parent that waited for them
    waits once more.
    """
    before = yield select(jobs.c.status).where(jobs.c.id == job_id).with_for_update(key_share=True)
    was_cancelled = bool(before) and before[0].status == Status.CANCELLED
    rows = yield change(
        and_(
            jobs.c.id == job_id,
            jobs.c.status.in_([Status.FAILED, Status.CANCELLED]),
            jobs.c.message != literal(NO_MESSAGE, jobs.c.message.type),
        ),
        **begun_again(was_cancelled=was_cancelled),
    )
    if not rows:
        return None
    yield from note(rows[0], "requeued")
    if was_cancelled:
        yield from mark_children([job_id], AGAIN)
        # Those that were not cancelled yet have got no places meanwhile.
        yield tally(job_id, TOTAL, LOOK)
    if rows[0].parent_id is not None:
        yield tally(rows[0].parent_id, before[0].status, -1)
    return rows[0]


def expire(job_id: str) -> Program:
    """A pending job that is too old fails."""
    error = {"type": "Expired", "message": "It was not begun in time.", "code": "expired"}
    return end(
        and_(jobs.c.id == job_id, jobs.c.status == Status.PENDING, jobs.c.expires_at <= db_now()),
        Status.FAILED,
        error=error,
    )


def remove(job_id: str) -> Program:
    """Delete a job that is over, with its timeline and entries; who shows it still is told later.

    That it was deleted is remembered for a day. Its children are left, see `cascades.remove`.
    """
    rows = yield (
        delete(jobs)
        .where(jobs.c.id == job_id, jobs.c.status.in_(list(OVER)))
        .returning(jobs.c.id, jobs.c.status, jobs.c.attempt, jobs.c.owner, jobs.c.parent_id)
    )
    yield from forget(rows)
    if rows:
        yield delete(tallies).where(tallies.c.parent_id == job_id)
    return rows[0] if rows else None


def beat(name: str) -> Generator[Executable | Batch, Rows, Rows]:
    """A keeper's sign of life; those that have been silent for a day are forgotten."""
    yield (
        insert(_beats)
        .values(name=name, at=db_now())
        .on_conflict_do_update(index_elements=[_beats.c.name], set_={"at": db_now()})
    )
    silent = unlocked(_beats.c.name, _beats.c.at < db_now(-86_400.0))
    return (yield delete(_beats).where(silent))
