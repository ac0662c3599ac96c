"""Jobs with children, in real workers: they spawn, let go of the worker, and go on at the end."""

from __future__ import annotations

import importlib
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from celery import chain, chord
from sqlalchemy import func, select

from livejobs import transitions
from livejobs.database import Database, get_database
from livejobs.settings import Settings
from livejobs.spawning import child_id
from livejobs.statements import jobs
from livejobs.views import JobView
from tests.support.rows import change, read, shown, timeline
from tests.support.waiting import wait_until
from tests.support.worker import celery_worker


@pytest.fixture(scope="module")
def database(working: Settings) -> Database:
    return get_database()


@pytest.fixture(scope="module")
def tasks(working: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The tasks of families, with a worker that knows them."""
    module = importlib.import_module("tests.support.families")
    log = tmp_path_factory.mktemp("families") / "worker.log"
    with celery_worker(working, log, "tests.support.families", options=["-Q", module.QUEUE]):
        yield module


def ended(database: Database, job_id: str) -> JobView:
    """The job, once it is over."""
    wait_until(lambda: shown(database, job_id).status.is_final, description="it ends", seconds=40)
    return shown(database, job_id)


def children_of(database: Database, job_id: str) -> int:
    """How many children a job has."""
    with database.begin() as connection:
        mine = select(func.count()).where(jobs.c.parent_id == job_id)
        return int(connection.execute(mine).scalar_one())


def test_parent_goes_on_with_the_results_of_its_children(tasks: Any, database: Database) -> None:
    job_id = tasks.squares.apply_async((20,), owner="ada", tags={"k": "v"}).id
    job = ended(database, job_id)
    assert job.error is None
    assert (job.status, job.attempt) == ("completed", 2)
    assert job.result == {
        "what": "squares",
        "ordinals": list(range(20)),
        "results": [number * number for number in range(20)],
        "statuses": ["completed"],
    }
    assert job.children is not None
    assert job.children.model_dump() == {"total": 20, "completed": 20, "failed": 0, "cancelled": 0}
    assert timeline(database, job_id) == [
        *("created", "started", "waiting", "resumed", "started", "completed")
    ]
    child = shown(database, child_id(job_id, 7))
    assert (child.parent_id, child.owner, child.result) == (job_id, "ada", 49)
    assert (job.owner, job.tags) == ("ada", {"k": "v"})


def test_waiting_parent_holds_no_worker(tasks: Any, database: Database) -> None:
    # Two processes, and more parents than that.
    parents = [tasks.nested.delay(2, 3).id for _ in range(3)]
    for parent in parents:
        job = ended(database, parent)
        assert job.children is not None
        assert (job.status, job.children.completed) == ("completed", 3)


def test_children_that_fail_or_retry_are_counted_once(tasks: Any, database: Database) -> None:
    job = ended(database, tasks.choosy.delay(9).id)
    assert job.children is not None
    assert job.children.model_dump() == {"total": 9, "completed": 6, "failed": 3, "cancelled": 0}
    assert job.result["statuses"] == ["completed", "failed"]


def test_parent_that_does_not_wait_completes_before_its_children(
    tasks: Any, database: Database
) -> None:
    job_id = tasks.careless.delay(8).id
    assert ended(database, job_id).result == "done"
    wait_until(
        lambda: bool(shown(database, job_id).children) and _completed(database, job_id) == 8,
        description="its children are counted all the same",
    )


def _completed(database: Database, job_id: str) -> int:
    return int(read(database, job_id).children_completed)


def test_parent_without_items_goes_on_at_once(tasks: Any, database: Database) -> None:
    job = ended(database, tasks.squares.delay(0).id)
    assert (job.result["results"], job.children) == ([], None)


def test_parent_spawns_further_children_after_the_first(tasks: Any, database: Database) -> None:
    job = ended(database, tasks.staged.delay(3).id)
    assert job.result["results"] == [0, 1, 4, 25, 25, 25]
    assert job.attempt == 3


def test_parent_that_is_tried_again_spawns_none_twice(tasks: Any, database: Database) -> None:
    job = ended(database, tasks.forgetful.delay(10).id)
    assert job.result["results"] == [number * number for number in range(10)]
    assert children_of(database, job.job_id) == 10


def test_chain_and_chord_go_on_after_the_parents_last_part(tasks: Any, database: Database) -> None:
    app = importlib.import_module("tests.support.jobs_app")
    before = tasks.squares.s(2)
    result = chain(before, tasks.square.si(3)).apply_async()
    assert result.get(timeout=30) == 9
    assert result.parent.get(timeout=5)["results"] == [0, 1]
    both = chord([tasks.square.s(2), tasks.square.s(3)], app.total.s())
    assert both.apply_async().get(timeout=30) == 13


@pytest.mark.parametrize(
    ("name", "error"), [("unspawnable", "MessageError"), ("badly_continued", "TypeError")]
)
def test_parent_that_cannot_spawn_fails(
    tasks: Any, database: Database, name: str, error: str
) -> None:
    job = ended(database, getattr(tasks, name).delay().id)
    assert job.error is not None
    assert (job.status, job.error.type) == ("failed", error)


def test_many_children_in_batches(tasks: Any, database: Database) -> None:
    queue = uuid.uuid4().hex  # of which nobody takes
    job_id = tasks.squares.delay(1200, 0.0, queue).id
    wait_until(
        lambda: (
            read(database, job_id).lease_until is None
            and read(database, job_id).children_total == 1200
        ),
        description="all are made, and it waits",
        seconds=60,
    )
    with database.begin() as connection:
        mine = select(jobs.c.ordinal).where(jobs.c.parent_id == job_id).order_by(jobs.c.ordinal)
        assert list(connection.execute(mine).scalars()) == list(range(1200))
    with redis.Redis.from_url(database.settings.redis_url) as client:
        wait_until(lambda: client.llen(queue) >= 1200, description="all are sent")
    change(database, transitions.cancel(job_id))
    wait_until(
        lambda: read(database, job_id).children_cancelled == 1200,
        description="all are cancelled, and counted",
        seconds=40,
    )


def test_parent_that_is_cancelled_amid_a_thousand_children_stops_them_all(
    tasks: Any, database: Database
) -> None:
    job_id = tasks.squares.delay(1000, 0.05).id
    wait_until(
        lambda: read(database, job_id).children_completed > 3,
        description="some have ended, and others are still being made",
        seconds=40,
    )
    change(database, transitions.cancel(job_id))
    job = ended(database, job_id)
    assert job.status == "cancelled"

    def open_children() -> int:
        with database.begin() as connection:
            mine = select(func.count()).where(jobs.c.parent_id == job_id)
            return int(connection.execute(mine.where(jobs.c.completed_at.is_(None))).scalar_one())

    wait_until(lambda: not open_children(), description="no child is open", seconds=40)
    # The messages of those that were cancelled would keep the worker from other tests for long.
    with redis.Redis.from_url(database.settings.redis_url) as client:
        client.delete(tasks.QUEUE)
    wait_until(
        lambda: (
            read(database, job_id).children_cancelled + _completed(database, job_id)
            == children_of(database, job_id)
        ),
        description="all are counted",
    )
    assert read(database, job_id).children_total == children_of(database, job_id)
