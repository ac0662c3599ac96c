"""Removes what has had its time: expired credentials, old jobs, and files that nobody needs.

Everything goes in batches, each a transaction of its own, so that no lock is held for long and a
run that is broken off has done what it did. It does not matter how many run at a time.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, Table, and_, delete, func, select, tuple_
from sqlalchemy.sql.base import Executable

from .database import Database
from .documents import documents
from .drafts import drafts
from .live import Live
from .mails import job_is_gone, mails, remove_mail_files
from .models import SCHEMA_TOKEN, Answer, SessionRow, Ticket, db_now
from .running import RunningJob
from .settings import Settings
from .statements import OVER, Batch, JobRow, Rows, forget, jobs, picked, tallies
from .uploads import leave_uploads, remove_files, upload_folder, uploads
from .views import Status

BATCH: Final = 200
"""Rows in one transaction."""
DAY: Final = 86_400.0
ANSWERS_SECONDS: Final = DAY
"""So long a request with an Idempotency-Key is remembered."""
DRAFT_SECONDS: Final = DAY
"""A job that is over may still be run again, and go on with what it has read of its document."""
UPLOAD_SECONDS: Final = DAY
"""An upload that nobody uses may still be wanted for so long: its request may be under way."""

Steps = Generator[Executable | Batch, Rows, Any]
Counts = dict[str, int]

_sessions: Final[Table] = SessionRow.metadata.tables[f"{SCHEMA_TOKEN}.livejobs_sessions"]
_tickets: Final[Table] = Ticket.metadata.tables[f"{SCHEMA_TOKEN}.livejobs_tickets"]
_answers: Final[Table] = Answer.metadata.tables[f"{SCHEMA_TOKEN}.livejobs_answers"]
_parents = jobs.alias("parents")


class Cleanup:
    """One run.

    Args:
        database: Where the rows are.
        live: Redis, where jobs leave keys, and where viewers are told of what is gone.
        settings: How long what is kept.
        dry_run: Only count.
    """

    def __init__(
        self, database: Database, live: Live, settings: Settings, *, dry_run: bool = False
    ) -> None:
        self._database = database
        self._live = live
        self._settings = settings
        self._dry_run = dry_run

    def run(self, job: RunningJob) -> Counts:
        """Remove all of it; how many of each kind were removed, or would be.

        Raises:
            DatabaseUnavailable: The database is away; what is left is for the next run.
        """
        kinds: dict[str, Callable[[], int]] = {
            "sessions": lambda: self._expired(_sessions, _sessions.c.expires_at < db_now()),
            "tickets": lambda: self._expired(_tickets, _tickets.c.expires_at < db_now()),
            "answers": lambda: self._expired(
                _answers, _answers.c.created_at < db_now(-ANSWERS_SECONDS)
            ),
            **{f"{status}_jobs": functools.partial(self._old_jobs, status) for status in OVER},
            "drafts": lambda: self._expired(drafts, _is_old_draft()),
            "mails": self._old_mails,
            "unused_uploads": self._unused_uploads,
            "uploads_without_file": self._uploads_without_file,
            "files_without_upload": self._files_without_upload,
        }
        counts: Counts = {}
        for kind, remove in job.track(kinds.items(), total=len(kinds)):
            counts[kind] = remove()
            if counts[kind]:
                verb = "to be removed" if self._dry_run else "removed"
                job.log(f"{counts[kind]} {kind.replace('_', ' ')} {verb}")
        return counts

    # -- rows -----------------------------------------------------------------------------------

    def _expired(self, table: Table, condition: ColumnElement[bool]) -> int:
        if self._dry_run:
            return self._count(table, condition)
        return sum(len(rows) for rows in self._batches(lambda: delete_some(table, condition)))

    def _old_jobs(self, status: Status) -> int:
        days = getattr(self._settings, f"keep_{status}_days")
        if not days:
            return 0
        old = _is_old(status, days)
        if self._dry_run:
            return self._count(jobs, old)
        removed = 0
        for rows, names in self._batches(lambda: remove_jobs(old)):
            forget_jobs(rows, names, self._live, self._settings)
            removed += len(rows)
        return removed

    def _old_mails(self) -> int:
        """What is known of mails goes with their jobs."""
        old = job_is_gone(DAY)
        if self._dry_run:
            return self._count(mails, old)
        return remove_mails(self._database, old, self._settings)

    # -- files ----------------------------------------------------------------------------------

    def _unused_uploads(self) -> int:
        if self._dry_run:
            return self._count(uploads, _is_unused())
        removed = 0
        for rows in self._batches(lambda: delete_some(uploads, _is_unused())):
            remove_files([row.name for row in rows], self._settings)
            removed += len(rows)
        return removed

    def _uploads_without_file(self) -> int:
        """Rows whose file somebody has deleted."""
        removed, after = 0, ""
        while names := self._database.read(_names_after(after)):
            after = names[-1]
            gone = [name for name in names if not (upload_folder(self._settings) / name).exists()]
            removed += len(gone)
            if gone and not self._dry_run:
                self._database.run(_steps(delete(uploads).where(uploads.c.name.in_(gone))))
        return removed

    def _files_without_upload(self) -> int:
        """Files whose request died before its transaction, and those of jobs that are gone."""
        removed = 0
        for paths in _some_at_a_time(_old_files(upload_folder(self._settings))):
            known = self._database.read(_known([path.name for path in paths]))
            strays = [path for path in paths if path.name not in known]
            removed += len(strays)
            if not self._dry_run:
                for path in strays:
                    path.unlink(missing_ok=True)
        return removed

    # -- batches --------------------------------------------------------------------------------

    def _batches(self, program: Callable[[], Steps]) -> Iterator[Any]:
        return in_batches(self._database, program)

    def _count(self, table: Table, condition: ColumnElement[bool]) -> int:
        rows = self._database.read(_steps(select(func.count()).select_from(table).where(condition)))
        return int(rows[0][0])


def in_batches(database: Database, program: Callable[[], Steps]) -> Iterator[Any]:
    """What a program answers, run again and again until it finds nothing more."""
    while True:
        answer = database.run(program())
        if not (answer[0] if isinstance(answer, tuple) else answer):
            return
        yield answer


def remove_jobs(condition: ColumnElement[bool]) -> Steps:
    """A program that deletes some jobs, with their timeline and entries.

    Returns:
        Rows of id, status, owner and parent_id, and the names of uploads whose files are to
        go: for `forget_jobs`, after the commit.
    """
    # A row that is locked is being changed at this moment; it is left for the next run.
    some = select(jobs.c.id).where(condition).limit(BATCH).with_for_update(skip_locked=True)
    rows = yield (
        delete(jobs)
        .where(jobs.c.id.in_(picked(some)))
        .returning(jobs.c.id, jobs.c.status, jobs.c.owner, jobs.c.parent_id)
    )
    if not rows:
        return rows, []
    yield from forget(rows)
    ids = [row.id for row in rows]
    yield delete(tallies).where(tallies.c.parent_id.in_(ids))
    return rows, (yield from leave_uploads(ids))


def forget_jobs(
    rows: Sequence[JobRow], names: Sequence[str], live: Live, settings: Settings
) -> None:
    """After the rows of jobs are gone: what Redis has of them, and their files."""
    live.forget_all(rows)
    remove_files(names, settings)


def remove_mails(database: Database, condition: ColumnElement[bool], settings: Settings) -> int:
    """Delete what is known of some mails, and their files; returns how many there were.

    The files go first: whoever comes after a run that was broken off finds them by their rows.
    """
    key, removed = (mails.c.job_id, mails.c.ordinal), 0
    while rows := database.read(_steps(select(*key).where(condition).limit(BATCH))):
        remove_mail_files(rows, settings)
        these = tuple_(*key).in_([(row.job_id, row.ordinal) for row in rows])
        removed += len(database.run(delete_some(mails, and_(condition, these))))
    return removed


def delete_some(table: Table, condition: ColumnElement[bool]) -> Steps:
    """A program that deletes some rows; it returns their keys."""
    key = table.primary_key.columns
    some = select(*key).where(condition).limit(BATCH).with_for_update(skip_locked=True)
    return (yield delete(table).where(_in(key, picked(some))).returning(*key))


def _in(key: Any, rows: Select[Any]) -> ColumnElement[bool]:
    return (tuple_(*key) if len(key) > 1 else key[0]).in_(rows)


def _is_old(status: Status, days: float) -> ColumnElement[bool]:
    """Jobs past retention; children stay as long as their parent needs their results."""
    open_parent = select(_parents.c.id).where(
        _parents.c.id == jobs.c.parent_id, _parents.c.completed_at.is_(None)
    )
    return and_(
        jobs.c.status == status,
        jobs.c.completed_at < db_now(-days * DAY),
        ~open_parent.exists(),
    )


def _is_old_draft() -> ColumnElement[bool]:
    """What was read of documents whose jobs have failed or were cancelled."""
    over = select(jobs.c.id).where(jobs.c.id == drafts.c.job_id, jobs.c.status.in_(OVER))
    return and_(drafts.c.updated_at < db_now(-DRAFT_SECONDS), over.exists())


def _is_unused() -> ColumnElement[bool]:
    """Uploads that no document is made of and no job needs, be it to be run again."""
    return and_(
        uploads.c.created_at < db_now(-UPLOAD_SECONDS),
        ~select(jobs.c.id).where(jobs.c.id == uploads.c.job_id).exists(),
        ~select(documents.c.id).where(documents.c.upload == uploads.c.name).exists(),
    )


def _names_after(name: str) -> Steps:
    rows = yield (
        select(uploads.c.name)
        .where(uploads.c.name > name, uploads.c.created_at < db_now(-UPLOAD_SECONDS))
        .order_by(uploads.c.name)
        .limit(BATCH)
    )
    return [row.name for row in rows]


def _known(names: list[str]) -> Steps:
    rows = yield select(uploads.c.name).where(uploads.c.name.in_(names))
    return {row.name for row in rows}


def _steps(statement: Executable) -> Steps:
    return (yield statement)


def _old_files(folder: Path) -> Iterator[Path]:
    oldest = time.time() - UPLOAD_SECONDS
    for path in folder.glob("*"):
        with contextlib.suppress(OSError):
            if path.is_file() and path.stat().st_mtime < oldest:
                yield path


def _some_at_a_time(paths: Iterator[Path]) -> Iterator[list[Path]]:
    while some := list(islice(paths, BATCH)):
        yield some
