"""The end of a job, and what goes with it in the same transaction.

That is the timeline, the tally at its parent, what its own children have said so far, the mark for
them, and the job that sends its webhook. Each way to an end is one of these, or calls `conclude`
after its own compare-and-set.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

from sqlalchemy.sql.base import Executable
from sqlalchemy.sql.expression import ColumnElement

from .children import count
from .models import db_now
from .statements import (
    NOTHING,
    OVER,
    STOP,
    Batch,
    JobRow,
    Program,
    Reported,
    Rows,
    change_perhaps_last,
    keep_entries,
    mark_children,
    note,
    reported_columns,
    tally,
)
from .views import Status
from .webhooks import deliver


def end(
    where: ColumnElement[bool],
    status: Status,
    *,
    reported: Reported = NOTHING,
    **values: Any,
) -> Program:
    """The job is over: its row, its last entries, the timeline and the tally at its parent.

    Args:
        where: What the end starts from.
        status: One of `OVER`.
        **values: Further columns.
    """
    rows = yield change_perhaps_last(
        where,
        status=status,
        lease_until=None,
        stalled=False,
        due_at=None,
        run_at=None,
        completed_at=db_now(),
        **values,
        **reported_columns(reported),
    )
    if not rows:
        return None
    yield from keep_entries(rows[0], reported)
    yield from note(rows[0], status.value, {"error": values.get("error")})
    return (yield from conclude(rows[0]))


def conclude(row: JobRow) -> Generator[Executable | Batch, Rows, JobRow]:
    """What goes with a job's end, where it is over.

    It is tallied at its parent, its own children are counted, those of a cancelled one are to be
    cancelled, and its webhook is to be sent.

    Args:
        row: As `change_perhaps_last` answers it.

    Returns:
        The job's row as it is after that.
    """
    if row.status not in OVER:
        return row
    webhook = row.webhook
    if row.is_tallied:
        counted = yield from count(row.id, at_once=True, fill_places=False)
        row = counted.row or row
    if row.parent_id is not None:
        yield tally(row.parent_id, row.status)
    if row.status == Status.CANCELLED:
        yield from mark_children([row.id], STOP)
    yield from deliver(row, webhook)
    return row


def conclude_cancelled(
    parent_id: str, rows: Sequence[JobRow]
) -> Generator[Executable | Batch, Rows, None]:
    """`conclude` for children that were cancelled with their parent, and counted before."""
    if not rows:
        return
    yield tally(parent_id, Status.CANCELLED, len(rows))
    yield from mark_children([row.id for row in rows], STOP)
    for row in rows:
        yield from deliver(row, row.webhook)
