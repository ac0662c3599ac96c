"""How usage gets to Stripe exactly once: batches are made, sent, and marked.

Programs, like those of `transitions`. A batch and its identifier are committed before the call to
Stripe and marked after it. Who dies in between leaves it open, and it is sent again with the same
identifier, by which Stripe knows it for 24 hours. One batch is made at a time and all others wait
while one does not get through, so an outage, however long, leaves no more than those under way in
doubt.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple
from uuid import uuid4

from sqlalchemy import Row, and_, case, func, insert, or_, select, update
from sqlalchemy.sql.base import Executable
from sqlalchemy.sql.expression import ColumnElement

from .models import db_now
from .statements import picked, unlocked
from .usage import OLDEST_SECONDS, BatchStatus, Rows, batches, usage

MOST_IN_A_BATCH: Final = 1000
LEASE_SECONDS: Final = 120.0
"""So long a batch is its flush's; a call to Stripe takes less."""
REMEMBERED_SECONDS: Final = 23 * 3600.0
"""Stripe knows an identifier for 24 hours; the hour is for clocks and calls under way."""
LONGEST_WAIT_SECONDS: Final = 1800.0
MOST_WAITING: Final = 3
"""With so many batches that did not get through, Stripe is away; fewer may have faults of their
own, for which the others need not wait."""
MAX_ERROR: Final = 500

Step = Generator[Executable, Rows, None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """A batch that the caller is to send, and nobody else for `LEASE_SECONDS`.

    Attributes:
        id: The identifier of the meter event.
        customer: Stripe's id of the customer.
        meter: The meter's event name.
        value: The sum.
        events: How many usages it holds.
        at: Of its last usage.
        tries: How many calls for it have begun, with the one to come.
        doubtful: An earlier call may have arrived.
    """

    id: str
    customer: str
    meter: str
    value: int
    events: int
    at: datetime
    tries: int
    doubtful: bool
    _until: float = field(default_factory=lambda: time.time() + LEASE_SECONDS)

    @property
    def expired(self) -> bool:
        """Whether the caller was frozen for so long that it must not send the batch any more."""
        return time.time() >= self._until


def take() -> Generator[Executable, Rows, Batch | None]:
    """The next batch to send: one that is open and due, else a new one; None: there is none now."""
    yield from _put_aside()
    waiting = and_(_open(), batches.c.error.is_not(None), batches.c.due_at > db_now())
    if len((yield select(batches.c.id).where(waiting).limit(MOST_WAITING))) == MOST_WAITING:
        return None
    again = (
        yield select(batches)
        .where(_open(), _sendable(), batches.c.due_at <= db_now())
        .order_by(batches.c.due_at)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    if again:
        rows = (
            yield update(batches)
            .where(batches.c.id == again[0].id)
            .values(
                tries=batches.c.tries + 1,
                due_at=db_now(LEASE_SECONDS),
                in_doubt_since=func.coalesce(batches.c.in_doubt_since, db_now()),
            )
            .returning(batches)
        )
        return _batch(rows[0], doubtful=again[0].in_doubt_since is not None)
    return (yield from _make())


def _open() -> ColumnElement[bool]:
    return batches.c.status == BatchStatus.OPEN


def _sendable() -> ColumnElement[bool]:
    """The condition that Stripe still knows the calls for a batch, or takes the first one."""
    begun = batches.c.in_doubt_since > db_now(-REMEMBERED_SECONDS)
    return or_(
        begun, and_(batches.c.in_doubt_since.is_(None), batches.c.at > db_now(-OLDEST_SECONDS))
    )


def _put_aside() -> Step:
    """Take from the open batches what must not be sent any more, and nobody is just changing."""
    forgotten = batches.c.in_doubt_since <= db_now(-REMEMBERED_SECONDS)
    due = and_(_open(), forgotten, batches.c.due_at <= db_now())
    yield _end(unlocked(batches.c.id, due), BatchStatus.HELD)
    late = and_(batches.c.in_doubt_since.is_(None), batches.c.at <= db_now(-OLDEST_SECONDS))
    yield _end(unlocked(batches.c.id, and_(_open(), late)), BatchStatus.TOO_OLD)


def _make() -> Generator[Executable, Rows, Batch | None]:
    """A new batch: the oldest pending usage, and what goes with it."""
    pending = and_(
        usage.c.batch_id.is_(None),
        # Not what lies ahead: it becomes due.
        usage.c.at <= db_now(),
        usage.c.at > db_now(-OLDEST_SECONDS),
    )
    oldest = (
        yield select(usage)
        .where(pending)
        .order_by(usage.c.at)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    if not oldest:
        return None
    first = oldest[0]
    hour = first.at.replace(minute=0, second=0, microsecond=0)
    alike = (
        select(usage.c.id)
        .where(
            pending,
            usage.c.customer == first.customer,
            usage.c.meter == first.meter,
            usage.c.owner == first.owner,
            usage.c.at >= hour,
            usage.c.at < hour + timedelta(hours=1),
        )
        .order_by(usage.c.at)
        .limit(MOST_IN_A_BATCH)
        .with_for_update(skip_locked=True)
    )
    identifier = uuid4().hex
    members = (
        yield update(usage)
        .where(usage.c.id.in_(picked(alike)), usage.c.batch_id.is_(None))
        .values(batch_id=identifier)
        .returning(usage.c.value, usage.c.at)
    )
    rows = (
        yield insert(batches)
        .values(
            id=identifier,
            owner=first.owner,
            customer=first.customer,
            meter=first.meter,
            value=sum(member.value for member in members),
            events=len(members),
            # The last, and not the first: a billing period that has ended takes nothing more.
            at=max(member.at for member in members),
            status=BatchStatus.OPEN,
            tries=1,
            in_doubt_since=db_now(),
            due_at=db_now(LEASE_SECONDS),
            created_at=db_now(),
        )
        .returning(batches)
    )
    return _batch(rows[0], doubtful=False)


def _batch(row: Row[Any], *, doubtful: bool) -> Batch:
    return Batch(
        id=row.id,
        customer=row.customer,
        meter=row.meter,
        value=row.value,
        events=row.events,
        at=row.at,
        tries=row.tries,
        doubtful=doubtful,
    )


# -- what became of a call -------------------------------------------------------------------------


def delivered(batch: Batch) -> Step:
    """Stripe has the batch; that is true whatever else has been thought of it."""
    unsure = [BatchStatus.OPEN, BatchStatus.HELD, BatchStatus.TOO_OLD]
    yield _end(and_(batches.c.id == batch.id, batches.c.status.in_(unsure)), BatchStatus.SENT)


def refused(batch: Batch, error: str) -> Step:
    """Stripe does not take the batch; if an earlier call may have arrived, a person decides."""
    status = BatchStatus.HELD if batch.doubtful else BatchStatus.FAILED
    yield _end(_still(batch), status, error)


def postponed(batch: Batch, error: str, *, seconds: float | None, doubtful: bool) -> Step:
    """The call did not succeed; it is made again later.

    Args:
        error: What was answered, or happened.
        seconds: How long Stripe wants to be left alone; None: ever longer, up to half an hour.
        doubtful: It may have arrived all the same.
    """
    wait = LONGEST_WAIT_SECONDS if batch.tries > 5 else 30.0 * 2**batch.tries
    doubt = {} if doubtful or batch.doubtful else {"in_doubt_since": None}
    yield (
        update(batches)
        .where(_still(batch))
        .values(error=error[:MAX_ERROR], due_at=db_now(seconds or wait), **doubt)
    )


def _still(batch: Batch) -> ColumnElement[bool]:
    """Nobody has begun a later call for the batch, or ended it."""
    return and_(batches.c.id == batch.id, batches.c.tries == batch.tries, _open())


def _end(where: ColumnElement[bool], status: BatchStatus, error: str | None = None) -> Executable:
    kept = {BatchStatus.SENT: None}.get(status, batches.c.error) if error is None else error
    if isinstance(kept, str):
        kept = kept[:MAX_ERROR]
    return (
        update(batches)
        .where(where)
        .values(status=status, ended_at=db_now(), error=kept)
        .returning(batches)
    )


# -- what is said of batches later -----------------------------------------------------------------


def reported(errors: Mapping[str, str]) -> Generator[Executable, Rows, int]:
    """Stripe reports that it could not use these events; how many of them are known here.

    Reports may come twice, in any order, also before the call has been marked as answered.

    Args:
        errors: What was wrong, by the batch's identifier.
    """
    known = 0
    # In one order: two reports that come at once may be about the same batches.
    settled = [BatchStatus.FAILED, BatchStatus.RELEASED]
    for identifier, error in sorted(errors.items()):
        failed = and_(batches.c.id == identifier, batches.c.status.not_in(settled))
        known += len((yield _end(failed, BatchStatus.FAILED, error)))
    return known


def decide(identifier: str, *, arrived: bool) -> Generator[Executable, Rows, Row[Any] | None]:
    """A person has found out about a batch that did not get through.

    Args:
        identifier: Of a batch that is failed, held or too old.
        arrived: It counts as sent; else its usage is sent anew, in another batch.

    Returns:
        The batch; None: it is not, or no longer, in such a state.
    """
    stuck = [BatchStatus.FAILED, BatchStatus.HELD, BatchStatus.TOO_OLD]
    where = and_(batches.c.id == identifier, batches.c.status.in_(stuck))
    rows = yield _end(where, BatchStatus.SENT if arrived else BatchStatus.RELEASED)
    if not rows:
        return None
    if not arrived:
        yield update(usage).where(usage.c.batch_id == identifier).values(batch_id=None)
    return rows[0]


class Outlook(NamedTuple):
    """What there is besides what was sent; numbers of usages and of batches.

    Attributes:
        pending: Usages that are still to be sent, or whose batch is open.
        too_old: Usages that are too old for Stripe.
        failed: Batches.
        held: Batches.
        waits_until: When Stripe is tried again; None: nothing waits.
        error: Why that waits.
    """

    pending: int
    too_old: int
    failed: int
    held: int
    waits_until: datetime | None
    error: str | None


def outlook() -> Generator[Executable, Rows, Outlook]:
    """What there is besides what was sent."""
    late = usage.c.at <= db_now(-OLDEST_SECONDS)
    alone = yield select(
        func.count(case((late, None), else_=1)).label("pending"),
        func.count(case((late, 1), else_=None)).label("too_old"),
    ).where(usage.c.batch_id.is_(None))
    unsent = [BatchStatus.OPEN, BatchStatus.FAILED, BatchStatus.HELD, BatchStatus.TOO_OLD]
    found = (
        yield select(
            batches.c.status,
            func.count().label("batches"),
            func.sum(batches.c.events).label("usages"),
        )
        .where(batches.c.status.in_(unsent))
        .group_by(batches.c.status)
    )
    of = {row.status: (int(row.batches), int(row.usages)) for row in found}
    nothing = (0, 0)
    waits = (
        yield select(batches.c.due_at, batches.c.error)
        .where(_open(), batches.c.error.is_not(None))
        .order_by(batches.c.due_at.desc())
        .limit(1)
    )
    return Outlook(
        pending=alone[0].pending + of.get("open", nothing)[1],
        too_old=alone[0].too_old + of.get("too_old", nothing)[1],
        failed=of.get("failed", nothing)[0],
        held=of.get("held", nothing)[0],
        waits_until=waits[0].due_at if waits else None,
        error=waits[0].error if waits else None,
    )
