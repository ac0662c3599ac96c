"""How a running job's children are made: rows first, many in one transaction, then their messages.

A child's id follows from its parent's and its ordinal. So a parent that is run again, or whose
COMMIT was answered by nobody, makes the same children, and those that are there are left alone.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from celery import Celery, Task

from . import attempts, children, reads
from .claims import persist
from .counting import Counting
from .database import Database
from .errors import JobLost
from .family import Call, Child, Counts
from .interception import interceptor
from .moulds import Mould
from .recording import JobOptions, build_first, send_many
from .running import RunningJob
from .statements import OVER, TOTAL
from .transitions import NewJob

CHUNK = 500
"""Children made in one transaction."""
CHUNK_CHARACTERS = 4_000_000
"""… or fewer, if their arguments are this long together."""
CHUNK_SECONDS = 1.0
"""… or if it took this long to get the arguments of those before."""
PAGE = 100
"""Children read at a time; the result of each may have a megabyte."""
_CHILDREN: Final = uuid.UUID("5d1ab3a6-52a7-4b8e-a9b4-94cc5b9f2c4e")


def child_id(parent_id: str, ordinal: int) -> str:
    """The id of a job's child."""
    return str(uuid.uuid5(_CHILDREN, f"{parent_id}:{ordinal}"))


class Spawning:
    """Makes and reads the children of a running job; a `family.Family`.

    Args:
        app: Sends children of which only the name of the task is given.
        job: The parent.
        database: Where jobs are.
        counting: Has the parent's counts shown.
    """

    def __init__(
        self, app: Celery, job: RunningJob, database: Database, counting: Counting
    ) -> None:
        self._app = app
        self._job = job
        self._database = database
        self._counting = counting

    def spawn(
        self, task: Any, calls: Iterable[Call], first: int, options: Mapping[str, Any]
    ) -> Iterator[str]:
        """Make children with ordinals from `first` on; yields the id of each that is there.

        Raises:
            JobLost: The job has been given to another worker.
            JobCancelled: Somebody asked for the job to be cancelled.
            MessageError: The arguments cannot be serialized.
        """
        app = task.app if isinstance(task, Task) else self._app
        name = task.name if isinstance(task, Task) else str(task)
        news = self._news(app, name, calls, first, options)
        take = interceptor()
        if take is not None:
            yield from (take(new).id for new in news)
        elif app.conf.task_always_eager and name in app.tasks:
            for ordinal, call in enumerate(calls, start=first):
                yield self._run_inline(app.tasks[name], call, ordinal, options)
        else:
            for chunk in _chunks(news):
                self._make(app, chunk)
                yield from (new.id for new in chunk)

    def children(self, first: int = 0) -> Iterator[Child]:
        """The children from ordinal `first` on, in the order of their ordinals."""
        last: tuple[int | None, str] | None = (first - 1, "")
        while True:
            page = self._database.read(children.page(self._job.id, last, PAGE))
            for row in page:
                yield Child(row.ordinal, row.id, row.task, row.status, row.result, row.error)
            if len(page) < PAGE:
                return
            last = page[-1].ordinal, page[-1].id

    def counts(self) -> Counts:
        """How many there are, as the job's row says."""
        row = self._database.read(reads.job(self._job.id))
        if row is None:
            raise JobLost(self._job.id)
        numbers = {kind: getattr(row, f"children_{kind}") for kind in (TOTAL, *OVER)}
        return Counts(**numbers, sums=row.children_sums or {})

    def _news(
        self, app: Celery, name: str, calls: Iterable[Call], first: int, options: Mapping[str, Any]
    ) -> Iterator[NewJob]:
        mould = None
        for ordinal, call in enumerate(calls, start=first):
            if mould is None:
                new, mould = self._first(app, name, call, ordinal, options)
            else:
                job_id = child_id(self._job.id, ordinal)
                new = mould.cast(job_id, call.args, dict(call.kwargs), ordinal)
            yield replace(new, at_once=options.get("at_once"))

    def _first(
        self, app: Celery, name: str, call: Call, ordinal: int, options: Mapping[str, Any]
    ) -> tuple[NewJob, Mould | None]:
        celery_options = {
            "task_id": child_id(self._job.id, ordinal),
            "eta": options.get("run_at"),
            "expires": options.get("expires_in"),
            "queue": options.get("queue"),
            "priority": options.get("priority"),
        }
        described = self._options(app.tasks.get(name), ordinal, options)
        return build_first(app, name, call.args, dict(call.kwargs), described, celery_options)

    def _options(self, task: Any, ordinal: int, options: Mapping[str, Any]) -> JobOptions:
        describe = getattr(task, "job_options", None)
        return (JobOptions() if describe is None else describe()).of_child(
            self._job.id, ordinal, self._job.owner, options.get("tags")
        )

    def _run_inline(self, task: Any, call: Call, ordinal: int, options: Mapping[str, Any]) -> str:
        described = self._options(task, ordinal, options)
        job_id = child_id(self._job.id, ordinal)
        task.apply_inline(described, call.args, call.kwargs, job_id)
        return job_id

    def _make(self, app: Celery, news: list[NewJob]) -> None:
        job = self._job
        job.check()
        made = persist(
            lambda _: self._database.run(attempts.spawn(job.id, job.attempt, news)), job.id
        )
        if made is None:
            job.lost = True
            raise JobLost(job.id)
        # Those that wait for places are sent by whoever gives them one.
        self._counting.note(job.id, app, at_once=any(new.at_once for new in news))
        send_many(app, [new for new in news if new.id in made and new.at_once is None])


def _chunks(news: Iterable[NewJob]) -> Iterator[list[NewJob]]:
    """As many as go together into one transaction; of those that come slowly, fewer."""
    chunk: list[NewJob] = []
    size, began = 0, time.monotonic()
    for new in news:
        chunk.append(new)
        size += len(new.message["body"])
        slow = time.monotonic() - began > CHUNK_SECONDS
        if len(chunk) == CHUNK or size > CHUNK_CHARACTERS or slow:
            yield chunk
            chunk, size, began = [], 0, time.monotonic()
    if chunk:
        yield chunk
