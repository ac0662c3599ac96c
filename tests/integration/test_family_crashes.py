"""Parents, children and keepers that die between any two of their steps, or lose an answer.

As in `test_crashes`, but of families: whatever dies, each child is there once and counted once,
and the parent goes on after the last of them, once.
"""

from __future__ import annotations

import importlib
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis
from sqlalchemy import select, update

from livejobs import attempts, children
from livejobs.database import Database
from livejobs.keeper import Keeper
from livejobs.messages import publish
from livejobs.models import db_now
from livejobs.recording import JobOptions, build
from livejobs.settings import Settings, configure
from livejobs.spawning import child_id
from livejobs.statements import jobs
from livejobs.transitions import NewJob
from tests.support.crashing import Crasher
from tests.support.rows import change, read, shown, timeline
from tests.support.waiting import wait_until
from tests.support.worker import celery_worker

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]  # a process for each of some fifty points
APP = "tests.support.families"
FAR = 86_400.0
Recover = Callable[[list[str], list[str]], None]


@pytest.fixture
def tasks(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The tasks of families, bound to the servers of this test."""
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
def recover(tasks: Any, settings: Settings, database: Database, tmp_path: Path) -> Recover:
    """``recover(parents, queues)``: time passes, and a keeper and a worker do what they do."""

    def recover(parents: list[str], queues: list[str]) -> None:
        put_off(database, -1.0)
        moment = [0.0]
        keeper = Keeper(settings, tasks.app, clock=lambda: moment[0])
        while moment[0] <= settings.lease_seconds:
            keeper.round()
            moment[0] += settings.lease_seconds / 3
        keeper.round()
        keeper.stop()
        options = ["-Q", ",".join(queues)]
        with celery_worker(settings, tmp_path / "worker.log", APP, concurrency=1, options=options):
            wait_until(
                lambda: all(shown(database, parent).status.is_final for parent in parents),
                description="all parents are over",
                seconds=60,
            )

    return recover


def put_off(database: Database, seconds: float) -> None:
    """Let what waits for its time wait so long from now: what is due, and what is leased."""
    with database.begin() as connection:
        for column in (jobs.c.due_at, jobs.c.lease_until):
            waits = update(jobs).where(column.is_not(None))
            connection.execute(waits.values({column: db_now(seconds)}))


def check_family(database: Database, parent: str, results: list[int], point: str) -> None:
    """What must be true of a family that is over."""
    view, kinds = shown(database, parent), Counter(timeline(database, parent))
    assert view.status == "completed", (point, view.error)
    assert view.result["results"] == results, point
    assert view.children is not None
    expected = {"total": len(results), "completed": len(results), "failed": 0, "cancelled": 0}
    assert view.children.model_dump() == expected, point
    assert (kinds["created"], kinds["completed"]) == (1, 1), point
    with database.begin() as connection:
        mine = select(jobs.c.id).where(jobs.c.parent_id == parent)
        found = sorted(connection.execute(mine).scalars())
    assert found == sorted(child_id(parent, ordinal) for ordinal in range(len(results))), point
    for child in found:
        kinds = Counter(timeline(database, child))
        assert (kinds["created"], kinds["completed"]) == (1, 1), (point, child)


# -- the parent ------------------------------------------------------------------------------------


class Parents:
    """Parents in queues of their own, for workers that die."""

    def __init__(self, crasher: Crasher, database: Database, tasks: Any) -> None:
        self.ids: list[str] = []
        self.queues: list[str] = []
        self._crasher, self._database, self._tasks = crasher, database, tasks

    def work(self, task: str = "few", **points: str) -> str:
        """A worker runs a parent, up to where it waits, or dies."""
        parent = uuid.uuid4().hex
        queues = [uuid.uuid4().hex, uuid.uuid4().hex]
        getattr(self._tasks, task).apply_async((queues[1],), task_id=parent, queue=queues[0])
        self.ids.append(parent)
        self.queues += queues
        begin = "UPDATE livejobs_jobs"
        pid = self._crasher.start("work_uncounted", {"queue": queues[0]}, begin=begin, **points)
        if "stop" in points:
            assert self._crasher.end(pid) == "killed", points
        else:
            wait_until(lambda: self._waits(parent), description="it waits", seconds=40)
            self._crasher.kill(pid)
        put_off(self._database, FAR)
        return parent

    def _waits(self, parent: str) -> bool:
        row = read(self._database, parent)
        return bool(row.status == "processing" and row.lease_until is None)


def test_parent_that_dies_spawns_none_twice_and_loses_none(
    crasher: Crasher, database: Database, tasks: Any, recover: Recover
) -> None:
    parents = Parents(crasher, database, tasks)
    parents.work()
    points = crasher.reached()
    assert {"INSERT livejobs_tallies 1", "INSERT livejobs_tallies 2", "after broker 2"} <= {*points}
    died = {point: parents.work(stop=point) for point in points}
    recover(parents.ids, parents.queues)
    for point, parent in died.items():
        check_family(database, parent, [4, 9], point)


def test_parent_of_children_with_places_that_dies_loses_none(
    crasher: Crasher, database: Database, tasks: Any, recover: Recover
) -> None:
    parents = Parents(crasher, database, tasks)
    parents.work("one_at_a_time")
    points = crasher.reached()
    assert {"INSERT livejobs_tallies 1", "INSERT livejobs_tallies 2"} <= {*points}
    died = {point: parents.work("one_at_a_time", stop=point) for point in points}
    recover(parents.ids, parents.queues)
    for point, parent in died.items():
        check_family(database, parent, [4, 9, 16], point)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@pytest.mark.parametrize(
    ("task", "results"), [("few", [4, 9]), ("one_at_a_time", [4, 9, 16])], ids=["few", "places"]
)
def test_parent_goes_on_where_the_answer_to_a_commit_is_lost(
    crasher: Crasher,
    database: Database,
    tasks: Any,
    recover: Recover,
    task: str,
    results: list[int],
) -> None:
    parents = Parents(crasher, database, tasks)
    parents.work(task)
    commits = [point for point in crasher.reached() if point.startswith("COMMIT")]
    lost = {point: parents.work(task, lose=point) for point in commits}
    recover(parents.ids, parents.queues)
    for point, parent in lost.items():
        check_family(database, parent, results, point)


# -- the last child, and who counts it -------------------------------------------------------------


def waiting(database: Database, tasks: Any, queue: str, numbers: tuple[int, ...] = (5,)) -> str:
    """A parent that waits for children, the first of which is in a queue; the parent's id.

    Args:
        numbers: What they are to square, one at a time.
    """
    parent = uuid.uuid4().hex
    tasks.gather.apply_async(("few",), task_id=parent, queue=queue)
    # Its first message is not taken any more: it has been claimed here.
    change(database, attempts.claim(parent, 0, f"test-{parent}", 30.0))

    def built(task: Any, args: tuple[Any, ...], options: JobOptions, job_id: str) -> NewJob:
        where = {"task_id": job_id, "queue": queue}
        return build(tasks.app, task.name, args, {}, options, where)

    news = []
    for ordinal, number in enumerate(numbers):
        of_child = tasks.square.job_options().of_child(parent, ordinal, "", None)
        new = built(tasks.square, (number,), of_child, child_id(parent, ordinal))
        news.append(replace(new, at_once=1 if len(numbers) > 1 else None))
    assert database.run(attempts.spawn(parent, 1, news)) == {new.id for new in news}
    with redis.Redis.from_url(tasks.app.conf.broker_url) as client:
        client.delete(queue)
    then = built(tasks.gather, ("few",), tasks.gather.job_options(), parent)
    change(database, attempts.wait(parent, 1, then, len(news)))
    if len(numbers) > 1:
        placed = database.run(children.count(parent)).placed
        assert [row.id for row in placed] == [news[0].id]
    publish(tasks.app, news[0].message, {"attempt": 0, "row": True})
    return parent


@pytest.mark.parametrize("numbers", [(5,), (5, 6)], ids=["last", "places"])
def test_child_that_dies_in_its_end_is_counted_once(
    crasher: Crasher, database: Database, tasks: Any, recover: Recover, numbers: tuple[int, ...]
) -> None:
    parents, queues = [], []

    def work(**points: str) -> str:
        queue = uuid.uuid4().hex
        parent = waiting(database, tasks, queue, numbers)
        child = child_id(parent, 0)
        parents.append(parent)
        queues.append(queue)
        begin = "UPDATE livejobs_jobs"
        pid = crasher.start("work", {"queue": queue}, begin=begin, **points)
        if "stop" in points:
            assert crasher.end(pid) == "killed", points
        else:
            over = "the child is over"
            wait_until(lambda: shown(database, child).status.is_final, description=over)
            wait_until(lambda: to_the_end(crasher.reached()), description="its process knows")
            crasher.kill(pid)
        put_off(database, FAR)
        return parent

    work()
    # Up to the child's end: what comes then is the parent's.
    points = to_the_end(crasher.reached())
    assert points
    died = {point: work(stop=point) for point in points}
    recover(parents, queues)
    for point, parent in died.items():
        check_family(database, parent, [number**2 for number in numbers], point)


def to_the_end(reached: list[str]) -> list[str]:
    """The points up to the committed end of a child; none where it is not that far."""
    if "INSERT livejobs_tallies 1" not in reached:
        return []
    points = reached[: reached.index("INSERT livejobs_tallies 1") + 3]
    return points if points[-1].startswith("after COMMIT") else []


def test_keeper_that_dies_sends_a_parent_on_once(
    crasher: Crasher, database: Database, tasks: Any, recover: Recover
) -> None:
    parents, queues = [], []

    def keep(**points: str) -> str:
        queue = uuid.uuid4().hex
        parent = waiting(database, tasks, queue)
        child = child_id(parent, 0)
        parents.append(parent)
        queues.append(queue)
        change(database, attempts.claim(child, 0, f"test-{child}", 30.0))
        change(database, attempts.complete(child, 1, 25))
        with redis.Redis.from_url(tasks.app.conf.broker_url) as client:
            client.delete(queue)
        ended = crasher.end(crasher.start("keep", {}, **points))
        assert ended == ("killed" if points else "done"), points
        put_off(database, FAR)
        return parent

    keep()
    points = crasher.reached()
    assert {"DELETE livejobs_tallies 1", "UPDATE livejobs_jobs 1", "after broker 1"} <= set(points)
    died = {point: keep(stop=point) for point in points}
    recover(parents, queues)
    for point, parent in died.items():
        check_family(database, parent, [25], point)
        assert timeline(database, parent).count("resumed") == 1, point


def test_keeper_that_dies_gives_a_place_away_once(
    crasher: Crasher, database: Database, tasks: Any, recover: Recover
) -> None:
    parents, queues = [], []

    def keep(**points: str) -> str:
        queue = uuid.uuid4().hex
        parent = waiting(database, tasks, queue, (5, 6, 7))
        parents.append(parent)
        queues.append(queue)
        first = child_id(parent, 0)
        change(database, attempts.claim(first, 0, f"test-{first}", 30.0))
        change(database, attempts.complete(first, 1, 25))
        with redis.Redis.from_url(tasks.app.conf.broker_url) as client:
            client.delete(queue)
        ended = crasher.end(crasher.start("keep", {}, **points))
        # A keeper that lost an answer ends this round, and does all else in the next one.
        expected = {"stop": "killed", "lose": "exit code 1"}
        assert ended == expected.get(next(iter(points), ""), "done"), points
        assert read(database, child_id(parent, 2)).held, points
        put_off(database, FAR)
        return parent

    keep()
    points = crasher.reached()
    assert {"DELETE livejobs_tallies 1", "UPDATE livejobs_jobs 2", "after broker 1"} <= {*points}
    befell = {point: keep(stop=point) for point in points}
    commits = [point for point in points if point.startswith("COMMIT")]
    befell |= {f"lost {point}": keep(lose=point) for point in commits}
    recover(parents, queues)
    for point, parent in befell.items():
        check_family(database, parent, [25, 36, 49], point)
