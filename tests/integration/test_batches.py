"""Many jobs at once: together in their transactions and round trips, and none lost on the way."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import threading
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis
from celery import Celery
from sqlalchemy import create_engine, text
from sqlalchemy.sql.base import Executable

from livejobs import JobTask, JobView, enqueue, enqueue_many, reads, recording
from livejobs.database import Database
from livejobs.errors import DatabaseUnavailable, IdempotencyConflict, MessageError
from livejobs.intake import intake
from livejobs.owners import request_owner
from livejobs.settings import Settings, configure
from livejobs.statements import Rows
from livejobs.testing import enqueued
from tests.support.patient import wait_for_rows
from tests.support.rows import read
from tests.support.servers import free_port
from tests.support.waiting import wait_until

MANY = recording.MANY + 20
"""More than go into one transaction."""


def make_app(broker: str) -> Any:
    app = Celery("batches", broker=broker, task_cls=JobTask, set_as_current=False)
    app.conf.update(broker_connection_timeout=0.5)

    @app.task(shared=False, name="batches.work", max_retries=2)
    def work(x: int, y: int = 0) -> int:
        return x + y

    return app.tasks["batches.work"]


@pytest.fixture
def work(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A task whose messages nobody takes; callers wait as long as it takes."""
    wait_for_rows(monkeypatch)
    work = make_app(settings.redis_url)
    yield work
    work.app.close()


@pytest.fixture
def brokerless(settings: Settings) -> Iterator[Any]:
    """The same, of an app whose broker is not there."""
    work = make_app(f"redis://127.0.0.1:{free_port()}/0")
    yield work
    work.app.close()


def queued(settings: Settings, queue: str = "celery") -> list[str]:
    """The ids of the jobs whose messages wait in the broker, in their order."""
    with redis.Redis.from_url(settings.redis_url) as client:
        messages = [json.loads(item) for item in reversed(client.lrange(queue, 0, -1))]
    return [message["headers"]["id"] for message in messages]


def rows(database: Database) -> dict[str, Any]:
    """Due time and dispatches of all jobs by their ids."""
    query = text("SELECT id, due_at, dispatches, status FROM livejobs_jobs")

    def program() -> Generator[Executable, Rows, dict[str, Any]]:
        return {row.id: row for row in (yield query)}

    # It takes no writer's turn, however often it is asked.
    return database.read(program())


def timelines(database: Database) -> dict[str, list[str]]:
    """The timelines of all jobs by their ids."""
    found: dict[str, list[str]] = {}
    with database.begin() as connection:
        for row in connection.execute(text("SELECT job_id, kind FROM livejobs_events ORDER BY id")):
            found.setdefault(row.job_id, []).append(row.kind)
    return found


def test_row_is_the_same_whichever_way_it_is_written(work: Any, database: Database) -> None:
    options: dict[str, Any] = {"countdown": 60, "expires": 600}
    named: dict[str, Any] = {"owner": "ada", "tags": {"k": "v"}}
    alone = work.apply_async((1,), **named, **options)
    (among,) = work.apply_many([(1,)], **named, **options)
    job = dataclasses.replace(work.job_options(), **named)
    new = recording.build(work.app, work.name, (1,), {}, job, options)
    long_way = recording.record_the_long_way(work.app, new)
    own = {"id", "message", "created_at", "updated_at", "run_at", "due_at", "expires_at"}
    found = [read(database, job_id)._asdict() for job_id in (alone.id, among.id, long_way.id)]
    for row in found:
        same = [{k: v for k, v in it.items() if k not in own} for it in (row, found[0])]
        assert same[0] == same[1]
        assert row["message"].keys() == found[0]["message"].keys()
        assert abs((row["run_at"] - row["created_at"]).total_seconds() - 60) < 1
        assert abs((row["expires_at"] - row["created_at"]).total_seconds() - 600) < 5
        assert row["due_at"] == row["run_at"]


def test_many_get_their_rows_and_are_sent_in_order(
    work: Any, settings: Settings, database: Database
) -> None:
    results = work.apply_many((i,) for i in range(MANY))
    ids = [result.id for result in results]
    assert queued(settings) == ids
    assert timelines(database) == {job_id: ["created"] for job_id in ids}


def test_many_are_what_they_would_be_one_by_one(
    work: Any, settings: Settings, database: Database
) -> None:
    options: dict[str, Any] = {"priority": 3, "link": [work.si(0)], "time_limit": 9}
    alone = work.apply_async((5, 6), owner="ada", **options)
    last = work.apply_many([(1,), (2, 3), (5, 6)], owner="ada", **options)[-1]
    found = [read(database, job_id).message for job_id in (alone.id, last.id)]
    for message in found:
        for name in ("id", "root_id"):
            del message["headers"][name]
        del message["properties"]["correlation_id"]
    assert found[0] == found[1]
    assert (last.backend, last.ignored) == (alone.backend, alone.ignored)


def test_many_with_arguments_that_the_task_does_not_take_create_nothing(
    work: Any, database: Database
) -> None:
    with pytest.raises(TypeError):
        work.apply_many([(1,), (1, 2, 3)])
    assert rows(database) == {}


async def test_enqueue_many_answers_views_in_order(
    work: Any, settings: Settings, database: Database
) -> None:
    views = await enqueue_many(work, [[1], [2]], owner="ada", tags={"k": "v"}, queue="slow")
    assert [(view.owner, view.tags, view.status) for view in views] == [
        ("ada", {"k": "v"}, "pending")
    ] * 2
    assert queued(settings, "slow") == [view.job_id for view in views]
    row = database.read(reads.job(views[1].job_id))
    assert json.loads(row.message["body"])[0] == [2]
    assert row.created_at == views[1].created_at


async def test_enqueue_many_is_taken_by_tests(work: Any) -> None:
    with enqueued() as jobs:
        await enqueue_many(work, [[1], [2]])
        work.apply_many([[3]])
    assert [job.args for job in jobs.jobs] == [[1], [2], [3]]


async def test_enqueue_many_of_what_cannot_be_sent_creates_nothing(
    work: Any, database: Database
) -> None:
    with pytest.raises(MessageError):
        await enqueue_many(work, [[1], [object()]])
    assert rows(database) == {}


def test_many_with_the_broker_down_wait_for_a_keeper(brokerless: Any, database: Database) -> None:
    results = brokerless.apply_many((i,) for i in range(30))
    found = rows(database)
    assert found.keys() == {result.id for result in results}
    assert all(row.due_at is not None and not row.dispatches for row in found.values())


async def test_crowd_of_coroutines_all_get_their_rows(
    work: Any, settings: Settings, database: Database
) -> None:
    views = await asyncio.gather(*(enqueue(work, (i,)) for i in range(200)))
    ids = {view.job_id for view in views}
    assert len(ids) == 200
    assert rows(database).keys() == ids
    assert set(queued(settings)) == ids


async def test_crowd_with_one_key_is_one_job(
    work: Any, settings: Settings, database: Database
) -> None:
    views = await asyncio.gather(
        *(enqueue(work, (1,), owner="ada", idempotency_key="k") for _ in range(20))
    )
    assert len({view.job_id for view in views}) == 1
    assert queued(settings) == [views[0].job_id]
    with pytest.raises(IdempotencyConflict):
        await enqueue(work, (2,), owner="ada", idempotency_key="k")


async def test_one_of_a_crowd_that_fails_fails_alone(work: Any, database: Database) -> None:
    calls = [enqueue(work, (object() if i == 5 else i,)) for i in range(20)]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [
        MessageError if i == 5 else JobView for i in range(20)
    ]
    assert len(rows(database)) == 19


async def test_each_of_a_crowd_has_its_own_owner(work: Any, database: Database) -> None:
    async def request(owner: str) -> JobView:
        request_owner.set(lambda: owner)
        return await enqueue(work, (1,))

    names = [f"owner-{i}" for i in range(20)]
    views = await asyncio.gather(*(asyncio.create_task(request(name)) for name in names))
    assert [view.owner for view in views] == names


def test_crowd_of_threads_all_get_their_rows(
    work: Any, settings: Settings, database: Database
) -> None:
    with ThreadPoolExecutor(16) as threads:
        results = list(threads.map(work.delay, range(200)))
    ids = {result.id for result in results}
    assert rows(database).keys() == ids
    assert set(queued(settings)) == ids


def test_owner_function_may_enqueue_itself(
    work: Any, settings: Settings, database: Database
) -> None:
    """What runs while a job is built must not wait for the thread that it holds up."""
    inner = threading.Event()

    def owner_of() -> str:
        if not inner.is_set():
            inner.set()
            work.apply_async((0,), owner="log")
        return "ada"

    configure(
        owner_of=owner_of,
        database_url=settings.database_url,
        redis_url=settings.redis_url,
        data_dir=settings.data_dir,
    )
    view = asyncio.run(enqueue(work, (1,)))
    assert view.owner == "ada"
    assert len(rows(database)) == 2


def test_that_it_was_sent_is_noted(work: Any, database: Database) -> None:
    result = work.delay(1)
    wait_until(lambda: rows(database)[result.id].dispatches, description="it is noted")


async def test_database_away_is_an_error_for_a_crowd(tmp_path: Any, redis_url: str) -> None:
    configure(
        database_url=f"postgresql://nobody@127.0.0.1:{free_port()}/none",
        redis_url=redis_url,
        data_dir=tmp_path,
    )
    work = make_app(redis_url)
    calls = [enqueue(work, (i,)) for i in range(5)]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [DatabaseUnavailable] * 5
    with pytest.raises(DatabaseUnavailable):
        await enqueue_many(work, [[1]])
    work.app.close()


def test_row_given_up_is_not_written_later(
    make_database: Any, redis_url: str, tmp_path: Any
) -> None:
    url = make_database("sqlite")
    configure(database_url=url, redis_url=redis_url, data_dir=tmp_path)
    work = make_app(redis_url)
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text("BEGIN IMMEDIATE"))
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(work.delay, range(4)))
        connection.execute(text("ROLLBACK"))
        assert intake.flush(10.0)
        assert connection.execute(text("SELECT count(*) FROM livejobs_jobs")).scalar() == 0
    work.delay(1)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM livejobs_jobs")).scalar() == 1
    engine.dispose()
    work.app.close()
