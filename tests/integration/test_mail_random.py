"""However a mail server answers and whatever dies: no mail goes out twice, and none is forgotten.

Jobs mail by a real server that refuses, postpones and breaks off by chance. Each runs in a process
that is killed between any two of its steps, or loses an answer to a COMMIT; another one takes over
while the first may still be at it.
"""

from __future__ import annotations

import random
import uuid
from collections import Counter
from typing import Final

import pytest
from sqlalchemy import select

from livejobs import reads
from livejobs.database import Database
from livejobs.mails import REFUSED, SENDING, SENT, mails
from livejobs.oversight import lose
from livejobs.settings import Settings
from livejobs.transitions import requeue
from tests.support.chance import how_many, seeds, told
from tests.support.crashing import Crasher
from tests.support.mail_server import CUT, MailServer
from tests.support.rows import change, shown

pytest_plugins = ["tests.support.mail_stack"]

USUAL: Final = 3
LETTER: Final = {"subject": "Hello", "text": "How are you?"}
NO, LATER, CLOSING = "550 no such mailbox", "451 greylisted", "421 closing"
PEOPLE: Final = 3
"""In the largest job."""

pytestmark = pytest.mark.timeout(90 + 20 * how_many(USUAL))


class Round:
    """Some jobs, and what befalls them.

    Attributes:
        points: Where a process may die.
        people: Whom each job mails.
    """

    def __init__(
        self,
        chance: random.Random,
        crasher: Crasher,
        database: Database,
        server: MailServer,
        points: list[str],
    ) -> None:
        self.chance, self.points = chance, points
        self.people: dict[str, list[str]] = {}
        self.disturbed: set[str] = set()
        self._crasher, self._database, self._server = crasher, database, server

    def job(self) -> str:
        """A new job, and how the server will take its mails."""
        chance, job_id = self.chance, uuid.UUID(int=self.chance.getrandbits(128)).hex
        people = [f"p{n}.{job_id}@example.com" for n in range(chance.randint(1, PEOPLE))]
        for each in people:
            for when in ("RCPT", "DATA"):
                if chance.random() < 0.3:
                    said = chance.choices((NO, LATER, CLOSING, CUT), k=chance.randint(1, 2))
                    self._server.answers[when, each] = said
                    # It may also take a mail, and break off before it has said so.
                    if when == "DATA" and set(said) == {CUT} and chance.random() < 0.5:
                        self._server.take_then_cut.add(each)
                    if CUT in said:
                        self.disturbed.add(job_id)
        self.people[job_id] = people
        return job_id

    def run(self, job_id: str) -> None:
        """Processes run the job until it is over; most of them die."""
        while not self._is_over(job_id):
            first = self._start(job_id)
            if self.chance.random() < 0.2:
                # It is taken for lost though it is not, and goes on beside the next one.
                self._lose(job_id)
                self._crasher.end(self._start(job_id))
            self._crasher.end(first)
            self._lose(job_id)

    def _start(self, job_id: str) -> int:
        befalls: dict[str, str | None] = {}
        dice = self.chance.random()
        if dice < 0.5:
            befalls = {"stop": self.chance.choice(self.points)}
            self.disturbed.add(job_id)
        elif dice < 0.7:
            commits = [point for point in self.points if point.startswith("COMMIT")]
            befalls = {"lose": self.chance.choice(commits)}
            self.disturbed.add(job_id)
        recipients = [{"to": [each]} for each in self.people[job_id]]
        run = {"job_id": job_id, "letter": LETTER, "recipients": recipients}
        return self._crasher.start("mail", run, **befalls)

    def _is_over(self, job_id: str) -> bool:
        row = self._database.read(reads.job(job_id))
        return row is not None and row.completed_at is not None

    def _lose(self, job_id: str) -> None:
        row = self._database.read(reads.job(job_id))
        if row is not None:
            self._database.run(lose(job_id, attempt=row.attempt))

    def states(self, job_id: str) -> list[str]:
        """How far the mails of a job are."""
        with self._database.begin() as connection:
            mine = select(mails.c.state).where(mails.c.job_id == job_id)
            return list(connection.execute(mine.order_by(mails.c.ordinal)).scalars())

    def arrived(self) -> Counter[str]:
        """How often a mail has arrived, by address."""
        return Counter(envelope.rcpt_tos[0] for envelope in self._server.taken)

    def check(self, most: int) -> list[str]:
        """What must be true of jobs that are over; those of which a person has to decide.

        Args:
            most: How often a mail may have arrived that was in doubt.
        """
        arrived, doubtful = self.arrived(), []
        for job_id, people in self.people.items():
            view, states = shown(self._database, job_id), self.states(job_id)
            assert view.status in ("completed", "failed"), (job_id, view)
            assert (view.status == "completed") == (states == [SENT] * len(people)), (view, states)
            for each, state in zip(people, states, strict=True):
                often = arrived[each]
                assert often <= most, (each, state, often)
                if state == SENT:
                    assert often >= 1, each
                elif state == REFUSED:
                    assert often == 0 or most > 1, each
                else:
                    assert state == SENDING, (each, state)
                    assert view.error is not None
                    assert job_id in self.disturbed, (each, view.error)
                    doubtful.append(job_id)
        return doubtful


def test_no_mail_goes_out_twice_and_none_is_forgotten(
    crasher: Crasher, by_server: Settings, database: Database, mail_server: MailServer
) -> None:
    points = steps(crasher)
    for seed in seeds(USUAL):
        with told(seed) as chance:
            round_ = Round(chance, crasher, database, mail_server, points)
            for _ in range(3):
                round_.run(round_.job())
            doubtful = round_.check(most=1)
            for job_id in set(doubtful):
                change(database, requeue(job_id))
                round_.run(job_id)
            round_.check(most=2)


def steps(crasher: Crasher) -> list[str]:
    """The points that a process reaches which mails as many as there are in the largest job."""
    people = [{"to": [f"{name}@example.com"]} for name in range(PEOPLE)]
    run = {"job_id": uuid.uuid4().hex, "letter": LETTER, "recipients": people}
    assert crasher.end(crasher.start("mail", run)) == "done"
    points = crasher.reached()
    assert {"SMTP send 1", f"UPDATE livejobs_mails {3 * PEOPLE}"} <= {*points}
    return points
