"""Beat with its times in the database: runs that were missed, and beats beside each other."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
import redis
from celery import Celery, beat
from celery.schedules import crontab
from sqlalchemy import select, update

from livejobs import JobTask
from livejobs.beat import Scheduler, described, entries
from livejobs.database import Database
from livejobs.settings import Settings
from livejobs.statements import jobs
from tests.support.servers import free_port

HOUR = dt.timedelta(hours=1)
FAR = dt.datetime.now(dt.UTC) + 12 * HOUR
"""A time of day that does not come, and has not just been, while the tests run."""


@pytest.fixture
def app(settings: Settings) -> Celery:
    """An app with something to do every hour, as a job and as a plain task."""
    app = Celery("scheduled", broker=settings.redis_url)

    @app.task(name="tracked", base=JobTask, shared=False)
    def tracked() -> None: ...

    @app.task(name="plain", shared=False)
    def plain() -> None: ...

    app.conf.beat_schedule = {
        "tracked": {"task": "tracked", "schedule": 3600.0, "options": {"tags": {"by": "beat"}}},
        "plain": {"task": "plain", "schedule": 3600.0},
        "unknown": {"task": "of.another.app", "schedule": crontab(hour=FAR.hour, minute=0)},
    }
    return app


def scheduler(app: Celery) -> Any:
    """A beat that has just started."""
    return Scheduler(app=app)


def run(*schedulers: Any) -> None:
    """Let each do what is due now."""
    for each in schedulers:
        while each.tick() == 0:
            pass


def stored(database: Database) -> dict[str, Any]:
    with database.begin() as connection:
        return {row.name: row for row in connection.execute(select(entries))}


def let_pass(database: Database, *names: str, by: dt.timedelta = 2 * HOUR) -> None:
    """Entries ran longer ago than they did."""
    for name, row in stored(database).items():
        if name in names:
            with database.begin() as connection:
                earlier = update(entries).where(entries.c.name == name)
                connection.execute(earlier.values(last_run_at=row.last_run_at - by))


def made(database: Database) -> list[Any]:
    with database.begin() as connection:
        return list(connection.execute(select(jobs)))


def sent(settings: Settings) -> int:
    """Messages in the broker."""
    with redis.Redis.from_url(settings.redis_url) as client:
        length: int = client.llen("celery")
        return length


def test_entries_are_listed_with_their_times(app: Celery, database: Database) -> None:
    run(scheduler(app))
    rows = stored(database)
    assert {name: (row.task, row.schedule) for name, row in rows.items()} == {
        "tracked": ("tracked", "every 3600 s"),
        "plain": ("plain", "every 3600 s"),
        "unknown": ("of.another.app", f"0 {FAR.hour} * * *"),
    }
    due = rows["tracked"].next_run_at - rows["tracked"].last_run_at
    assert abs(due - HOUR) < dt.timedelta(seconds=5)
    then = rows["unknown"].next_run_at + dt.timedelta(seconds=30)
    assert (then.hour, then.minute) == (FAR.hour, 0)
    assert made(database) == []


def test_entry_that_is_gone_from_the_schedule_is_not_listed(
    app: Celery, database: Database
) -> None:
    scheduler(app)
    del app.conf.beat_schedule["plain"]
    scheduler(app)
    assert set(stored(database)) == {"tracked", "unknown"}


def test_run_that_was_missed_is_made_up_for_once(
    app: Celery, database: Database, settings: Settings
) -> None:
    scheduler(app)
    let_pass(database, "tracked")
    late = scheduler(app)
    run(late)
    [row] = made(database)
    assert (row.task, row.owner, row.tags) == ("tracked", "", {"by": "beat"})
    assert sent(settings) == 1
    run(late)
    run(scheduler(app))
    assert len(made(database)) == 1


@pytest.mark.parametrize("name", ["tracked", "plain"])
def test_two_beats_at_once_send_it_once(
    app: Celery, database: Database, settings: Settings, name: str
) -> None:
    scheduler(app)
    let_pass(database, name)
    beats = [scheduler(app), scheduler(app)]
    run(*beats)
    assert sent(settings) == 1
    run(*beats)
    assert sent(settings) == 1
    let_pass(database, name)
    for each in beats:
        each.sync()
    run(*reversed(beats))
    assert sent(settings) == 2


def test_beat_that_died_before_it_noted_a_run_does_not_repeat_it(
    app: Celery, database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler(app)
    let_pass(database, "tracked")
    dying = scheduler(app)

    def die(*_: object) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(dying, "_note", die)
    with pytest.raises(KeyboardInterrupt):
        run(dying)
    run(scheduler(app))
    assert len(made(database)) == 1
    assert sent(settings) == 1


def test_beat_goes_on_without_the_database(
    app: Celery, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    from livejobs.settings import configure

    port = free_port()
    configure(**settings.model_dump() | {"database_url": f"postgresql://127.0.0.1:{port}/none"})
    lonely = scheduler(app)
    for entry in lonely.schedule.values():
        entry.last_run_at -= 2 * HOUR
    lonely._heap = None  # noqa: SLF001
    run(lonely)
    # The rest is written when its worker claims it.
    assert sent(settings) == 2
    assert "the times of the schedule cannot be kept now" in caplog.text


@pytest.mark.parametrize(
    ("when", "words"),
    [
        (dt.timedelta(minutes=5), "every 300 s"),
        (0.5, "every 0.5 s"),
        (crontab(minute="*/5", day_of_week="mon-fri"), "*/5 * * * mon-fri"),
    ],
)
def test_schedules_are_described(app: Celery, when: Any, words: str) -> None:
    entry = beat.ScheduleEntry(name="x", task="x", schedule=when, app=app)
    assert described(entry.schedule) == words
