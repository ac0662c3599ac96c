"""A scheduler for Celery's beat that keeps its schedule's times in the database.

``celery -A app beat --scheduler livejobs.beat:Scheduler``, or `beat_scheduler` in the app's
configuration. The schedule itself is Celery's own: the app's `beat_schedule`. What is kept is when
each entry ran last, so that a beat that was away makes up for what it missed, and any number of
beats may run beside each other: a run of an entry is one job, whichever of them sends it.
"""

from __future__ import annotations

import logging
from collections.abc import Generator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from celery import Celery
from celery import beat as celery_beat
from celery.schedules import crontab, schedule
from celery.utils.time import maybe_make_aware
from sqlalchemy import Table, delete, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.sql.base import Executable

from .database import get_database
from .errors import LivejobsError
from .models import SCHEMA_TOKEN, ScheduleRow
from .statements import Batch, Rows
from .task import JobTask

SYNC_SECONDS: Final = 60
"""How often the times are compared with those in the database."""

entries: Final[Table] = ScheduleRow.metadata.tables[f"{SCHEMA_TOKEN}.livejobs_schedule"]
Steps = Generator[Executable | Batch, Rows, Any]
_log = logging.getLogger("livejobs.beat")


class Scheduler(celery_beat.Scheduler):  # type: ignore[misc]
    """Celery's scheduler, with its times in the database."""

    sync_every = SYNC_SECONDS

    def __init__(self, app: Celery, *args: Any, **kwargs: Any) -> None:
        # When the database says that each ran last, as far as this process knows.
        self._ran: dict[str, datetime] = {}
        super().__init__(app, *args, **kwargs)

    def setup_schedule(self) -> None:
        """Take the app's schedule, with the times of the database."""
        super().setup_schedule()
        self.sync()

    def sync(self) -> None:
        """Compare the times with those of the database, where other beats write too."""
        found = self._run(_keep(self.app.main or "", self.schedule))
        for name, ran in (found or {}).items():
            self._ran[name] = self.schedule[name].last_run_at = ran
        self._heap = None

    def apply_entry(self, entry: Any, producer: Any = None) -> None:
        """Send a task that is due, unless another beat has done so."""
        before = self._ran.get(entry.name, entry.last_run_at)
        ran = self.schedule[entry.name].last_run_at
        task = self.app.tasks.get(entry.task)
        if not (isinstance(task, JobTask) and task.is_tracked):
            if self._note(entry, before, ran):
                super().apply_entry(entry, producer)
            return
        # The same run by another beat, or by this one after a crash, is the same job.
        key = f"beat:{self.app.main}:{entry.name}:{before.astimezone(UTC).isoformat()}"
        entry.options = {"owner": "", "idempotency_key": key, **entry.options}
        super().apply_entry(entry, producer)
        self._note(entry, before, ran)

    def _note(self, entry: Any, before: datetime, ran: datetime) -> bool:
        """Write down that an entry ran; False: another beat did, at the same time.

        While the database is away nobody knows, and each beat sends what it takes for due.
        """
        rows = self._run(_ran(self.app.main or "", entry.name, before, ran, _next(entry, ran)))
        if rows is not None and not rows:
            self.sync()
            return False
        self._ran[entry.name] = self.schedule[entry.name].last_run_at = ran
        return True

    def _run(self, program: Steps) -> Any:
        try:
            return get_database().run(program)
        except LivejobsError as error:
            _log.warning("the times of the schedule cannot be kept now: %s", error)
            return None


def described(when: Any) -> str:
    """A schedule in words: ``every 300 s``, or the five fields of a crontab."""
    if isinstance(when, crontab):
        fields = ("minute", "hour", "day_of_month", "month_of_year", "day_of_week")
        return " ".join(str(getattr(when, f"_orig_{field}")) for field in fields)
    if type(when) is schedule:
        return f"every {when.run_every.total_seconds():g} s"
    return str(when)


def _next(entry: Any, ran: datetime) -> datetime:
    is_due, seconds = entry.schedule.is_due(ran)
    now: datetime = maybe_make_aware(entry.default_now())
    return now if is_due else now + timedelta(seconds=seconds)


def _keep(app: str, schedule_: dict[str, Any]) -> Steps:
    """Make the database have these entries of an app, and no others; answers when each ran last."""
    yield delete(entries).where(entries.c.app == app, entries.c.name.not_in(list(schedule_)))
    found = yield select(entries.c.name, entries.c.last_run_at).where(entries.c.app == app)
    ran = {row.name: row.last_run_at for row in found}
    for name, entry in schedule_.items():
        last = ran.setdefault(name, entry.last_run_at)
        shown = {
            "task": entry.task,
            "schedule": described(entry.schedule),
            "next_run_at": _next(entry, last),
        }
        added = insert(entries).values(app=app, name=name, last_run_at=last, **shown)
        yield added.on_conflict_do_update(index_elements=["app", "name"], set_=shown)
    return ran


def _ran(app: str, name: str, before: datetime, ran: datetime, following: datetime) -> Steps:
    """An entry ran; no row comes back where its last run is another one than was known."""
    return (
        yield update(entries)
        .where(
            entries.c.app == app,
            entries.c.name == name,
            entries.c.last_run_at == before,
        )
        .values(last_run_at=ran, next_run_at=following)
        .returning(entries.c.name)
    )
