"""Tasks run inline, with their records in memory."""

from __future__ import annotations

import contextlib
import functools
import sqlite3
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from celery import Celery
from celery._state import _get_active_apps

from ..database import get_database, migrate
from ..interception import interceptor
from ..live import Outcome, Publication
from ..reporter import publishing_to
from ..running import current
from ..settings import Settings, forced
from ..task import JobTask, eagerly
from ..transitions import cancel as cancel_job
from ..views import JobView, ServerMessage
from .recorder import Entry, Recorder, lines_of, output_of


@contextlib.contextmanager
def eager(app: Celery | None = None) -> Iterator[Recorder]:
    """Run the tasks of `app` inline, with records in memory and no Redis, broker or worker.

    An exception of a task is raised where it was called, as `task_eager_propagates` says.

    Args:
        app: The app; None: all apps that there are now.
    """
    recorder = Recorder()
    apps = list(_get_active_apps()) if app is None else [app]
    with _records_in_memory(recorder), contextlib.ExitStack() as inline:
        for each in apps:
            inline.enter_context(_inline(each))
        yield recorder


@dataclass(frozen=True, slots=True)
class Run:
    """What became of a task that was run by `run`: ``view, entries = run(task)``.

    Attributes:
        view: The view that a viewer ends with.
        entries: Its log and output, of all attempts, in order.
        exception: What the task raised in the end; None: nothing, or it was cancelled.
        recorder: All messages, also about the jobs that the task started.
    """

    view: JobView
    entries: list[Entry]
    exception: BaseException | None
    recorder: Recorder

    def __iter__(self) -> Iterator[Any]:
        yield self.view
        yield self.entries

    @property
    def messages(self) -> list[ServerMessage]:
        """All messages about the job."""
        return self.recorder.of(self.view.job_id)

    @property
    def lines(self) -> list[str]:
        """The text of its log lines."""
        return lines_of(self.entries)

    def output(self, stream: str | None = None) -> str:
        """What it put out."""
        return output_of(self.entries, stream)


def run(
    task: Any,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    owner: str | None = None,
    tags: Mapping[str, str] | None = None,
    cancel: bool = False,
) -> Run:
    """Run a task as a job, to its end, with its record in memory.

    Retries follow at once. Tasks that it starts are run inline too, or, within `enqueued`, kept
    there. What the task raises is not raised here: the view says how it failed.

    Args:
        owner: Whose job it is; by default found out as when it is enqueued.
        tags: Text to text.
        cancel: Ask for the job to be cancelled as soon as it runs.

    Raises:
        TypeError: The task is no `JobTask`, or is not tracked, so there is no job.
    """
    if not isinstance(task, JobTask) or not task.is_tracked:
        raise TypeError(f"{getattr(task, 'name', task)!r} is no tracked JobTask: it makes no job.")
    job_id = str(uuid.uuid4())
    recorder = _Cancelling(job_id) if cancel else Recorder()
    options = replace(task.job_options(), owner=owner, tags=tags)
    with _records_in_memory(recorder), _inline(task.app), eagerly(options):
        result = task.apply(tuple(args), dict(kwargs or {}), task_id=job_id, throw=False)
    failed = isinstance(result.result, BaseException) and result.failed()
    exception = result.result if failed else None
    return Run(recorder.view(job_id), recorder.entries(job_id), exception, recorder)


class _Cancelling(Recorder):
    """Asks for the job to be cancelled once its execution has begun."""

    def __init__(self, job_id: str) -> None:
        super().__init__()
        self._job_id: str | None = job_id

    def publish(self, publication: Publication) -> Outcome:
        running = current.get()
        if running is not None and running.id == self._job_id:
            self._job_id = None
            get_database().run(cancel_job(running.id))
            running.cancel_requested = True
        return super().publish(publication)


@contextlib.contextmanager
def _inline(app: Celery) -> Iterator[None]:
    """Run the tasks of `app` inline, except where a test takes what is enqueued."""
    before = app.conf.task_always_eager
    app.conf.task_always_eager = interceptor() is None
    try:
        yield
    finally:
        app.conf.task_always_eager = before


@contextlib.contextmanager
def _records_in_memory(recorder: Recorder) -> Iterator[None]:
    name = f"file:/livejobs-{uuid.uuid4().hex}?vfs=memdb"
    with (
        tempfile.TemporaryDirectory(prefix="livejobs-") as folder,
        contextlib.closing(sqlite3.connect(name, uri=True)) as kept,  # it lives as long as this
        forced(database_url=_url(name), data_dir=Path(folder)),
        publishing_to(recorder),
    ):
        _template().backup(kept)
        try:
            yield
        finally:
            get_database().close()


@functools.cache
def _template() -> sqlite3.Connection:
    """A database in memory that has the tables; made once, since that takes longest."""
    name = f"file:/livejobs-{uuid.uuid4().hex}?vfs=memdb"
    connection = sqlite3.connect(name, uri=True, check_same_thread=False)
    migrate(Settings(database_url=_url(name)))
    return connection


def _url(name: str) -> str:
    return f"sqlite:///{name}&uri=true"
