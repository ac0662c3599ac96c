"""Children of a parent that are to run some at a time: never more, and none is forgotten."""

from __future__ import annotations

import contextlib
import importlib
import itertools
import os
import random
import signal
import uuid
from collections.abc import Callable, Generator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
import redis
from sqlalchemy import select, text
from sqlalchemy.sql.base import Executable

from livejobs import attempts, cascades, children, rollup, transitions
from livejobs.database import Database, execute
from livejobs.models import db_now
from livejobs.settings import Settings, configure
from livejobs.spawning import child_id
from livejobs.statements import Batch, JobRow, Rows, jobs, tallies
from livejobs.transitions import NewJob
from tests.support.rows import change, read, shown
from tests.support.waiting import wait_until
from tests.support.worker import celery_worker

ERROR = {"type": "ValueError", "message": "it broke"}
APP = "tests.support.families"
T = TypeVar("T")
LEASE = {"LIVEJOBS_LEASE_SECONDS": "3"}


class Family:
    """A parent that runs, with pending children of which so many may be open."""

    def __init__(self, database: Database, size: int, at_once: int) -> None:
        self.database = database
        self.id = uuid.uuid4().hex
        self.children: list[str] = []
        self._at_once = at_once
        self._new = NewJob(id=self.id, task="t", queue="q", message={"m": 1})
        change(database, transitions.create(self._new))
        change(database, attempts.claim(self.id, 0, f"worker-{self.id}", 30.0))
        self.spawn(size)

    def spawn(self, size: int) -> None:
        """The parent makes so many more."""
        news = [
            replace(
                self._new,
                id=child_id(self.id, ordinal),
                parent_id=self.id,
                ordinal=ordinal,
                at_once=self._at_once,
            )
            for ordinal in range(len(self.children), len(self.children) + size)
        ]
        assert len(self.database.run(attempts.spawn(self.id, 1, news)) or ()) == size
        self.children += [new.id for new in news]

    def wait(self) -> None:
        """The parent waits for them."""
        then = NewJob(id=self.id, task="then", queue="q", message={"m": 2})
        change(self.database, attempts.wait(self.id, 1, then, len(self.children)))

    def count(self) -> list[int]:
        """Count; which children have got places by that."""
        placed = self.database.run(children.count(self.id)).placed
        return [row.ordinal for row in placed]

    def claim(self, ordinal: int, attempt: int = 0) -> None:
        """A worker takes one."""
        name = uuid.uuid4().hex
        change(self.database, attempts.claim(self.children[ordinal], attempt, name, 30.0))

    def complete(self, ordinal: int, attempt: int = 1) -> None:
        """One completes."""
        change(self.database, attempts.complete(self.children[ordinal], attempt, None))

    def held(self) -> list[int]:
        """Which wait for places."""
        mine = select(jobs.c.ordinal).where(
            jobs.c.parent_id == self.id, jobs.c.held, jobs.c.completed_at.is_(None)
        )
        with self.database.begin() as connection:
            return list(connection.execute(mine.order_by(jobs.c.ordinal)).scalars())


@pytest.fixture
def tasks(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The tasks of families, bound to the servers of this test."""
    monkeypatch.setenv("REDIS_URL", settings.redis_url)
    module = importlib.import_module(APP)
    configure(**settings.model_dump())
    return module


def make_due(database: Database) -> None:
    """Let the time come that anything waits for."""
    with database.begin() as connection:
        waits = jobs.update().where(jobs.c.due_at.is_not(None))
        connection.execute(waits.values(due_at=db_now(-1.0)))


def test_children_get_places_in_their_order_as_others_end(database: Database) -> None:
    family = Family(database, 5, 2)
    assert family.held() == [0, 1, 2, 3, 4]
    assert family.count() == [0, 1]
    assert family.count() == []
    family.wait()
    make_due(database)
    sent = database.run(transitions.dispatch(9))
    assert sorted(row.ordinal for row in sent) == [0, 1], "not the held"
    family.claim(1)
    family.complete(1)
    assert family.count() == [2]
    family.claim(0)
    retry = attempts.retry(family.children[0], 1, delay=60.0, error=ERROR, message=None)
    change(database, retry)
    assert family.count() == [], "it waits to be tried again, and keeps its place"
    change(database, transitions.cancel(family.children[0]))
    assert family.count() == [3]
    change(database, transitions.cancel(family.children[4]))
    assert family.count() == [], "it had no place"
    for ordinal in (2, 3):
        family.claim(ordinal)
        family.complete(ordinal)
    row, resumed, placed = database.run(children.count(family.id))
    assert row is not None
    assert (resumed, placed, row.status) == (True, (), "pending")
    assert (row.children_total, row.children_completed, row.children_cancelled) == (5, 3, 2)


# On SQLite a transaction that writes is alone.
@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@pytest.mark.parametrize("event", ["a child ends", "a child is made"])
def test_place_is_given_whenever_something_happens_while_it_is_counted(
    database: Database, event: str
) -> None:
    for step in itertools.count(1):
        family = Family(database, 2, 1)
        assert family.count() == [0]
        family.claim(0)
        if event == "a child is made":
            family.complete(0)
            assert family.count() == [1]
            family.claim(1)
            family.complete(1)
        happened: list[str] = []

        def happen(family: Family = family, happened: list[str] = happened) -> None:
            happened.append(event)
            if event == "a child ends":
                family.complete(0)
            else:
                family.spawn(1)

        counting = interrupted(children.count(family.id, at_once=True), step, happen)
        database.run(counting)
        if not happened:
            break
        while database.run(children.is_tallied(family.id)):
            database.run(children.count(family.id, at_once=True))
        assert family.held() == [], f"{event} before statement {step}"
    assert step >= 4


def interrupted(
    program: Generator[Executable | Batch, Rows, T], step: int, act: Callable[[], None]
) -> Generator[Executable | Batch, Rows, T]:
    """A program during which others do something, before one of its statements, from 0."""
    statement, number = next(program), 0
    while True:
        if number == step:
            act()
        rows = yield statement
        number += 1
        try:
            statement = program.send(rows)
        except StopIteration as end:
            result: T = end.value
            return result


def test_child_without_a_place_cannot_be_claimed(database: Database) -> None:
    family = Family(database, 2, 1)
    assert family.count() == [0]
    # Its message may be on its way from a time when it had one.
    assert database.run(attempts.claim(family.children[1], 0, "w", 30.0)) is None
    assert read(database, family.children[1]).held


def test_child_that_expires_while_it_waits_takes_no_place(database: Database) -> None:
    family = Family(database, 3, 1)
    assert family.count() == [0]
    with database.begin() as connection:
        late = jobs.update().where(jobs.c.id == family.children[1])
        connection.execute(late.values(expires_at=db_now(-1.0)))
    change(database, transitions.expire(family.children[1]))
    assert family.count() == []
    family.claim(0)
    family.complete(0)
    assert family.count() == [2]


def test_child_that_is_run_again_waits_for_a_place_again(database: Database) -> None:
    family = Family(database, 3, 1)
    assert family.count() == [0]
    family.claim(0)
    change(database, attempts.fail(family.children[0], 1, ERROR))
    assert family.count() == [1]
    change(database, transitions.requeue(family.children[0]))
    assert family.held() == [0, 2]
    assert family.count() == [], "another one has its place"
    family.claim(1)
    family.complete(1)
    assert family.count() == [0]
    family.claim(0, 1)
    family.complete(0, 2)
    assert family.count() == [2]


def follow(database: Database) -> None:
    """Do as a keeper does for the children of parents that were cancelled, or are run again."""
    while any((found := database.read(children.find(9)))[1:]):
        for parent_id in found.stops:
            database.run(cascades.stop(parent_id, 2))
        for parent_id in found.agains:
            database.run(cascades.run_again(parent_id, 2))


def test_parent_that_is_cancelled_and_run_again_keeps_to_its_places(database: Database) -> None:
    family = Family(database, 5, 2)
    family.count()
    family.claim(0)
    family.complete(0)
    family.wait()
    change(database, transitions.cancel(family.id))
    assert family.count() == [], "they are about to be cancelled"
    follow(database)
    assert family.held() == []
    assert {shown(database, child).status for child in family.children[1:]} == {"cancelled"}
    family.count()
    change(database, transitions.requeue(family.id))
    follow(database)
    assert family.held() == [1, 2, 3, 4]
    assert family.count() == [1, 2]
    for ordinal in (1, 2, 3, 4):
        family.claim(ordinal)
        family.complete(ordinal)
        family.count()
    assert read(database, family.id).status == "pending"


def test_parent_run_again_before_its_children_were_cancelled_goes_on(database: Database) -> None:
    family = Family(database, 3, 1)
    assert family.count() == [0]
    family.claim(0)
    family.wait()
    change(database, transitions.cancel(family.id))
    family.complete(0)
    assert family.count() == []
    change(database, transitions.requeue(family.id))
    assert database.read(children.find(9)).counts == [family.id], "somebody looks"
    assert family.count() == [1]


def test_parent_run_again_goes_on_though_who_ran_its_children_again_dies(
    database: Database,
) -> None:
    family = Family(database, 1, 1)
    family.wait()
    change(database, transitions.cancel(family.id))
    follow(database)
    change(database, transitions.requeue(family.id))
    assert len(database.run(cascades.run_again(family.id, 9))) == 1
    assert family.count() == [0]
    family.claim(0)
    family.complete(0)
    assert not database.run(children.count(family.id, at_once=True)).resumed, "others may follow"
    assert database.run(cascades.run_again(family.id, 9)) == []  # and here it dies
    assert database.read(children.find(9)).counts == [family.id], "somebody looks"
    assert database.run(children.count(family.id, at_once=True)).resumed


def test_children_of_a_deleted_parent_need_no_places(database: Database) -> None:
    family = Family(database, 4, 1)
    family.count()
    family.claim(0)
    change(database, attempts.complete(family.id, 1, None))
    change(database, transitions.remove(family.id))
    family.complete(0)
    assert database.read(children.find(9)).counts == [family.id]
    family.count()
    assert family.held() == []
    assert len(database.run(transitions.dispatch(9))) == 3


def test_waiting_leaves_places_to_those_that_send(database: Database) -> None:
    family = Family(database, 2, 1)
    family.wait()
    assert family.held() == [0, 1]
    assert database.read(children.find(9)).counts == [family.id], "somebody looks"
    assert family.count() == [0]
    database.run(children.count(family.id, at_once=True))
    assert database.read(children.find(9)).counts == [], "once"


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_child_that_is_being_changed_holds_nobody_up_and_is_not_forgotten(
    database: Database,
) -> None:
    family = Family(database, 1, 1)
    with contextlib.suppress(ZeroDivisionError), database.begin() as cancelling:
        assert execute(cancelling, transitions.cancel(family.children[0])) is not None
        with database.begin() as counting:
            counting.execute(text("SET LOCAL lock_timeout = '2s'"))
            assert execute(counting, children.count(family.id)).placed == []
        raise ZeroDivisionError  # it is not cancelled after all
    assert database.read(children.find(9)).counts == [family.id], "somebody looks again"
    assert family.count() == [0]


def test_many_that_count_and_end_at_random_keep_to_the_places(
    database: Database, worker_random: random.Random
) -> None:
    dice, at_once = worker_random, worker_random.randint(1, 4)
    family = Family(database, 12, at_once)
    family.wait()
    for _ in range(400):
        rows = the_children(database, family.id)
        active = [row for row in rows if row.completed_at is None and not row.held]
        assert len(active) <= at_once
        if read(database, family.id).status == "pending":
            break
        if dice.random() < 0.4:
            family.count()
        elif dice.random() < 0.1:
            over = [row for row in rows if row.status in ("failed", "cancelled")]
            if over:
                change(database, transitions.requeue(dice.choice(over).id))
        else:
            end(database, dice.choice(active or rows), dice)
    while any(row.completed_at is None for row in the_children(database, family.id)):
        family.count()
        for row in the_children(database, family.id):
            if row.completed_at is None and not row.held:
                end(database, row, dice)
    database.run(children.count(family.id, at_once=True))
    assert read(database, family.id).status == "pending"


@pytest.fixture(params=[1, 2, 3])
def worker_random(request: pytest.FixtureRequest) -> random.Random:
    return random.Random(request.param)


def the_children(database: Database, parent_id: str) -> Rows:
    """All of them."""
    with database.begin() as connection:
        mine = select(jobs).where(jobs.c.parent_id == parent_id)
        return connection.execute(mine.order_by(jobs.c.ordinal)).all()


def end(database: Database, child: JobRow, dice: random.Random) -> None:
    """Do one of the things that happen to a child."""
    if child.completed_at is not None:
        return
    if child.status == "pending":
        if dice.random() < 0.2:
            database.run(transitions.cancel(child.id))
        else:
            database.run(attempts.claim(child.id, child.attempt, uuid.uuid4().hex, 30.0))
        return
    ends = (
        attempts.complete(child.id, child.attempt, 1),
        attempts.fail(child.id, child.attempt, ERROR),
        attempts.retry(child.id, child.attempt, delay=0.0, error=ERROR, message=None),
        attempts.release(child.id, child.attempt),
    )
    database.run(dice.choice(ends))


# -- in real workers -------------------------------------------------------------------------------


def test_workers_never_run_more_at_a_time_and_leave_none_out(
    tasks: Any, settings: Settings, database: Database, tmp_path: Path
) -> None:
    key, numbers, at_once = uuid.uuid4().hex, 80, 3
    with contextlib.ExitStack() as stack:
        for worker in range(2):
            log = tmp_path / f"worker-{worker}.log"
            options = ["-Q", tasks.QUEUE]
            stack.enter_context(celery_worker(settings, log, APP, concurrency=3, options=options))
        job_id = tasks.crowd.apply_async((key, numbers, at_once)).id
        most = 0

        def over() -> bool:
            nonlocal most
            rows = the_children(database, job_id)
            most = max(most, sum(row.completed_at is None and not row.held for row in rows))
            return shown(database, job_id).status.is_final

        wait_until(over, description="all are over", seconds=90)
    failing = [number for number in range(numbers) if number % 7 == 5]
    completed = [number for number in range(numbers) if number % 7 != 5]
    job = shown(database, job_id)
    assert job.result == {
        **{"total": numbers, "completed": len(completed), "failed": len(failing), "cancelled": 0},
        "sums": {"numbers": len(completed), "sum": sum(completed)},
    }
    with redis.Redis.from_url(settings.redis_url) as client:
        within = [int(found) for found in client.lrange(f"tests:{key}", 0, -1)]
    assert 1 < max(within) <= at_once
    assert most == at_once


def has_completed(database: Database, job_id: str, some: int) -> bool:
    """Whether so many of a job's children have, or it is over."""
    row = read(database, job_id)
    return bool(row.children_completed >= some or row.completed_at is not None)


def test_worker_that_is_killed_costs_no_place(
    tasks: Any, settings: Settings, database: Database, tmp_path: Path
) -> None:
    key, numbers = uuid.uuid4().hex, 40
    options = ["-Q", tasks.QUEUE]
    job_id = tasks.crowd.apply_async((key, numbers, 2)).id
    for worker in range(3):
        log = tmp_path / f"worker-{worker}.log"
        with celery_worker(settings, log, APP, options=options, env=LEASE) as process:
            some = 10 * (worker + 1)
            enough = partial(has_completed, database, job_id, some)
            wait_until(enough, description=f"{some} have completed", seconds=60)
            if worker < 2:
                os.killpg(process, signal.SIGKILL)
                continue
            over = "all are over"
            wait_until(
                lambda: shown(database, job_id).status.is_final, description=over, seconds=90
            )
    result = shown(database, job_id).result
    assert result["total"] == result["completed"] + result["failed"] == numbers


# -- what they hand in -----------------------------------------------------------------------------


def test_waiting_parent_shows_what_its_children_hand_in(database: Database) -> None:
    family = Family(database, 4, 4)
    database.run(children.count(family.id))
    with database.begin() as connection:
        began = jobs.update().where(jobs.c.id == family.id)
        connection.execute(began.values(started_at=db_now(-10.0)))
    family.wait()
    for ordinal in range(4):
        family.claim(ordinal)
    for ordinal in (0, 1):
        along = [lambda: rollup.hand_in(family.id, {"tokens": 30, "pages": 0})]
        change(database, attempts.complete(family.children[ordinal], 1, None, along=along))
    change(database, attempts.fail(family.children[2], 1, ERROR))
    row = database.run(children.count(family.id, at_once=True)).row
    assert row is not None
    assert row.children_sums == {"tokens": 60, "pages": 0}
    progress = shown(database, family.id).progress
    assert progress is not None
    assert (progress.current, progress.total, progress.fraction) == (3, 4, 0.75)
    assert progress.rate == pytest.approx(0.3, rel=0.1)
    assert progress.eta_seconds == pytest.approx(3.3, rel=0.1)
    assert progress.data["failed"] == 1
    assert progress.data["tokens"] == 60
    assert progress.data["tokens_per_second"] == pytest.approx(6.0, rel=0.1)
    assert progress.message is not None
    assert progress.message.startswith("3 of 4 done, 1 failed, 60 tokens (")
    assert progress.message.endswith(", 0 pages (0/s)")
    seq = row.progress_seq
    family.complete(3)
    row, resumed, _ = database.run(children.count(family.id))
    assert row is not None
    assert (resumed, row.progress["current"], row.progress_seq) == (True, 4, seq + 1)
    with database.begin() as connection:
        assert connection.execute(select(tallies)).all() == []


def test_attempt_that_fails_hands_nothing_in(database: Database) -> None:
    family = Family(database, 1, 1)
    family.count()
    family.claim(0)
    along = [lambda: rollup.hand_in(family.id, {"tokens": 30})]
    lost = attempts.complete(family.children[0], 7, None, along=along)
    assert database.run(lost) is None
    change(database, attempts.fail(family.children[0], 1, ERROR))
    database.run(children.count(family.id, at_once=True))
    assert read(database, family.id).children_sums is None
