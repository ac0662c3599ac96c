"""What is known after a run: the database, the record of executions, and what was accepted."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.sql.base import Executable

from livejobs.database import Database
from livejobs.entries import Cursor
from livejobs.models import view_of
from livejobs.statements import OVER, Batch, JobRow, Rows, entries, events, jobs

from .driver import Account
from .viewers import Seen
from .witness import Executed, Witness


@dataclass(frozen=True)
class Happened:
    """One line of a job's timeline."""

    at: datetime
    kind: str
    attempt: int
    detail: dict[str, Any]


@dataclass(frozen=True)
class Evidence:
    """All of it.

    Attributes:
        rows: Every job, by id.
        timelines: By job id, in order.
        kept: The entries that the database has, by job id and cursor: kind and body.
        executions: By job id, in the order of their beginnings.
        account: What the driver did.
        seen: What the viewers saw.
    """

    rows: dict[str, JobRow]
    timelines: dict[str, list[Happened]]
    kept: dict[str, dict[Cursor, str]]
    executions: dict[str, list[Executed]]
    account: Account
    seen: list[Seen]

    def view(self, job_id: str) -> dict[str, Any]:
        """A job as the database says it is."""
        return view_of(self.rows[job_id]).model_dump(mode="json")


def gather(database: Database, witness: Witness, account: Account, seen: list[Seen]) -> Evidence:
    """Read everything."""
    timelines: dict[str, list[Happened]] = defaultdict(list)
    for row in database.read(_all(select(events).order_by(events.c.id))):
        happened = Happened(row.at, row.kind, row.attempt, row.detail or {})
        timelines[row.job_id].append(happened)
    kept: dict[str, dict[Cursor, str]] = defaultdict(dict)
    for row in database.read(_all(select(entries))):
        kept[row.job_id][Cursor(row.attempt, row.n)] = row.body
    executions: dict[str, list[Executed]] = defaultdict(list)
    for executed in witness.all():
        executions[executed.job_id].append(executed)
    rows = {row.id: row for row in database.read(_all(select(jobs)))}
    return Evidence(rows, timelines, kept, executions, account, seen)


def open_jobs(database: Database) -> list[JobRow]:
    """The jobs that are not over."""
    return list(database.read(_all(select(jobs).where(jobs.c.status.not_in(list(OVER))))))


def status_of(database: Database, job_ids: Sequence[str]) -> list[str]:
    """The states of some jobs."""
    wanted = select(jobs.c.status).where(jobs.c.id.in_(job_ids))
    return [row.status for row in database.read(_all(wanted))]


def _all(statement: Executable) -> Generator[Executable | Batch, Rows, Rows]:
    return (yield statement)
