"""What customers have used, recorded to be billed, and the batches that it is sent to Stripe in.

The tables, recording, and what people read; how batches are made, sent and marked is in
`usage_batches`. Every usage is a row for good. One that is not in a batch yet is pending, or, once
it is older than Stripe takes it, too old; else it shares its batch's status.

======== ==========================================================================================
batch is meaning
======== ==========================================================================================
open     to be sent; or sent, and the answer is still to come or was lost
sent     Stripe has it
failed   Stripe refused it, at once or later by a report; `error` says why
held     it may or may not have arrived, and Stripe has forgotten its identifier: a person decides
too_old  it did not get through for so long that Stripe does not take it any more
released a person has let its usage go, to be sent in a new batch
======== ==========================================================================================
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Index,
    Integer,
    Row,
    Select,
    Table,
    Text,
    UniqueConstraint,
    case,
    func,
    literal,
    select,
    text,
    tuple_,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.sql.base import Executable
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.expression import FunctionElement, and_

from .errors import UsageConflict
from .models import SCHEMA_TOKEN, Base, UtcDateTime, db_now
from .views import storable_text

Rows = Sequence[Row[Any]]
Reading = Generator[Executable, Rows, Rows]

MAX_VALUE: Final = 999_999_999_999
"""Largest value of one usage. With `usage_batches.MOST_IN_A_BATCH` of them a sum keeps within the
15 digits that Stripe takes."""
MAX_NAME: Final = 100
"""Characters of a customer and of a meter, as Stripe takes them."""
MAX_KEY: Final = 255
OLDEST_SECONDS: Final = 35 * 86_400.0 - 3600.0
"""Stripe takes usage of the past 35 days; the hour is for clocks that differ."""


class BatchStatus(StrEnum):
    """Where a batch is; see above."""

    OPEN = "open"
    SENT = "sent"
    FAILED = "failed"
    HELD = "held"
    TOO_OLD = "too_old"
    RELEASED = "released"


class UsageRow(Base):
    """Something that a customer has used; it is never changed but for its batch."""

    __tablename__ = "livejobs_usage"
    __table_args__ = (
        UniqueConstraint("owner", "key"),
        Index("ix_livejobs_usage_at", "at"),
        Index("ix_livejobs_usage_owner_at", "owner", "at"),
        Index("ix_livejobs_usage_batch_id", "batch_id"),
        Index(
            "ix_livejobs_usage_pending",
            "at",
            sqlite_where=text("batch_id IS NULL"),
            postgresql_where=text("batch_id IS NULL"),
        ),
        Index(
            "ix_livejobs_usage_group",
            *("customer", "meter", "owner", "at"),
            sqlite_where=text("batch_id IS NULL"),
            postgresql_where=text("batch_id IS NULL"),
        ),
    )

    id: Mapped[int] = mapped_column(
        BigInteger().with_variant(Integer(), "sqlite"), primary_key=True, autoincrement=True
    )
    owner: Mapped[str] = mapped_column(Text, doc="Empty: nobody's.")
    key: Mapped[str] = mapped_column(Text, doc="Of the caller's choice; an owner has each once.")
    customer: Mapped[str] = mapped_column(Text, doc="Stripe's id of the customer, cus_….")
    meter: Mapped[str] = mapped_column(Text, doc="The meter's event name.")
    value: Mapped[int] = mapped_column(BigInteger)
    at: Mapped[datetime] = mapped_column(UtcDateTime, doc="When it was used.")
    recorded_at: Mapped[datetime] = mapped_column(UtcDateTime)
    batch_id: Mapped[str | None] = mapped_column(Text, doc="None: in none yet.")


class BatchRow(Base):
    """Usage of one customer, meter and hour that goes to Stripe as one meter event."""

    __tablename__ = "livejobs_usage_batches"
    __table_args__ = (
        Index("ix_livejobs_usage_batches_created_at", "created_at", "id"),
        Index("ix_livejobs_usage_batches_owner_created_at", "owner", "created_at", "id"),
        Index("ix_livejobs_usage_batches_status", "status", "due_at"),
    )

    id: Mapped[str] = mapped_column(Text, primary_key=True, doc="The meter event's identifier.")
    owner: Mapped[str] = mapped_column(Text)
    customer: Mapped[str] = mapped_column(Text)
    meter: Mapped[str] = mapped_column(Text)
    value: Mapped[int] = mapped_column(BigInteger, doc="The sum.")
    events: Mapped[int] = mapped_column(Integer, doc="How many usages it holds.")
    at: Mapped[datetime] = mapped_column(UtcDateTime, doc="Of its last usage.")
    status: Mapped[str] = mapped_column(Text, default=BatchStatus.OPEN)
    tries: Mapped[int] = mapped_column(Integer, doc="Calls begun; the fence.")
    in_doubt_since: Mapped[datetime | None] = mapped_column(
        UtcDateTime, doc="First call that may have arrived; None: it certainly has not."
    )
    due_at: Mapped[datetime] = mapped_column(UtcDateTime, doc="Not to be sent again before.")
    error: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    ended_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


usage: Final[Table] = Base.metadata.tables[f"{SCHEMA_TOKEN}.livejobs_usage"]
batches: Final[Table] = Base.metadata.tables[f"{SCHEMA_TOKEN}.livejobs_usage_batches"]


# -- recording -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class NewUsage:
    """A usage to record.

    Attributes:
        customer: Stripe's id of the customer.
        meter: The meter's event name.
        value: A whole number; negative takes back what was too much.
        key: Names this usage among its owner's, so that it counts once.
        owner: Whose it is; empty: nobody's.
        at: When it was used, with a time zone; None: now.

    Raises:
        ValueError: One of them cannot be taken.
    """

    customer: str
    meter: str
    value: int
    key: str
    owner: str = ""
    at: datetime | None = None

    def __post_init__(self) -> None:
        for name, most in (("customer", MAX_NAME), ("meter", MAX_NAME), ("key", MAX_KEY)):
            given = getattr(self, name)
            if not 0 < len(given) <= most or storable_text(given) != given:
                raise ValueError(f"{name} is text of 1 to {most} characters, not {given!r:.120}")
        if type(self.value) is not int or abs(self.value) > MAX_VALUE:
            raise ValueError(
                f"value is a whole number up to {MAX_VALUE}, not {self.value!r}: "
                "count in another unit."
            )
        if self.at is not None and self.at.tzinfo is None:
            raise ValueError("at needs a time zone")


def record(new: NewUsage) -> Generator[Executable, Rows, bool]:
    """Keep a usage; False if it was recorded before.

    Raises:
        UsageConflict: The key came before with another usage.
    """
    rows = (
        yield insert(usage)
        .values(
            owner=new.owner,
            key=new.key,
            customer=new.customer,
            meter=new.meter,
            value=new.value,
            at=db_now() if new.at is None else new.at,
            recorded_at=db_now(),
        )
        .on_conflict_do_nothing(index_elements=["owner", "key"])
        .returning(usage.c.id)
    )
    if rows:
        return True
    rows = yield select(usage).where(usage.c.owner == new.owner, usage.c.key == new.key)
    for earlier in rows:
        same = (earlier.customer, earlier.meter, earlier.value)
        if same != (new.customer, new.meter, new.value) or new.at not in (None, earlier.at):
            raise UsageConflict(new.key)
    return False


# -- what people read ------------------------------------------------------------------------------


class _Day(FunctionElement[str]):
    """The day of a time in UTC, as ISO text."""

    name = "livejobs_day"
    type = Text()
    inherit_cache = True


@compiles(_Day, "sqlite")
def _day_sqlite(element: _Day, compiler: SQLCompiler, **kw: Any) -> str:
    return f"substr({compiler.process(element.clauses, **kw)}, 1, 10)"


@compiles(_Day, "postgresql")
def _day_postgresql(element: _Day, compiler: SQLCompiler, **kw: Any) -> str:
    return f"to_char({compiler.process(element.clauses, **kw)} AT TIME ZONE 'UTC', 'YYYY-MM-DD')"


SHOWN: Final = ("pending", "sent", "failed", "held", "too_old")
"""What becomes of recorded usage; they add up to what was recorded."""


def _shown_status() -> ColumnElement[str]:
    """Of a usage that is joined to its batch, one of `SHOWN`."""
    return case(
        (
            batches.c.status.is_(None),
            case((usage.c.at <= db_now(-OLDEST_SECONDS), "too_old"), else_="pending"),
        ),
        (batches.c.status == BatchStatus.OPEN, "pending"),
        else_=batches.c.status,
    )


def by_day(
    since: datetime,
    until: datetime,
    limit: int,
    *,
    customer: str | None = None,
    meter: str | None = None,
    after: tuple[date, str, str, str] | None = None,
) -> Select[Any]:
    """Sums of usage for each day, owner, customer and meter, the newest day first.

    Args:
        since: From this time on.
        until: Before this time.
        limit: Most rows.
        customer: Of this one only.
        meter: Of this one only.
        after: Day, owner, customer and meter of the last row that was read before.

    Returns:
        Rows of day, owner, customer, meter, events, recorded, and each of `SHOWN`.
    """
    day: ColumnElement[str] = _Day(usage.c.at)
    status = _shown_status()
    key = (day, usage.c.owner, usage.c.customer, usage.c.meter)
    statement = (
        select(
            day.label("day"),
            *key[1:],
            func.count().label("events"),
            func.sum(usage.c.value).label("recorded"),
            *(
                func.sum(case((status == name, usage.c.value), else_=0)).label(name)
                for name in SHOWN
            ),
        )
        .join_from(usage, batches, batches.c.id == usage.c.batch_id, isouter=True)
        .where(usage.c.at >= since, usage.c.at < until)
        .group_by(*key)
        .order_by(day.desc(), *key[1:])
        .limit(limit)
    )
    for column, wanted in ((usage.c.customer, customer), (usage.c.meter, meter)):
        if wanted is not None:
            statement = statement.where(column == wanted)
    if after is not None:
        last, *names = after
        later = tuple_(*key[1:]) > tuple_(*(literal(name, Text()) for name in names))
        same_day = and_(day == last.isoformat(), later)
        statement = statement.where((day < last.isoformat()) | same_day)
    return statement


def list_batches(
    statuses: Sequence[str], limit: int, after: tuple[datetime, str] | None = None
) -> Select[Any]:
    """Batches, the newest first.

    Args:
        statuses: With one of these; empty: all.
        limit: Most rows.
        after: `created_at` and id of the last row that was read before.
    """
    statement = select(batches).order_by(batches.c.created_at.desc(), batches.c.id.desc())
    if statuses:
        statement = statement.where(batches.c.status.in_(statuses))
    if after is not None:
        last = tuple_(literal(after[0], UtcDateTime()), literal(after[1], Text()))
        statement = statement.where(tuple_(batches.c.created_at, batches.c.id) < last)
    return statement.limit(limit)
