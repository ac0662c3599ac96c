"""Workers that die between any two of their steps while they mail, or lose an answer to a COMMIT.

A mail goes out once, or its job says that nobody knows; that happens only where the worker died
between handing the content over and noting the answer.
"""

from __future__ import annotations

import importlib
import uuid
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from livejobs.database import Database
from livejobs.keeper import Keeper
from livejobs.mails import mails, message_id
from livejobs.models import db_now
from livejobs.settings import Settings, configure
from livejobs.statements import jobs
from livejobs.transitions import requeue
from tests.support.crashing import ALL_POINTS, Crasher, by_turns
from tests.support.mail_server import MailServer
from tests.support.rows import change, shown
from tests.support.waiting import wait_until
from tests.support.worker import celery_worker

pytest_plugins = ["tests.support.mail_stack"]

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(300),
]  # thirty processes

APP = "tests.support.mail_app"
FAR = 86_400.0
PARTS = 4 if ALL_POINTS else 2
"""A worker begins anew for each point, which takes its time."""
LETTER = {"subject": "Hello", "text": "How are you?"}


@pytest.fixture
def tasks(by_server: Settings) -> Any:
    """The tasks, bound to the servers of this test."""
    module = importlib.import_module(APP)
    module.app.conf.broker_url = by_server.redis_url
    configure(**by_server.model_dump())
    return module


class Mailing:
    """Jobs that mail two people, in queues of their own, run by workers that die."""

    def __init__(self, crasher: Crasher, database: Database, tasks: Any, settings: Settings):
        self.queues: list[str] = []
        self.people: dict[str, list[str]] = {}
        self._crasher, self._database, self._tasks = crasher, database, tasks
        self._settings = settings

    def work(self, **points: str) -> str:
        """A worker runs a job to its end, or dies."""
        job_id, queue = uuid.uuid4().hex, uuid.uuid4().hex
        people = [f"{name}.{job_id}@example.com" for name in ("ada", "bea")]
        recipients = [{"to": [each]} for each in people]
        self._tasks.send.apply_async((LETTER, recipients), task_id=job_id, queue=queue)
        self.people[job_id] = people
        self.queues.append(queue)
        pid = self._crasher.start("work", {"queue": queue}, begin="UPDATE livejobs_jobs", **points)
        if "stop" in points:
            assert self._crasher.end(pid) == "killed", points
        else:
            wait_until(
                lambda: shown(self._database, job_id).status.is_final,
                description="it is over",
                seconds=40,
            )
            self._crasher.kill(pid)
        self.put_off(FAR)
        return job_id

    def put_off(self, seconds: float) -> None:
        """Let what waits for its time wait so long from now: what is due, and what is leased."""
        with self._database.begin() as connection:
            for column in (jobs.c.due_at, jobs.c.lease_until):
                waits = update(jobs).where(column.is_not(None))
                connection.execute(waits.values({column: db_now(seconds)}))

    def recover(self, log: Path) -> None:
        """Time passes, and a keeper and a worker do what they do."""
        self.put_off(-1.0)
        moment = [0.0]
        keeper = Keeper(self._settings, self._tasks.app, clock=lambda: moment[0])
        while moment[0] <= self._settings.lease_seconds:
            keeper.round()
            moment[0] += self._settings.lease_seconds / 3
        keeper.round()
        keeper.stop()
        options = ["-Q", ",".join(self.queues)]
        with celery_worker(self._settings, log, APP, concurrency=1, options=options):
            wait_until(
                lambda: all(shown(self._database, each).status.is_final for each in self.people),
                description="all jobs are over",
                seconds=90,
            )

    def states(self, job_id: str) -> list[str]:
        """How far the mails of a job are."""
        with self._database.begin() as connection:
            mine = select(mails.c.state).where(mails.c.job_id == job_id)
            return list(connection.execute(mine.order_by(mails.c.ordinal)).scalars())


@pytest.fixture
def mailing(crasher: Crasher, database: Database, tasks: Any, by_server: Settings) -> Mailing:
    """The jobs of a test."""
    return Mailing(crasher, database, tasks, by_server)


def arrived(server: MailServer, job_id: str) -> list[int]:
    """How often each of the two mails of a job has arrived."""
    ids = [mail["Message-ID"] for mail in server.mails]
    return [ids.count(message_id(job_id, ordinal, "example.com")) for ordinal in (0, 1)]


def beyond_knowledge(points: list[str]) -> set[str]:
    """From the COMMIT of a mail's mark to the COMMIT of the answer, for both mails."""
    found: set[str] = set()
    for begins, ends in ((2, 3), (5, 6)):
        first, last = (points.index(f"UPDATE livejobs_mails {n}") for n in (begins, ends))
        assert points[first + 2].startswith("after COMMIT")
        assert points[last + 1].startswith("COMMIT")
        found |= set(points[first + 2 : last + 2])
    return found


@pytest.mark.parametrize("part", range(PARTS))
def test_worker_that_dies_while_it_mails_sends_no_mail_twice(
    mailing: Mailing,
    crasher: Crasher,
    database: Database,
    settings: Settings,
    mail_server: MailServer,
    tmp_path: Path,
    part: int,
) -> None:
    whole = mailing.work()
    points = crasher.reached()
    assert {"SMTP send 1", "after SMTP getreply 1", "UPDATE livejobs_mails 1"} <= set(points)
    assert arrived(mail_server, whole) == [1, 1]
    tried = by_turns(points, settings.database_url)[part::PARTS]
    died = {point: mailing.work(stop=point) for point in tried}
    mailing.recover(tmp_path / "worker.log")
    doubtful = {}
    for point, job_id in died.items():
        view = shown(database, job_id)
        if view.status == "completed":
            assert arrived(mail_server, job_id) == [1, 1], point
            assert mailing.states(job_id) == ["sent", "sent"], point
            continue
        assert (view.status, view.error.code) == ("failed", "mail_in_doubt"), (point, view.error)
        assert max(arrived(mail_server, job_id)) == 1, point
        assert sorted(mailing.states(job_id)) == ["sending", "sent"], point
        doubtful[point] = sum(arrived(mail_server, job_id))
    assert set(doubtful) == beyond_knowledge(points) & set(died)

    for point in doubtful:
        change(database, requeue(died[point]))
    mailing.recover(tmp_path / "asked.log")
    for point, before in doubtful.items():
        assert shown(database, died[point]).status == "completed", point
        assert sum(arrived(mail_server, died[point])) == before + 1, point


def test_lost_answers_to_commits_send_no_mail_twice_and_leave_no_doubt(
    mailing: Mailing, crasher: Crasher, database: Database, mail_server: MailServer
) -> None:
    mailing.work()
    commits = [point for point in crasher.reached() if point.startswith("COMMIT")]
    assert len(commits) >= 7
    for commit in commits:
        job_id = mailing.work(lose=commit)
        view = shown(database, job_id)
        assert view.status == "completed", (commit, view.error)
        assert arrived(mail_server, job_id) == [1, 1], commit
