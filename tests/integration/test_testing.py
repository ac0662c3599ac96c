"""`livejobs.testing`: what users' tests run and see, without database, Redis or broker."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery, chain, group
from sqlalchemy import create_engine, event, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

import livejobs
from livejobs import JobTask, current_job, enqueue, get_settings
from livejobs.errors import IdempotencyConflict, MessageError
from livejobs.settings import configured, reset
from livejobs.testing import Enqueued, assert_enqueued, eager, enqueued, recording, run
from livejobs.views import LogMessage, OutputMessage

NOWHERE = "redis://127.0.0.1:1/0"


@pytest.fixture
def app() -> Iterator[Any]:
    """An app whose broker, result backend, Redis and database are not there."""
    app = Celery("shop", broker=NOWHERE, backend=NOWHERE, task_cls=JobTask, set_as_current=False)
    app.conf.task_routes = {"shop.slow": {"queue": "slow"}}

    @app.task(shared=False, name="shop.export", bind=True, max_retries=3)
    def export(self: Any, rows: int, failures: int = 0) -> dict[str, int]:
        job = current_job()
        for row in job.track(range(rows), stage="export"):
            job.log(f"row {row}")
        job.output(f"attempt {job.attempt}", stream="notes")
        if self.request.retries < failures:
            raise self.retry(exc=ValueError("the disk is full"), countdown=3600)
        return {"rows": rows}

    @app.task(shared=False, name="shop.classic", bind=True)
    def classic(self: Any) -> str:
        self.update_state(state="PROGRESS", meta={"current": 1, "total": 2})
        return "done"

    @app.task(shared=False, name="shop.slow")
    def slow() -> None:
        pass

    @app.task(shared=False, name="shop.broken")
    def broken() -> None:
        raise ValueError("it broke")

    @app.task(shared=False, name="shop.parent")
    def parent(rows: int) -> str:
        current_job().log("starting another")
        return str(export.delay(rows).id)

    @app.task(shared=False, name="shop.untracked", tracked=False)
    def untracked() -> None:
        pass

    livejobs.configure(redis_url=NOWHERE, database_url="postgresql://nobody@127.0.0.1:1/nothing")
    yield app
    reset()
    app.close()


# -- run -------------------------------------------------------------------------------------------


def test_run_gives_view_and_entries(app: Any) -> None:
    view, entries = run(app.tasks["shop.export"], [3], owner="ada", tags={"order": "17"})
    assert (view.status, view.result, view.attempt, view.error) == (
        *("completed", {"rows": 3}, 1, None),
    )
    assert (view.owner, view.tags, view.max_attempts) == ("ada", {"order": "17"}, 4)
    assert view.progress is not None
    assert (view.progress.current, view.progress.total, view.progress.stage) == (3, 3, "export")
    assert [type(entry) for entry in entries] == [LogMessage, OutputMessage]
    assert [entry.id for entry in entries] == ["1-1", "1-2"]


def test_run_goes_through_the_retries_as_attempts(app: Any) -> None:
    done = run(app.tasks["shop.export"], kwargs={"rows": 1, "failures": 2})
    assert (done.view.status, done.view.attempt, done.exception) == ("completed", 3, None)
    assert done.lines == ["row 0"] * 3
    assert done.output("notes") == "attempt 1attempt 2attempt 3"
    assert [entry.id for entry in done.entries] == ["1-1", "1-2", "2-1", "2-2", "3-1", "3-2"]
    told = [message.job for message in done.messages if message.type == "job"]
    assert [view.status for view in told if view.attempt == 1] == ["processing", "pending"]
    assert told[1].error.message == "the disk is full"


def test_run_shows_the_state_of_a_classic_task(app: Any) -> None:
    view, _ = run(app.tasks["shop.classic"])
    assert (view.status, view.result, view.progress.fraction) == ("completed", "done", 0.5)


def test_run_shows_how_a_task_failed(app: Any) -> None:
    done = run(app.tasks["shop.broken"])
    assert (done.view.status, done.view.error.type) == ("failed", "ValueError")
    assert str(done.exception) == "it broke"
    assert run(app.tasks["shop.export"], [1, 9]).view.status == "failed", "retries run out"


def test_run_asks_for_a_cancel(app: Any) -> None:
    done = run(app.tasks["shop.export"], [3], cancel=True)
    assert (done.view.status, done.view.result, done.exception) == ("cancelled", None, None)
    assert done.lines == []


def test_run_runs_what_the_task_starts(app: Any) -> None:
    done = run(app.tasks["shop.parent"], [2], owner="ada")
    child = done.recorder.view(done.view.result)
    assert (child.task, child.status, child.owner) == ("shop.export", "completed", "ada")
    assert {view.task for view in done.recorder.views} == {"shop.parent", "shop.export"}
    assert done.lines == ["starting another"]


def test_run_within_enqueued_keeps_what_the_task_starts(app: Any) -> None:
    with enqueued() as jobs:
        done = run(app.tasks["shop.parent"], [2], owner="ada")
    assert done.view.status == "completed"
    assert jobs.assert_enqueued("shop.export", [2], owner="ada").job_id == done.view.result


def test_run_refuses_what_makes_no_job(app: Any) -> None:
    with pytest.raises(TypeError, match=r"shop\.untracked"):
        run(app.tasks["shop.untracked"])
    with pytest.raises(TypeError, match="no tracked JobTask"):
        run(len)


def test_run_leaves_all_as_it_was(app: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    given, settings, threads = configured(), get_settings(), set(threading.enumerate())
    run(app.tasks["shop.export"], [1])
    assert (configured(), get_settings()) == (given, settings)
    assert not app.conf.task_always_eager
    assert set(threading.enumerate()) <= threads
    assert os.listdir(tmp_path) == []


# -- eager -----------------------------------------------------------------------------------------


def test_eager_stays_in_memory_whatever_is_configured_meanwhile(app: Any) -> None:
    with eager(app) as recorder:
        livejobs.configure(redis_url=NOWHERE)
        result = app.tasks["shop.export"].delay(1)
    assert recorder.view(result.id).status == "completed"
    assert configured()[0] == {"redis_url": NOWHERE}


def test_eager_goes_on_after_a_run_within_it(app: Any) -> None:
    export = app.tasks["shop.export"]
    with eager(app) as recorder:
        first = export.delay(1)
        inner = run(export, [2])
        second = export.delay(3)
    assert [view.job_id for view in recorder.views] == [first.id, second.id]
    assert inner.view.result == {"rows": 2}


def test_recording_takes_the_place_of_redis_only(app: Any) -> None:
    with eager(app) as outer, recording() as recorder:
        result = app.tasks["shop.export"].delay(1)
    assert recorder.view(result.id).status == "completed"
    assert outer.messages == []


# -- enqueued --------------------------------------------------------------------------------------


def test_enqueued_keeps_what_every_call_would_send(app: Any) -> None:
    export = app.tasks["shop.export"]
    with enqueued() as jobs:
        first = export.delay(1)
        export.apply_async(kwargs={"rows": 2}, countdown=60, owner="ada", tags={"a": "b"})
        app.send_task("shop.export", (3,))
        app.tasks["shop.slow"].delay()
        app.tasks["shop.untracked"].delay()
        chain(export.si(5), export.si(6)).apply_async()
    assert [(job.args, job.kwargs) for job in jobs.of(export)] == [
        *(([1], {}), ([], {"rows": 2}), ([3], {}), ([5], {})),
    ]
    later = jobs.jobs[1]
    assert (later.owner, later.tags, later.delay) == ("ada", {"a": "b"}, 60.0)
    assert jobs.jobs[0].job_id == first.id
    assert [job.queue for job in jobs.of("shop.slow")] == ["slow"]
    assert len(jobs) == 6


def test_enqueued_keeps_the_tasks_of_a_group(app: Any) -> None:
    app.conf.result_backend = "cache+memory://"
    with enqueued() as jobs:
        group(app.tasks["shop.export"].s(rows) for rows in (1, 2)).apply_async()
    assert [job.args for job in jobs.jobs] == [[1], [2]]


async def test_enqueued_keeps_what_enqueue_would_send(app: Any) -> None:
    with enqueued() as jobs:
        view = await enqueue("shop.export", [1], app=app, owner="ada", expires_in=60)
    assert (view.status, view.owner, view.attempt) == ("pending", "ada", 0)
    (job,) = jobs.jobs
    assert (job.job_id, job.args) == (view.job_id, [1])
    assert job.expires_in == pytest.approx(60, abs=5)


def test_enqueued_keeps_the_jobs_of_an_eager_app(app: Any) -> None:
    app.conf.task_always_eager = True
    with enqueued() as jobs:
        app.tasks["shop.export"].delay(1)
    assert len(jobs) == 1
    assert app.conf.task_always_eager


def test_enqueued_knows_idempotency_keys(app: Any) -> None:
    export = app.tasks["shop.export"]
    with enqueued() as jobs:
        first = export.apply_async([1], idempotency_key="order-17")
        again = export.apply_async([1], idempotency_key="order-17")
        with pytest.raises(IdempotencyConflict):
            export.apply_async([2], idempotency_key="order-17")
    assert again.id == first.id
    assert len(jobs) == 1


def test_enqueued_refuses_arguments_that_cannot_be_sent(app: Any) -> None:
    with enqueued(), pytest.raises(MessageError):
        app.tasks["shop.export"].delay(object())


def test_enqueued_hears_other_threads(app: Any) -> None:
    with enqueued() as jobs:
        thread = threading.Thread(target=app.tasks["shop.slow"].delay)
        thread.start()
        thread.join()
    jobs.assert_enqueued("shop.slow")


def test_assert_enqueued_says_what_there_is(app: Any) -> None:
    export = app.tasks["shop.export"]
    with enqueued():
        export.apply_async([(1, 2)], owner="ada", tags={"a": "b", "c": "d"}, countdown=5)
        assert assert_enqueued(export, [(1, 2)], {}, owner="ada", tags={"a": "b"}).args == [[1, 2]]
        for expected in ({"args": [3]}, {"owner": "bob"}, {"queue": "slow"}, {"tags": {"a": "x"}}):
            with pytest.raises(AssertionError, match=r"shop\.export\(\[1, 2\]\) in queue 'celery'"):
                assert_enqueued(export, **expected)
        with pytest.raises(AssertionError, match=r"shop\.slow was not enqueued"):
            assert_enqueued("shop.slow")
    with pytest.raises(AssertionError, match="nothing was"):
        Enqueued().assert_enqueued(export)
    with pytest.raises(RuntimeError, match="livejobs_enqueued"):
        assert_enqueued(export)


# -- inside of a transaction that is rolled back ---------------------------------------------------


def begin_by_hand(connection: Any, _record: Any) -> None:
    """The driver would begin too late for savepoints, see SQLAlchemy's page on SQLite."""
    connection.isolation_level = None


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Any]:
    """A user's database within a transaction that their test rolls back."""
    engine = create_engine(f"sqlite:///{tmp_path}/shop.db")
    event.listen(engine, "connect", begin_by_hand)
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    with engine.begin() as setup:
        setup.execute(text("CREATE TABLE orders (item TEXT)"))
    with engine.connect() as connection:
        transaction = connection.begin()
        yield connection
        transaction.rollback()
    with engine.connect() as after:
        assert after.scalar(text("SELECT count(*) FROM orders")) == 0
    engine.dispose()


def joined(connection: Any) -> Session:
    return Session(bind=connection, join_transaction_mode="create_savepoint")


async def place_order(app: Any, session: Session, rows: int) -> livejobs.JobView:
    session.execute(text("INSERT INTO orders VALUES ('bread')"))
    return await enqueue("shop.export", [rows], app=app, session=session)


async def test_enqueued_waits_for_the_commit_of_a_session(app: Any, connection: Any) -> None:
    with enqueued() as jobs, joined(connection) as session:
        view = await place_order(app, session, 1)
        assert view.status == "pending"
        assert len(jobs) == 0
        session.commit()
        assert jobs.assert_enqueued("shop.export", [1]).job_id == view.job_id


async def test_enqueued_forgets_what_was_rolled_back(app: Any, connection: Any) -> None:
    with enqueued() as jobs, joined(connection) as session:
        await place_order(app, session, 1)
        session.rollback()
        await place_order(app, session, 2)
        session.commit()
    assert [job.args for job in jobs.jobs] == [[2]]


async def test_eager_runs_it_after_the_commit_of_a_session(app: Any, connection: Any) -> None:
    with eager(app) as recorder, joined(connection) as session:
        kept = await place_order(app, session, 1)
        assert recorder.messages == []
        session.commit()
        assert recorder.view(kept.job_id).result == {"rows": 1}
        await place_order(app, session, 2)
        session.rollback()
    assert [view.job_id for view in recorder.views] == [kept.job_id]


async def test_eager_runs_it_after_the_commit_of_an_async_session(app: Any, tmp_path: Path) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/shop.db")
    async with engine.connect() as connection:
        transaction = await connection.begin()
        with eager(app) as recorder:
            async with AsyncSession(
                bind=connection, join_transaction_mode="create_savepoint"
            ) as session:
                view = await enqueue("shop.export", [1], app=app, session=session)
                broken = await enqueue("shop.broken", app=app, session=session)
                await session.commit()
        await transaction.rollback()
    await engine.dispose()
    assert recorder.view(view.job_id).status == "completed"
    assert recorder.view(broken.job_id).status == "failed"


async def test_run_and_enqueued_work_inside_of_the_transaction(app: Any, connection: Any) -> None:
    @app.task(shared=False, name="shop.count")
    def count() -> Any:
        return connection.scalar(text("SELECT count(*) FROM orders"))

    with joined(connection) as session:
        session.execute(text("INSERT INTO orders VALUES ('bread')"))
        session.commit()
        assert run(count).view.result == 1
