"""JobTask, the Celery base class that makes every execution of a task a visible job."""

from __future__ import annotations

import contextlib
import functools
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import replace
from typing import Any, ClassVar, Literal

from celery import Celery, Task, current_app
from celery.backends.base import DisabledBackend
from celery.canvas import _chain, chord
from celery.result import AsyncResult
from celery.utils import uuid as celery_uuid

from . import attempts
from .claims import insist, new_claim
from .database import get_database
from .errors import JobCancelled, JobLost
from .execution import Execution, leaves_backend_alone
from .interception import interceptor, not_eager
from .messages import pop_delay
from .moulds import Mould
from .owners import resolve_owner
from .recording import JobOptions, RecordingProducer, clean_tags, record_many
from .reporter import get_reporter
from .results import error_of, storable_result
from .running import RunningJob, current, find_running
from .spawning import Spawning
from .statements import Program
from .transitions import NO_MESSAGE, NewJob

WORKER_STEP = "livejobs.bootstep:WorkerStep"
"""Loaded by Celery when a worker starts; other processes do not need it."""

_eager_options: ContextVar[JobOptions | None] = ContextVar("livejobs_eager", default=None)


class JobTask(Task):
    """Base class for tasks that are shown live.

    Use it for all tasks of an app, ``Celery(…, task_cls=JobTask)``, or for one,
    ``@app.task(base=JobTask)``. Then `delay`, `apply_async` and `send_task` create a job record
    under the task's id, and `update_state`, `retry`, the result and the error are shown live.

    Attributes:
        tracked: False: this task leaves no record. Celery's built-in tasks never do.
        on_lost: "retry": an execution whose worker disappeared may be repeated; "fail": not; by
            default it is as the task's `acks_late` says.
    """

    abstract = True
    Request = "livejobs.request:JobRequest"
    tracked: ClassVar[bool] = True
    on_lost: ClassVar[Literal["retry", "fail"] | None] = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """A subclass's own `__call__` runs inside of the job, whether or not it calls this one."""
        super().__init_subclass__(**kwargs)
        own = cls.__dict__.get("__call__")
        if own is not None:
            cls.__call__ = _as_execution(own)  # type: ignore[method-assign]

    @classmethod
    def on_bound(cls, app: Celery) -> None:
        """Prepare the app: its workers run a keeper."""
        super().on_bound(app)
        app.steps["worker"].add(WORKER_STEP)

    @property
    def is_tracked(self) -> bool:
        """Whether executions of this task are jobs."""
        return self.tracked and not self.name.startswith("celery.")

    def job_options(self) -> JobOptions:
        """What the row of a job of this task says about running it again."""
        again = bool(self.acks_late) if self.on_lost is None else self.on_lost == "retry"
        return JobOptions(
            max_attempts=None if self.max_retries is None else self.max_retries + 1,
            rerun_when_lost=again,
        )

    def apply_async(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        task_id: str | None = None,
        producer: Any = None,
        *,
        owner: str | None = None,
        tags: Mapping[str, str] | None = None,
        parent: str | None = None,
        idempotency_key: str | None = None,
        webhook_url: str | None = None,
        **options: Any,
    ) -> AsyncResult:
        """Create the job's record and send the task.

        Args:
            owner: Whose job it is; by default see `livejobs.owners.resolve_owner`.
            tags: Text to text, to find the job by.
            parent: Id of the job whose child it is to be; a task makes its own children by
                `RunningJob.spawn`, which makes none twice.
            idempotency_key: A second call with it returns the result object of the first.
            webhook_url: To be told of its end; None: its owner's default; empty: nobody.
            **options: As for `celery.Task.apply_async`.

        Raises:
            IdempotencyConflict: The key came before with other arguments.
            DatabaseUnavailable: Neither the database nor the broker took it within a second each.
            WebhookError: No webhook can go to that URL, or none can be signed.
        """
        job = replace(
            self.job_options(),
            owner=owner,
            tags=tags,
            parent_id=parent,
            idempotency_key=idempotency_key,
            webhook_url=webhook_url,
        )
        if interceptor() is not None:
            return self._hand_over(job, args, kwargs, task_id, options)
        if not self.is_tracked:
            return super().apply_async(args, kwargs, task_id, producer, **options)
        if self.app.conf.task_always_eager:
            with eagerly(job):
                return super().apply_async(args, kwargs, task_id, producer, **options)
        delay = pop_delay(options)
        with RecordingProducer(self.app, job, producer, delay=delay) as recording:
            result = super().apply_async(args, kwargs, task_id, recording, **options)
        if recording.row is not None and recording.row.id != result.id:
            return self.AsyncResult(recording.row.id)
        return result

    def apply_many(
        self,
        calls: Iterable[Sequence[Any]],
        *,
        owner: str | None = None,
        tags: Mapping[str, str] | None = None,
        **options: Any,
    ) -> list[AsyncResult]:
        """`apply_async` for many jobs, which are written and sent some hundreds at a time.

        Args:
            calls: The positional arguments of each job.
            owner: As for `apply_async`, and so are `tags` and all options.

        Raises:
            DatabaseUnavailable: The database is away; the jobs that were written before go on.
        """
        alone = interceptor() is not None or self.app.conf.task_always_eager
        if alone or not self.is_tracked:
            given = options | {"owner": owner, "tags": tags}
            return [self.apply_async(args, **given) for args in calls]
        job = replace(self.job_options(), owner=owner, tags=tags)
        delay, news, results = pop_delay(options), [], []
        calls = iter(calls)
        for args in calls:
            with RecordingProducer(self.app, job, delay=delay, only_record=True) as recording:
                first = super().apply_async(args, None, None, recording, **options)
                results.append(first)
                if recording.new is None:
                    continue
                news.append(recording.new)
                if (mould := self._mould(recording)) is not None:
                    trail = options.get("add_to_parent", True)
                    cast = self._cast(calls, mould, recording, first.ignored, trail)
                    for new, result in cast:
                        news.append(new)
                        results.append(result)
        record_many(self.app, news)
        return results

    def _mould(self, recording: RecordingProducer) -> Mould | None:
        """Makes further jobs like the one recorded, where this class lets it."""
        cls = type(self)
        looks_at_each = cls.shadow_name is not Task.shadow_name or self.__v2_compat__
        if looks_at_each or self._dump_pydantic_arguments is not None:
            return None
        return recording.mould()

    def _cast(
        self,
        calls: Iterable[Sequence[Any]],
        mould: Mould,
        recording: RecordingProducer,
        ignored: bool | None,
        in_trail: bool,
    ) -> Iterator[tuple[NewJob, AsyncResult]]:
        """What `apply_async` does for each call, without building its message anew."""
        parent = self.app.current_worker_task if in_trail else None
        check = getattr(self, "__header__", None) if self.typing else None
        for args in calls:
            if check is not None:
                check(*(args or ()))
            new = mould.cast(celery_uuid(), args)
            if not ignored:
                self.app.backend.on_task_call(recording, new.id)
            result = self.AsyncResult(new.id)
            result.ignored = ignored
            if parent:
                parent.add_trail(result)
            yield new, result

    def _hand_over(
        self,
        job: JobOptions,
        args: Sequence[Any] | None,
        kwargs: Mapping[str, Any] | None,
        task_id: str | None,
        options: dict[str, Any],
    ) -> AsyncResult:
        """Give the job to the test that takes what is enqueued; no result backend is asked."""
        options["ignore_result"] = True
        recording = RecordingProducer(self.app, job, delay=pop_delay(options))
        with not_eager(self.app), recording:
            result = super().apply_async(args, kwargs, task_id, recording, **options)
        job_id = result.id if recording.new is None else recording.new.id
        return AsyncResult(job_id, backend=DisabledBackend(self.app), app=self.app)

    def apply_inline(
        self, job: JobOptions, args: Sequence[Any], kwargs: Mapping[str, Any], job_id: str
    ) -> None:
        """Run the task here and now, as a job that is described already."""
        with eagerly(job):
            super().apply_async(tuple(args), dict(kwargs), job_id)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the task; in a worker, or eagerly, as an execution of its job."""
        if not self._begins_execution():
            return super().__call__(*args, **kwargs)
        return self._execute(None, args, kwargs)

    def _begins_execution(self) -> bool:
        """Whether a call is Celery's, of a job that does not run here yet."""
        request = self.request
        return self.is_tracked and not request.called_directly and find_running(request.id) is None

    def _execute(
        self, body: Callable[..., Any] | None, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        options = _eager_options.get() or self.job_options()
        with eagerly(None):
            return Execution(self, self.request, options).run(args, kwargs, body)

    def replace(self, sig: Any) -> Any:
        """As in Celery; the job goes on as the last of the tasks that take this one's place."""
        job = find_running(self.request.id)
        if job is not None and isinstance(sig, _chain | chord):
            # Before they are sent: the last of them may be, before this one has ended.
            if not _finish(job, lambda: attempts.hand_over(job.id, job.attempt, job.reported())):
                raise JobLost(job.id)
            job.replaced = True
        return super().replace(sig)

    def update_state(
        self,
        task_id: str | None = None,
        state: str | None = None,
        meta: Any = None,
        **kwargs: Any,
    ) -> None:
        """Show the state live, and hand it to the result backend as ever.

        Of `meta`, ``current``, ``total``, ``message`` and ``stage`` are progress and everything
        else is its data. A state other than PROGRESS is the stage, unless `meta` names one.
        """
        job = find_running(task_id or self.request.id or "")
        if job is not None:
            job.celery_state = (state, meta)
            _show_state(job, state, meta)
            if leaves_backend_alone(self):
                return
        super().update_state(task_id, state, meta, **kwargs)


def _as_execution(own: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(own)
    def __call__(self: JobTask, *args: Any, **kwargs: Any) -> Any:
        if not self._begins_execution():
            return own(self, *args, **kwargs)
        return self._execute(functools.partial(own, self), args, kwargs)

    return __call__


def _show_state(job: RunningJob, state: str | None, meta: Any) -> None:
    fields = dict(meta) if isinstance(meta, Mapping) else {}
    if meta is not None and not isinstance(meta, Mapping):
        fields["message"] = meta
    known = {name: fields.pop(name, None) for name in ("current", "total", "message", "stage")}
    if known["message"] is None and isinstance(fields.get("status"), str):
        known["message"] = fields.pop("status")  # as Celery's own examples call it
    if known["stage"] is None and state not in (None, "PROGRESS", "STARTED"):
        known["stage"] = str(state).lower()
    data = {str(name): value for name, value in fields.items()}
    job.report(known["current"], known["total"], known["message"], known["stage"], data)


@contextlib.contextmanager
def eagerly(options: JobOptions | None) -> Iterator[None]:
    """What the next job that runs inline is created with; its own children start without."""
    token = _eager_options.set(options)
    try:
        yield
    finally:
        _eager_options.reset(token)


_plain_send_task = Celery.send_task


@functools.wraps(_plain_send_task)
def _send_task(
    app: Celery,
    name: str,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    *positional: Any,
    task_type: Task | None = None,
    **options: Any,
) -> Any:
    """`Celery.send_task` that records jobs of the tasks this process knows.

    It stands in for the method of all apps, since nothing runs when an app is made with
    ``task_cls=JobTask``, and its first act may be a `send_task`.
    """
    task = None
    if task_type is None and not positional and (app.finalized or app.autofinalize):
        task = app.tasks.get(name)
    if isinstance(task, JobTask) and task.is_tracked and "result_cls" not in options:
        return task.apply_async(args, kwargs, **options)
    return _plain_send_task(app, name, args, kwargs, *positional, task_type=task_type, **options)


Celery.send_task = _send_task


def current_job() -> RunningJob:
    """The job whose code is running here.

    Outside of a job, in a test or a script that calls the task's function, it is one that nobody
    watches: what is reported to it goes nowhere.
    """
    return current.get() or RunningJob("", 0, "")


@contextlib.contextmanager
def track(
    name: str, *, owner: str | None = None, tags: Mapping[str, str] | None = None
) -> Iterator[RunningJob]:
    """Show a block of code as a job: ``with livejobs.track("import") as job:``.

    The block's exception fails the job, `JobCancelled` ends it as cancelled; both go on to the
    caller. Set ``job.result`` for a result.

    Args:
        name: Shown as the job's task.
        owner: Whose job it is; by default see `livejobs.owners.resolve_owner`.
        tags: Text to text, to find the job by.

    Raises:
        DatabaseUnavailable: The job's record cannot be written.
    """
    database, reporter = get_database(), get_reporter()
    worker = new_claim()
    new = NewJob(
        id=str(uuid.uuid4()),
        task=name,
        queue="",
        message=NO_MESSAGE,
        owner=resolve_owner(owner),
        tags=clean_tags(tags),
        max_attempts=1,
    )
    row = database.run(attempts.adopt(new, worker, database.settings.lease_seconds))
    assert row is not None, "a new id cannot exist"
    job = RunningJob(
        row.id,
        row.attempt,
        worker,
        owner=row.owner,
        keep=database.settings.entries_max,
        cancel_at_report=database.settings.cancel_at_report,
        version=row.version,
    )
    job.family = Spawning(current_app, job, database, reporter.counting)
    reporter.attach(job)
    reporter.tell(row)
    job.outer = current.get()
    token = current.set(job)
    try:
        yield job
        if job.then is not None:
            raise TypeError("A block of code cannot go on after its children: use a task.")
        result = storable_result(job.result, database.settings)
    except BaseException as error:
        failure = error
        _finish(job, lambda: _ending(job, failure))
        raise
    else:
        _finish(job, lambda: attempts.complete(job.id, job.attempt, result, job.reported()))
    finally:
        current.reset(token)


def _ending(job: RunningJob, error: BaseException) -> Program:
    if isinstance(error, JobCancelled):
        return attempts.cancelled(job.id, job.attempt, job.reported())
    return attempts.fail(job.id, job.attempt, error_of(error), job.reported())


def _finish(job: RunningJob, end: Callable[[], Program]) -> bool:
    """Commit an end and tell of it; False: the job is no longer this execution's."""
    reporter = get_reporter()
    reporter.detach(job, holding=True)
    job.take(everything=True)
    try:
        row = insist(get_database(), end, job.id, job.worker)
    finally:
        reporter.detach(job)
    if row is not None:
        reporter.tell(row, job)
    return row is not None
