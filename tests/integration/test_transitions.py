"""Every change of a job, on both databases: from where it starts, and from where it must not."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from livejobs import attempts, oversight, reads, transitions
from livejobs.database import Database
from livejobs.entries import Entry
from livejobs.statements import JobRow, Reported
from livejobs.transitions import NewJob
from tests.support.rows import shown

ERROR = {"type": "ValueError", "message": "it broke"}


@pytest.fixture
def make(database: Database) -> Callable[..., JobRow]:
    """Creates a job and brings it into a status."""
    count = iter(range(1000))

    def make(status: str = "pending", **fields: Any) -> JobRow:
        job_id = f"job-{next(count)}"
        new = NewJob(id=job_id, task="t", queue="q", message={"m": 1}, **fields)
        row = database.run(transitions.create(new))
        if status != "pending":
            row = database.run(attempts.claim(job_id, 0, f"worker-{job_id}", 30.0))
        if status == "completed":
            row = database.run(attempts.complete(job_id, 1, {"r": 1}))
        if status == "failed":
            row = database.run(attempts.fail(job_id, 1, ERROR))
        if status == "cancelled":
            database.run(transitions.cancel(job_id))
            row = database.run(attempts.cancelled(job_id, 1))
        assert row is not None
        assert row.status == status
        return row

    return make


def timeline(database: Database, job_id: str) -> list[str]:
    query = text("SELECT kind FROM livejobs_events WHERE job_id = :id ORDER BY id")
    with database.begin() as connection:
        return [row.kind for row in connection.execute(query, {"id": job_id})]


def entries(database: Database, job_id: str) -> list[tuple[int, int]]:
    query = text("SELECT attempt, n FROM livejobs_entries WHERE job_id = :id ORDER BY attempt, n")
    with database.begin() as connection:
        return [(row.attempt, row.n) for row in connection.execute(query, {"id": job_id})]


def numbered(first: int, last: int) -> list[Entry]:
    return [Entry(n, "log", '"lines":[]}') for n in range(first, last + 1)]


def expire_lease(database: Database, job_id: str) -> None:
    with database.begin() as connection:
        connection.execute(
            text("UPDATE livejobs_jobs SET lease_until = created_at WHERE id = :id"),
            {"id": job_id},
        )


def test_create_is_due_in_five_seconds(make: Any) -> None:
    row = make()
    assert abs(row.due_at - row.created_at - timedelta(seconds=5)) < timedelta(seconds=0.1)
    assert (row.version, row.attempt, row.run_at) == (1, 0, None)


def test_create_with_a_delay_is_due_then(make: Any) -> None:
    row = make(delay=60.0)
    assert row.run_at == row.due_at
    assert abs(row.due_at - row.created_at - timedelta(seconds=60)) < timedelta(seconds=0.1)


def test_create_refuses_an_id_and_a_key_that_exist(make: Any, database: Database) -> None:
    row = make(owner="ada", idempotency_key="k")
    assert (
        database.run(transitions.create(NewJob(id=row.id, task="t", queue="q", message={}))) is None
    )
    key = NewJob(id="other", task="t", queue="q", message={}, owner="ada", idempotency_key="k")
    assert database.run(transitions.create(key)) is None
    make(owner="bob", idempotency_key="k")
    make(owner="ada")
    make(owner="ada")


def test_claim_needs_the_attempt_of_the_message(make: Any, database: Database) -> None:
    row = make()
    assert database.run(attempts.claim(row.id, 1, "w", 30.0)) is None
    claimed = database.run(attempts.claim(row.id, 0, "w", 30.0))
    assert claimed is not None
    assert (claimed.status, claimed.attempt, claimed.worker) == ("processing", 1, "w")
    assert (claimed.due_at, claimed.version) == (None, 2)
    assert claimed.lease_until > claimed.updated_at
    assert database.run(attempts.claim(row.id, 0, "w2", 30.0)) is None
    assert database.run(attempts.claim(row.id, 1, "w2", 30.0)) is None


def test_claim_fills_in_what_the_creator_did_not_know(make: Any, database: Database) -> None:
    row = make()
    claimed = database.run(
        attempts.claim(row.id, 0, "w", 30.0, max_attempts=4, rerun_when_lost=True)
    )
    assert (claimed.max_attempts, claimed.rerun_when_lost) == (4, True)
    told = make(max_attempts=2)
    claimed = database.run(attempts.claim(told.id, 0, "w2", 30.0, max_attempts=4))
    assert claimed.max_attempts == 2


def test_claim_refuses_what_is_too_old(make: Any, database: Database) -> None:
    row = make(expires_in=-1.0)
    assert database.run(attempts.claim(row.id, 0, "w", 30.0)) is None
    assert [
        found.id
        for found in database.read(reads.chores(10, grace=1.0, most=1.0, quiet=1.0)).expired
    ] == [row.id]
    expired = database.run(transitions.expire(row.id))
    assert (expired.status, expired.error["type"]) == ("failed", "Expired")
    assert database.run(transitions.expire(row.id)) is None


def test_dispatch_takes_what_is_due_once_and_backs_off(make: Any, database: Database) -> None:
    row, later = make(), make(delay=60.0)
    with database.begin() as connection:
        connection.execute(
            text("UPDATE livejobs_jobs SET due_at = created_at WHERE id = :id"), {"id": row.id}
        )
    taken = database.run(transitions.dispatch(10))
    assert [job.id for job in taken] == [row.id]
    assert taken[0].version == row.version
    assert database.run(transitions.dispatch(10)) == []
    waits = []
    for _ in range(8):
        with database.begin() as connection:
            connection.execute(
                text("UPDATE livejobs_jobs SET due_at = created_at WHERE id = :id"),
                {"id": row.id},
            )
        (job,) = database.run(transitions.dispatch(10))
        now = database.run(reads.job(later.id))
        waits.append(round((job.due_at - now.created_at).total_seconds() / 60))
    assert waits == [2, 4, 8, 16, 32, 60, 60, 60]


def test_postpone_gives_back_what_was_not_sent(make: Any, database: Database) -> None:
    row = make()
    with database.begin() as connection:
        connection.execute(text("UPDATE livejobs_jobs SET due_at = created_at"))
    database.run(transitions.dispatch(10))
    database.run(transitions.postpone([row.id], 0.0))
    (job,) = database.run(transitions.dispatch(10))
    assert job.dispatches == 1


def test_renew_and_check_answer_the_claims_that_stand(make: Any, database: Database) -> None:
    first, second = make("processing"), make("processing")
    database.run(transitions.cancel(second.id))
    workers = [first.worker, second.worker, "nobody"]
    renewed = {row.worker: row for row in database.run(attempts.renew(workers, 60.0))}
    checked = {row.worker: row for row in database.read(attempts.check_claims(workers))}
    assert renewed.keys() == checked.keys() == {first.worker, second.worker}
    assert renewed[first.worker].cancel_requested_at is None
    assert renewed[second.worker].cancel_requested_at is not None
    again = database.read(reads.job(first.id))
    assert again.lease_until > first.lease_until
    assert again.version == first.version


def test_report_keeps_progress_and_entries_of_its_attempt(make: Any, database: Database) -> None:
    row = make("processing")
    reported = Reported(progress={"current": 1}, seq=3, entries=numbered(1, 3), last_n=3)
    assert database.run(attempts.report(row.id, 0, reported)) is None
    changed = database.run(attempts.report(row.id, 1, reported))
    assert (changed.progress, changed.progress_seq, changed.last_n) == ({"current": 1}, 3, 3)
    assert changed.version == row.version + 1
    assert entries(database, row.id) == [(1, 1), (1, 2), (1, 3)]
    database.run(attempts.report(row.id, 1, reported))  # once more, after a lost answer
    assert entries(database, row.id) == [(1, 1), (1, 2), (1, 3)]


def test_entries_are_bounded(make: Any, database: Database) -> None:
    row = make("processing")
    database.run(attempts.report(row.id, 1, Reported(entries=numbered(1, 10), last_n=10, keep=5)))
    assert entries(database, row.id) == [(1, n) for n in range(6, 11)]


def test_entries_of_the_latest_attempts_are_kept(make: Any, database: Database) -> None:
    row = make()
    for attempt in range(1, 6):
        database.run(attempts.claim(row.id, attempt - 1, f"w{attempt}", 30.0))
        once = Reported(entries=numbered(1, 1), last_n=1)
        database.run(
            attempts.retry(row.id, attempt, delay=0.0, error=None, message={}, reported=once)
        )
    assert entries(database, row.id) == [(3, 1), (4, 1), (5, 1)]


def test_complete_ends_once(make: Any, database: Database) -> None:
    row = make("processing")
    reported = Reported(progress={"current": 9}, seq=9, entries=numbered(1, 1), last_n=1)
    assert database.run(attempts.complete(row.id, 2, None)) is None
    done = database.run(attempts.complete(row.id, 1, [1, None], reported))
    assert (done.status, done.result, done.lease_until) == ("completed", [1, None], None)
    assert (done.progress, done.last_n) == ({"current": 9}, 1)
    assert done.completed_at is not None
    for change in (
        attempts.complete(row.id, 1, None),
        attempts.fail(row.id, 1, ERROR),
        attempts.report(row.id, 1, reported),
        attempts.retry(row.id, 1, delay=0, error=None, message={}),
        transitions.cancel(row.id),
        attempts.release(row.id, 1),
        oversight.lose(row.id),
        transitions.requeue(row.id),
    ):
        assert database.run(change) is None
    assert timeline(database, row.id) == ["created", "started", "completed"]


def test_retry_waits_and_keeps_the_error(make: Any, database: Database) -> None:
    row = make("processing")
    later = database.run(
        attempts.retry(row.id, 1, delay=60.0, error=ERROR, message={"m": 2}, task="u")
    )
    assert (later.status, later.error, later.message, later.task) == (
        *("pending", ERROR, {"m": 2}, "u"),
    )
    assert later.run_at == later.due_at
    assert database.run(attempts.claim(row.id, 0, "w", 30.0)) is None
    assert database.run(attempts.claim(row.id, 1, "w", 30.0)) is None, "it is not due yet"
    with database.begin() as connection:
        connection.execute(text("UPDATE livejobs_jobs SET run_at = created_at"))
    again = database.run(attempts.claim(row.id, 1, "w", 30.0))
    assert (again.attempt, again.error, again.last_n) == (2, None, 0)


def test_retry_of_a_job_whose_cancel_was_requested_ends_it(make: Any, database: Database) -> None:
    row = make("processing")
    database.run(transitions.cancel(row.id))
    over = database.run(attempts.retry(row.id, 1, delay=60.0, error=ERROR, message={}))
    assert (over.status, over.due_at, over.run_at) == ("cancelled", None, None)
    assert over.completed_at is not None


def test_release_does_not_count_the_attempt(make: Any, database: Database) -> None:
    row = make("processing", max_attempts=1)
    free = database.run(attempts.release(row.id, 1))
    assert (free.status, free.attempt, free.max_attempts) == ("pending", 1, 2)
    assert database.run(attempts.claim(row.id, 0, "w", 30.0)) is None
    assert database.run(attempts.claim(row.id, 1, "w", 30.0)) is not None


def test_cancel_of_a_pending_job_ends_it(make: Any, database: Database) -> None:
    row = make(delay=60.0)
    over = database.run(transitions.cancel(row.id))
    assert (over.status, over.due_at, over.run_at) == ("cancelled", None, None)
    assert database.run(transitions.cancel(row.id)) is None
    assert database.run(attempts.claim(row.id, 0, "w", 30.0)) is None


def test_cancel_of_a_running_job_is_a_request(make: Any, database: Database) -> None:
    row = make("processing")
    asked = database.run(transitions.cancel(row.id))
    assert (asked.status, shown(database, row.id).cancel_requested) == ("processing", True)
    assert database.run(transitions.cancel(row.id)) is None
    assert database.run(attempts.cancelled(row.id, 1)).status == "cancelled"


def test_lose_waits_for_the_lease(make: Any, database: Database) -> None:
    row = make("processing", rerun_when_lost=True)
    assert database.run(oversight.lose(row.id)) is None
    expire_lease(database, row.id)
    again = database.run(oversight.lose(row.id))
    assert (again.status, again.worker, again.error["type"]) == ("pending", None, "WorkerLost")
    assert database.run(attempts.complete(row.id, 2, None)) is None
    assert database.run(attempts.claim(row.id, 1, "w", 30.0)).attempt == 2
    assert database.run(attempts.complete(row.id, 1, None)) is None


@pytest.mark.parametrize(
    ("fields", "cancelled", "status"),
    [
        ({"rerun_when_lost": False}, False, "failed"),
        ({"rerun_when_lost": True, "max_attempts": 1}, False, "failed"),
        ({"rerun_when_lost": True, "max_attempts": 2}, False, "pending"),
        ({"rerun_when_lost": True}, True, "cancelled"),
    ],
)
def test_lose_repeats_only_what_may_be(
    make: Any, database: Database, fields: dict[str, Any], cancelled: bool, status: str
) -> None:
    row = make("processing", **fields)
    if cancelled:
        database.run(transitions.cancel(row.id))
    expire_lease(database, row.id)
    lost = database.run(oversight.lose(row.id))
    assert lost.status == status
    assert (lost.completed_at is None) == (status == "pending")
    assert (lost.due_at is None) == (status != "pending")


@pytest.mark.parametrize("status", ["failed", "cancelled"])
def test_requeue_allows_one_more_attempt(make: Any, database: Database, status: str) -> None:
    row = make(status, max_attempts=1)
    again = database.run(transitions.requeue(row.id))
    assert (again.status, again.error, again.result) == ("pending", None, None)
    assert (again.max_attempts, again.completed_at) == (2, None)
    assert again.cancel_requested_at is None
    assert database.run(attempts.claim(row.id, 1, "w", 30.0)).attempt == 2


def test_requeue_refuses_a_job_without_a_message(database: Database) -> None:
    new = NewJob(id="block", task="t", queue="", message=transitions.NO_MESSAGE)
    database.run(attempts.adopt(new, "w", 30.0))
    database.run(attempts.fail("block", 1, ERROR))
    assert database.run(transitions.requeue("block")) is None


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
def test_remove_takes_everything_of_a_job_that_is_over(
    make: Any, database: Database, status: str
) -> None:
    row = make(status)
    assert database.run(transitions.remove(row.id)) is not None
    assert database.read(reads.job(row.id)) is None
    assert timeline(database, row.id) == []


@pytest.mark.parametrize("status", ["pending", "processing"])
def test_remove_refuses_a_job_that_is_not(make: Any, database: Database, status: str) -> None:
    assert database.run(transitions.remove(make(status).id)) is None


def test_read_by_key_finds_by_id_or_key(make: Any, database: Database) -> None:
    row = make(owner="ada", idempotency_key="k")
    assert database.read(reads.job_by_key(row.id, "", None)).id == row.id
    assert database.read(reads.job_by_key("other", "ada", "k")).id == row.id
    assert database.read(reads.job_by_key("other", "bob", "k")) is None


def test_times_are_the_databases_own_in_utc(make: Any) -> None:
    row = make("completed")
    assert row.created_at.utcoffset() == timedelta(0)
    assert row.created_at <= row.started_at <= row.completed_at == row.updated_at


def test_take_over_begins_a_job_again_that_is_over(make: Any, database: Database) -> None:
    row = make("completed", max_attempts=1)
    new = NewJob(id=row.id, task="u", queue="q", message={"m": 2}, max_attempts=2)
    again = database.run(transitions.take_over(new))
    assert (again.status, again.result, again.task, again.max_attempts) == ("pending", None, "u", 3)
    assert database.run(transitions.take_over(new)) is None, "it is open now"
    assert database.run(attempts.claim(row.id, 1, "w", 30.0)).attempt == 2


def test_handed_over_job_is_nobodys_to_send_until_it_is_taken_over(
    make: Any, database: Database
) -> None:
    row = make("processing")
    waiting = database.run(attempts.hand_over(row.id, 1))
    assert (waiting.status, waiting.due_at) == ("pending", None)
    assert database.run(transitions.dispatch(10)) == []
    new = NewJob(id=row.id, task="u", queue="q", message={"m": 2})
    assert database.run(transitions.take_over(new)).due_at is not None


def test_sent_puts_off_the_keeper(make: Any, database: Database) -> None:
    row = make()
    database.run(transitions.sent([row.id]))
    later = database.read(reads.job(row.id))
    assert timedelta(seconds=55) < later.due_at - row.created_at < timedelta(seconds=65)
    assert (later.dispatches, later.version) == (1, row.version)


def test_fail_unclaimed_needs_a_pending_job_that_is_due(make: Any, database: Database) -> None:
    later, running, waiting = make(delay=60.0), make("processing"), make()
    assert database.run(attempts.fail_unclaimed(later.id, 0, ERROR)) is None
    assert database.run(attempts.fail_unclaimed(running.id, 1, ERROR)) is None
    assert database.run(attempts.fail_unclaimed(waiting.id, 0, ERROR)).status == "failed"
