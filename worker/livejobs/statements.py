"""What the changes of a job are made of: the compare-and-set, and the statements around it.

`transitions` and `attempts` put them together; nothing here executes one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import (
    Boolean,
    Column,
    Insert,
    Row,
    Select,
    Table,
    Text,
    Update,
    and_,
    case,
    delete,
    func,
    literal,
    literal_column,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.base import Executable
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.expression import ColumnElement, FunctionElement
from sqlalchemy.types import TypeEngine

from .entries import Entry
from .models import Deletion, EntryRow, Event, Job, Tally, WebhookRow, db_now
from .views import Status

JobRow = Row[Any]
Rows = Sequence[Row[Any]]
Batch = tuple[Executable, list[dict[str, Any]] | dict[str, Any]]
Program = Generator[Executable | Batch, Rows, JobRow | None]
Along = Callable[[], Generator[Executable | Batch, Rows, Any]]
"""Makes statements that go along in a transaction, anew for each try of it."""

OVER: Final = (Status.COMPLETED, Status.FAILED, Status.CANCELLED)
"""The states of a job that has ended."""
DELETIONS_KEPT_SECONDS: Final = 86_400.0
"""So long it is known which jobs were deleted."""

# ON CONFLICT DO NOTHING and RETURNING are spelled the same on PostgreSQL and SQLite, and
# PostgreSQL's insert construct compiles on both.
jobs: Final[Table] = Job.metadata.tables[f"{Job.metadata.schema}.livejobs_jobs"]
entries: Final[Table] = EntryRow.metadata.tables[f"{Job.metadata.schema}.livejobs_entries"]
deletions: Final[Table] = Deletion.metadata.tables[f"{Job.metadata.schema}.livejobs_deletions"]
events: Final[Table] = Event.metadata.tables[f"{Job.metadata.schema}.livejobs_events"]
tallies: Final[Table] = Tally.metadata.tables[f"{Job.metadata.schema}.livejobs_tallies"]
webhooks: Final[Table] = WebhookRow.metadata.tables[f"{Job.metadata.schema}.livejobs_webhooks"]

WEBHOOK_TASK: Final = "livejobs.webhook"
"""The task of the jobs that send webhooks; nobody is told of their ends."""
# On SQLite RETURNING names columns without their table, which would be the wrong one's here.
_OWNER_OF_JOB: Final[ColumnElement[str]] = literal_column("livejobs_jobs.owner", Text)
_DEFAULT: Final = (
    select(webhooks.c.url)
    .where(webhooks.c.owner == _OWNER_OF_JOB, webhooks.c.disabled_at.is_(None))
    .scalar_subquery()
)
# Read with the row that comes back anyway: a job without a webhook costs no statement more. SQLite
# 3.40 takes IS NULL for false in RETURNING, so that it is not asked of the job's columns.
_IS_NO_CHILD: Final = func.coalesce(jobs.c.parent_id, "") == ""
_TOLD: Final = case(
    (
        and_(jobs.c.status.in_(list(OVER)), jobs.c.task != WEBHOOK_TASK),
        func.coalesce(jobs.c.webhook_url, case((_IS_NO_CHILD, _DEFAULT), else_=None)),
    ),
    else_=None,
)


TOTAL: Final = "total"
"""The tally of children that were made; those of ends are called like their status."""
STOP: Final = "stop"
"""The tally that says: the children that are open are to be cancelled."""
AGAIN: Final = "again"
"""… and those that were cancelled are to be run again."""
MARKS: Final = (STOP, AGAIN)
LOOK: Final = 0
"""The number of a tally that adds nothing, and only has somebody look at the children."""

_IS_TALLIED: Final = (
    select(literal(1))
    .where(
        tallies.c.parent_id == literal_column("livejobs_jobs.id", Text),
        tallies.c.kind.not_in(MARKS),
    )
    .exists()
)


class _Webhook(FunctionElement[str]):
    """Who is to be told of the end; SQLAlchemy knows it again without looking at what it is of."""

    name = "webhook"
    type: TypeEngine[str] = Text()
    inherit_cache = True


class _IsTallied(FunctionElement[bool]):
    """Whether its children have said something that is to be added up; known again like that."""

    name = "is_tallied"
    type: TypeEngine[bool] = Boolean()
    inherit_cache = True


@compiles(_Webhook)
def _webhook(element: _Webhook, compiler: SQLCompiler, **kw: Any) -> str:
    return compiler.process(_TOLD, **kw)


@compiles(_IsTallied)
def _is_tallied(element: _IsTallied, compiler: SQLCompiler, **kw: Any) -> str:
    return compiler.process(_IS_TALLIED, **kw)


_SAID: Final = (_Webhook().label("webhook"), _IsTallied().label("is_tallied"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """What an execution has reported and the database does not have yet.

    Attributes:
        progress: The newest `Progress` as plain data, None: none.
        seq: Its seq.
        entries: New entries, ascending.
        last_n: Number of the last entry of this attempt.
        keep: Entries kept for a job.
    """

    progress: dict[str, Any] | None = None
    seq: int = 0
    entries: Sequence[Entry] = ()
    last_n: int = 0
    keep: int = 10_000


NOTHING: Final = Reported()


def picked(rows: Select[Any]) -> Select[Any]:
    """Rows that are picked by lock and limit, to be put in an IN: no more of them than the limit.

    PostgreSQL may read a subquery again for each row of what is around it, and one that skips
    locked rows, and those that the statement has changed, then picks others each time.
    """
    return select(rows.cte("picked").prefix_with("MATERIALIZED"))


def unlocked(key: Column[Any], where: ColumnElement[bool]) -> ColumnElement[bool]:
    """The condition that `where` holds for a row that nobody else is just changing.

    Of those who change several rows each waits for no row, so that no two wait for each other,
    whatever order the database finds rows in.

    Args:
        key: The primary key.
    """
    return key.in_(picked(select(key).where(where).with_for_update(skip_locked=True)))


def running_attempt(job_id: str, attempt: int) -> ColumnElement[bool]:
    """The condition that this attempt, and no later one, is what runs."""
    return and_(jobs.c.id == job_id, jobs.c.attempt == attempt, jobs.c.status == Status.PROCESSING)


def let_go(**values: Any) -> dict[str, Any]:
    """The columns of a job that no worker runs any more: pending, unless `values` say otherwise."""
    free = {"status": Status.PENDING, "lease_until": None, "run_at": None, "stalled": False}
    return free | values


def cancelling(idle: ColumnElement[bool]) -> dict[str, Any]:
    """The columns of an open job that is to stop: over at once where it is `idle`."""
    return {
        "status": case((idle, Status.CANCELLED), else_=jobs.c.status),
        "completed_at": case((idle, db_now()), else_=None),
        "due_at": None,
        "run_at": None,
        "cancel_requested_at": db_now(),
    }


def idle() -> ColumnElement[bool]:
    """The condition that an open job is run by nobody: it is pending, or waits for its children."""
    return or_(jobs.c.status == Status.PENDING, jobs.c.lease_until.is_(None))


def begun_again(*, was_cancelled: bool) -> dict[str, Any]:
    """The columns of a job that was over and is to be run once more, its cancel forgotten.

    Args:
        was_cancelled: Its children were cancelled with it, and are to be run again before it goes
            on after them.
    """
    child = jobs.alias()
    has_cancelled = (
        select(literal(1))
        .where(child.c.parent_id == jobs.c.id, child.c.status == Status.CANCELLED)
        .correlate(jobs)
        .exists()
    )
    waits = and_(literal(was_cancelled), jobs.c.children_from > 0, has_cancelled)
    # Its former place may be another one's by now.
    held = and_(jobs.c.at_once.is_not(None), ~waits)
    return let_go(
        status=case((waits, Status.PROCESSING), else_=Status.PENDING),
        due_at=case((or_(waits, held), None), else_=db_now()),
        held=held,
        dispatches=0,
        expires_at=None,
        completed_at=None,
        cancel_requested_at=None,
        result=None,
        error=None,
        max_attempts=case(
            (jobs.c.max_attempts <= jobs.c.attempt, jobs.c.attempt + 1),
            else_=jobs.c.max_attempts,
        ),
    )


def change(where: ColumnElement[bool], **values: Any) -> Update:
    """The compare-and-set: where `where` holds, set the columns `values`, and answer the row.

    `version` and `updated_at` move with each.
    """
    return _changed(where, values).returning(jobs)


def change_perhaps_last(where: ColumnElement[bool], **values: Any) -> Update:
    """`change`, after which the job may be over: the row says what goes with that.

    Its `webhook` is to be told of it; and where it `is_tallied` its children have said something
    that is not counted yet.
    """
    return _changed(where, values).returning(jobs, *_SAID)


def _changed(where: ColumnElement[bool], values: dict[str, Any]) -> Update:
    values = {"updated_at": db_now(), "version": jobs.c.version + 1} | values
    return update(jobs).where(where).values(**values)


def reported_columns(reported: Reported) -> dict[str, Any]:
    """The columns of the row that what was reported changes."""
    columns: dict[str, Any] = {}
    if reported.progress is not None:
        columns |= {"progress": reported.progress, "progress_seq": reported.seq}
    if reported.last_n:
        columns["last_n"] = reported.last_n
    return columns


def keep_entries(row: JobRow, reported: Reported) -> Generator[Executable | Batch, Rows, None]:
    """Write the new entries of the row's attempt; delete those over the bound."""
    if not reported.entries:
        return
    values = [
        {"job_id": row.id, "attempt": row.attempt, "n": e.n, "kind": e.kind, "body": e.body}
        for e in reported.entries
    ]
    # The row of an earlier COMMIT whose answer was lost may be there already: it is the same.
    yield insert(entries).values(at=db_now()).on_conflict_do_nothing(), values
    if reported.last_n > reported.keep:
        yield delete(entries).where(
            entries.c.job_id == row.id,
            entries.c.attempt == row.attempt,
            entries.c.n <= reported.last_n - reported.keep,
        )


def note(
    row: JobRow, kind: str, detail: dict[str, Any] | None = None
) -> Generator[Executable | Batch, Rows, None]:
    """Add an event to the timeline; what is None in `detail` is left out."""
    kept = {key: value for key, value in (detail or {}).items() if value is not None}
    yield insert(events).values(
        job_id=row.id, at=db_now(), kind=kind, attempt=row.attempt, detail=kept or None
    )


def note_all(kinds: Sequence[tuple[JobRow, str]]) -> Generator[Executable | Batch, Rows, None]:
    """Add an event to the timeline of each of many jobs."""
    if kinds:
        values = [
            {"job_id": row.id, "kind": kind, "attempt": row.attempt, "detail": None}
            for row, kind in kinds
        ]
        yield insert(events).values(at=db_now()), values


def tally(parent_id: str, kind: str, n: int = 1) -> Insert:
    """Say something about a parent's children in a row of its own; `children.count` adds it up.

    The parent's row is left alone: its children, however many end at once, wait for nobody.

    Args:
        kind: `TOTAL`, or the status of children that are over.
        n: How many there are more; negative: less.
    """
    return insert(tallies).values(parent_id=parent_id, kind=kind, n=n)


def mark_children(job_ids: Sequence[str], kind: str) -> Generator[Executable | Batch, Rows, None]:
    """Have keepers stop the open children of these jobs, or run the cancelled ones again.

    Args:
        kind: `STOP` or `AGAIN`; the other one is forgotten.
    """
    other = AGAIN if kind == STOP else STOP
    yield delete(tallies).where(tallies.c.parent_id.in_(job_ids), tallies.c.kind == other)
    concerned = jobs.c.status == Status.CANCELLED if kind == AGAIN else is_open()
    parents = (
        select(jobs.c.parent_id, literal(kind), literal(0))
        .where(jobs.c.parent_id.in_(job_ids), concerned)
        .distinct()
    )
    yield insert(tallies).from_select(["parent_id", "kind", "n"], parents)


def forget(gone: Rows) -> Generator[Executable | Batch, Rows, None]:
    """Remember that jobs have been deleted, and count them no more.

    Args:
        gone: `id`, `status`, `owner` and `parent_id` of each.
    """
    if not gone:
        return
    old = deletions.c.at < db_now(-DELETIONS_KEPT_SECONDS)
    yield delete(deletions).where(unlocked(deletions.c.job_id, old))
    new = insert(deletions).values(at=db_now())
    told = {name: new.excluded[name] for name in ("owner", "parent_id", "at")}
    yield (
        new.on_conflict_do_update(index_elements=[deletions.c.job_id], set_=told),
        [{"job_id": row.id, "owner": row.owner, "parent_id": row.parent_id} for row in gone],
    )
    counted = Counter((row.parent_id, row.status) for row in gone if row.parent_id is not None)
    for (parent_id, status), n in counted.items():
        yield tally(parent_id, TOTAL, -n)
        if status in OVER:
            yield tally(parent_id, status, -n)


def is_open() -> ColumnElement[bool]:
    """The condition that a job is not over, and nobody has asked for its cancel."""
    return and_(
        jobs.c.status.in_([Status.PENDING, Status.PROCESSING]),
        jobs.c.cancel_requested_at.is_(None),
    )


def children_over() -> ColumnElement[int]:
    """How many children of the row are over."""
    return jobs.c.children_completed + jobs.c.children_failed + jobs.c.children_cancelled
