"""Jobs with children: how many there are, and how many are over.

Programs of statements, as in `transitions`. A child says at its parent that it was made or is over
by a row of its own in ``livejobs_tallies``, in the transaction that makes or ends it. `count` adds
those up into the parent's row, at most four times a second, so that ten thousand children that end
at once neither wait for one row nor change it ten thousand times. What the row says and what the
tallies say are together exact at any moment; whoever decides by the counts counts first, and so
does who ends the parent. What is done to all children is in `cascades`.

Nothing here waits for more than one job's row.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from typing import Any, Final, NamedTuple

from sqlalchemy import Row, Select, delete, func, literal, select
from sqlalchemy.sql.base import Executable
from sqlalchemy.sql.expression import ColumnElement

from . import places, rollup
from .models import db_now
from .statements import (
    AGAIN,
    LOOK,
    MARKS,
    OVER,
    STOP,
    TOTAL,
    Batch,
    JobRow,
    Rows,
    change,
    jobs,
    mark_children,
    note,
    tallies,
    tally,
)
from .views import Status

COUNT_SECONDS: Final = 0.25
"""Between two changes of a parent's counts, unless none of its children is open any more."""
RESUME_SECONDS: Final = 5.0
"""A keeper sends a parent on that whoever resumed it did not manage to send after this time."""


class Counted(NamedTuple):
    """What came of counting a parent's children.

    Attributes:
        row: The parent's new row; None: nothing was to be added, or it was not time yet.
        resumed: It waited, none of its children is open, and it is to be sent now.
        placed: Children that have got a place, and are to be sent now.
    """

    row: JobRow | None
    resumed: bool
    placed: Rows = ()


class Found(NamedTuple):
    """Parents that a keeper has to do something for.

    Attributes:
        counts: Whose tallies are to be added up.
        stops: Whose children are to be cancelled.
        agains: Whose cancelled children are to be run again.
    """

    counts: list[str]
    stops: list[str]
    agains: list[str]


# -- counts ----------------------------------------------------------------------------------------


def find(limit: int) -> Generator[Executable | Batch, Rows, Found]:
    """Parents of which there are tallies, at most `limit`."""
    rows = yield select(tallies.c.parent_id, tallies.c.kind).distinct().limit(limit)
    marked = {kind: [row.parent_id for row in rows if row.kind == kind] for kind in MARKS}
    counted = dict.fromkeys(row.parent_id for row in rows if row.kind not in MARKS)
    return Found(list(counted), marked[STOP], marked[AGAIN])


def is_tallied(parent_id: str) -> Generator[Executable | Batch, Rows, bool]:
    """Whether there is anything to be added up for a parent."""
    return bool((yield _tallied(tallies.c.parent_id == parent_id).limit(1)))


def settle(which: ColumnElement[bool]) -> Generator[Executable | Batch, Rows, None]:
    """Count what is to be added up at jobs that are about to end, so that they end with it.

    Args:
        which: The jobs.
    """
    concerned = tallies.c.parent_id.in_(select(jobs.c.id).where(which))
    for row in (yield _tallied(concerned).distinct()):
        yield from count(row.parent_id, at_once=True, fill_places=False)


def count(
    parent_id: str, *, at_once: bool = False, fill_places: bool = True
) -> Generator[Executable | Batch, Rows, Counted]:
    """Add the tallies up in the parent's row; where none of its children is open, it goes on.

    Children that wait for places get those that are free, each time.

    Args:
        at_once: Also if its counts have just been changed and there are open children.
        fill_places: False: the caller sends no children, and leaves this to others.
    """
    # Locked before the tallies are read, so that each is added once.
    recent = func.coalesce(jobs.c.counted_at > db_now(-COUNT_SECONDS), literal(False))
    found = yield (
        select(jobs, recent.label("recent"), db_now().label("now"))
        .where(jobs.c.id == parent_id)
        .with_for_update(key_share=True)
    )
    if not found:
        yield delete(tallies).where(tallies.c.parent_id == parent_id)
        yield from places.open_all(parent_id)
        return Counted(None, resumed=False)
    counted = yield from _count(found[0], at_once=at_once)
    if found[0].status == Status.CANCELLED:
        return counted  # Those that wait for places are about to be cancelled, too.
    # After the tallies: what was made or ended since they were taken has left one of its own, for
    # the next time; had places been looked for before, it would be counted and get none.
    if fill_places:
        placed, more = yield from places.fill(parent_id)
    else:
        placed, more = (), (yield from places.is_awaited(parent_id))
    if more:
        yield tally(parent_id, TOTAL, LOOK)
    return counted._replace(placed=placed)


def _count(parent: Row[Any], *, at_once: bool) -> Generator[Executable | Batch, Rows, Counted]:
    parent_id, marks = parent.id, (yield _marks(parent.id))
    if parent.recent and not at_once:
        new = Counter({row.kind: row.n for row in (yield _sums(parent_id))})
        if marks or _open(parent, new) > 0:
            return Counted(None, resumed=False)
    taken = yield (
        delete(tallies)
        .where(tallies.c.parent_id == parent_id, tallies.c.kind.not_in(MARKS))
        .returning(tallies.c.kind, tallies.c.n)
    )
    new = Counter()
    for row in taken:
        new[row.kind] += row.n
    return (yield from _add(parent, new, may_resume=not marks))


def _add(
    parent: Row[Any], new: Counter[str], *, may_resume: bool
) -> Generator[Executable | Batch, Rows, Counted]:
    waits = parent.status == Status.PROCESSING and parent.lease_until is None
    resumed = waits and may_resume and _open(parent, new) <= 0
    if not (resumed or any(new.values())):
        return Counted(None, resumed=False)
    columns = {kind: jobs.c[f"children_{kind}"] for kind in (TOTAL, *OVER)}
    counts: dict[str, Any] = {
        column.name: column + new[kind] for kind, column in columns.items() if new[kind]
    }
    sums = rollup.sums_with(parent.children_sums, new)
    if sums:
        counts["children_sums"] = sums
    if waits:
        known = {kind: getattr(parent, column.name) + new[kind] for kind, column in columns.items()}
        counts["progress"] = rollup.progress(parent, known, sums)
        counts["progress_seq"] = jobs.c.progress_seq + 1
    on = {"status": Status.PENDING, "due_at": db_now(RESUME_SECONDS), "dispatches": 0}
    rows = yield change(
        jobs.c.id == parent.id, counted_at=db_now(), **counts, **(on if resumed else {})
    )
    if resumed:
        yield from note(rows[0], "resumed")
    if new[TOTAL] > 0 and parent.status == Status.CANCELLED:
        # They were being made while it was cancelled.
        yield from mark_children([parent.id], STOP)
    return Counted(rows[0], resumed)


def _open(parent: Row[Any], new: Counter[str]) -> int:
    """How many children are open once `new` has been added."""
    over = parent.children_completed + parent.children_failed + parent.children_cancelled
    return int(parent.children_total + new[TOTAL] - over) - sum(new[status] for status in OVER)


def _tallied(which: ColumnElement[bool]) -> Select[tuple[str]]:
    return select(tallies.c.parent_id).where(which, tallies.c.kind.not_in(MARKS))


def _sums(parent_id: str) -> Select[tuple[str, int]]:
    return (
        select(tallies.c.kind, func.sum(tallies.c.n).label("n"))
        .where(tallies.c.parent_id == parent_id, tallies.c.kind.not_in(MARKS))
        .group_by(tallies.c.kind)
    )


def _marks(parent_id: str) -> Select[tuple[int]]:
    # Children that are to be run again are as good as open.
    return select(tallies.c.id).where(tallies.c.parent_id == parent_id, tallies.c.kind == AGAIN)


# -- what came of them -----------------------------------------------------------------------------


def page(
    parent_id: str, after: tuple[int | None, str] | None, limit: int, owner: str | None = None
) -> Generator[Executable | Batch, Rows, Rows]:
    """Some children of a job: first those it spawned, by ordinal, then others, by id.

    Args:
        after: Ordinal and id of the last one of the page before; None: this is the first.
        owner: Whose they are; None: anybody's.

    Returns:
        `ordinal`, `id`, `task`, `status`, `result` and `error` of each.
    """
    some = (
        select(jobs.c.ordinal, jobs.c.id, jobs.c.task, jobs.c.status, jobs.c.result, jobs.c.error)
        .where(jobs.c.parent_id == parent_id)
        .limit(limit)
    )
    if owner is not None:
        some = some.where(jobs.c.owner == owner)
    rows: list[JobRow] = []
    ordinal, job_id = after or (-1, "")
    if ordinal is not None:
        rows += yield some.where(jobs.c.ordinal > ordinal).order_by(jobs.c.ordinal)
        job_id = ""
    if len(rows) < limit:
        others = some.where(jobs.c.ordinal.is_(None), jobs.c.id > job_id)
        rows += yield others.order_by(jobs.c.id).limit(limit - len(rows))
    return rows
