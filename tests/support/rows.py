"""Rows that a test expects to be there."""

from __future__ import annotations

from sqlalchemy import text

from livejobs import reads
from livejobs.database import Database
from livejobs.models import view_of
from livejobs.statements import JobRow, Program
from livejobs.views import JobView


def read(database: Database, job_id: str) -> JobRow:
    """The row of a job that is there."""
    row = database.read(reads.job(job_id))
    assert row is not None, f"there is no row for {job_id}"
    return row


def shown(database: Database, job_id: str) -> JobView:
    """The view of a job that is there."""
    return view_of(read(database, job_id))


def change(database: Database, program: Program) -> JobRow:
    """The row after a change that must be possible."""
    row = database.run(program)
    assert row is not None, "the job is not in the state this change starts from"
    return row


def timeline(database: Database, job_id: str) -> list[str]:
    """The kinds of what happened to a job, the oldest first."""
    query = text("SELECT kind FROM livejobs_events WHERE job_id = :id ORDER BY id")
    with database.begin() as connection:
        return [row.kind for row in connection.execute(query, {"id": job_id})]


def entries(database: Database, job_id: str) -> list[tuple[int, int]]:
    """Attempt and number of the entries of a job that the database has."""
    query = text("SELECT attempt, n FROM livejobs_entries WHERE job_id = :id ORDER BY attempt, n")
    with database.begin() as connection:
        return [(row.attempt, row.n) for row in connection.execute(query, {"id": job_id})]
