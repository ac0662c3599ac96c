"""What the worker that runs a job changes of it, from the claim to the end of the attempt.

Programs of statements, as in `transitions`. `attempt` is the fence: once somebody else has got the
job, the row's is another one, and no program of the former worker finds its row any more.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import and_, case, delete, func, literal, or_, select, update
from sqlalchemy.sql.base import Executable
from sqlalchemy.sql.expression import ColumnElement

from .children import count
from .endings import conclude, end
from .models import db_now
from .new_jobs import FIRST_DISPATCH_SECONDS, NewJob
from .statements import (
    NOTHING,
    Along,
    Batch,
    Program,
    Reported,
    Rows,
    change,
    change_perhaps_last,
    children_over,
    entries,
    jobs,
    keep_entries,
    let_go,
    note,
    reported_columns,
    running_attempt,
)
from .transitions import create, create_many
from .views import Status

EARLY_SECONDS: Final = 1.0
"""A message may come so much before its job is due: the clocks of two machines differ."""
ATTEMPTS_WITH_ENTRIES: Final = 3
"""Entries of so many of the latest attempts are kept."""


# -- the claim -------------------------------------------------------------------------------------


def claim(
    job_id: str,
    attempt: int | None,
    worker: str,
    lease: float,
    *,
    max_attempts: int | None = None,
    rerun_when_lost: bool = False,
) -> Program:
    """A worker begins: the message's attempt (None: any) must be the row's.

    Args:
        max_attempts: What the task says, for a row whose creator did not know the task.
        rerun_when_lost: The same.
    """
    matches = [
        jobs.c.id == job_id,
        jobs.c.status == Status.PENDING,
        jobs.c.held.is_(False),
        # A message that came early waits for the one that is sent when the job is due.
        or_(jobs.c.run_at.is_(None), jobs.c.run_at <= db_now(EARLY_SECONDS)),
    ]
    if attempt is not None:
        matches.append(jobs.c.attempt == attempt)
    rows = yield change(
        and_(*matches, or_(jobs.c.expires_at.is_(None), jobs.c.expires_at > db_now())),
        status=Status.PROCESSING,
        attempt=jobs.c.attempt + 1,
        max_attempts=func.coalesce(jobs.c.max_attempts, max_attempts),
        rerun_when_lost=or_(jobs.c.rerun_when_lost, literal(rerun_when_lost)),
        worker=worker,
        lease_until=db_now(lease),
        due_at=None,
        run_at=None,
        dispatches=0,
        started_at=db_now(),
        children_before=children_over(),
        reported_at=db_now(),
        stalled=False,
        progress=None,
        progress_seq=0,
        last_n=0,
        error=None,
    )
    if not rows:
        return None
    yield from note(rows[0], "started", {"worker": worker})
    if rows[0].attempt > ATTEMPTS_WITH_ENTRIES:
        yield delete(entries).where(
            entries.c.job_id == job_id,
            entries.c.attempt <= rows[0].attempt - ATTEMPTS_WITH_ENTRIES,
        )
    return rows[0]


def adopt(new: NewJob, worker: str, lease: float) -> Program:
    """A job whose row nobody wrote when it was sent: created by the worker that runs it."""
    row = yield from create(new)
    if row is None:
        return None
    return (yield from claim(new.id, 0, worker, lease))


def renew(workers: Sequence[str], lease: float) -> Generator[Executable | Batch, Rows, Rows]:
    """Renew the leases of all claims of a process; answers worker and cancel request of each.

    A claim that is missing in the answer has been lost. A row that is locked is being changed at
    this moment; it is left for the next time, so that nobody waits for anybody here.
    """
    claimed = select(jobs.c.id).where(_claimed(workers))
    # Not those either that a child is being added to.
    free = claimed.with_for_update(skip_locked=True, key_share=True)
    yield update(jobs).where(jobs.c.id.in_(free)).values(lease_until=db_now(lease))
    return (yield from check_claims(workers))


def check_claims(workers: Sequence[str]) -> Generator[Executable | Batch, Rows, Rows]:
    """Read what `renew` answers, without renewing."""
    return (yield select(jobs.c.worker, jobs.c.cancel_requested_at).where(_claimed(workers)))


def unrenewed(
    claims: Mapping[str, str], longest: float
) -> Generator[Executable | Batch, Rows, Rows]:
    """Which claims of certain processes have not renewed their leases when they should have.

    Args:
        claims: Job ids, each with the beginning of the claim's name.
        longest: Seconds that are left of a lease at most.
    """
    mine = [
        and_(jobs.c.id == job_id, jobs.c.worker.startswith(prefix, autoescape=True))
        for job_id, prefix in claims.items()
    ]
    return (
        yield select(jobs.c.worker).where(
            or_(*mine),
            jobs.c.status == Status.PROCESSING,
            jobs.c.lease_until < db_now(longest),
        )
    )


def _claimed(workers: Sequence[str]) -> ColumnElement[bool]:
    return and_(
        jobs.c.worker.in_(workers),
        jobs.c.status == Status.PROCESSING,
        jobs.c.lease_until.is_not(None),
    )


# -- the work --------------------------------------------------------------------------------------


def report(job_id: str, attempt: int, reported: Reported) -> Program:
    """Keep what a running job has reported."""
    rows = yield change(
        running_attempt(job_id, attempt),
        reported_at=db_now(),
        stalled=False,
        **reported_columns(reported),
    )
    if rows:
        yield from keep_entries(rows[0], reported)
    return rows[0] if rows else None


def spawn(
    job_id: str, attempt: int, news: Sequence[NewJob]
) -> Generator[Executable | Batch, Rows, set[str] | None]:
    """Create children of a running job; those that are there already are left as they are.

    Args:
        news: In the order of their ordinals, so that no two that spawn the same wait in a circle.

    Returns:
        The ids of those that are new; None: the attempt is not what runs any more.
    """
    # The weakest lock there is: it holds off a deletion, and leases are renewed meanwhile.
    standing = select(jobs.c.id).where(running_attempt(job_id, attempt))
    if not (yield standing.with_for_update(read=True, key_share=True)):
        return None
    rows = yield from create_many(news)
    return {row.id for row in rows}


def wait(
    job_id: str,
    attempt: int,
    then: NewJob,
    children_from: int,
    reported: Reported = NOTHING,
) -> Program:
    """A parent lets go of its worker while children are open, and goes on as `then` after them.

    Where none is open it is pending at once; the caller sends it, and a keeper does if the caller
    could not. If its cancel was requested, it is cancelled.

    Args:
        then: What is run under its id then.
        children_from: Ordinal of the next child.
    """
    # What its children have said so far counts, and nothing more is added until this is over.
    yield from count(job_id, at_once=True, fill_places=False)
    stop = jobs.c.cancel_requested_at.is_not(None)
    waits = jobs.c.children_total > children_over()
    rows = yield change_perhaps_last(
        running_attempt(job_id, attempt),
        **let_go(
            status=case((stop, Status.CANCELLED), (waits, Status.PROCESSING), else_=Status.PENDING),
            completed_at=case((stop, db_now()), else_=None),
            due_at=case((or_(stop, waits), None), else_=db_now(FIRST_DISPATCH_SECONDS)),
            expires_at=None,
            message=then.message,
            task=then.task,
            queue=then.queue,
            max_attempts=None if then.max_attempts is None else attempt + then.max_attempts,
            rerun_when_lost=then.rerun_when_lost,
            children_from=children_from,
        ),
        **reported_columns(reported),
    )
    if not rows:
        return None
    yield from keep_entries(rows[0], reported)
    if rows[0].status != Status.PENDING:
        over = rows[0].status == Status.CANCELLED
        yield from note(rows[0], "cancelled" if over else "waiting")
    return (yield from conclude(rows[0]))


# -- the end ---------------------------------------------------------------------------------------


def release(job_id: str, attempt: int) -> Program:
    """The worker shuts down: the job is pending again, and the attempt does not count."""
    rows = yield change(
        running_attempt(job_id, attempt),
        **let_go(due_at=db_now(), worker=None, max_attempts=jobs.c.max_attempts + 1),
    )
    if rows:
        yield from note(rows[0], "released")
    return rows[0] if rows else None


def retry(
    job_id: str,
    attempt: int,
    *,
    delay: float,
    error: dict[str, Any] | None,
    message: Any,
    task: str | None = None,
    reported: Reported = NOTHING,
) -> Program:
    """The job runs again after `delay` seconds; if its cancel was requested, it is cancelled.

    Where there is no delay the caller sends it itself, and a keeper does if the caller could not.

    Args:
        message: The Celery message of the next execution; None: the same.
        task: Name of the task that goes on under the same id (`Task.replace`); None: the same.
    """
    stop = jobs.c.cancel_requested_at.is_not(None)
    rows = yield change_perhaps_last(
        running_attempt(job_id, attempt),
        **let_go(
            status=case((stop, Status.CANCELLED), else_=Status.PENDING),
            completed_at=case((stop, db_now()), else_=None),
            due_at=case((stop, None), else_=db_now(delay if delay > 0 else FIRST_DISPATCH_SECONDS)),
            run_at=case((stop, None), else_=db_now(delay)) if delay > 0 else None,
            error=error,
            message=jobs.c.message if message is None else message,
            task=jobs.c.task if task is None else task,
        ),
        **reported_columns(reported),
    )
    if not rows:
        return None
    yield from keep_entries(rows[0], reported)
    kind = "cancelled" if rows[0].status == Status.CANCELLED else "retried"
    yield from note(rows[0], kind, {"delay": delay, "error": error})
    return (yield from conclude(rows[0]))


def complete(
    job_id: str,
    attempt: int,
    result: Any,
    reported: Reported = NOTHING,
    along: Sequence[Along] = (),
) -> Program:
    """The job has its result.

    Args:
        along: What is committed with it.
    """
    row = yield from end(
        running_attempt(job_id, attempt),
        Status.COMPLETED,
        reported=reported,
        result=result,
        error=None,
    )
    if row is not None:
        for program in along:
            yield from program()
    return row


def fail(
    job_id: str,
    attempt: int,
    error: dict[str, Any],
    reported: Reported = NOTHING,
) -> Program:
    """The job failed for good."""
    return end(
        running_attempt(job_id, attempt),
        Status.FAILED,
        reported=reported,
        error=error,
    )


def cancelled(job_id: str, attempt: int, reported: Reported = NOTHING) -> Program:
    """The running job has stopped: because that was asked for, or by its own decision."""
    return end(
        running_attempt(job_id, attempt),
        Status.CANCELLED,
        reported=reported,
        cancel_requested_at=func.coalesce(jobs.c.cancel_requested_at, db_now()),
    )


def fail_unclaimed(job_id: str, attempt: int, error: dict[str, Any]) -> Program:
    """A pending job whose message ended in an error before the job was claimed."""
    return end(
        and_(
            jobs.c.id == job_id,
            jobs.c.attempt == attempt,
            jobs.c.status == Status.PENDING,
            jobs.c.run_at.is_(None),
        ),
        Status.FAILED,
        error=error,
    )


def hand_over(job_id: str, attempt: int, reported: Reported = NOTHING) -> Program:
    """A task has replaced itself by others, the last of which goes on under its id.

    Until that one is sent, the job is pending and nobody's to send.
    """
    rows = yield change(
        running_attempt(job_id, attempt), **let_go(due_at=None), **reported_columns(reported)
    )
    if rows:
        yield from keep_entries(rows[0], reported)
        yield from note(rows[0], "replaced")
    return rows[0] if rows else None
