"""Places: of children that were spawned with `at_once`, so many at a time, the others held back.

Programs of statements, as in `transitions`. Such a child is made held: it is pending, but nobody's
to send. It gets a place here only, by who has locked the parent's row: so no two give away the same
place. It keeps the place until it is over, also while it waits to be tried again. Nobody hands a
place on, and so none can be lost: what is free is found by looking at who has one.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Final

from sqlalchemy import and_, func, select, update
from sqlalchemy.sql.base import Executable
from sqlalchemy.sql.expression import ColumnElement

from .models import db_now
from .new_jobs import FIRST_DISPATCH_SECONDS
from .statements import Batch, Rows, jobs

MOST: Final = 500
"""Children that get a place in one transaction."""

Filled = tuple[Rows, bool]
"""The children that have got places, to be sent now; and whether to come back for others."""


def is_awaited(parent_id: str) -> Generator[Executable | Batch, Rows, bool]:
    """Whether children of a parent wait for places."""
    return bool((yield select(jobs.c.id).where(_held(parent_id)).limit(1)))


def fill(parent_id: str) -> Generator[Executable | Batch, Rows, Filled]:
    """Give the places that are free to the held children next in order; they are due at once.

    The caller has locked the parent's row before this began. How many there are is what the first
    held child was spawned with.
    """
    taken = select(func.count()).where(_open(parent_id), jobs.c.held.is_(False))
    held = _held(parent_id)
    first = select(jobs.c.at_once).where(held).order_by(jobs.c.ordinal).limit(1)
    found = yield select(
        first.scalar_subquery().label("places"), taken.scalar_subquery().label("taken")
    )
    free = min((found[0].places or 0) - found[0].taken, MOST)
    if free <= 0:
        return (), False
    # Those that somebody is just changing, such as cancelling, are left.
    some = select(jobs.c.id).where(held).order_by(jobs.c.ordinal).limit(free)
    ids = [row.id for row in (yield some.with_for_update(skip_locked=True, key_share=True))]
    rows = yield (
        update(jobs)
        .where(jobs.c.id.in_(ids))
        # The version stays: nothing that a viewer sees has changed.
        .values(held=False, due_at=db_now(FIRST_DISPATCH_SECONDS))
        .returning(jobs)
    )
    rows = sorted(rows, key=lambda row: row.ordinal)
    is_short = len(ids) < free or free == MOST
    return rows, is_short and (yield from is_awaited(parent_id))


def open_all(parent_id: str) -> Generator[Executable | Batch, Rows, None]:
    """The parent is gone, and its places with it: keepers send all children that wait for one."""
    yield update(jobs).where(_held(parent_id)).values(held=False, due_at=db_now())


def _held(parent_id: str) -> ColumnElement[bool]:
    return and_(_open(parent_id), jobs.c.held.is_(True))


def _open(parent_id: str) -> ColumnElement[bool]:
    return and_(
        jobs.c.parent_id == parent_id,
        jobs.c.at_once.is_not(None),
        jobs.c.completed_at.is_(None),
    )
