"""What a job is created from, and the statements that insert it.

They are built once: most of what a short statement costs in Python is building it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import (
    JSON,
    Boolean,
    Float,
    Integer,
    Text,
    bindparam,
    cast,
    column,
    false,
    func,
    literal_column,
    select,
)
from sqlalchemy.dialects.postgresql import insert

from .models import UtcDateTime, db_now
from .statements import events, jobs
from .views import Status

FIRST_DISPATCH_SECONDS: Final = 5.0
"""A keeper sends a job that its creator did not manage to send after this time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """What a job is created from.

    Attributes:
        id: The Celery task id.
        task: The task's name.
        queue: Queue it is routed to.
        message: The Celery message, see `messages`.
        delay: Seconds until it may run; 0 is at once.
        expires_in: Seconds until it is too old to run; None: never.
        max_attempts: Executions allowed; None: any number.
        rerun_when_lost: A lost execution may be repeated.
        parent_id: The job whose child it is; None: of none.
        ordinal: The how manieth child its parent spawned, from 0; None: others made it.
        at_once: It waits until less than so many like it are open, see `places`; None: it does not.
        idempotency_hash: Of what the key asked for, to tell a repetition from a mistake.
        webhook_url: To be told of its end; None: its owner's default; empty: nobody.
    """

    id: str
    task: str
    queue: str
    message: Any
    owner: str = ""
    tags: dict[str, str] = field(default_factory=dict)
    parent_id: str | None = None
    ordinal: int | None = None
    at_once: int | None = None
    idempotency_key: str | None = None
    idempotency_hash: str | None = None
    webhook_url: str | None = None
    delay: float = 0.0
    expires_in: float | None = None
    max_attempts: int | None = None
    rerun_when_lost: bool = False


_TAKEN_FROM_NEW: Final = (
    *("id", "task", "queue", "message", "owner", "tags", "parent_id", "ordinal", "at_once"),
    *("idempotency_key", "idempotency_hash", "max_attempts", "rerun_when_lost"),
    "webhook_url",
)
_AT_FIRST: Final = {
    **dict.fromkeys(("attempt", "dispatches", "progress_seq", "last_n"), literal_column("0")),
    **{
        f"children_{name}": literal_column("0")
        for name in ("from", "before", "total", "completed", "failed", "cancelled")
    },
    "version": literal_column("1"),
    "stalled": false(),
    "status": literal_column(f"'{Status.PENDING.value}'"),
}
_of_new: Final = {name: bindparam(name, type_=jobs.c[name].type) for name in _TAKEN_FROM_NEW} | {
    # Of a number of seconds that is NULL, the moment is NULL.
    "due_at": db_now(bindparam("due_in", type_=Float)),
    "run_at": db_now(bindparam("run_in", type_=Float)),
    "expires_at": db_now(bindparam("expires_in", type_=Float)),
    "held": bindparam("held", type_=Boolean),
    "created_at": db_now(),
    "updated_at": db_now(),
}
_inserted: Final = insert(jobs).values(**_of_new, **_AT_FIRST).on_conflict_do_nothing()

NEW_JOB: Final = _inserted.returning(jobs.c.id, jobs.c.created_at, jobs.c.run_at)
"""Inserts one new job, with `parameters`; no row comes back where id or idempotency key exist."""
NEW_EVENT: Final = insert(events).values(
    job_id=bindparam("job_id", type_=events.c.job_id.type),
    at=db_now(),
    kind=literal_column("'created'"),
    attempt=literal_column("0"),
)
"""The first line of its timeline."""
NEW_ROW: Final = _inserted.returning(jobs)
"""The same, with the whole row coming back."""

# On SQLite a row costs more to come back than to be inserted. There, rows of one transaction are
# those with the newest numbers.
_number: Final = literal_column("rowid", Integer)
_are_newer: Final = _number > bindparam("last", type_=Integer)
NEW_JOB_UNTOLD: Final = _inserted
"""Inserts one new job, and says nothing of it."""
LAST_NUMBER: Final = select(func.coalesce(func.max(_number), literal_column("0"))).select_from(jobs)
"""The number of the newest row, on SQLite."""
NEWER_EVENTS: Final = insert(events).from_select(
    ["job_id", "at", "kind", "attempt"],
    select(jobs.c.id, jobs.c.created_at, literal_column("'created'"), literal_column("0")).where(
        _are_newer
    ),
)
"""The first lines of the timelines of all jobs with numbers over ``last``."""
NEWER_JOBS: Final = select(jobs.c.id, jobs.c.created_at, jobs.c.run_at).where(_are_newer)
"""What `NEW_JOB` tells, of all jobs with numbers over ``last``."""


_given: Final = (
    func.json_to_recordset(cast(bindparam("news", type_=Text), JSON))
    .table_valued(
        *(column(name, jobs.c[name].type) for name in _TAKEN_FROM_NEW),
        *(column(name, Float) for name in ("due_in", "run_in", "expires_in")),
        column("held", Boolean),
        name="given",
    )
    .render_derived(with_types=True)
)
_of_given: Final = {name: _given.c[name] for name in _TAKEN_FROM_NEW} | {
    "due_at": db_now(_given.c.due_in),
    "run_at": db_now(_given.c.run_in),
    "expires_at": db_now(_given.c.expires_in),
    "held": _given.c.held,
    "created_at": db_now(),
    "updated_at": db_now(),
}
_made: Final = (
    insert(jobs)
    .from_select(
        [*_of_given, *_AT_FIRST],
        select(*_of_given.values(), *_AT_FIRST.values()).where(
            func.clock_timestamp() < bindparam("deadline", type_=UtcDateTime)
        ),
    )
    .on_conflict_do_nothing()
    .returning(jobs.c.id, jobs.c.created_at, jobs.c.run_at)
    .cte("made")
)
NEW_JOBS: Final = select(_made).add_cte(
    insert(events)
    .from_select(
        ["job_id", "at", "kind", "attempt"],
        select(_made.c.id, _made.c.created_at, literal_column("'created'"), literal_column("0")),
    )
    .cte("noted")
)
"""Inserts many new jobs with their first events, where one statement can do that: PostgreSQL.

``news`` is a JSON array of `parameters`. After ``deadline``, by the database's clock, it inserts
nothing: so what reaches the database late does not come true behind the back of a caller that has
given up.
"""


def parameters(new: NewJob) -> dict[str, Any]:
    """The parameters of `NEW_JOB`."""
    held, due_in = new.at_once is not None, new.delay if new.delay > 0 else FIRST_DISPATCH_SECONDS
    return {name: getattr(new, name) for name in _TAKEN_FROM_NEW} | {
        "held": held,
        "due_in": None if held else due_in,
        "run_in": new.delay if new.delay > 0 else None,
        "expires_in": new.expires_in,
    }
