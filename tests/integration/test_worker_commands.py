"""What workers are asked by commands of our own: to end a process, and where a task stands."""

from __future__ import annotations

import importlib
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery

from livejobs.control import ask_for_queues, ask_for_stack
from livejobs.database import Database, get_database
from livejobs.settings import Settings
from livejobs.statements import JobRow
from tests.support.impatient import IMPATIENT, cancel, ended, impatient_worker, runs
from tests.support.rows import read
from tests.support.waiting import wait_until
from tests.support.worker import celery_worker


@pytest.fixture(scope="module")
def impatient(
    make_database: Any, redis_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Settings]:
    """A worker for the tests of this module."""
    folder = tmp_path_factory.mktemp("impatient")
    yield from impatient_worker(make_database("sqlite"), redis_url, folder)


@pytest.fixture
def tasks(impatient: Settings) -> Any:
    """The tasks of the app."""
    return importlib.import_module("tests.support.jobs_app")


@pytest.fixture
def jobs(impatient: Settings) -> Database:
    """The database of the worker."""
    return get_database()


def stack_in(app: Celery, row: JobRow, function: str) -> dict[str, Any]:
    """What the worker answers that runs the job, once it has come to a function."""
    found: dict[str, Any] = {}

    def ask() -> bool:
        found.update(ask_for_stack(app, row.id, row.worker, 1.0) or {})
        return f", in {function}\n" in (found.get("stack") or "")

    wait_until(ask, description=f"a worker answers, in {function}")
    return found


def test_process_that_does_not_end_when_asked_is_killed(tasks: Any, jobs: Database) -> None:
    job_id = tasks.immovable.delay(600).id
    runs(jobs, job_id)
    pid = int(read(jobs, job_id).worker.split(":")[1])
    cancel(jobs, job_id)
    assert ended(jobs, job_id).status == "cancelled"
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), description="the process is gone")


@pytest.mark.parametrize("name", ["stubborn", "immovable"])
def test_stack_shows_where_a_task_is(tasks: Any, jobs: Database, name: str) -> None:
    task = getattr(tasks, name)
    job_id = task.delay(*({"stubborn": ("key",), "immovable": (600,)}[name])).id
    runs(jobs, job_id)
    row = read(jobs, job_id)
    found = stack_in(tasks.app, row, name)
    assert "livejobs/execution.py" in found["stack"]
    assert found["pid"] == int(row.worker.split(":")[1])
    assert ask_for_stack(tasks.app, job_id, "another:1:claim", 0.5) is None
    cancel(jobs, job_id)
    ended(jobs, job_id)


def test_workers_tell_their_queues(tasks: Any) -> None:
    queues = wait_until(lambda: ask_for_queues(tasks.app, 1.0), description="a worker answers")
    assert list(queues.values()) == [["celery"]]


@pytest.mark.parametrize("pool", ["threads", "solo"])
def test_other_pools_end_what_checks(
    pool: str, tasks: Any, jobs: Database, impatient: Settings, tmp_path: Path
) -> None:
    options = ("--queues=other", "--hostname=other@%h")
    log = tmp_path / "other.log"
    env = IMPATIENT | {"LIVEJOBS_CANCEL_AT_REPORT": "true"}
    with celery_worker(impatient, log, pool=pool, options=options, env=env):
        job_id = tasks.tracked.apply_async((2000,), queue="other").id
        runs(jobs, job_id)
        if pool == "threads":
            stack_in(tasks.app, read(jobs, job_id), "tracked")
        cancel(jobs, job_id)
        assert ended(jobs, job_id).status == "cancelled"
        reporting = tasks.witnessed.apply_async((key := uuid.uuid4().hex, 2000), queue="other").id
        cancel(jobs, reporting)
        assert ended(jobs, reporting).status == "cancelled"
        with redis.Redis.from_url(impatient.redis_url) as client:
            assert client.lrange(f"tests:{key}", 0, -1) == [b"1 begins", b"1 JobCancelled"]


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_job_that_runs_too_long_fails_in_every_pool(
    pool: str, tasks: Any, jobs: Database, impatient: Settings, tmp_path: Path
) -> None:
    env = IMPATIENT | {"LIVEJOBS_MAX_RUNTIME": "1"}
    options = ("--queues=short", "--hostname=short@%h")
    key = uuid.uuid4().hex
    with celery_worker(impatient, tmp_path / "w.log", pool=pool, options=options, env=env):
        job_id = tasks.witnessed.apply_async((key, 400), queue="short").id
        job = ended(jobs, job_id)
        assert job.error is not None
        assert (job.status, job.error.type) == ("failed", "TimeLimitExceeded")
        with redis.Redis.from_url(impatient.redis_url) as client:

            def told() -> list[Any]:
                found: list[Any] = client.lrange(f"tests:{key}", 1, -1)
                return found

            wait_until(told, description="the task is told")
            # A process is ended, unless its task hears of it at a report before.
            ends = {"prefork": (b"1 SystemExit", b"1 JobLost"), "threads": (b"1 JobLost",)}
            assert len(told()) == 1
            assert told()[0] in ends[pool]
