"""Tasks run inline leave the same record and the same messages."""

from __future__ import annotations

from typing import Any

import pytest
import redis
from celery import Celery, chain

from livejobs import JobTask, current_job, enqueue, transitions
from livejobs.database import Database
from livejobs.settings import Settings
from livejobs.testing import eager, enqueued, run
from tests.support.rows import shown


@pytest.fixture
def app() -> Any:
    """An app in eager mode."""
    app = Celery("eager", task_cls=JobTask, set_as_current=False, broker="memory://")
    app.conf.update(task_always_eager=True, task_eager_propagates=False)

    @app.task(shared=False, name="eager.work", bind=True)
    def work(self: Any, items: int, failures: int = 0) -> dict[str, int]:
        job = current_job()
        for i in job.track(range(items)):
            job.log(f"line {i}")
            job.output(f"{i} ")
        if self.request.retries < failures:
            raise self.retry(exc=ValueError("again"), countdown=3600)
        return {"items": items}

    @app.task(shared=False, name="eager.fail")
    def fail() -> None:
        raise ValueError("it broke")

    @app.task(shared=False, name="eager.parent")
    def parent() -> str:
        return str(work.delay(1).id)

    @app.task(shared=False, name="eager.rest")
    def rest(items: int) -> list[Any]:
        return [(child.status, child.result) for child in current_job().children()] + [items]

    @app.task(shared=False, name="eager.spawn")
    def spawn(items: int) -> str:
        job = current_job()
        job.spawn(fail, on_children_done=rest.s(items))
        job.spawn_many(work, range(items))
        return "not kept"

    yield app
    app.close()


def test_task_leaves_its_record(app: Any, database: Database) -> None:
    result = app.tasks["eager.work"].apply_async((3,), owner="ada", tags={"a": "b"})
    assert result.get() == {"items": 3}
    job = shown(database, result.id)
    assert (job.status, job.result, job.owner) == ("completed", {"items": 3}, "ada")
    assert (job.tags, job.attempt) == ({"a": "b"}, 1)
    assert job.progress is not None
    assert job.progress.current == 3


def test_task_by_name_leaves_its_record(app: Any, database: Database) -> None:
    result = app.send_task("eager.work", (2,))
    assert shown(database, result.id).status == "completed"


async def test_enqueue_by_name_runs_it(app: Any, database: Database) -> None:
    job = await enqueue("eager.work", (2,), app=app, owner="ada")
    assert (job.status, job.result, job.owner) == ("completed", {"items": 2}, "ada")


def test_retries_run_at_once_as_attempts(app: Any, database: Database) -> None:
    result = app.tasks["eager.work"].delay(2, failures=2)
    job = shown(database, result.id)
    assert (job.status, job.attempt, job.error) == ("completed", 3, None)


def test_failure_is_recorded(app: Any, database: Database) -> None:
    result = app.tasks["eager.fail"].delay()
    job = shown(database, result.id)
    assert (job.status, job.error.message) == ("failed", "it broke")
    assert result.failed()


def test_child_is_a_job_of_its_own_and_inherits_the_owner(app: Any, database: Database) -> None:
    result = app.tasks["eager.parent"].apply_async(owner="ada", tags={"a": "b"})
    child = shown(database, result.get())
    assert (child.owner, child.tags, child.status) == ("ada", {}, "completed")


def test_chain_runs_its_steps(app: Any, database: Database) -> None:
    work = app.tasks["eager.work"]
    result = chain(work.si(1), work.si(2)).apply_async()
    assert shown(database, result.id).result == {"items": 2}


def test_messages_are_published(app: Any, database: Database, settings: Settings) -> None:
    with redis.Redis.from_url(settings.redis_url) as client, client.pubsub() as pubsub:
        pubsub.psubscribe("lj:*")
        assert pubsub.get_message(timeout=5)
        app.tasks["eager.work"].delay(2)
        kinds: list[bytes] = []
        while not kinds or kinds[-1] != b"final":
            message = pubsub.get_message(timeout=5)
            assert message, kinds
            kinds.append(message["data"].partition(b"\n")[0].rpartition(b" ")[2])
    assert kinds[0] == b"job"
    assert {b"log", b"output", b"progress"} <= set(kinds)


def test_recorder_tells_what_viewers_would_see() -> None:
    app = Celery("recorded", task_cls=JobTask, set_as_current=False, broker="memory://")

    @app.task(shared=False, name="recorded.work")
    def work() -> int:
        job = current_job()
        job.log("hello")
        job.output("a")
        job.output("b")
        job.progress(1, 2)
        return 7

    with eager(app) as recorder:
        result = app.tasks["recorded.work"].delay()
    assert recorder.view(result.id).result == 7
    assert recorder.lines(result.id) == ["hello"]
    assert recorder.output(result.id) == "ab"
    assert not app.conf.task_always_eager
    with pytest.raises(LookupError):
        recorder.view("unknown")
    app.close()


def test_parent_goes_on_after_its_children(app: Any, database: Database) -> None:
    result = app.tasks["eager.spawn"].apply_async((2,), owner="ada")
    expected = [["failed", None], ["completed", {"items": 0}], ["completed", {"items": 1}], 2]
    job = shown(database, result.id)
    assert (job.status, job.result, job.attempt) == ("completed", expected, 2)
    assert job.children is not None
    assert job.children.model_dump() == {"total": 3, "completed": 2, "failed": 1, "cancelled": 0}


def test_children_are_run_or_kept_in_tests(app: Any) -> None:
    spawn = app.tasks["eager.spawn"]
    view, _ = run(spawn, (2,), owner="ada")
    assert view.children is not None
    assert (view.status, view.children.total, view.result[-1]) == ("completed", 3, 2)
    with enqueued() as kept:
        view, _ = run(spawn, (2,), owner="ada")
    assert (view.status, view.children) == ("completed", None)
    assert [(job.task, job.owner) for job in kept.jobs] == [
        *(("eager.fail", "ada"), ("eager.work", "ada"), ("eager.work", "ada"))
    ]


def test_spawn_outside_of_a_job_says_so(app: Any) -> None:
    with pytest.raises(RuntimeError, match="no job here"):
        current_job().spawn(app.tasks["eager.work"], (1,))


async def test_enqueue_for_a_parent_runs_it_as_its_child(app: Any, database: Database) -> None:
    parent = transitions.NewJob(id="parent", task="t", queue="q", message={"m": 1}, owner="ada")
    database.run(transitions.create(parent))
    child = await enqueue("eager.work", (2,), app=app, parent="parent")
    assert (child.status, child.parent_id, child.owner) == ("completed", "parent", "ada")
    children = shown(database, "parent").children
    assert children is not None
    assert (children.total, children.completed) == (1, 1)
