"""The keeper sends what is due and expires what is too old, alone or among others."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery, chain
from sqlalchemy import text

from livejobs import JobTask, attempts, reads, transitions
from livejobs.database import Database
from livejobs.dispatch import enqueue, producer_app
from livejobs.entries import head_key
from livejobs.errors import DatabaseUnavailable
from livejobs.keeper import Keeper
from livejobs.settings import Settings, configure
from livejobs.statements import JobRow
from livejobs.transitions import NewJob
from tests.support.patient import wait_for_rows
from tests.support.rows import shown, timeline
from tests.support.servers import ValkeyProcess
from tests.support.waiting import wait_until


@pytest.fixture
def app(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Celery:
    """An app that only sends, and callers that wait for it: what is late would be sent twice."""
    wait_for_rows(monkeypatch)
    return producer_app(settings)


@pytest.fixture
def keeper(settings: Settings, database: Database, app: Celery) -> Iterator[Keeper]:
    """A keeper that does a round when it is told."""
    keeper = Keeper(settings, app)
    yield keeper
    keeper.stop()


def sent(url: str) -> list[str]:
    with redis.Redis.from_url(url) as client:
        return [json.loads(item)["headers"]["id"] for item in client.lrange("celery", 0, -1)]


def make_due(database: Database) -> None:
    with database.begin() as connection:
        connection.execute(text("UPDATE livejobs_jobs SET due_at = created_at"))


async def test_round_sends_what_is_due(
    settings: Settings, database: Database, app: Celery, keeper: Keeper
) -> None:
    job = await enqueue("some.task", (1,), app=app)
    keeper.round()
    assert len(sent(settings.redis_url)) == 1
    make_due(database)
    keeper.round()
    assert sent(settings.redis_url) == [job.job_id] * 2
    keeper.round()
    assert len(sent(settings.redis_url)) == 2


async def test_round_sends_more_than_a_batch(
    settings: Settings, database: Database, app: Celery, keeper: Keeper
) -> None:
    jobs = [await enqueue("some.task", (i,), app=app) for i in range(120)]
    with redis.Redis.from_url(settings.redis_url) as client:
        client.flushdb()
    make_due(database)
    keeper.round()
    assert sorted(sent(settings.redis_url)) == sorted(job.job_id for job in jobs)


async def test_two_keepers_send_each_job_once(
    settings: Settings, database: Database, app: Celery, keeper: Keeper
) -> None:
    jobs = [await enqueue("some.task", (i,), app=app) for i in range(40)]
    with redis.Redis.from_url(settings.redis_url) as client:
        client.flushdb()
    make_due(database)
    others = [Keeper(settings, app, f"other-{i}") for i in range(2)]
    for other in others:
        other.start()
    wait_until(lambda: len(sent(settings.redis_url)) >= 40, description="all are sent")
    for other in others:
        other.stop()
    assert sorted(sent(settings.redis_url)) == sorted(job.job_id for job in jobs)


LEASE_SECONDS = 30.0


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def steady(settings: Settings, app: Celery) -> Keeper:
    """A keeper that has seen the database for a whole lease."""
    clock = Clock()
    keeper = Keeper(settings, app, clock=clock)
    rounds(keeper, clock, LEASE_SECONDS)
    return keeper


def rounds(keeper: Keeper, clock: Clock, seconds: float, step: float = 5.0) -> None:
    """Let a keeper work for so long."""
    end = clock.seconds + seconds
    keeper.round()
    while clock.seconds < end:
        clock.seconds += step
        keeper.round()


def claimed(database: Database, job_id: str, **more: Any) -> JobRow:
    """A job that is run by a worker whose lease has run out."""
    row = database.run(attempts.claim(job_id, None, f"worker-{job_id}", -1.0, **more))
    assert row is not None
    return row


async def test_lost_job_is_run_again_only_where_it_may_be(
    settings: Settings, database: Database, app: Celery
) -> None:
    keeper = steady(settings, app)
    jobs = [await enqueue("some.task", app=app) for _ in range(3)]
    ids = [job.job_id for job in jobs]
    with redis.Redis.from_url(settings.redis_url) as client:
        client.flushdb()
    for job_id in ids:
        claimed(database, job_id, rerun_when_lost=job_id != ids[1])
    database.run(transitions.cancel(ids[2]))
    keeper.round()
    rows = [database.read(reads.job(job_id)) for job_id in ids]
    assert [row.status for row in rows] == ["pending", "failed", "cancelled"]
    assert rows[1].error["type"] == "WorkerLost"
    assert sent(settings.redis_url) == [ids[0]]
    keeper.stop()


async def test_keeper_judges_after_a_lease_without_a_break(
    settings: Settings, database: Database, app: Celery
) -> None:
    clock = Clock()
    keeper = Keeper(settings, app, clock=clock)
    job = await enqueue("some.task", app=app)
    claimed(database, job.job_id)
    rounds(keeper, clock, LEASE_SECONDS - 5)
    clock.seconds += LEASE_SECONDS  # the machine slept, or the database hung
    rounds(keeper, clock, LEASE_SECONDS - 5)
    assert shown(database, job.job_id).status == "processing"
    rounds(keeper, clock, 5)
    assert shown(database, job.job_id).status == "failed"
    keeper.stop()


async def test_keeper_that_could_not_read_waits_for_another_lease(
    settings: Settings, database: Database, app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    keeper = Keeper(settings, app, clock=clock)
    job = await enqueue("some.task", app=app)
    claimed(database, job.job_id)
    rounds(keeper, clock, LEASE_SECONDS - 5)
    with monkeypatch.context() as patch:
        patch.setattr(reads, "chores", unreadable)
        with pytest.raises(DatabaseUnavailable):
            keeper.round()
    rounds(keeper, clock, LEASE_SECONDS - 5)
    assert shown(database, job.job_id).status == "processing"
    keeper.stop()


def unreadable(_limit: int, **_: float) -> Any:
    raise DatabaseUnavailable("away")
    yield


async def test_many_keepers_take_back_a_lost_job_once(
    settings: Settings, database: Database, app: Celery
) -> None:
    keepers = [steady(settings, app) for _ in range(4)]
    jobs = [await enqueue("some.task", (i,), app=app) for i in range(10)]
    with redis.Redis.from_url(settings.redis_url) as client:
        client.flushdb()
    for job in jobs:
        claimed(database, job.job_id, rerun_when_lost=True)
    threads = [threading.Thread(target=keeper.round) for keeper in keepers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for job in jobs:
        assert timeline(database, job.job_id) == ["created", "started", "lost"]
    assert sorted(sent(settings.redis_url)) == sorted(job.job_id for job in jobs)
    for keeper in keepers:
        keeper.stop()


async def test_message_that_vanished_is_sent_again_as_it_was(
    settings: Settings, database: Database, keeper: Keeper
) -> None:
    app = Celery(broker=settings.redis_url, set_as_current=False, task_cls=JobTask)

    @app.task(name="some.step", bind=True, max_retries=7, shared=False)
    def step(self: Any, x: int) -> None:
        """Never run."""

    signature = step.s(1).set(priority=3, queue="slow", link=step.si(3), time_limit=60)
    chain(signature, step.si(2)).apply_async()
    with redis.Redis.from_url(settings.redis_url) as client:
        names = [name for name in client.scan_iter() if name.startswith(b"slow")]
        before = json.loads(client.lpop(names[0]))
        client.flushall()
        make_due(database)
        keeper.round()
        after = json.loads(client.lpop(names[0]))
    assert after["headers"] == before["headers"]
    assert after["body"] == before["body"]
    assert after["properties"]["priority"] == before["properties"]["priority"] == 3


async def test_round_expires_what_is_too_old(
    settings: Settings, database: Database, app: Celery, keeper: Keeper
) -> None:
    job = await enqueue("some.task", app=app, expires_in=60.0)
    keeper.round()
    assert database.read(reads.job(job.job_id)).status == "pending"
    with database.begin() as connection:
        connection.execute(text("UPDATE livejobs_jobs SET expires_at = created_at"))
    keeper.round()
    row = database.read(reads.job(job.job_id))
    assert (row.status, row.error["code"]) == ("failed", "expired")


async def test_keeper_writes_a_sign_of_life(
    settings: Settings, database: Database, app: Celery
) -> None:
    keeper = Keeper(settings, app, "test")
    keeper.start()

    def beats() -> list[Any]:
        with database.begin() as connection:
            return list(connection.execute(text("SELECT name FROM livejobs_beats")))

    wait_until(beats, description="the keeper has written its beat")
    keeper.stop()
    assert beats()[0].name == keeper.name


async def test_broker_away_the_jobs_are_sent_when_it_is_back(
    make_database: Any, tmp_path: Path
) -> None:
    valkey = ValkeyProcess()
    valkey.start()
    settings = configure(
        database_url=make_database("sqlite"), redis_url=valkey.url, data_dir=tmp_path
    )
    app, database = producer_app(settings), Database(settings)
    valkey.kill()
    job = await enqueue("some.task", app=app)
    make_due(database)
    keeper = Keeper(settings, app)
    keeper.round()
    row = database.read(reads.job(job.job_id))
    assert (row.status, row.dispatches) == ("pending", 0)
    valkey.start()
    make_due(database)
    keeper.round()
    assert sent(valkey.url) == [job.job_id]
    keeper.stop()
    database.close()
    valkey.close()


async def test_keeper_shows_at_the_parent_which_children_it_has_ended(
    settings: Settings, database: Database, app: Celery
) -> None:
    keeper = steady(settings, app)
    parent = await enqueue("some.task", app=app)
    lost, old = (
        NewJob(id=name, task="t", queue="q", message={"m": 1}, parent_id=parent.job_id,
               expires_in=expires_in)
        for name, expires_in in (("lost", None), ("old", -1.0))
    )  # fmt: skip
    for new in (lost, old):
        database.run(transitions.create(new))
    claimed(database, lost.id)
    keeper.round()
    children = shown(database, parent.job_id).children
    assert children is not None
    assert children.model_dump() == {"total": 2, "completed": 0, "failed": 2, "cancelled": 0}
    with redis.Redis.from_url(settings.redis_url) as client:
        version = client.hget(head_key(parent.job_id), "version")
    assert int(version or 0) == shown(database, parent.job_id).version
    keeper.stop()


async def test_keeper_cancels_the_children_of_a_cancelled_parent_and_tells_of_each(
    settings: Settings, database: Database, app: Celery, keeper: Keeper
) -> None:
    parent = await enqueue("some.task", app=app)
    names = [f"child-{number}" for number in range(7)]
    for name in names:
        new = NewJob(id=name, task="t", queue="q", message={"m": 1}, parent_id=parent.job_id)
        database.run(transitions.create(new))
    database.run(transitions.cancel(parent.job_id))
    keeper.round()
    assert {shown(database, name).status for name in names} == {"cancelled"}
    children = shown(database, parent.job_id).children
    assert children is not None
    assert children.cancelled == 7
    with redis.Redis.from_url(settings.redis_url) as client:
        assert {client.hget(head_key(name), "version") for name in names} == {b"2"}
    keeper.round()
    assert shown(database, parent.job_id).version == 4, "counted, cancelled and counted"
