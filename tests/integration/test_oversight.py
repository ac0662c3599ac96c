"""What keepers change of jobs that went wrong, and what they leave alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text

from livejobs import attempts, oversight, reads, transitions
from livejobs.database import Database
from livejobs.models import view_of
from livejobs.statements import JobRow, Reported, jobs
from livejobs.transitions import NewJob
from tests.support.rows import change, read, timeline

GRACE, MOST, QUIET = 30.0, 3600.0, 600.0
NOTHING: tuple[Any, ...] = (False, False, [], [], [], [], ([], [], []))

Claim = Callable[..., JobRow]


@pytest.fixture
def claim(database: Database) -> Claim:
    """Creates a job that runs."""
    count = iter(range(1000))

    def claim(**columns: Any) -> JobRow:
        new = NewJob(id=f"job-{next(count)}", task="some.task", queue="q", message={"m": 1})
        row = change(database, attempts.adopt(new, f"worker-{new.id}", 30.0))
        if columns:
            with database.begin() as connection:
                connection.execute(jobs.update().where(jobs.c.id == row.id).values(**columns))
        return read(database, row.id)

    return claim


def ago(database: Database, job_id: str, column: str, seconds: float) -> None:
    """Move a time of a job into the past."""
    from livejobs.models import db_now

    with database.begin() as connection:
        values = {column: db_now(-seconds)}
        connection.execute(jobs.update().where(jobs.c.id == job_id).values(**values))


def found(database: Database) -> reads.Chores:
    return database.read(reads.chores(10, grace=GRACE, most=MOST, quiet=QUIET))


def test_there_is_nothing_to_do_for_a_job_that_runs_well(claim: Claim, database: Database) -> None:
    claim()
    assert found(database) == NOTHING


def test_job_that_ran_too_long_has_failed(claim: Claim, database: Database) -> None:
    row = claim()
    assert database.run(oversight.overrun(row.id, MOST)) is None
    ago(database, row.id, "started_at", MOST + 1)
    assert [job.id for job in found(database).overrun] == [row.id]
    over = change(database, oversight.overrun(row.id, MOST))
    assert (over.status, over.error["type"], over.worker) == ("failed", "TimeLimitExceeded", None)
    assert database.run(attempts.complete(row.id, 1, None)) is None
    assert timeline(database, row.id) == ["created", "started", "failed"]


def test_job_that_ran_too_long_after_its_cancel_is_cancelled(
    claim: Claim, database: Database
) -> None:
    row = claim()
    database.run(transitions.cancel(row.id))
    ago(database, row.id, "started_at", MOST + 1)
    assert change(database, oversight.overrun(row.id, MOST)).status == "cancelled"


def test_parent_that_waits_is_neither_lost_nor_overrun_nor_silent(
    claim: Claim, database: Database
) -> None:
    row = claim(children_total=1)
    then = NewJob(id=row.id, task="some.task", queue="q", message={"m": 2})
    change(database, attempts.wait(row.id, 1, then, 1))
    for column in ("started_at", "reported_at"):
        ago(database, row.id, column, 10 * MOST)
    assert found(database) == NOTHING


def test_silent_job_is_shown_as_stalled_until_it_reports(claim: Claim, database: Database) -> None:
    row = claim()
    assert database.run(oversight.fall_silent(row.id, QUIET)) is None
    ago(database, row.id, "reported_at", QUIET + 1)
    assert [job.id for job in found(database).silent] == [row.id]
    stalled = change(database, oversight.fall_silent(row.id, QUIET))
    assert view_of(stalled).stalled
    assert stalled.version == row.version + 1
    assert found(database).silent == []
    speaking = change(
        database, attempts.report(row.id, 1, Reported(progress={"current": 1}, seq=1))
    )
    assert not view_of(speaking).stalled
    assert timeline(database, row.id) == ["created", "started", "stalled"]


def test_end_of_a_stalled_job_shows_it_as_stalled_no_more(claim: Claim, database: Database) -> None:
    for end in (attempts.complete, attempts.release):
        row = claim()
        ago(database, row.id, "reported_at", QUIET + 1)
        change(database, oversight.fall_silent(row.id, QUIET))
        more = (None,) if end is attempts.complete else ()
        assert not view_of(change(database, end(row.id, 1, *more))).stalled


def test_job_that_goes_on_after_its_cancel_is_taken_every_few_seconds(
    claim: Claim, database: Database
) -> None:
    row = claim()
    database.run(transitions.cancel(row.id))
    assert not found(database).overdue
    assert database.run(oversight.take_overdue(10, GRACE)) == []
    ago(database, row.id, "cancel_requested_at", GRACE + 1)
    assert found(database).overdue
    assert [tuple(job) for job in database.run(oversight.take_overdue(10, GRACE))] == [
        (row.id, row.worker)
    ]
    assert not found(database).overdue
    assert database.run(oversight.take_overdue(10, GRACE)) == []
    ago(database, row.id, "due_at", 1)
    assert len(database.run(oversight.take_overdue(10, GRACE))) == 1
    assert database.run(transitions.dispatch(10)) == []


def test_unknown_task_fails_after_five_meetings(database: Database) -> None:
    row = change(
        database, transitions.create(NewJob(id="j", task="no.such", queue="q", message={"m": 1}))
    )
    waits = []
    for _ in range(4):
        assert database.run(oversight.meet_unknown("j", 0)) is None
        due = read(database, "j")
        waits.append(round((due.due_at - due.updated_at).total_seconds(), -1))
    assert waits == sorted(waits)
    assert read(database, "j").status == "pending"
    failed = change(database, oversight.meet_unknown("j", 0))
    assert (failed.status, failed.error["type"]) == ("failed", "UnknownTask")
    assert "no.such" in failed.error["message"]
    assert timeline(database, "j") == ["created", *["unknown"] * 4, "failed"]
    change(database, transitions.requeue("j"))
    assert database.run(oversight.meet_unknown("j", 0)) is None
    assert read(database, "j").status == "pending"
    assert row.attempt == 0


def test_claimed_job_is_of_no_unknown_task(claim: Claim, database: Database) -> None:
    row = claim()
    assert database.run(oversight.meet_unknown(row.id, 0)) is None
    assert timeline(database, row.id) == ["created", "started"]


def test_claims_that_were_not_renewed_are_found_by_their_process(
    claim: Claim, database: Database
) -> None:
    late, well, other = (
        claim(worker="host_1:7:a"),
        claim(worker="host_1:7:b"),
        claim(worker="x:7:c"),
    )
    for row in (late, other):
        ago(database, row.id, "lease_until", -10.0)
    prefixes = {row.id: "host_1:7:" for row in (late, well, other)}
    rows = database.read(attempts.unrenewed(prefixes, 15.0))
    assert [row.worker for row in rows] == ["host_1:7:a"]
    with database.begin() as connection:
        connection.execute(
            text("UPDATE livejobs_jobs SET worker = 'hostx1:7:a' WHERE id = :id"), {"id": late.id}
        )
    assert database.read(attempts.unrenewed(prefixes, 15.0)) == []
