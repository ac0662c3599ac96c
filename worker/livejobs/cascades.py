"""What is done to all children of a job: they are cancelled, run again or deleted with it.

Programs of statements, as in `transitions`. Nothing here waits for a job's row: children are taken
as far as they are free, and the rest the next time.
"""

from __future__ import annotations

from collections.abc import Generator

from sqlalchemy import and_, delete, literal, select
from sqlalchemy.sql.base import Executable
from sqlalchemy.sql.expression import ColumnElement

from .children import settle
from .endings import conclude_cancelled
from .statements import (
    AGAIN,
    LOOK,
    OVER,
    STOP,
    TOTAL,
    Batch,
    Rows,
    begun_again,
    cancelling,
    change,
    change_perhaps_last,
    forget,
    idle,
    is_open,
    jobs,
    mark_children,
    note_all,
    tallies,
    tally,
)
from .views import Status

Steps = Generator[Executable | Batch, Rows, Rows]


def stop(parent_id: str, limit: int) -> Steps:
    """Cancel up to `limit` children of a cancelled parent; returns the rows that have changed.

    Where there is none left, the mark is taken away, and the answer is empty.
    """
    mine = and_(jobs.c.parent_id == parent_id, is_open())
    taken = yield from _take(mine, limit)
    yield from settle(taken)
    rows = yield change_perhaps_last(taken, **cancelling(idle()))
    over = [row for row in rows if row.status == Status.CANCELLED]
    kinds = {Status.CANCELLED: "cancelled", Status.PROCESSING: "cancel_requested"}
    yield from note_all([(row, kinds[Status(row.status)]) for row in rows])
    yield from conclude_cancelled(parent_id, over)
    if not rows:
        yield from _unmark(parent_id, STOP, mine)
    return rows


def run_again(parent_id: str, limit: int) -> Steps:
    """Have up to `limit` cancelled children of a parent run again that is itself run again.

    Returns:
        As `stop`.
    """
    mine = and_(jobs.c.parent_id == parent_id, jobs.c.status == Status.CANCELLED)
    rows = yield change((yield from _take(mine, limit)), **begun_again(was_cancelled=True))
    if rows:
        yield from note_all([(row, "requeued") for row in rows])
        yield tally(parent_id, Status.CANCELLED, -len(rows))
        yield from mark_children([row.id for row in rows], AGAIN)
    elif (yield from _unmark(parent_id, AGAIN, mine)):
        # Whoever counted before has left it waiting for the mark.
        yield tally(parent_id, TOTAL, LOOK)
    return rows


def has_open(parent_id: str) -> Generator[Executable | Batch, Rows, bool]:
    """Whether a child of a job, or a child of theirs, is not over."""
    below = (
        select(jobs.c.id, jobs.c.completed_at)
        .where(jobs.c.parent_id == parent_id)
        .cte("below", recursive=True)
    )
    deeper = select(jobs.c.id, jobs.c.completed_at).where(jobs.c.parent_id == below.c.id)
    all_below = below.union(deeper)
    return bool((yield select(all_below.c.id).where(all_below.c.completed_at.is_(None)).limit(1)))


def remove(parent_id: str, owner: str, limit: int) -> Steps:
    """Delete up to `limit` children that are over and have no children themselves.

    Args:
        owner: Whose they are; those of others stay, and count for nothing here.

    Returns:
        `id`, `status`, `owner` and `parent_id` of each.
    """
    mine = and_(_over(parent_id, owner), ~_has_children(owner))
    gone = yield (
        delete(jobs)
        .where((yield from _take(mine, limit, whole=True)))
        .returning(jobs.c.id, jobs.c.status, jobs.c.owner, jobs.c.parent_id)
    )
    yield from forget(gone)
    return gone


def next_parent(parent_id: str, owner: str) -> Generator[Executable | Batch, Rows, str | None]:
    """A child of a job that `remove` leaves as it has children itself; None: there is none."""
    mine = and_(_over(parent_id, owner), _has_children(owner))
    rows = yield select(jobs.c.id).where(mine).limit(1)
    return rows[0].id if rows else None


def _over(parent_id: str, owner: str) -> ColumnElement[bool]:
    return and_(jobs.c.parent_id == parent_id, jobs.c.owner == owner, jobs.c.status.in_(list(OVER)))


def _has_children(owner: str) -> ColumnElement[bool]:
    child = jobs.alias()
    return (
        select(literal(1))
        .where(child.c.parent_id == jobs.c.id, child.c.owner == owner)
        .correlate(jobs)
        .exists()
    )


def _take(
    where: ColumnElement[bool], limit: int, *, whole: bool = False
) -> Generator[Executable | Batch, Rows, ColumnElement[bool]]:
    """Lock up to `limit` jobs that nobody is changing now; returns the condition to be one of them.

    A statement of its own: as a part of another one, PostgreSQL may run it several times over.

    Args:
        whole: They are to be deleted, and not only changed.
    """
    some = select(jobs.c.id).where(where).limit(limit)
    rows = yield some.with_for_update(skip_locked=True, key_share=not whole)
    return jobs.c.id.in_([row.id for row in rows])


def _unmark(
    parent_id: str, mark: str, left: ColumnElement[bool]
) -> Generator[Executable | Batch, Rows, bool]:
    """Take a mark away; False: there are children that were only being changed by others."""
    if (yield select(jobs.c.id).where(left).limit(1)):
        return False
    yield delete(tallies).where(tallies.c.parent_id == parent_id, tallies.c.kind == mark)
    return True
