"""What keepers change of jobs that went wrong: lost, overrun, silent, or sent to the wrong workers.

Programs of statements, as in `transitions`.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Final

from sqlalchemy import and_, case, false, func, literal, or_, select, update
from sqlalchemy.sql.base import Executable
from sqlalchemy.sql.expression import ColumnElement

from .endings import conclude, end
from .models import db_now
from .statements import (
    Batch,
    Program,
    Rows,
    change,
    change_perhaps_last,
    events,
    jobs,
    let_go,
    note,
    picked,
)
from .views import Status

WORKER_LOST: Final = {
    "type": "WorkerLost",
    "message": "The worker that ran it disappeared.",
    "code": "worker_lost",
}
OVERRUN: Final = {
    "type": "TimeLimitExceeded",
    "message": "It ran longer than LIVEJOBS_MAX_RUNTIME allows.",
    "code": "time_limit",
}
END_AGAIN_SECONDS: Final = 5.0
"""When a worker is told once more to end a job that did not stop after its cancel."""
UNKNOWN_SENDS: Final = 5
"""A job that so often met only workers that do not know its task fails."""
UNKNOWN_PAUSE_SECONDS: Final = 5.0
"""Until it is sent again; twice as long each time, so that a roll-out has time to end."""


def running() -> ColumnElement[bool]:
    """The condition that a worker runs the job; a parent that waits for its children is not run."""
    return and_(jobs.c.status == Status.PROCESSING, jobs.c.lease_until.is_not(None))


# -- without a worker ------------------------------------------------------------------------------


def lose(job_id: str, *, attempt: int | None = None) -> Program:
    """A job whose worker is gone: again where its task may be repeated, else it failed.

    Args:
        attempt: The process that ran this attempt is known to have ended; None: the lease has to
            have run out.
    """
    gone = jobs.c.lease_until <= db_now() if attempt is None else jobs.c.attempt == attempt
    again = and_(
        jobs.c.rerun_when_lost.is_(True),
        or_(jobs.c.max_attempts.is_(None), jobs.c.attempt < jobs.c.max_attempts),
    )
    return _take_away(and_(jobs.c.id == job_id, running(), gone), WORKER_LOST, again)


def overrun(job_id: str, seconds: float) -> Program:
    """A job that has been running for longer than any may has failed; its worker is told later."""
    too_long = jobs.c.started_at <= db_now(-seconds)
    return _take_away(and_(jobs.c.id == job_id, running(), too_long), OVERRUN, false())


def _take_away(
    where: ColumnElement[bool], error: dict[str, Any], again: ColumnElement[bool]
) -> Program:
    """Take a running job from its worker; if its cancel was requested, it is cancelled."""
    stop = jobs.c.cancel_requested_at.is_not(None)
    rows = yield change_perhaps_last(
        where,
        **let_go(
            status=case((stop, Status.CANCELLED), (again, Status.PENDING), else_=Status.FAILED),
            completed_at=case((and_(~stop, again), None), else_=db_now()),
            due_at=case((and_(~stop, again), db_now()), else_=None),
            worker=None,  # so that the lost worker does not take this for its own doing
            error=case((stop, None), else_=literal(error, jobs.c.error.type)),
        ),
    )
    if not rows:
        return None
    kind = "lost" if error is WORKER_LOST else str(rows[0].status)
    yield from note(rows[0], kind, {"status": rows[0].status, "error": rows[0].error})
    return (yield from conclude(rows[0]))


# -- with a worker ---------------------------------------------------------------------------------


def overdue(grace: float) -> ColumnElement[bool]:
    """The condition that a job goes on after its cancel, and that it is time to end it."""
    return and_(
        running(),
        jobs.c.cancel_requested_at <= db_now(-grace),
        or_(jobs.c.due_at.is_(None), jobs.c.due_at <= db_now()),
    )


def take_overdue(limit: int, grace: float) -> Generator[Executable | Batch, Rows, Rows]:
    """Take up to `limit` jobs that are to be ended in their workers; the others wait a while.

    The version stays: nothing that a viewer sees has changed.
    """
    found = select(jobs.c.id).where(overdue(grace)).limit(limit).with_for_update(skip_locked=True)
    return (
        yield update(jobs)
        .where(jobs.c.id.in_(picked(found)), overdue(grace))
        .values(due_at=db_now(END_AGAIN_SECONDS))
        .returning(jobs.c.id, jobs.c.worker)
    )


def silent(seconds: float) -> ColumnElement[bool]:
    """The condition that a running job has not reported for so long, and is not shown so."""
    return and_(running(), jobs.c.stalled.is_(False), jobs.c.reported_at <= db_now(-seconds))


def fall_silent(job_id: str, seconds: float) -> Program:
    """A running job that has not reported for long is shown as stalled, until it does."""
    rows = yield change(and_(jobs.c.id == job_id, silent(seconds)), stalled=True)
    if rows:
        yield from note(rows[0], "stalled")
    return rows[0] if rows else None


# -- with the wrong workers ------------------------------------------------------------------------


def meet_unknown(job_id: str, attempt: int) -> Program:
    """A worker that does not know its task got the job: another one may, a few times."""
    where = and_(
        jobs.c.id == job_id,
        jobs.c.attempt == attempt,
        jobs.c.status == Status.PENDING,
        jobs.c.run_at.is_(None),
    )
    rows = yield select(jobs).where(where)
    if not rows:
        return None
    own = events.c.job_id == job_id
    asked = select(func.max(events.c.id)).where(own, events.c.kind == "requeued").scalar_subquery()
    met = yield select(func.count()).where(
        own,
        events.c.kind == "unknown",
        events.c.attempt == attempt,
        events.c.id > func.coalesce(asked, 0),
    )
    times = met[0][0] + 1
    if times >= UNKNOWN_SENDS:
        error = {
            "type": "UnknownTask",
            "message": f"{times} times only workers got it that do not know {rows[0].task}.",
            "code": "unknown_task",
        }
        return (yield from end(where, Status.FAILED, error=error))
    pause = UNKNOWN_PAUSE_SECONDS * 2 ** (times - 1)
    rows = yield update(jobs).where(where).values(due_at=db_now(pause)).returning(jobs)
    if rows:
        yield from note(rows[0], "unknown")
    return None
