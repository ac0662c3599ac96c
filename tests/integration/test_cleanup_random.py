"""However many cleanups and beats run at a time, and wherever they die: what is needed stays.

What has had its time is gone once a run came to its end, files and all; each time that the schedule
says is one job, whichever beat sends it.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest
import redis
from sqlalchemy import delete, func, insert, select, update

from livejobs import attempts, transitions
from livejobs.beat import entries as schedule
from livejobs.database import Database
from livejobs.documents import NewChunk, NewDocument, documents, replace_document
from livejobs.mails import mail_name, maildir, mails, message_id, prepare
from livejobs.models import SCHEMA_TOKEN, Base, db_now
from livejobs.settings import Settings, configure
from livejobs.statements import deletions, jobs
from livejobs.transitions import NewJob
from livejobs.uploads import add_upload, upload_folder, uploads
from tests.integration.test_cleanup import stored
from tests.support.chance import how_many, seeds, told
from tests.support.crashing import Crasher
from tests.support.rows import change

USUAL: Final = 3
APP: Final = "tests.support.cleaning_app"
DAY: Final = 86_400.0
KEPT_DAYS: Final = {"completed": 30, "failed": 90, "cancelled": 30}

pytestmark = pytest.mark.timeout(90 + 20 * how_many(USUAL))


@pytest.fixture
def crasher(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Crasher]:
    """Runs cleanups and beats that die."""
    for name in ("REDIS_URL", "CELERY_BROKER_URL"):
        monkeypatch.setenv(name, settings.redis_url)
    configure(**settings.model_dump())
    with Crasher(settings, tmp_path, APP) as crasher:
        yield crasher


def befalling(chance: random.Random, points: list[str]) -> dict[str, str]:
    """What befalls a process: it dies, an answer to a COMMIT is lost, or nothing does."""
    dice = chance.random()
    if dice < 0.6:
        return {"stop": chance.choice(points)}
    if dice < 0.8:
        return {"lose": chance.choice([point for point in points if point.startswith("COMMIT")])}
    return {}


class House:
    """Things of all kinds, each of which is needed, or has had its time.

    Attributes:
        wanted: What has to stay, by kind.
    """

    def __init__(self, database: Database, settings: Settings, chance: random.Random) -> None:
        self._database, self._settings, self._chance = database, settings, chance
        self._count = 0
        self.wanted = self.there()

    KINDS: Final = (
        "jobs",
        "sessions",
        "tickets",
        "uploads",
        "files",
        "documents",
        "mails",
        "letters",
    )

    def fill(self) -> None:
        """Add some more of each."""
        for _ in range(self._chance.randint(2, 8)):
            self._chance.choice(
                (self._job, self._family, self._credential, self._upload, self._mail)
            )()

    def there(self) -> dict[str, set[str]]:
        """What is there, by kind."""
        columns = {
            "jobs": jobs.c.id,
            "sessions": _table("sessions").c.hash,
            "tickets": _table("tickets").c.hash,
            "uploads": uploads.c.name,
            "documents": documents.c.name,
            "mails": mails.c.job_id,
        }
        with self._database.begin() as connection:
            found = {
                kind: set(connection.execute(select(column)).scalars())
                for kind, column in columns.items()
            }
            runs = set(
                connection.execute(
                    select(jobs.c.id).where(jobs.c.task == "livejobs.cleanup")
                ).scalars()
            )
        found["jobs"] -= runs
        found["files"] = {path.name for path in upload_folder(self._settings).glob("*")}
        found["letters"] = {path.name for path in maildir(self._settings).glob("*/*")}
        return found

    def empty(self) -> None:
        """Take all of it away."""
        with self._database.begin() as connection:
            for table in (jobs, mails, uploads, _table("sessions"), _table("tickets"), deletions):
                connection.execute(delete(table))
        for folder in (upload_folder(self._settings), maildir(self._settings)):
            shutil.rmtree(folder, ignore_errors=True)

    def check(self, *, over: bool) -> None:
        """What is needed is there; and where a run came to its end, nothing else."""
        for kind, there in self.there().items():
            missing, left = self.wanted[kind] - there, there - self.wanted[kind]
            assert not missing, kind
            assert not (over and left), kind

    def _name(self) -> str:
        self._count += 1
        return f"{self._chance.getrandbits(64):016x}-{self._count}"

    def _want(self, kind: str, name: str, wanted: bool) -> None:
        if wanted:
            self.wanted[kind].add(name)

    def _job(
        self, name: str | None = None, parent: str | None = None, parent_is_open: bool = False
    ) -> bool:
        """A job that is over; whether it is to stay."""
        name, how = name or self._name(), self._chance.choice(list(KEPT_DAYS))
        new = NewJob(id=name, task="t", queue="q", message={"headers": {}}, parent_id=parent)
        change(self._database, transitions.create(new))
        change(self._database, attempts.claim(name, None, f"worker-{name}", 30.0))
        ends: dict[str, Callable[[], Any]] = {
            "completed": lambda: attempts.complete(name, 1, None),
            "failed": lambda: attempts.fail(name, 1, {"type": "E", "message": "m"}),
            "cancelled": lambda: attempts.cancelled(name, 1),
        }
        change(self._database, ends[how]())
        young = self._chance.random() < 0.4
        days = KEPT_DAYS[how] + (-1 if young else 1)
        self._set(jobs, jobs.c.id == name, completed_at=db_now(-days * DAY))
        self._want("jobs", name, young or parent_is_open)
        return young or parent_is_open

    def _family(self) -> None:
        """An open job, or one that is over, with children that are over."""
        parent, is_open = self._name(), self._chance.random() < 0.5
        if is_open:
            new = NewJob(id=parent, task="t", queue="q", message={"headers": {}})
            change(self._database, transitions.create(new))
            self._want("jobs", parent, True)
        else:
            self._job(parent)
        for _ in range(self._chance.randint(1, 3)):
            self._job(None, parent, is_open)

    def _credential(self) -> None:
        name, kind = self._name(), self._chance.choice(("sessions", "tickets"))
        stays = self._chance.random() < 0.5
        values: dict[str, Any] = {"hash": name, "viewer": {"owner": "ann", "scopes": ["read"]}}
        values["expires_at"] = db_now(60.0 if stays else -1.0)
        if kind == "sessions":
            values["created_at"] = db_now()
        with self._database.begin() as connection:
            connection.execute(insert(_table(kind)).values(**values))
        self._want(kind, name, stays)

    def _upload(self) -> None:
        """A file with or without its row, of a job or a document or of nothing.

        Cleanups may be at it: what is old gets so when all of it is there, as in life.
        """
        name, of = self._name(), self._chance.choice(("job", "document", "nothing", "no row"))
        # That of a job which has had its time is no younger than the job.
        young = of != "job" and self._chance.random() < 0.2
        days = 0.5 if young else 3.0
        without_file = self._chance.random() < 0.2 and not young and of != "no row"
        if of == "no row":
            stored(self._settings, name, days)
            self._want("files", name, young)
            return
        job_id = self._name()
        self._database.run(add_upload(name, "ann", job_id, 1))
        if not without_file:  # which somebody has deleted
            stored(self._settings, name, days)
        if of == "document":
            self._document(name)
        # The job of an upload that goes takes it along.
        job_stays = of == "job" and self._job(job_id)
        self._set(uploads, uploads.c.name == name, created_at=db_now(-days * DAY))
        stays = job_stays or of == "document" or (young and of == "nothing")
        self._want("uploads", name, stays and not without_file)
        self._want("files", name, stays and not without_file)

    def _document(self, upload: str) -> None:
        new = NewDocument(
            owner="ann", name=upload, media_type="text/plain", size=1, sha256="0", title=upload,
            pages=None, chunks=1, upload=upload,
        )  # fmt: skip
        self._database.run(replace_document(new, [NewChunk(0, None, "words")]))
        self._want("documents", upload, True)

    def _mail(self) -> None:
        """What is known of a mail, and the mail itself, whose job may be gone."""
        name, there = self._name(), self._chance.random() < 0.4
        if there:
            change(
                self._database,
                transitions.create(NewJob(id=name, task="t", queue="q", message={"headers": {}})),
            )
            self._want("jobs", name, True)
        known_as = message_id(name, 0, "example.com")
        self._database.run(prepare("ann", name, 0, known_as, "ada@example.com"))
        path = maildir(self._settings) / "cur" / f"{mail_name(name, 0)}:2,S"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("Hello")
        self._set(mails, mails.c.job_id == name, created_at=db_now(-2 * DAY))
        self._want("mails", name, there)
        self._want("letters", path.name, there)

    def _set(self, table: Any, where: Any, **values: Any) -> None:
        with self._database.begin() as connection:
            connection.execute(update(table).where(where).values(**values))


def _table(name: str) -> Any:
    return Base.metadata.tables[f"{SCHEMA_TOKEN}.livejobs_{name}"]


def test_cleanups_that_die_remove_all_that_has_had_its_time_and_nothing_else(
    crasher: Crasher, settings: Settings, database: Database
) -> None:
    house = House(database, settings, random.Random(1))
    for _ in range(10):
        house.fill()
    assert crasher.end(crasher.start("clean", {})) == "done"
    points = crasher.reached()
    house.check(over=True)
    for seed in seeds(USUAL):
        with told(seed) as chance:
            house.empty()
            house = House(database, settings, chance)
            for _ in range(3):
                house.fill()
                some = [
                    crasher.start("clean", {}, **befalling(chance, points))
                    for _ in range(chance.randint(1, 3))
                ]
                house.fill()
                for pid in some:
                    assert crasher.end(pid) in ("done", "killed", "exit code 1")
                house.check(over=False)
            assert crasher.end(crasher.start("clean", {})) == "done"
            house.check(over=True)
            with database.begin() as connection:
                gone = set(connection.execute(select(deletions.c.job_id)).scalars())
            assert not gone & house.wanted["jobs"]


def made(database: Database) -> int:
    """How often the schedule has made a job of the cleanup."""
    with database.begin() as connection:
        mine = select(func.count()).where(jobs.c.task == "livejobs.cleanup")
        return int(connection.execute(mine).scalar_one())


def let_pass(database: Database) -> None:
    """Two days pass, for all entries of the schedule."""
    with database.begin() as connection:
        for row in connection.execute(select(schedule)).all():
            earlier = {"last_run_at": row.last_run_at - timedelta(days=2)}
            connection.execute(update(schedule).where(schedule.c.name == row.name).values(earlier))


def test_beats_that_die_make_one_job_of_each_time(
    crasher: Crasher, settings: Settings, database: Database
) -> None:
    assert crasher.end(crasher.start("beat", {})) == "done"
    let_pass(database)
    assert crasher.end(crasher.start("beat", {})) == "done"
    points, times = crasher.reached(), 1
    assert {"INSERT livejobs_jobs 1", "UPDATE livejobs_schedule 1"} <= {*points}
    for seed in seeds(USUAL):
        with told(seed) as chance:
            for _ in range(3):
                let_pass(database)
                times += 1
                some = [
                    crasher.start("beat", {}, **befalling(chance, points))
                    for _ in range(chance.randint(1, 3))
                ]
                for pid in some:
                    assert crasher.end(pid) in ("done", "killed", "exit code 1")
                assert crasher.end(crasher.start("beat", {})) == "done"
                assert made(database) == times
    with redis.Redis.from_url(settings.redis_url) as client:
        assert client.llen("celery") >= 1
