"""The tables, named ``livejobs_*`` so that they live beside a user's own.

Every time is the database's own clock in UTC. The same statements run on SQLite and PostgreSQL;
what the two spell differently is hidden in the few constructs at the top.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Row,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.expression import ColumnElement, FunctionElement, literal
from sqlalchemy.types import TypeEngine

from .views import Children, JobError, JobView, Progress, Status

SCHEMA_TOKEN = "livejobs"
"""Stands for the configured schema; engines translate it (`schema_translate_map`)."""


class UtcDateTime(TypeDecorator[datetime]):
    """A moment in UTC, microseconds; aware in Python on every database."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time needs a time zone")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class JsonText(TypeDecorator[Any]):
    """JSON kept as the text it came as: what is stored is not reordered or renumbered."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        if value is None:
            return None
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        return None if value is None else json.loads(value)


class _Now(FunctionElement[datetime]):
    """The database's clock, plus a number of seconds."""

    name = "livejobs_now"
    type: TypeEngine[datetime] = UtcDateTime()
    inherit_cache = True


@compiles(_Now, "sqlite")
def _now_sqlite(element: _Now, compiler: SQLCompiler, **kw: Any) -> str:
    # strftime knows milliseconds; the zeros give the width in which all times are stored.
    seconds = compiler.process(element.clauses, **kw)
    moment = f"strftime('%Y-%m-%d %H:%M:%f', 'now', ({seconds}) || ' seconds')"
    return f"({moment} || '000')"


@compiles(_Now, "postgresql")
def _now_postgresql(element: _Now, compiler: SQLCompiler, **kw: Any) -> str:
    seconds = compiler.process(element.clauses, **kw)
    return f"(statement_timestamp() + ({seconds}) * interval '1 second')"


def db_now(plus: float | ColumnElement[float] = 0.0) -> ColumnElement[datetime]:
    """The database's clock now, or `plus` seconds from now."""
    seconds = plus if isinstance(plus, ColumnElement) else literal(plus, Float)
    return _Now(seconds)


_JSON_OBJECT = JSON().with_variant(JSONB(), "postgresql")


class Base(DeclarativeBase):
    """Root of the tables."""

    metadata = MetaData(
        schema=SCHEMA_TOKEN,
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        },
    )


class Job(Base):
    """A job: the row is the truth about it."""

    __tablename__ = "livejobs_jobs"
    __table_args__ = (
        UniqueConstraint("owner", "idempotency_key"),
        Index("ix_livejobs_jobs_owner_created_at", "owner", "created_at", "id"),
        Index("ix_livejobs_jobs_created_at", "created_at", "id"),
        Index("ix_livejobs_jobs_due", "due_at"),
        Index("ix_livejobs_jobs_lease", "lease_until"),
        Index("ix_livejobs_jobs_expires", "expires_at"),
        Index("ix_livejobs_jobs_updated_at", "updated_at"),
        Index("ix_livejobs_jobs_owner_updated_at", "owner", "updated_at"),
        Index(
            "ix_livejobs_jobs_open",
            "owner",
            "updated_at",
            sqlite_where=text("completed_at IS NULL"),
            postgresql_where=text("completed_at IS NULL"),
        ),
        Index(
            "uq_livejobs_jobs_parent_id_ordinal",
            "parent_id",
            "ordinal",
            unique=True,
            sqlite_where=text("parent_id IS NOT NULL"),
            postgresql_where=text("parent_id IS NOT NULL"),
        ),
        Index(
            "ix_livejobs_jobs_ended",
            "status",
            "completed_at",
            sqlite_where=text("completed_at IS NOT NULL"),
            postgresql_where=text("completed_at IS NOT NULL"),
        ),
        Index("ix_livejobs_jobs_worker", "worker"),
        Index(
            "ix_livejobs_jobs_places",
            "parent_id",
            "held",
            "ordinal",
            sqlite_where=text("at_once IS NOT NULL AND completed_at IS NULL"),
            postgresql_where=text("at_once IS NOT NULL AND completed_at IS NULL"),
        ),
    )

    id: Mapped[str] = mapped_column(Text, primary_key=True, doc="Equal to the Celery task id.")
    task: Mapped[str] = mapped_column(Text)
    queue: Mapped[str] = mapped_column(Text)
    message: Mapped[Any] = mapped_column(
        JsonText,
        nullable=False,
        doc="The Celery message as published, so that any later dispatch is complete.",
    )
    status: Mapped[str] = mapped_column(Text, default=Status.PENDING)
    attempt: Mapped[int] = mapped_column(Integer, default=0, doc="Executions begun; the fence.")
    max_attempts: Mapped[int | None] = mapped_column(Integer, doc="None: no limit.")
    rerun_when_lost: Mapped[bool] = mapped_column(
        Boolean, default=False, doc="A lost attempt may be run again (acks_late or on_lost)."
    )
    dispatches: Mapped[int] = mapped_column(Integer, default=0, doc="Dispatches by a keeper.")
    run_at: Mapped[datetime | None] = mapped_column(UtcDateTime, doc="Not to be run before.")
    due_at: Mapped[datetime | None] = mapped_column(UtcDateTime, doc="A keeper sends it then.")
    lease_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    worker: Mapped[str | None] = mapped_column(Text, doc="Unique for each claim.")
    cancel_requested_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    reported_at: Mapped[datetime | None] = mapped_column(UtcDateTime, doc="Last sign of progress.")
    stalled: Mapped[bool] = mapped_column(
        Boolean, default=False, doc="It runs, but has not reported for long."
    )
    progress: Mapped[Any] = mapped_column(JsonText, nullable=True)
    progress_seq: Mapped[int] = mapped_column(BigInteger, default=0)
    last_n: Mapped[int] = mapped_column(BigInteger, default=0, doc="Last entry of this attempt.")
    result: Mapped[Any] = mapped_column(JsonText, nullable=True)
    error: Mapped[Any] = mapped_column(JsonText, nullable=True)
    owner: Mapped[str] = mapped_column(Text, default="", doc="Empty: nobody's.")
    tags: Mapped[dict[str, str]] = mapped_column(_JSON_OBJECT, default=dict)
    parent_id: Mapped[str | None] = mapped_column(Text)
    ordinal: Mapped[int | None] = mapped_column(
        Integer, doc="Of a child that its parent spawned: the how manieth, from 0."
    )
    at_once: Mapped[int | None] = mapped_column(
        Integer, doc="Of a child: so many like it at a time, see `places`. None: any number."
    )
    held: Mapped[bool] = mapped_column(
        Boolean, default=False, doc="It waits for a place, and is not to be sent."
    )
    children_from: Mapped[int] = mapped_column(
        Integer, default=0, doc="Ordinal of the first child that an attempt spawns."
    )
    children_total: Mapped[int] = mapped_column(Integer, default=0)
    children_completed: Mapped[int] = mapped_column(Integer, default=0)
    children_failed: Mapped[int] = mapped_column(Integer, default=0)
    children_cancelled: Mapped[int] = mapped_column(Integer, default=0)
    children_before: Mapped[int] = mapped_column(
        Integer, default=0, doc="Children that were over when the attempt began."
    )
    children_sums: Mapped[Any] = mapped_column(
        JsonText, nullable=True, doc="What completed children have handed in, by name."
    )
    counted_at: Mapped[datetime | None] = mapped_column(
        UtcDateTime, doc="When tallies were added to the counts of its children."
    )
    idempotency_key: Mapped[str | None] = mapped_column(Text)
    idempotency_hash: Mapped[str | None] = mapped_column(Text, doc="Of what the key asked for.")
    webhook_url: Mapped[str | None] = mapped_column(
        Text, doc="To be told of its end. None: its owner's default; empty: nobody."
    )
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    started_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)
    completed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    version: Mapped[int] = mapped_column(BigInteger, default=1)


class Event(Base):
    """One line of a job's timeline."""

    __tablename__ = "livejobs_events"
    __table_args__ = (Index("ix_livejobs_events_job_id", "job_id", "id"),)

    id: Mapped[int] = mapped_column(
        BigInteger().with_variant(Integer(), "sqlite"), primary_key=True, autoincrement=True
    )
    job_id: Mapped[str] = mapped_column(
        Text, ForeignKey(f"{SCHEMA_TOKEN}.livejobs_jobs.id", ondelete="CASCADE")
    )
    at: Mapped[datetime] = mapped_column(UtcDateTime)
    kind: Mapped[str] = mapped_column(Text)
    attempt: Mapped[int] = mapped_column(Integer)
    detail: Mapped[Any] = mapped_column(JsonText, nullable=True)


class EntryRow(Base):
    """A batch of log lines or a piece of output."""

    __tablename__ = "livejobs_entries"

    job_id: Mapped[str] = mapped_column(
        Text,
        ForeignKey(f"{SCHEMA_TOKEN}.livejobs_jobs.id", ondelete="CASCADE"),
        primary_key=True,
    )
    attempt: Mapped[int] = mapped_column(Integer, primary_key=True)
    n: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    kind: Mapped[str] = mapped_column(Text)
    at: Mapped[datetime] = mapped_column(UtcDateTime)
    body: Mapped[str] = mapped_column(Text, doc="The wire message after its job_id, as JSON.")


class Tally(Base):
    """Something about a job's children that its row does not say yet, see `children`."""

    __tablename__ = "livejobs_tallies"
    __table_args__ = (Index("ix_livejobs_tallies_parent_id", "parent_id"),)

    id: Mapped[int] = mapped_column(
        BigInteger().with_variant(Integer(), "sqlite"), primary_key=True, autoincrement=True
    )
    parent_id: Mapped[str] = mapped_column(Text)
    kind: Mapped[str] = mapped_column(Text, doc="The count or sum that it belongs to, or a mark.")
    n: Mapped[int] = mapped_column(Integer, doc="To be added to it.")


class Deletion(Base):
    """A job that was deleted, for viewers who were away then."""

    __tablename__ = "livejobs_deletions"
    __table_args__ = (Index("ix_livejobs_deletions_at", "at"),)

    job_id: Mapped[str] = mapped_column(Text, primary_key=True)
    owner: Mapped[str] = mapped_column(Text)
    parent_id: Mapped[str | None] = mapped_column(Text)
    at: Mapped[datetime] = mapped_column(UtcDateTime)


class ApiKey(Base):
    """A key of the server's own users; only its hash is kept."""

    __tablename__ = "livejobs_api_keys"

    id: Mapped[str] = mapped_column(Text, primary_key=True)
    hash: Mapped[str] = mapped_column(Text, doc="SHA-256 of the secret part, hex.")
    owner: Mapped[str] = mapped_column(Text)
    scopes: Mapped[Any] = mapped_column(JsonText, nullable=False, doc="List of names.")
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    revoked_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class Ticket(Base):
    """A credential for one use in a URL; only its hash is kept."""

    __tablename__ = "livejobs_tickets"
    __table_args__ = (Index("ix_livejobs_tickets_expires_at", "expires_at"),)

    hash: Mapped[str] = mapped_column(Text, primary_key=True)
    viewer: Mapped[Any] = mapped_column(
        JsonText, nullable=False, doc="Owner, scopes and jobs it stands for."
    )
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime)


class SessionRow(Base):
    """Somebody signed in to the pages; only the hash of the cookie is kept."""

    __tablename__ = "livejobs_sessions"
    __table_args__ = (Index("ix_livejobs_sessions_expires_at", "expires_at"),)

    hash: Mapped[str] = mapped_column(Text, primary_key=True)
    viewer: Mapped[Any] = mapped_column(JsonText, nullable=False, doc="Owner and scopes.")
    key_id: Mapped[str | None] = mapped_column(
        Text, doc="The API key behind it, with which it ends; None: no key is."
    )
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime)


class Answer(Base):
    """The first answer to a creating request that carried an Idempotency-Key."""

    __tablename__ = "livejobs_answers"
    __table_args__ = (Index("ix_livejobs_answers_created_at", "created_at"),)

    owner: Mapped[str] = mapped_column(Text, primary_key=True)
    key: Mapped[str] = mapped_column(Text, primary_key=True)
    request_hash: Mapped[str] = mapped_column(Text, doc="SHA-256 of the request, hex.")
    status: Mapped[int | None] = mapped_column(Integer, doc="None: still in flight.")
    headers: Mapped[Any] = mapped_column(JsonText, nullable=True)
    body: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class WebhookRow(Base):
    """An owner's default webhook: told of the end of all their jobs that name none."""

    __tablename__ = "livejobs_webhooks"

    owner: Mapped[str] = mapped_column(Text, primary_key=True)
    url: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    changed_at: Mapped[datetime] = mapped_column(UtcDateTime)
    disabled_at: Mapped[datetime | None] = mapped_column(
        UtcDateTime, doc="When its receiver wanted no more."
    )


class Beat(Base):
    """A sign of life of a keeper, for `/readyz` and for people."""

    __tablename__ = "livejobs_beats"

    name: Mapped[str] = mapped_column(Text, primary_key=True, doc="<kind>:<host>:<pid>")
    at: Mapped[datetime] = mapped_column(UtcDateTime)


class UploadRow(Base):
    """A file in the folder of uploads."""

    __tablename__ = "livejobs_uploads"
    __table_args__ = (
        Index("ix_livejobs_uploads_created_at", "created_at"),
        Index("ix_livejobs_uploads_owner", "owner"),
        Index("ix_livejobs_uploads_job_id", "job_id"),
    )

    name: Mapped[str] = mapped_column(Text, primary_key=True, doc="Of the file, in its folder.")
    owner: Mapped[str] = mapped_column(Text, doc="Empty: nobody's.")
    job_id: Mapped[str] = mapped_column(Text, doc="The job that it was sent for.")
    size: Mapped[int] = mapped_column(BigInteger, doc="In bytes.")
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class ScheduleRow(Base):
    """An entry of a beat's schedule, and when it runs."""

    __tablename__ = "livejobs_schedule"

    app: Mapped[str] = mapped_column(Text, primary_key=True, doc="Name of the Celery app.")
    name: Mapped[str] = mapped_column(Text, primary_key=True)
    task: Mapped[str] = mapped_column(Text)
    schedule: Mapped[str] = mapped_column(Text, doc="`every 300 s`, or five fields of a crontab.")
    last_run_at: Mapped[datetime] = mapped_column(
        UtcDateTime, doc="When it was sent last; before that, when it was first seen."
    )
    next_run_at: Mapped[datetime] = mapped_column(UtcDateTime)


def view_of(row: Row[Any] | Job, *, traceback: bool = False) -> JobView:
    """The view of a row of `livejobs_jobs`.

    Args:
        traceback: Show the error's traceback, to those who may see it.
    """
    error = None
    if row.error is not None:
        shown = row.error if traceback else {**row.error, "traceback": None}
        error = JobError.model_validate(shown)
    children = None
    if row.children_total:
        children = Children(
            total=row.children_total,
            completed=row.children_completed,
            failed=row.children_failed,
            cancelled=row.children_cancelled,
        )
    return JobView(
        job_id=row.id,
        task=row.task,
        queue=row.queue,
        status=Status(row.status),
        version=row.version,
        progress=None if row.progress is None else Progress.model_validate(row.progress),
        result=row.result,
        error=error,
        attempt=row.attempt,
        max_attempts=row.max_attempts,
        run_at=row.run_at,
        cancel_requested=row.cancel_requested_at is not None,
        stalled=row.stalled,
        owner=row.owner,
        tags=row.tags or {},
        parent_id=row.parent_id,
        children=children,
        created_at=row.created_at,
        started_at=row.started_at,
        updated_at=row.updated_at,
        completed_at=row.completed_at,
    )
