"""Creating jobs: with the database, the broker or both away, in a transaction, from async code."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
from celery import Celery, chain
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from livejobs import JobTask, configure, enqueue, reads
from livejobs.database import Database
from livejobs.errors import DatabaseUnavailable, IdempotencyConflict, MessageError
from livejobs.messages import HEADER, header_of, publish
from livejobs.owners import request_owner
from livejobs.settings import Settings
from tests.support.patient import wait_for_rows
from tests.support.rows import read
from tests.support.servers import free_port
from tests.support.waiting import wait_until


def make_app(broker: str) -> tuple[Celery, Any]:
    app = Celery("dispatch", broker=broker, task_cls=JobTask, set_as_current=False)
    app.conf.update(broker_connection_timeout=0.5)

    @app.task(shared=False, name="dispatch.work", max_retries=2)
    def work(x: int, y: int = 0) -> int:
        return x + y

    return app, app.tasks["dispatch.work"]


@pytest.fixture
def app(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Celery]:
    """An app that sends to the real broker; nobody takes its messages.

    So a row that came late would not come at all: it would be made when the job is claimed.
    """
    wait_for_rows(monkeypatch)
    app, _ = make_app(settings.redis_url)
    yield app
    app.close()


@pytest.fixture
def work(app: Celery) -> Any:
    """Its task."""
    return app.tasks["dispatch.work"]


@pytest.fixture
def brokerless(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The task of an app whose broker is not there; for the row, callers wait as in `app`."""
    wait_for_rows(monkeypatch)
    app, work = make_app(f"redis://127.0.0.1:{free_port()}/0")
    yield work
    app.close()


def queued(settings: Settings, queue: str = "celery") -> list[dict[str, Any]]:
    """The headers of the messages that wait in the broker."""
    import json

    with redis.Redis.from_url(settings.redis_url) as client:
        return [json.loads(item)["headers"] for item in reversed(client.lrange(queue, 0, -1))]


def test_row_holds_the_message_as_published(
    work: Any, app: Celery, database: Database, settings: Settings
) -> None:
    result = work.apply_async((1,), {"y": 2}, priority=3, queue="fast", expires=600)
    row = read(database, result.id)
    assert (row.queue, row.task, row.max_attempts) == ("fast", "dispatch.work", 3)
    assert row.expires_at is not None
    (sent,) = queued(settings, "fast\x06\x163")
    assert sent[HEADER] == {"attempt": 0, "row": True}
    publish(app, row.message, header_of(row))
    first, again = queued(settings, "fast\x06\x163")
    assert first == again


def test_chain_is_complete_in_the_row(work: Any, app: Celery, database: Database) -> None:
    result = chain(work.s(1), work.s(y=5)).apply_async()
    row = database.read(reads.job(result.parent.id))
    assert result.id in row.message["body"]


def test_broker_down_the_caller_goes_on_and_the_row_waits(
    brokerless: Any, database: Database
) -> None:
    begun = time.monotonic()
    result = brokerless.delay(1)
    assert time.monotonic() - begun < 2.5
    row = database.read(reads.job(result.id))
    assert row.status == "pending"
    assert row.due_at is not None


def test_database_locked_the_task_is_sent_all_the_same(
    make_database: Any, redis_url: str, tmp_path: Any
) -> None:
    url = make_database("sqlite")
    settings = configure(database_url=url, redis_url=redis_url, data_dir=tmp_path)
    with redis.Redis.from_url(redis_url) as client:
        client.flushdb()
    app, work = make_app(redis_url)
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text("BEGIN IMMEDIATE"))
        begun = time.monotonic()
        result = work.apply_async((1,), owner="ada", tags={"k": "v"})
        assert time.monotonic() - begun < 2.5
        connection.execute(text("ROLLBACK"))
    (header,) = queued(settings)
    assert header["id"] == result.id
    assert header[HEADER] == {
        "attempt": 0,
        "row": False,
        "owner": "ada",
        "tags": {"k": "v"},
        "parent_id": None,
        "idempotency_key": None,
        "idempotency_hash": None,
    }
    engine.dispose()
    app.close()


def test_database_and_broker_down_is_an_error(tmp_path: Any) -> None:
    configure(
        database_url=f"postgresql://nobody@127.0.0.1:{free_port()}/none",
        redis_url=f"redis://127.0.0.1:{free_port()}/0",
        data_dir=tmp_path,
    )
    app, work = make_app(f"redis://127.0.0.1:{free_port()}/0")
    with pytest.raises(DatabaseUnavailable, match="not accepted"):
        work.delay(1)
    app.close()


def test_arguments_that_cannot_be_sent_are_an_error(work: Any, database: Database) -> None:
    with pytest.raises(MessageError, match="cannot be sent as json"):
        work.delay(object())


def test_countdown_is_not_sent_before_it_is_due(
    work: Any, database: Database, settings: Settings
) -> None:
    result = work.apply_async((1,), countdown=60)
    assert queued(settings) == []
    row = database.read(reads.job(result.id))
    assert abs((row.run_at - row.created_at).total_seconds() - 60) < 1
    assert row.message["headers"]["eta"] is None


def test_owner_comes_from_configure(work: Any, database: Database, settings: Settings) -> None:
    configure(
        owner_of=lambda: "carol",
        database_url=settings.database_url,
        redis_url=settings.redis_url,
        data_dir=settings.data_dir,
    )
    assert database.read(reads.job(work.delay(1).id)).owner == "carol"
    assert database.read(reads.job(work.apply_async((1,), owner="eve").id)).owner == "eve"


def test_owner_comes_from_the_request(work: Any, database: Database) -> None:
    token = request_owner.set(lambda: "dave")
    try:
        result = work.delay(1)
    finally:
        request_owner.reset(token)
    assert database.read(reads.job(result.id)).owner == "dave"
    assert database.read(reads.job(work.delay(1).id)).owner == ""


async def test_enqueue_creates_and_sends(work: Any, settings: Settings, database: Database) -> None:
    job = await enqueue(work, (1,), {"y": 2}, owner="ada", tags={"a": "b"}, queue="slow")
    assert (job.status, job.owner, job.tags, job.queue) == ("pending", "ada", {"a": "b"}, "slow")
    assert [header["id"] for header in queued(settings, "slow")] == [job.job_id]


async def test_enqueue_by_name_needs_no_task(
    settings: Settings, database: Database, app: Celery
) -> None:
    job = await enqueue("somewhere.else", (1,), app=app)
    assert (job.task, job.max_attempts) == ("somewhere.else", None)
    assert [header["task"] for header in queued(settings)] == ["somewhere.else"]


async def test_enqueue_run_at_waits(work: Any, settings: Settings, database: Database) -> None:
    when = datetime.now(UTC) + timedelta(minutes=5)
    job = await enqueue(work, (1,), run_at=when)
    assert job.run_at is not None
    assert abs((job.run_at - when).total_seconds()) < 1
    assert queued(settings) == []


async def test_enqueue_with_a_key_returns_the_first_job(
    work: Any, settings: Settings, database: Database
) -> None:
    first = await enqueue(work, (1,), owner="ada", idempotency_key="k")
    again = await enqueue(work, (1,), owner="ada", idempotency_key="k")
    assert again.job_id == first.job_id
    assert len(queued(settings)) == 1
    with pytest.raises(IdempotencyConflict) as conflict:
        await enqueue(work, (2,), owner="ada", idempotency_key="k")
    assert conflict.value.job_id == first.job_id


async def test_enqueue_does_not_block_the_event_loop(brokerless: Any, database: Database) -> None:
    longest = 0.0

    async def watch() -> None:
        nonlocal longest
        before = time.monotonic()
        while True:
            await asyncio.sleep(0.01)
            now = time.monotonic()
            longest, before = max(longest, now - before), now

    watcher = asyncio.create_task(watch())
    await enqueue(brokerless, (1,))
    watcher.cancel()
    assert longest < 0.5


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_enqueue_waits_a_second_for_the_row_however_long_its_message_took(
    settings: Settings, database: Database
) -> None:
    app, work = make_app(settings.redis_url)
    built = threading.Event()

    def route(*_: Any, **__: Any) -> None:
        time.sleep(0.9)
        built.set()

    app.conf.task_routes = (route,)
    with database.engine.connect() as connection:
        connection.execute(text("LOCK TABLE livejobs_jobs"))
        task = asyncio.create_task(enqueue(work, (1,)))
        await asyncio.to_thread(built.wait, 30)
        await asyncio.sleep(0.3)
        connection.rollback()
        view = await task
    assert read(database, view.job_id).status == "pending"
    app.close()


def async_url(url: str) -> str:
    if url.startswith("sqlite"):
        return url.replace("sqlite:", "sqlite+aiosqlite:", 1)
    return url.replace("postgresql:", "postgresql+asyncpg:", 1)


async def test_enqueue_in_a_session_is_sent_after_the_outermost_commit(
    work: Any, settings: Settings, database: Database
) -> None:
    engine = create_async_engine(async_url(settings.database_url))
    async with AsyncSession(engine) as session:
        async with session.begin():
            async with session.begin_nested():
                job = await enqueue(work, (1,), session=session)
            assert queued(settings) == []
        await asyncio.to_thread(
            wait_until, lambda: queued(settings), description="the message is sent"
        )
    assert database.read(reads.job(job.job_id)).status == "pending"
    await engine.dispose()


async def test_enqueue_in_a_session_that_rolls_back_leaves_nothing(
    work: Any, settings: Settings, database: Database
) -> None:
    engine = create_async_engine(async_url(settings.database_url))
    async with AsyncSession(engine) as session:
        job = await enqueue(work, (1,), session=session)
        await session.rollback()
        await enqueue(work, (2,), session=session)
        await session.commit()
        await asyncio.to_thread(
            wait_until, lambda: queued(settings), description="the second message is sent"
        )
    assert len(queued(settings)) == 1
    assert database.read(reads.job(job.job_id)) is None
    await engine.dispose()


async def test_enqueue_in_a_sync_session(work: Any, settings: Settings, database: Database) -> None:
    with Session(database.engine) as session:
        job = await enqueue(work, (1,), session=session)
        assert queued(settings) == []
        session.commit()
    await asyncio.to_thread(wait_until, lambda: queued(settings), description="the message is sent")
    assert database.read(reads.job(job.job_id)) is not None


def test_many_callers_at_once_do_not_wait_for_each_other(
    work: Any, app: Celery, settings: Settings, database: Database
) -> None:
    """Groups hold producers of the app's pool while their tasks are sent."""
    from concurrent.futures import ThreadPoolExecutor

    from celery import group

    with ThreadPoolExecutor(12) as threads:
        started = [
            threads.submit(lambda: group(work.s(i) for i in range(3)).apply_async())
            for _ in range(12)
        ]
        ids = [task.id for future in started for task in future.result(30).results]
    assert len(ids) == 36
    assert all(database.read(reads.job(job_id)) is not None for job_id in ids)
    assert sorted(header["id"] for header in queued(settings)) == sorted(ids)


def test_delay_of_a_task_whose_row_cannot_be_written_is_kept(
    make_database: Any, redis_url: str, tmp_path: Any
) -> None:
    url = make_database("sqlite")
    settings = configure(database_url=url, redis_url=redis_url, data_dir=tmp_path)
    with redis.Redis.from_url(redis_url) as client:
        client.flushdb()
    app, work = make_app(redis_url)
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text("BEGIN IMMEDIATE"))
        result = work.apply_async((1,), countdown=3600)
        (header,) = queued(settings)
        connection.execute(text("ROLLBACK"))
    assert header["id"] == result.id
    assert datetime.fromisoformat(header["eta"]) > datetime.now(UTC) + timedelta(minutes=59)
    engine.dispose()
    app.close()
