"""Processes that die between any two of their steps, and COMMITs whose answer is lost.

Each part is first run whole, which tells its points; then it is run once for each of them, and
dies there. Afterwards time passes, a keeper and a worker do their work, and every job that was
accepted must have ended as it should, once.
"""

from __future__ import annotations

import asyncio
import importlib
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from sqlalchemy import select, update

from livejobs import enqueue, reads
from livejobs.database import Database
from livejobs.keeper import Keeper
from livejobs.models import db_now, view_of
from livejobs.settings import Settings, configure
from livejobs.statements import jobs
from livejobs.views import JobView
from tests.support.crashing import Crasher
from tests.support.rows import entries, shown, timeline
from tests.support.waiting import wait_until
from tests.support.worker import celery_worker

pytestmark = pytest.mark.long

APP = "tests.support.jobs_app"
FAR = 86_400.0


@pytest.fixture
def tasks(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The tasks of the app, bound to the servers of this test."""
    monkeypatch.setenv("REDIS_URL", settings.redis_url)
    module = importlib.import_module(APP)
    configure(**settings.model_dump())
    return module


@pytest.fixture
def crasher(settings: Settings, tmp_path: Path) -> Iterator[Crasher]:
    """Runs parts that die."""
    with Crasher(settings, tmp_path, APP) as crasher:
        yield crasher


@pytest.fixture
def recover(
    tasks: Any, settings: Settings, database: Database, tmp_path: Path
) -> Callable[[list[str], list[str]], None]:
    """``recover(ids, queues)``: time passes, and a keeper and a worker do what they do."""

    def recover(ids: list[str], queues: list[str]) -> None:
        make_due(database, ids, -1.0)
        moment = [0.0]
        keeper = Keeper(settings, tasks.app, clock=lambda: moment[0])
        names = ["-Q", ",".join(queues)]
        while moment[0] <= settings.lease_seconds:
            keeper.round()
            moment[0] += settings.lease_seconds / 3
        keeper.round()
        keeper.stop()
        with celery_worker(settings, tmp_path / "worker.log", concurrency=1, options=names):
            wait_until(
                lambda: all(is_over(database, job_id) for job_id in ids),
                description="all jobs are over",
                seconds=60,
            )

    return recover


def make_due(database: Database, ids: list[str], seconds: float) -> None:
    """Let what waits for its time wait so long from now: what is due, and what is leased."""
    with database.begin() as connection:
        for column in (jobs.c.due_at, jobs.c.lease_until):
            connection.execute(
                update(jobs)
                .where(jobs.c.id.in_(ids), column.is_not(None))
                .values({column: db_now(seconds)})
            )


def is_over(database: Database, job_id: str) -> bool:
    """Whether a job has ended, or was never accepted."""
    row = database.read(reads.job(job_id))
    return row is None or view_of(row).status.is_final


def witnesses(settings: Settings, key: str) -> list[str]:
    """What the executions of `witnessed` said of themselves."""
    with redis.Redis.from_url(settings.redis_url) as client:
        return [item.decode() for item in client.lrange(f"tests:{key}", 0, -1)]


def check_history(database: Database, job_id: str) -> JobView:
    """What must be true of every job that is over."""
    view = shown(database, job_id)
    kinds = Counter(timeline(database, job_id))
    assert kinds["created"] == 1
    assert kinds["completed"] + kinds["failed"] + kinds["cancelled"] == 1
    assert kinds["started"] == view.attempt
    of_attempt: dict[int, list[int]] = {}
    for attempt, n in entries(database, job_id):
        of_attempt.setdefault(attempt, []).append(n)
    assert all(numbers == list(range(1, len(numbers) + 1)) for numbers in of_attempt.values())
    return view


# -- the caller ------------------------------------------------------------------------------------


def test_caller_that_dies_leaves_a_whole_job_or_none(
    crasher: Crasher,
    database: Database,
    settings: Settings,
    recover: Callable[[list[str], list[str]], None],
) -> None:
    queue = uuid.uuid4().hex

    def call(job_id: str, **points: str) -> str:
        arguments = {"task": "witnessed", "args": [job_id, 3, 0], "task_id": job_id, "queue": queue}
        return crasher.end(crasher.start("apply", arguments, **points))

    whole = uuid.uuid4().hex
    assert call(whole) == "done"
    points = crasher.reached()
    assert {"INSERT livejobs_jobs 1", "after COMMIT 1", "after broker 1"} <= set(points)
    died = {point: uuid.uuid4().hex for point in points}
    for point, job_id in died.items():
        assert call(job_id, stop=point) == "killed", point
    committed = points.index("after COMMIT 1")
    recover([whole, *died.values()], [queue])
    for point, job_id in died.items():
        if database.read(reads.job(job_id)) is None:
            assert points.index(point) < committed, point
            assert witnesses(settings, job_id) == [], point
        else:
            assert check_history(database, job_id).status == "completed", point
            assert witnesses(settings, job_id) == ["1 begins", "1 ends"], point


def test_request_that_is_repeated_after_a_crash_makes_one_job(
    crasher: Crasher,
    database: Database,
    settings: Settings,
    tasks: Any,
    recover: Callable[[list[str], list[str]], None],
) -> None:
    queue = uuid.uuid4().hex

    def options(key: str) -> dict[str, Any]:
        return {"owner": "ada", "idempotency_key": key, "queue": queue}

    def call(key: str, **points: str) -> str:
        arguments = {"task": "witnessed", "args": [key, 3, 0], **options(key)}
        return crasher.end(crasher.start("enqueue", arguments, **points))

    assert call(uuid.uuid4().hex) == "done"
    points = crasher.reached()
    assert {"INSERT livejobs_jobs 1", "after COMMIT 1", "after broker 1"} <= set(points)
    keys = {point: uuid.uuid4().hex for point in points}
    for point, key in keys.items():
        assert call(key, stop=point) == "killed", point

    async def again() -> list[str]:
        task = tasks.witnessed
        return [(await enqueue(task, (key, 3, 0), **options(key))).job_id for key in keys.values()]

    ids = asyncio.run(again())
    recover(ids, [queue])
    for point, key, job_id in zip(keys, keys.values(), ids, strict=True):
        assert check_history(database, job_id).status == "completed", point
        assert witnesses(settings, key) == ["1 begins", "1 ends"], point


# -- the keeper ------------------------------------------------------------------------------------


def test_keeper_that_dies_sends_what_is_due_all_the_same(
    crasher: Crasher,
    database: Database,
    settings: Settings,
    tasks: Any,
    recover: Callable[[list[str], list[str]], None],
) -> None:
    queue = uuid.uuid4().hex

    def keep(**points: str) -> tuple[str, str]:
        job_id = uuid.uuid4().hex
        tasks.witnessed.apply_async((job_id, 3, 0), task_id=job_id, queue=queue)
        with redis.Redis.from_url(settings.redis_url) as client:
            client.delete(queue)
        make_due(database, [job_id], -1.0)
        ended = crasher.end(crasher.start("keep", {}, **points))
        make_due(database, [job_id], FAR)
        return ended, job_id

    ended, whole = keep()
    assert ended == "done"
    points = crasher.reached()
    assert {"UPDATE livejobs_jobs 1", "after COMMIT 1", "after broker 1"} <= set(points)
    died = {}
    for point in points:
        ended, died[point] = keep(stop=point)
        assert ended == "killed", point
    recover([whole, *died.values()], [queue])
    for point, job_id in died.items():
        assert check_history(database, job_id).status == "completed", point
        assert witnesses(settings, job_id) == ["1 begins", "1 ends"], point


# -- the worker ------------------------------------------------------------------------------------

ENDS: dict[str, tuple[str, Callable[[str], tuple[Any, ...]], str]] = {
    "completes": ("witnessed", lambda job_id: (job_id, 3, 0), "completed"),
    "retries": ("flaky", lambda job_id: (1,), "completed"),
    "fails": ("fail", lambda job_id: (), "failed"),
}
"""A task, its arguments for a job of this id, and how that must end."""


class Stage:
    """Jobs in queues of their own, for workers that die."""

    def __init__(self, crasher: Crasher, database: Database, tasks: Any, end: str) -> None:
        self.queues: list[str] = []
        self.ids: list[str] = []
        self._crasher, self._database, self._tasks = crasher, database, tasks
        self._task, self._args, self.status = ENDS[end]

    def work(self, **points: str) -> str:
        """A worker runs a job; the job's id. Without `stop` it is ended when the job is."""
        job_id = queue = uuid.uuid4().hex
        task = getattr(self._tasks, self._task)
        task.apply_async(self._args(job_id), task_id=job_id, queue=queue)
        self.queues.append(queue)
        self.ids.append(job_id)
        begin = "UPDATE livejobs_jobs"
        pid = self._crasher.start("work", {"queue": queue}, begin=begin, **points)
        if "stop" in points:
            assert self._crasher.end(pid) == "killed", points
        else:
            wait_until(lambda: is_over(self._database, job_id), description="over", seconds=40)
            # Of the end the viewers are told last.
            wait_until(self._has_told, description="the end is published")
            self._crasher.kill(pid)
        make_due(self._database, [job_id], FAR)
        return job_id

    def _has_told(self) -> bool:
        points = self._crasher.reached()
        # The end is in the database when its COMMIT is over there, which is noted here later.
        commits = [point for point in points if point.startswith("COMMIT")]
        return bool(commits) and any(
            point.startswith("after Redis") for point in points[points.index(commits[-1]) :]
        )


@pytest.mark.parametrize("end", ENDS)
def test_worker_that_dies_loses_and_doubles_nothing(
    crasher: Crasher,
    database: Database,
    settings: Settings,
    tasks: Any,
    recover: Callable[[list[str], list[str]], None],
    end: str,
) -> None:
    stage = Stage(crasher, database, tasks, end)
    stage.work()
    points = crasher.reached()
    assert {"UPDATE livejobs_jobs 2", "after COMMIT 2", "after Redis 2"} <= set(points)
    died = {point: stage.work(stop=point) for point in points}
    recover(stage.ids, stage.queues)
    for point, job_id in died.items():
        assert check_history(database, job_id).status == stage.status, point
        said = Counter(witnesses(settings, job_id))
        assert set(said.values()) <= {1}, (point, said)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@pytest.mark.parametrize("end", ENDS)
def test_worker_goes_on_where_the_answer_to_a_commit_is_lost(
    crasher: Crasher, database: Database, settings: Settings, tasks: Any, end: str
) -> None:
    stage = Stage(crasher, database, tasks, end)
    plain = shown(database, stage.work())
    commits = [point for point in crasher.reached() if point.startswith("COMMIT")]
    for point in commits:
        job_id = stage.work(lose=point)
        assert point in crasher.reached()
        view = check_history(database, job_id)
        assert (view.status, view.attempt) == (stage.status, plain.attempt), point
        said = Counter(witnesses(settings, job_id))
        assert set(said.values()) <= {1}, (point, said)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@pytest.mark.parametrize("part", ["apply", "enqueue"])
def test_caller_goes_on_where_the_answer_to_a_commit_is_lost(
    crasher: Crasher,
    database: Database,
    settings: Settings,
    recover: Callable[[list[str], list[str]], None],
    part: str,
) -> None:
    queue = uuid.uuid4().hex

    def call(key: str, **points: str) -> str:
        arguments = {"task": "witnessed", "args": [key, 3, 0], "queue": queue}
        return crasher.end(crasher.start(part, arguments, **points))

    assert call(uuid.uuid4().hex) == "done"
    keys = {}
    for point in [point for point in crasher.reached() if point.startswith("COMMIT")]:
        keys[point] = uuid.uuid4().hex
        assert call(keys[point], lose=point) == "done", point
    with database.begin() as connection:
        ids = list(connection.execute(select(jobs.c.id)).scalars())
    recover(ids, [queue])
    assert len(ids) == 1 + len(keys)
    for job_id in ids:
        assert check_history(database, job_id).status == "completed"
    for point, key in keys.items():
        assert witnesses(settings, key) == ["1 begins", "1 ends"], point
