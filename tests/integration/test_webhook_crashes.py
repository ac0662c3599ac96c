"""Processes that die between any two of their steps while a job ends, or while its end is told.

There is one delivery for each end that was committed, and none for one that was not; each arrives,
under one id, however often.
"""

from __future__ import annotations

import importlib
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from livejobs import attempts, transitions
from livejobs.database import Database
from livejobs.keeper import Keeper
from livejobs.models import db_now
from livejobs.recording import JobOptions, build
from livejobs.settings import Settings, get_settings
from livejobs.statements import OVER, jobs
from livejobs.webhooks import deliveries
from tests.support.crashing import Crasher, by_turns
from tests.support.rows import change, read, timeline
from tests.support.waiting import wait_until
from tests.support.webhook_receiver import SECRET, Receiver
from tests.support.worker import celery_worker

pytest_plugins = ["tests.support.webhook_stack"]

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]  # a process for each point

APP = "tests.support.webhook_app"
FAR = 86_400.0
ENDS = {str(status) for status in OVER}


@pytest.fixture
def tasks(hooked: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The tasks, bound to the servers of this test."""
    monkeypatch.setenv("REDIS_URL", settings.redis_url)
    monkeypatch.setenv("CELERY_BROKER_URL", settings.redis_url)
    module = importlib.import_module(APP)
    module.app.conf.broker_url = settings.redis_url
    return module


@pytest.fixture
def crasher(tasks: Any, tmp_path: Path) -> Iterator[Crasher]:
    """Runs parts that die."""
    with Crasher(get_settings(), tmp_path, APP) as crasher:
        yield crasher


class Hooks:
    """Jobs whose ends are told, and the processes that end them or tell of them."""

    def __init__(
        self, crasher: Crasher, database: Database, tasks: Any, receiver: Receiver, folder: Path
    ) -> None:
        self.queues: set[str] = {"celery"}
        self._crasher, self._database, self._tasks = crasher, database, tasks
        self._receiver, self._folder = receiver, folder

    def run(self, *, fail: bool = False, **points: str) -> str:
        """A worker runs a job to its end, or dies; the job's id."""
        job_id, queue = uuid.uuid4().hex, uuid.uuid4().hex
        self.queues.add(queue)
        self._tasks.count.apply_async(
            (1, 0.0, 1 if fail else None),
            **{"task_id": job_id, "queue": queue},
            webhook_url=f"{self._receiver.url}/{job_id}",
        )
        self.work(queue, job_id, **points)
        return job_id

    def work(self, queue: str, job_id: str, **points: str) -> None:
        """A worker takes from a queue until a job is over, or dies."""
        pid = self._crasher.start("work", {"queue": queue}, begin="UPDATE livejobs_jobs", **points)
        if "stop" in points:
            assert self._crasher.end(pid) == "killed", points
        else:
            wait_until(
                lambda: read(self._database, job_id).status in ENDS,
                description="it is over",
                seconds=40,
            )
            self._crasher.kill(pid)
        self.put_off(FAR)

    def pending(self, **fields: Any) -> str:
        """A job that nobody runs; its id."""
        job_id = uuid.uuid4().hex
        url = f"{self._receiver.url}/{job_id}"
        options = JobOptions(webhook_url=url)
        celery_options = {"task_id": job_id, "queue": "nobodys"}
        new = build(self._tasks.app, "t", (), {}, options, celery_options)
        change(self._database, transitions.create(replace(new, **fields)))
        return job_id

    def tell(self, **points: str) -> str:
        """A worker tells of a cancelled job, or dies; the job's id."""
        job_id = self.pending()
        change(self._database, transitions.cancel(job_id))
        (delivery,) = self._database.read(deliveries(job_id))
        self.put_off(FAR)
        with self._database.begin() as connection:
            due = update(jobs).where(jobs.c.id == delivery.row.id).values(due_at=db_now(-1.0))
            connection.execute(due)
        Keeper(get_settings(), self._tasks.app).round()
        self.work("celery", delivery.row.id, **points)
        return job_id

    def put_off(self, seconds: float) -> None:
        """Let what waits for its time wait so long from now: what is due, and what is leased."""
        with self._database.begin() as connection:
            for column in (jobs.c.due_at, jobs.c.lease_until, jobs.c.run_at):
                waits = update(jobs).where(column.is_not(None))
                connection.execute(waits.values({column: db_now(seconds)}))

    def keep(self) -> None:
        """Time passes, and a keeper does what it does."""
        self.put_off(-1.0)
        settings, moment = get_settings(), [0.0]
        keeper = Keeper(settings, self._tasks.app, clock=lambda: moment[0])
        while moment[0] <= settings.lease_seconds:
            keeper.round()
            moment[0] += settings.lease_seconds / 3
        keeper.round()
        keeper.stop()

    def recover(self) -> None:
        """A keeper and a worker do what they do, until nothing is left to be done."""
        self.keep()
        options = ["-Q", ",".join(self.queues)]
        log = self._folder / "worker.log"
        with celery_worker(get_settings(), log, APP, concurrency=1, options=options, env=SET_UP):
            wait_until(self._is_done, description="all is over, and told", seconds=90)

    def _is_done(self) -> bool:
        with self._database.begin() as connection:
            left = jobs.c.status.not_in(list(OVER)), jobs.c.queue != "nobodys"
            return connection.execute(select(jobs.c.id).where(*left)).first() is None

    def check(self, job_id: str, what: object) -> None:
        """See that each end of a job has one delivery, which arrived under its id."""
        kinds = Counter(timeline(self._database, job_id))
        ends = sum(kinds[end] for end in ENDS)
        found = self._database.read(deliveries(job_id))
        assert len(found) == ends == kinds["webhook"], (what, kinds)
        for delivery in found:
            assert delivery.row.status == "completed", (what, delivery.row.error)
        taken = self._receiver.of(f"/{job_id}")
        assert {each.id for each in taken} == {delivery.row.id for delivery in found}, what
        for each in taken:
            assert each.event["data"]["job_id"] == job_id


SET_UP = {"LIVEJOBS_WEBHOOK_SECRET": SECRET, "LIVEJOBS_WEBHOOK_NETWORKS": "127.0.0.0/8"}


@pytest.fixture
def hooks(
    crasher: Crasher, hooked: Database, tasks: Any, receiver: Receiver, tmp_path: Path
) -> Hooks:
    """The jobs of a test."""
    return Hooks(crasher, hooked, tasks, receiver, tmp_path)


@pytest.mark.parametrize("fail", [False, True], ids=["completing", "failing"])
def test_worker_that_dies_while_a_job_ends_tells_of_each_end_once(
    hooks: Hooks, crasher: Crasher, settings: Settings, fail: bool
) -> None:
    whole = hooks.run(fail=fail)
    reached = crasher.reached()
    assert reached.count("INSERT livejobs_jobs 1") == 1
    commits = [point for point in reached if point.startswith("COMMIT")]
    assert len(commits) >= 2
    points = by_turns(reached, settings.database_url)
    died = {point: hooks.run(fail=fail, stop=point) for point in points}
    lost = {point: hooks.run(fail=fail, lose=point) for point in commits}
    hooks.recover()
    hooks.check(whole, "nothing")
    for what, job_id in [*died.items(), *lost.items()]:
        hooks.check(job_id, what)


def test_worker_that_dies_while_it_tells_tells_again_under_the_same_id(
    hooks: Hooks, crasher: Crasher, settings: Settings, receiver: Receiver
) -> None:
    whole = hooks.tell()
    reached = crasher.reached()
    assert {"POST 1", "after POST 1"} <= set(reached)
    points = by_turns(reached, settings.database_url, "POST 1", "after POST 1")
    died = {point: hooks.tell(stop=point) for point in points}
    lost = {point: hooks.tell(lose=point) for point in reached if point.startswith("COMMIT")}
    hooks.recover()
    hooks.check(whole, "nothing")
    for what, job_id in [*died.items(), *lost.items()]:
        hooks.check(job_id, what)
    # One that had arrived before the worker died arrives again, and is known by its id.
    assert len(receiver.of(f"/{died['after POST 1']}")) == 2
    assert len(receiver.of(f"/{died['POST 1']}")) == 1


def test_cancel_that_dies_tells_of_the_end_or_of_none(
    hooks: Hooks, crasher: Crasher, hooked: Database
) -> None:
    def cancel(**points: str) -> str:
        job_id = hooks.pending()
        arguments = {"module": "livejobs.transitions", "program": "cancel", "args": [job_id]}
        crasher.end(crasher.start("change", arguments, **points))
        return job_id

    cancel()
    points = crasher.reached()
    assert "INSERT livejobs_jobs 1" in points
    died = {point: cancel(stop=point) for point in points}
    committed = cancel(lose="COMMIT 1"), died["after COMMIT 1"]
    hooks.recover()
    hooks.check(committed[0], "lost COMMIT 1")
    for what, job_id in died.items():
        assert (read(hooked, job_id).status == "cancelled") is (job_id in committed), what
        hooks.check(job_id, what)


def test_keeper_that_dies_tells_of_each_end_once(
    hooks: Hooks, crasher: Crasher, settings: Settings, hooked: Database
) -> None:
    """Jobs that are too old, and children of a cancelled parent."""

    def keep(**points: str) -> list[str]:
        parent = hooks.pending()
        child = hooks.pending(parent_id=parent)
        change(hooked, attempts.claim(parent, 0, uuid.uuid4().hex, 3600.0))
        change(hooked, transitions.cancel(parent))
        change(hooked, attempts.cancelled(parent, 1))
        expired = hooks.pending(expires_in=-1.0)
        crasher.end(crasher.start("keep", {}, **points))
        return [parent, child, expired]

    found = {"nothing": keep()}
    points = crasher.reached()
    assert "INSERT livejobs_jobs 2" in points
    for point in by_turns(points, settings.database_url):
        found[point] = keep(stop=point)
    for point in points:
        if point.startswith("COMMIT"):
            found[f"lost {point}"] = keep(lose=point)
    hooks.keep()
    hooks.recover()
    for what, job_ids in found.items():
        for job_id in job_ids:
            assert read(hooked, job_id).status in ENDS, what
            hooks.check(job_id, what)
