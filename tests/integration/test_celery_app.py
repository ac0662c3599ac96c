"""An ordinary Celery app whose only change is the base class, run by a real worker."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from typing import Any

import pytest
import redis
from celery import chain, chord, group
from celery._state import _task_stack
from celery.result import AsyncResult
from sqlalchemy import text

from livejobs import attempts, reads, recording, transitions
from livejobs.database import Database, get_database
from livejobs.errors import DatabaseUnavailable
from livejobs.models import view_of
from livejobs.new_jobs import NewJob
from livejobs.settings import Settings
from livejobs.views import JobView
from tests.support.waiting import wait_until

pytestmark = pytest.mark.usefixtures("working")


@pytest.fixture
def tasks(working: Settings) -> Any:
    """The tasks of the app, bound to the servers of this module."""
    from tests.support import jobs_app

    return jobs_app


@pytest.fixture
def database(working: Settings) -> Database:
    """The database that the worker writes to."""
    return get_database()


@pytest.fixture
def view(database: Database) -> Callable[[str], JobView]:
    """The view of a job that is there."""

    def read(job_id: str) -> JobView:
        row = database.read(reads.job(job_id))
        assert row is not None, f"no row for {job_id}"
        return view_of(row)

    return read


@pytest.fixture
def ended(view: Callable[[str], JobView]) -> Callable[[str], JobView]:
    """The view of a job, once it is over."""

    def wait(job_id: str) -> JobView:
        wait_until(lambda: view(job_id).status.is_final, description=f"{job_id} ends", seconds=30)
        return view(job_id)

    return wait


def kinds(database: Database, job_id: str) -> list[str]:
    query = text("SELECT kind FROM livejobs_events WHERE job_id = :id ORDER BY id")
    with database.begin() as connection:
        return [row.kind for row in connection.execute(query, {"id": job_id})]


def test_delay_creates_a_row_under_the_task_id(tasks: Any, ended: Any) -> None:
    result: AsyncResult = tasks.add.delay(2, 3)
    job = ended(result.id)
    assert (job.status, job.result, job.task) == ("completed", 5, tasks.add.name)
    assert (job.attempt, job.max_attempts, job.queue) == (1, 4, "celery")
    assert result.get(timeout=10) == 5


def test_update_state_is_shown_and_stays_in_the_result_backend(tasks: Any, ended: Any) -> None:
    job = ended(tasks.process.delay(5).id)
    assert job.progress is not None
    assert (job.progress.current, job.progress.total, job.progress.fraction) == (5, 5, 1.0)
    assert (job.progress.message, job.progress.data) == ("item 5", {"extra": 4})


def test_custom_state_becomes_the_stage(tasks: Any, ended: Any) -> None:
    job = ended(tasks.custom_state.delay().id)
    assert job.progress is not None
    assert (job.progress.stage, job.progress.current) == ("uploading", 1)


def test_retry_runs_again_as_a_new_attempt(tasks: Any, ended: Any, database: Any) -> None:
    result = tasks.flaky.delay(2)
    job = ended(result.id)
    assert (job.status, job.attempt, job.result) == ("completed", 3, "worked after 2")
    assert kinds(database, result.id) == [
        *("created", "started", "retried", "started", "retried", "started", "completed")
    ]


def test_retry_with_countdown_waits_in_the_database(tasks: Any, view: Any, ended: Any) -> None:
    result = tasks.flaky.delay(1, countdown=1.5)
    wait_until(lambda: view(result.id).run_at, description="the retry waits")
    waiting = view(result.id)
    assert (waiting.status, waiting.attempt) == ("pending", 1)
    assert waiting.error.type == "ConnectionError"
    assert waiting.error.message == "failure 1"
    job = ended(result.id)
    assert (job.status, job.attempt, job.error, job.run_at) == ("completed", 2, None, None)


def test_retries_that_run_out_fail_with_the_last_error(tasks: Any, ended: Any) -> None:
    job = ended(tasks.flaky.delay(99).id)
    assert (job.status, job.attempt, job.max_attempts) == ("failed", 6, 6)
    assert (job.error.type, job.error.message) == ("ConnectionError", "failure 6")


def test_autoretry_for_is_an_ordinary_retry(tasks: Any, ended: Any) -> None:
    job = ended(tasks.automatic.delay(uuid.uuid4().hex, 2).id)
    assert (job.status, job.attempt, job.result) == ("completed", 3, "worked at 3")


def test_exception_fails_the_job_in_words(tasks: Any, ended: Any) -> None:
    result = tasks.fail.delay("no such file: a.csv")
    job = ended(result.id)
    assert (job.status, job.error.type, job.error.message) == (
        *("failed", "ValueError", "no such file: a.csv"),
    )
    assert job.error.traceback is None
    with pytest.raises(ValueError, match=r"no such file: a\.csv"):
        result.get(timeout=10)


def test_chain_records_each_step(tasks: Any, ended: Any) -> None:
    result = chain(tasks.add.s(1, 2), tasks.flaky.si(1), tasks.add.si(4, 5)).apply_async()
    assert result.get(timeout=20) == 9
    steps = [result, result.parent, result.parent.parent]
    assert [ended(step.id).result for step in steps] == [9, "worked after 1", 3]


def test_chord_runs_its_body_after_a_retry_in_its_header(tasks: Any, ended: Any) -> None:
    header = group([tasks.add.s(i, i) for i in range(3)])
    result = chord(header, tasks.total.s()).apply_async()
    assert result.get(timeout=20) == 6
    assert ended(result.id).result == 6


def test_chord_goes_on_after_a_dispatch_from_the_row(tasks: Any, ended: Any) -> None:
    header = group([tasks.automatic.s(uuid.uuid4().hex, 1), tasks.automatic.s(uuid.uuid4().hex, 0)])
    body = tasks.whoami.si()
    result = chord(header, body).apply_async()
    assert result.get(timeout=20) == result.id
    assert ended(result.id).status == "completed"


def test_send_task_by_name_creates_the_row(tasks: Any, ended: Any, view: Any) -> None:
    result = tasks.app.send_task(tasks.add.name, (20, 22))
    assert view(result.id).task == tasks.add.name
    assert ended(result.id).result == 42


def test_countdown_waits_in_the_database_and_not_in_a_worker(
    tasks: Any, view: Any, ended: Any
) -> None:
    result = tasks.add.apply_async((1, 1), countdown=1.2)
    waiting = view(result.id)
    assert waiting.status == "pending"
    assert waiting.run_at is not None
    job = ended(result.id)
    assert job.started_at - job.created_at >= waiting.run_at - waiting.created_at


def test_replace_goes_on_under_the_same_id(tasks: Any, ended: Any) -> None:
    result = tasks.replaced.delay(4)
    job = ended(result.id)
    assert (job.task, job.result, job.status) == (tasks.add.name, 5, "completed")
    assert result.get(timeout=10) == 5


def test_owner_and_tags_are_kept_and_children_inherit_the_owner(tasks: Any, ended: Any) -> None:
    result = tasks.parent.apply_async((3,), owner="ada", tags={"doc": "a.pdf"})
    job = ended(result.id)
    assert (job.owner, job.tags) == ("ada", {"doc": "a.pdf"})
    assert ended(job.result).owner == "ada"


def test_what_follows_a_job_is_sent_again_until_somebody_takes_it(
    tasks: Any, ended: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[str] = []
    take = recording.record_and_send

    def away_for_a_while(app: Any, new: NewJob) -> Any:
        tries.append(new.id)
        if len(tries) < 4:
            raise DatabaseUnavailable("neither the database nor the broker answers")
        return take(app, new)

    monkeypatch.setattr(recording, "record_and_send", away_for_a_while)
    with pytest.raises(DatabaseUnavailable):  # somebody waits, who is told
        tasks.add.delay(1, 1)
    # As where a worker's tracer sends the next step of a chain.
    _task_stack.push(tasks.add)
    tasks.add.push_request(id=uuid.uuid4().hex, called_directly=False, is_eager=False)
    try:
        result = tasks.add.delay(3, 3)
    finally:
        tasks.add.pop_request()
        _task_stack.pop()
    assert tries[1:] == [result.id] * 3
    assert ended(result.id).result == 6


def test_chain_steps_inherit_the_owner(tasks: Any, ended: Any) -> None:
    first = tasks.add.s(1, 1).set(owner="ada")
    result = chain(first, tasks.add.s(2)).apply_async()
    assert result.get(timeout=20) == 4
    assert ended(result.id).owner == "ada"


def test_untracked_task_leaves_no_row(tasks: Any, database: Any) -> None:
    result = tasks.untracked.delay()
    assert result.get(timeout=10) == "done"
    assert database.read(reads.job(result.id)) is None


def test_serializer_of_the_task_stays_its_own(tasks: Any, ended: Any) -> None:
    result = tasks.pickled.delay({1, 2})
    assert ended(result.id).result == "set"


def test_message_of_an_unaware_producer_gets_its_row_when_claimed(
    tasks: Any, ended: Any, database: Any
) -> None:
    from celery import Celery

    unaware = Celery(broker=tasks.app.conf.broker_url, set_as_current=False)
    result = unaware.send_task(tasks.add.name, (7, 8))
    wait_until(lambda: database.read(reads.job(result.id)), description="the row appears")
    assert ended(result.id).result == 15


def test_retry_of_an_unaware_producers_task_goes_on(tasks: Any, ended: Any, database: Any) -> None:
    from celery import Celery

    unaware = Celery(broker=tasks.app.conf.broker_url, set_as_current=False)
    result = unaware.send_task(tasks.flaky.name, (1,))
    wait_until(lambda: database.read(reads.job(result.id)), description="the row appears")
    job = ended(result.id)
    assert (job.attempt, job.status, job.error, job.result) == (
        2,
        "completed",
        None,
        "worked after 1",
    )


def test_message_whose_row_was_deleted_is_dropped(tasks: Any, database: Any, ended: Any) -> None:
    result = tasks.add.apply_async((1, 1), countdown=3600)
    row = database.read(reads.job(result.id))
    from livejobs.messages import header_of, publish

    with database.begin() as connection:
        connection.execute(text("DELETE FROM livejobs_jobs WHERE id = :id"), {"id": result.id})
    publish(tasks.app, row.message, header_of(row))
    assert ended(tasks.add.delay(1, 1).id).status == "completed"
    assert database.read(reads.job(result.id)) is None


def test_message_delivered_twice_runs_once(tasks: Any, database: Any, ended: Any) -> None:
    from livejobs.messages import header_of, publish

    result = tasks.add.apply_async((1, 1), countdown=3600)
    row = database.read(reads.job(result.id))
    with database.begin() as connection:
        connection.execute(
            text("UPDATE livejobs_jobs SET run_at = NULL WHERE id = :id"), {"id": result.id}
        )
    for _ in range(5):
        publish(tasks.app, row.message, header_of(row))
    assert ended(result.id).attempt == 1
    ended(tasks.add.delay(1, 1).id)
    assert kinds(database, result.id) == ["created", "started", "completed"]


def test_entries_are_kept_in_order(tasks: Any, ended: Any, database: Any) -> None:
    result = tasks.talk.delay(300, 300)
    ended(result.id)
    query = text("SELECT n, kind, body FROM livejobs_entries WHERE job_id = :id ORDER BY n")
    with database.begin() as connection:
        rows = connection.execute(query, {"id": result.id}).all()
    bodies = [json.loads("{" + row.body) for row in rows]
    lines = [line["text"] for body in bodies for line in body.get("lines", [])]
    output = "".join(body.get("text", "") for body in bodies)
    assert [row.n for row in rows] == list(range(1, len(rows) + 1))
    assert lines == [f"line {i}" for i in range(1, 301)]
    assert output == "".join(f"piece {i};" for i in range(1, 301))


def test_cancel_of_a_running_job_ends_it_at_its_next_step(
    tasks: Any, database: Any, view: Any, ended: Any
) -> None:
    result = tasks.tracked.delay(2000)
    wait_until(lambda: view(result.id).status == "processing", description="it runs")
    row = database.run(transitions.cancel(result.id))
    assert row.cancel_requested_at is not None
    job = ended(result.id)
    assert (job.status, job.error) == ("cancelled", None)


def test_result_without_json_form_is_left_to_the_result_backend(tasks: Any, ended: Any) -> None:
    job = ended(tasks.unstorable.delay().id)
    assert job.result is None


def test_idempotency_key_returns_the_first_job(tasks: Any, ended: Any) -> None:
    from livejobs.errors import IdempotencyConflict

    key = uuid.uuid4().hex
    first = tasks.add.apply_async((1, 2), idempotency_key=key)
    again = tasks.add.apply_async((1, 2), idempotency_key=key)
    assert again.id == first.id
    with pytest.raises(IdempotencyConflict):
        tasks.add.apply_async((3, 4), idempotency_key=key)
    ended(first.id)


def test_hard_time_limit_fails_the_job_once(tasks: Any, ended: Any, database: Any) -> None:
    result = tasks.endless.delay()
    job = ended(result.id)
    assert (job.status, job.error.type, job.error.code) == (
        *("failed", "TimeLimitExceeded", "time_limit"),
    )
    ended(tasks.add.delay(1, 1).id)
    assert kinds(database, result.id) == ["created", "started", "failed"]


def test_soft_time_limit_fails_the_job(tasks: Any, ended: Any) -> None:
    job = ended(tasks.softly_endless.delay().id)
    assert (job.status, job.error.code) == ("failed", "time_limit")


def test_own_call_of_a_class_runs_inside_of_the_job(tasks: Any, ended: Any, database: Any) -> None:
    result = tasks.in_context.delay()
    job = ended(result.id)
    assert (job.status, job.result, job.attempt) == ("completed", "done", 1)


def test_failure_before_the_start_fails_the_job(tasks: Any, ended: Any) -> None:
    job = ended(tasks.unprepared.delay().id)
    assert (job.status, job.error.message) == ("failed", "not prepared")


@pytest.mark.parametrize(
    ("name", "expected"), [("replaced_by_chain", 12), ("replaced_by_chord", 6)]
)
def test_replace_by_several_tasks_ends_with_the_last(
    tasks: Any, ended: Any, name: str, expected: int
) -> None:
    result = getattr(tasks, name).delay()
    assert result.get(timeout=20) == expected
    assert (ended(result.id).status, ended(result.id).result) == ("completed", expected)


def test_revoke_of_a_waiting_task_cancels_its_job(tasks: Any, ended: Any, database: Any) -> None:
    result = tasks.add.apply_async((1, 1), countdown=1)
    result.revoke()
    job = ended(result.id)
    assert job.status == "cancelled"


def test_revoke_with_terminate_cancels_the_running_job(tasks: Any, ended: Any, view: Any) -> None:
    result = tasks.tracked.delay(2000)
    wait_until(lambda: view(result.id).status == "processing", description="it runs")
    result.revoke(terminate=True)
    assert ended(result.id).status == "cancelled"


def test_exception_that_cannot_say_what_it_is_fails_the_job(tasks: Any, ended: Any) -> None:
    job = ended(tasks.unspeakable.delay().id)
    assert (job.status, job.error.type) == ("failed", "Unspeakable")


def test_state_that_a_task_declares_before_ignore_counts(tasks: Any, ended: Any) -> None:
    job = ended(tasks.declared_failure.delay().id)
    assert (job.status, job.error.message) == ("failed", "declared")


def test_retry_from_inside_a_tracked_block(tasks: Any, ended: Any) -> None:
    job = ended(tasks.retried_in_block.delay().id)
    assert (job.status, job.attempt, job.result) == ("completed", 2, "done")


def test_task_that_cancels_itself_is_cancelled(tasks: Any, ended: Any) -> None:
    assert ended(tasks.gives_up.delay().id).status == "cancelled"


def test_id_whose_job_is_over_may_be_used_again(tasks: Any, ended: Any, database: Any) -> None:
    job_id = f"nightly-{uuid.uuid4()}"
    assert ended(tasks.add.apply_async((1, 1), task_id=job_id).id).result == 2
    tasks.add.apply_async((2, 2), task_id=job_id)
    wait_until(lambda: kinds(database, job_id).count("completed") == 2, description="it ran again")
    job = ended(job_id)
    assert (job.result, job.attempt) == (4, 2)


def test_expired_job_that_a_person_runs_again_runs(
    tasks: Any, ended: Any, database: Any, view: Any
) -> None:
    result = tasks.add.apply_async((1, 1), countdown=2, expires=1)
    assert ended(result.id).error.type == "Expired"
    database.run(transitions.requeue(result.id))
    wait_until(lambda: view(result.id).status == "completed", description="it runs", seconds=20)


def test_redelivered_message_of_a_completed_job_goes_on_with_its_chain(
    tasks: Any, ended: Any, database: Any, working: Settings
) -> None:
    """As after a worker that died between a job's end and the dispatch of the next step."""
    first = tasks.add.s(1, 2).set(queue="parked")
    result = chain(first, tasks.add.s(30)).apply_async()
    with redis.Redis.from_url(working.redis_url) as client:
        message = json.loads(client.lpop("parked"))
        database.run(attempts.claim(result.parent.id, 0, "dead", 30.0))
        database.run(attempts.complete(result.parent.id, 1, 3))
        assert database.read(reads.job(result.id)) is None
        message["properties"]["delivery_info"]["redelivered"] = True
        message["headers"]["redelivered"] = True
        client.lpush("celery", json.dumps(message))
    wait_until(lambda: database.read(reads.job(result.id)), description="the next step is sent")
    assert ended(result.id).result == 33
    with redis.Redis.from_url(working.redis_url) as client:
        client.lpush("celery", json.dumps(message))  # it had died after the dispatch
    ended(tasks.add.delay(1, 1).id)
    wait_until(lambda: ended(result.id).attempt == 1, description="the next step runs once")
    assert kinds(database, result.parent.id) == ["created", "started", "completed"]
    assert kinds(database, result.id) == ["created", "started", "completed"]
