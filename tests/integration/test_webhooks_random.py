"""However jobs end, whoever dies at it and whatever receivers answer: each end is told of, once.

Threads end the same jobs in every way there is, and die before and after their COMMITs. What tells
of the ends runs in processes that are killed between any two of their steps, or lose an answer to a
COMMIT, and its receiver fails by chance.
"""

from __future__ import annotations

import json
import random
import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from sqlalchemy import select
from sqlalchemy.engine.default import DefaultDialect

from livejobs import attempts, cascades, children, oversight, transitions
from livejobs.database import Database
from livejobs.settings import get_settings
from livejobs.statements import AGAIN, OVER, STOP, JobRow, Program, events, jobs
from livejobs.transitions import NewJob
from livejobs.webhooks import Delivery, deliveries, set_default
from tests.support.chance import how_many, seeds, told
from tests.support.crashing import Crasher
from tests.support.rows import change, read
from tests.support.webhook_receiver import Receiver

pytest_plugins = ["tests.support.webhook_stack"]

USUAL: Final = 3
STEPS: Final = 75
THREADS: Final = 3
ERROR: Final = {"type": "ValueError", "message": "it broke"}
JOBS: Final = 8
FAULTS: Final = ((500,), (302, {"Location": "/elsewhere"}), (429, {"Retry-After": "0"}), ("cut",))

pytestmark = pytest.mark.timeout(90 + 30 * how_many(USUAL))


class Died(BaseException):
    """A process ended here, as by a kill."""


class Course:
    """What befalls, by chance: several threads end the same jobs, and die at it.

    Attributes:
        deaths: How many did.
    """

    def __init__(self, database: Database, receiver: Receiver, crasher: Crasher) -> None:
        self.database = database
        self.receiver = receiver
        self.deaths = 0
        self._crasher = crasher
        self._own = threading.local()
        self._points: list[str] = []
        self.begin(random.Random(0))

    def begin(self, chance: random.Random) -> None:
        """Forget what was, and take another course."""
        self.chance = chance
        self.urls: dict[str, str | None] = {}
        self.receiver.taken.clear()

    def surround(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let threads die before and after their COMMITs."""
        do_commit: Callable[..., None] = DefaultDialect.do_commit

        def commit(*args: Any) -> None:
            self._perhaps_die()
            do_commit(*args)
            self._perhaps_die()

        monkeypatch.setattr(DefaultDialect, "do_commit", commit)

    def _perhaps_die(self) -> None:
        dice: random.Random | None = getattr(self._own, "dice", None)
        if dice is not None and dice.random() < 0.05:
            self.deaths += 1
            raise Died

    def make(self) -> None:
        """Jobs of two owners, one of whom has a default; some are children of the first."""
        default = f"{self.receiver.url}/default"
        self.database.run(set_default("ada", default))
        parent = None
        for number in range(JOBS):
            job_id = uuid.uuid4().hex
            owner = self.chance.choice(("ada", "bob"))
            own = self.chance.choice((None, "", f"{self.receiver.url}/{job_id}"))
            expires_in = self.chance.choice((None, -1.0))
            is_child = number > JOBS // 2
            new = NewJob(
                id=job_id,
                task="t",
                queue="q",
                message={"m": 1},
                owner=owner,
                parent_id=parent if is_child else None,
                webhook_url=own,
                expires_in=None if number == 0 else expires_in,
                rerun_when_lost=self.chance.random() < 0.5,
            )
            self.database.run(transitions.create(new))
            by_default = default if owner == "ada" and not is_child else None
            self.urls[job_id] = by_default if own is None else own or None
            parent = parent or job_id

    def end(self) -> None:
        """Several threads do what may be done to jobs."""
        errors: list[BaseException] = []

        def run(dice: random.Random) -> None:
            self._own.dice = dice
            for _ in range(STEPS // THREADS):
                try:
                    self._step(dice)
                except Died:
                    pass
                except BaseException as error:
                    errors.append(error)

        seeds = [self.chance.getrandbits(32) for _ in range(THREADS)]
        running = [threading.Thread(target=run, args=(random.Random(seed),)) for seed in seeds]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()
        assert errors == []

    def _step(self, dice: random.Random) -> None:
        job_id = dice.choice(list(self.urls))
        if dice.random() < 0.15:
            follow = dice.choice((cascades.stop, cascades.run_again))
            for mark in (STOP, AGAIN):
                for parent in self._marked(mark):
                    self.database.run(follow(parent, 3))
            return
        with self.database.engine.connect() as connection:
            row = connection.execute(select(jobs).where(jobs.c.id == job_id)).one()
        self.database.run(self._act(row, dice))

    def _marked(self, mark: str) -> list[str]:
        found = self.database.read(children.find(100))
        return found.stops if mark == STOP else found.agains

    def _act(self, row: JobRow, dice: random.Random) -> Program:
        if row.status == "pending":
            acts: list[Callable[[], Program]] = [
                lambda: transitions.cancel(row.id),
                lambda: transitions.expire(row.id),
                lambda: attempts.fail_unclaimed(row.id, row.attempt, ERROR),
                *[lambda: attempts.claim(row.id, row.attempt, uuid.uuid4().hex, 30.0)] * 4,
            ]
        elif row.status == "processing":
            acts = [
                lambda: attempts.complete(row.id, row.attempt, {"pages": 3}),
                lambda: attempts.fail(row.id, row.attempt, ERROR),
                lambda: attempts.cancelled(row.id, row.attempt),
                lambda: attempts.retry(row.id, row.attempt, delay=0.0, error=ERROR, message=None),
                lambda: transitions.cancel(row.id),
                lambda: oversight.lose(row.id, attempt=row.attempt),
                lambda: oversight.overrun(row.id, -1.0),
            ]
        else:
            acts = [lambda: transitions.requeue(row.id)]
        return dice.choice(acts)()

    def deliver(self) -> None:
        """Tell of all ends, through deaths and refusals; a person asks for what was given up."""
        left = deque(each for job_id in self.urls for each in self.told(job_id))
        while left:
            delivery = left.popleft()
            answers = self.chance.choices(FAULTS, k=self.chance.choice((0, 0, 1, 4)))
            path = delivery.arguments[1].removeprefix(self.receiver.url)
            self.receiver.plan(path, *answers)
            self.tell(delivery, **self._fate())
            row = read(self.database, delivery.row.id)
            if row.status == "processing":
                change(self.database, oversight.lose(row.id, attempt=row.attempt))
            elif row.status == "failed":
                change(self.database, transitions.requeue(row.id))
            if row.status != "completed":
                left.append(delivery)

    def tell(self, delivery: Delivery, **points: str) -> None:
        """A process tells of an end, or dies."""
        run = {"job_id": delivery.row.id, "args": delivery.arguments}
        end = self._crasher.end(self._crasher.start("tell", run, **points))
        assert end in ("done", "killed"), (end, points)
        self._points = self._points or self._crasher.reached()

    def _fate(self) -> dict[str, str]:
        """Where the next process dies, if it does; a process that goes on further dies later."""
        if not self._points or self.chance.random() < 0.5:
            return {}
        point = self.chance.choice(self._points)
        loses = point.startswith("COMMIT") and self.chance.random() < 0.5
        return {"lose" if loses else "stop": point}

    def told(self, job_id: str) -> list[Delivery]:
        """The deliveries of a job, the oldest first."""
        return self.database.read(deliveries(job_id))[::-1]

    def ends(self, job_id: str) -> list[str]:
        """How a job ended, each time."""
        with self.database.begin() as connection:
            mine = select(events).where(events.c.job_id == job_id).order_by(events.c.id)
            noted = connection.execute(mine).all()
        kinds = [event.detail["status"] if event.kind == "lost" else event.kind for event in noted]
        return [kind for kind in kinds if kind in list(OVER)]

    def check(self) -> None:
        """See that each end is told of by one delivery, if anybody is to be told."""
        for job_id, url in self.urls.items():
            told = self.told(job_id)
            types = [json.loads(delivery.arguments[2])["type"] for delivery in told]
            assert types == ([f"job.{end}" for end in self.ends(job_id)] if url else []), job_id
            assert {delivery.arguments[1] for delivery in told} <= {url}, job_id

    def check_arrived(self) -> None:
        """See that each delivery has arrived, under its own id."""
        ids = {each.row.id: job_id for job_id in self.urls for each in self.told(job_id)}
        assert {taken.id for taken in self.receiver.taken} == ids.keys()
        for taken in self.receiver.taken:
            assert taken.event["data"]["job_id"] == ids[taken.id]


@pytest.fixture
def crasher(hooked: Database, tmp_path: Path) -> Iterator[Crasher]:
    """Runs what tells of ends."""
    with Crasher(get_settings(), tmp_path, "tests.support.webhook_app") as crasher:
        yield crasher


def test_each_end_is_told_of_once_and_arrives(
    hooked: Database, receiver: Receiver, crasher: Crasher, monkeypatch: pytest.MonkeyPatch
) -> None:
    course = Course(hooked, receiver, crasher)
    course.surround(monkeypatch)
    for seed in seeds(USUAL):
        with told(seed) as chance:
            course.begin(chance)
            course.make()
            course.end()
            course.check()
            course.deliver()
            course.check_arrived()
    assert course.deaths or how_many(USUAL) == 1
