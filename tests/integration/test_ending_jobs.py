"""Running jobs that are cancelled, silent, too slow, or sent to workers that do not know them.

A real worker, with little patience.
"""

from __future__ import annotations

import importlib
import json
import os
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from celery import Celery, chain
from sqlalchemy import text

from livejobs import JobTask, oversight, reads, transitions
from livejobs.database import Database, get_database
from livejobs.entries import channel, parse_published
from livejobs.settings import Settings
from tests.conftest import DATABASES
from tests.support.impatient import cancel, ended, impatient_worker, runs
from tests.support.rows import shown, timeline
from tests.support.waiting import wait_until


@pytest.fixture(scope="module", params=DATABASES)
def impatient(
    request: pytest.FixtureRequest,
    make_database: Any,
    redis_url: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Settings]:
    """A worker for the tests of this module."""
    folder = tmp_path_factory.mktemp("impatient")
    yield from impatient_worker(make_database(request.param), redis_url, folder)


@pytest.fixture
def tasks(impatient: Settings) -> Any:
    """The tasks of the app."""
    return importlib.import_module("tests.support.jobs_app")


@pytest.fixture
def jobs(impatient: Settings) -> Database:
    """The database of the worker."""
    return get_database()


def test_task_that_hears_of_no_cancel_is_ended_with_its_process(tasks: Any, jobs: Database) -> None:
    key = uuid.uuid4().hex
    result = tasks.stubborn.delay(key)
    cancel(jobs, result.id)
    job = ended(jobs, result.id)
    assert (job.status, job.error, job.attempt) == ("cancelled", None, 1)
    happened = [kind for kind in timeline(jobs, result.id) if kind != "stalled"]
    assert happened == ["created", "started", "cancel_requested", "cancelled"]
    with redis.Redis.from_url(os.environ["REDIS_URL"]) as client:
        wait_until(lambda: client.get(f"tests:{key}"), description="it may clean up")
    # The id is not poisoned, as it would be by Celery's revoke.
    jobs.run(transitions.requeue(result.id))
    runs(jobs, result.id)
    cancel(jobs, result.id)
    assert ended(jobs, result.id).attempt == 2


def test_task_that_holds_the_interpreters_lock_keeps_its_lease(tasks: Any, jobs: Database) -> None:
    job_id = tasks.immovable.delay(6).id
    job = ended(jobs, job_id)
    assert (job.status, job.attempt, job.result) == ("completed", 1, "moved")


def test_cancel_reaches_a_task_that_catches_everything(tasks: Any, jobs: Database) -> None:
    result = tasks.catches_all.delay()
    cancel(jobs, result.id)
    assert ended(jobs, result.id).status == "cancelled"
    assert "retried" not in timeline(jobs, result.id)
    wait_until(lambda: result.state == "REVOKED", description="Celery's result says so too")


def test_retry_after_a_cancel_request_ends_as_cancelled(tasks: Any, jobs: Database) -> None:
    result = tasks.retries_later.delay(2.0)
    cancel(jobs, result.id)
    assert ended(jobs, result.id).status == "cancelled"
    wait_until(lambda: result.state == "REVOKED", description="Celery's result says so too")


def test_result_of_an_attempt_that_was_lost_goes_nowhere(tasks: Any, jobs: Database) -> None:
    key = uuid.uuid4().hex
    result = chain(tasks.stubborn.si(key, 1.5), tasks.add.si(1, 1)).apply_async()
    first = result.parent.id
    runs(jobs, first)
    with jobs.begin() as connection:
        query = text("UPDATE livejobs_jobs SET rerun_when_lost = FALSE WHERE id = :id")
        connection.execute(query, {"id": first})
    assert jobs.run(oversight.lose(first, attempt=1)) is not None
    with redis.Redis.from_url(os.environ["REDIS_URL"]) as client:
        wait_until(lambda: client.get(f"tests:{key}"), description="its code comes to its end")
    # Both processes have had something to do since.
    for other in [tasks.tracked.delay(5) for _ in range(4)]:
        ended(jobs, other.id)
    assert shown(jobs, first).status == "failed"
    assert jobs.read(reads.job(result.id)) is None
    assert result.parent.state == "PENDING"


def test_silent_job_is_shown_as_stalled_until_it_speaks(
    tasks: Any, jobs: Database, impatient: Settings
) -> None:
    seen: list[tuple[str, bool]] = []
    job_id = str(uuid.uuid4())
    with redis.Redis.from_url(impatient.redis_url) as client:
        listener: Any = client.pubsub(ignore_subscribe_messages=True)
        listener.subscribe(channel(job_id))
        listener.get_message(timeout=5)
        tasks.hushed.apply_async((2.5,), task_id=job_id)
        while not seen or seen[-1][0] != "completed":
            message = listener.get_message(timeout=20)
            assert message is not None, seen
            published = parse_published(message["data"])
            if published.kind in ("job", "final"):
                view = json.loads(published.payload)["job"]
                state = (view["status"], view["stalled"])
                seen.extend([state] if seen[-1:] != [state] else [])
        listener.close()
    running = [state for state in seen if state[0] == "processing"]
    assert running[:3] == [("processing", False), ("processing", True), ("processing", False)]
    assert seen[-1] == ("completed", False)


def test_job_of_a_task_that_no_worker_knows_fails(jobs: Database, impatient: Settings) -> None:
    app = Celery(broker=impatient.redis_url, set_as_current=False, task_cls=JobTask)

    @app.task(name="tests.nowhere", shared=False)
    def nowhere() -> None:
        """No worker has it."""

    job_id = nowhere.delay().id
    for times in range(1, 5):
        wait_until(
            lambda: timeline(jobs, job_id).count("unknown") == times,  # noqa: B023
            description="a worker meets it",
        )
        with jobs.begin() as connection:
            query = text("UPDATE livejobs_jobs SET due_at = created_at WHERE id = :id")
            connection.execute(query, {"id": job_id})
    job = ended(jobs, job_id)
    assert job.error is not None
    assert (job.status, job.error.type) == ("failed", "UnknownTask")
