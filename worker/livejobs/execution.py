"""One execution of a job in a worker: the claim, the task's own code, the end.

Each end is committed before anyone is told of it. While the database is away the execution keeps
trying, for as long as the fence lets it.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from celery import Signature, Task
from celery.app.task import get_actual_ignore_result
from celery.exceptions import (
    Ignore,
    Reject,
    Retry,
    WorkerShutdown,
    WorkerTerminate,
)
from celery.states import FAILURE, REVOKED

from . import attempts, reads, transitions
from .claims import insist, new_claim, own_row
from .counting import count_children
from .database import Database, get_database
from .errors import JobCancelled, JobInterrupted
from .messages import HEADER, header_of, message_of, send
from .recording import JobOptions, build, clean_tags
from .reporter import Reporter, get_reporter
from .results import ResultNotStorable, declared_message, error_of, storable_result
from .running import RunningJob, current
from .spawning import Spawning
from .statements import JobRow, Program
from .traces import running
from .transitions import NewJob
from .views import Status, storable_text

EAGER_PATIENCE_SECONDS = 10.0

_log = logging.getLogger("livejobs.task")


class Execution:
    """Runs one task request as an execution of its job.

    Args:
        task: The bound task.
        request: Celery's request of this execution.
        options: What the row needs, where this execution creates it.
    """

    def __init__(self, task: Task, request: Any, options: JobOptions) -> None:
        self._task = task
        self._request = request
        self._options = options
        self._database: Database = get_database()
        self._reporter: Reporter = get_reporter()
        self._worker = new_claim()

    def run(
        self,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        body: Callable[..., Any] | None = None,
    ) -> Any:
        """Claim the job, run the task's code, commit the end and tell of it.

        Args:
            body: Runs the task's code, where its class has a `__call__` of its own.

        Raises:
            Ignore: The job is not to be run here: it runs elsewhere, is over or was deleted.
            Exception: Whatever the task raised, after the job's end has been committed.
        """
        row = self._begin(args, kwargs)
        if row.status == Status.COMPLETED:
            return row.result
        self._body = body or self._task.run
        self._request.livejobs_owner = row.owner
        job = RunningJob(
            row.id,
            row.attempt,
            self._worker,
            owner=row.owner,
            parent_id=row.parent_id,
            keep=self._database.settings.entries_max,
            cancel_at_report=self._database.settings.cancel_at_report,
            version=row.version,
        )
        job.family = Spawning(self._task.app, job, self._database, self._reporter.counting)
        job.next_ordinal = row.children_from
        job.outer = current.get()
        token = current.set(job)
        headers = {**(self._request.headers or {}), **vars(self._request)}
        try:
            with running(row.task, row.id, row.attempt, row.queue, headers):
                return self._run(job, row, args, kwargs)
        finally:
            current.reset(token)
            self._reporter.detach(job)

    def _run(
        self, job: RunningJob, row: JobRow, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        try:
            self._reporter.attach(job)
            self._reporter.tell(row)
            result = self._body(*args, **kwargs)
            then = self._then(job)
            plain = self._storable(result) if then is None else None
        except Retry as again:
            error = again.exc if isinstance(again.exc, BaseException) else None
            _require(self._retry(job, error))
            raise
        except Ignore:
            self._ignored(job)
            raise
        except Reject as reject:
            _require(self._reject(job, reject))
            raise
        except JobInterrupted as interrupt:
            self._interrupted(job, interrupt)
        except Exception as error:
            _require(self._failed(job, error))
            raise
        except BaseException as error:
            if _is_stopping(error):
                self._change(job, lambda: attempts.release(job.id, job.attempt))
            else:
                self._failed(job, error)
            raise
        if then is not None:
            self._wait(job, then)
        _require(self._end(job, plain))
        return result

    # -- the claim -------------------------------------------------------------------------------

    def _begin(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> JobRow:
        row = self._begin_eagerly(args, kwargs) if self._request.is_eager else self._claim()
        if row is None:
            row = self._over(self._database.read(reads.job(self._request.id)))
        return row

    def _over(self, row: JobRow | None) -> JobRow:
        """What becomes of a message whose job is not to be run here.

        Where the worker died between the job's end and what Celery does after it (the next step
        of a chain, the callbacks), the broker delivers the message again: then that is done now.

        Raises:
            Ignore: There is nothing to do.
        """
        request, header = self._request, self._header() or {}
        if row is not None and row.status == Status.COMPLETED:
            last = header.get("attempt", row.attempt) + 1 == row.attempt
            again = (request.delivery_info or {}).get("redelivered")
            if last and again and (request.chain or request.callbacks or request.chord):
                return row
        if row is not None and row.status == Status.CANCELLED:
            self._revoke_result()
        _log.info("job %s is not run here: it runs elsewhere, is over, or was deleted", request.id)
        raise Ignore("not this message's job any more")

    def _revoke_result(self) -> None:
        """So that whoever waits for Celery's own result is not left waiting."""
        if leaves_backend_alone(self._task):
            return
        self._task.backend.mark_as_revoked(self._request.id, "cancelled", request=self._request)

    def _claim(self) -> JobRow | None:
        header = self._header()
        attempt = header.get("attempt") if header else None
        row = self._insist(lambda: self._claim_program(attempt))
        if row is not None or (header and header.get("row")):
            return row
        return self._insist(lambda: self._adopt(self._new_job(header or {})))

    def _header(self) -> dict[str, Any] | None:
        header = self._request.get(HEADER)
        if header is None:
            header = (self._request.headers or {}).get(HEADER)
        return header if isinstance(header, dict) else None

    def _claim_program(self, attempt: int | None) -> Program:
        return attempts.claim(
            self._request.id,
            attempt,
            self._worker,
            self._lease,
            max_attempts=self._options.max_attempts,
            rerun_when_lost=self._options.rerun_when_lost,
        )

    def _adopt(self, new: NewJob) -> Program:
        return attempts.adopt(new, self._worker, self._lease)

    @property
    def _lease(self) -> float:
        return self._database.settings.lease_seconds

    def _new_job(self, header: Mapping[str, Any]) -> NewJob:
        """The row of a message whose sender could not, or did not know to, write it."""
        built = self._built(self._request.args, self._request.kwargs)
        return NewJob(
            id=self._request.id,
            task=self._task.name,
            queue=(self._request.delivery_info or {}).get("routing_key") or built.queue,
            message=built.message,
            owner=storable_text(str(header.get("owner") or "")),
            tags=clean_tags(header.get("tags")),
            parent_id=header.get("parent_id"),
            idempotency_key=header.get("idempotency_key"),
            idempotency_hash=header.get("idempotency_hash"),
            webhook_url=header.get("webhook_url"),
            max_attempts=self._options.max_attempts,
            rerun_when_lost=self._options.rerun_when_lost,
        )

    def _built(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> NewJob:
        """The message as Celery would send it again: links, chain and all."""
        options = self._request.as_execution_options()
        headers = dict(options.pop("headers", None) or {})
        headers.pop(HEADER, None)
        delivery = self._request.delivery_info or {}
        if not delivery.get("exchange") and delivery.get("routing_key"):
            options["queue"] = delivery["routing_key"]  # sent to the queue of that name
        else:
            options |= {key: delivery.get(key) for key in ("exchange", "routing_key")}
        options |= {"headers": headers or None, "priority": delivery.get("priority")}
        return build(self._task.app, self._task.name, args, dict(kwargs), self._options, options)

    def _begin_eagerly(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> JobRow | None:
        """Without a broker: the row is created here, and claimed, as it would be elsewhere."""
        if self._request.retries == 0:
            new = self._built(args, kwargs)
            if self._insist(lambda: transitions.create(new)) is None:
                self._insist(lambda: transitions.take_over(new))
        return self._insist(lambda: self._claim_program(None))

    # -- the ends --------------------------------------------------------------------------------

    def _storable(self, result: Any) -> Any:
        """The result as the row keeps it; None where another place has it.

        Raises:
            ResultNotStorable: It cannot be kept, and the job's row is the only place for it.
        """
        try:
            return storable_result(result, self._database.settings)
        except ResultNotStorable as problem:
            if not self._has_own_results() and not get_actual_ignore_result(
                self._task, self._request
            ):
                raise
            _log.info("job %s: %s", self._request.id, problem)
            return None

    def _has_own_results(self) -> bool:
        return type(self._task.backend).__name__ != "DisabledBackend"

    def _end(self, job: RunningJob, result: Any) -> JobRow | None:
        if job.next_message is not None:
            return self._retry(job, None)
        return self._change(
            job,
            lambda: attempts.complete(job.id, job.attempt, result, job.reported(), job.along),
        )

    def _then(self, job: RunningJob) -> NewJob | None:
        """What goes on under the job's id after its children, built as the task's own message.

        Callbacks, the rest of a chain and the like are handed on to it.
        """
        if job.then is None or job.next_message is not None:
            return None
        options = self._request.as_execution_options()
        for own in ("retries", "expires", "time_limit", "soft_time_limit", "shadow"):
            options.pop(own, None)
        headers = dict(options.pop("headers", None) or {})
        headers.pop(HEADER, None)
        signature = self._signature(job.then)
        options |= {"headers": headers or None, **signature.options, "task_id": job.id}
        describe = getattr(self._task.app.tasks.get(signature.task), "job_options", JobOptions)
        token = current.set(None)  # so that it is not taken for a retry of the running job
        try:
            return build(
                self._task.app,
                signature.task,
                signature.args,
                dict(signature.kwargs),
                replace(describe(), owner=job.owner, parent_id=job.parent_id),
                options,
            )
        finally:
            current.reset(token)

    def _signature(self, then: Any) -> Signature:
        """`on_children_done` as a signature of one task."""
        if isinstance(then, Task):
            then = then.s()
        signature = self._task.app.signature(then)
        if type(signature) is not Signature:
            raise TypeError("on_children_done takes a task, or a signature of one task.")
        return signature

    def _wait(self, job: RunningJob, then: NewJob) -> None:
        """Let go of the worker until the children are over; go on at once where they are.

        Raises:
            Ignore: This execution is over, and its job is not.
            Retry: Inline: Celery is to go on with what follows.
        """
        row = self._change(
            job,
            lambda: attempts.wait(
                job.id, job.attempt, then, job.next_ordinal, reported=job.reported()
            ),
        )
        _require(row)
        if row is not None and row.status == Status.PENDING:
            if self._request.is_eager:
                raise Retry(sig=self._signature(job.then).set(task_id=job.id))
            send(self._task.app, message_of(row), header_of(row))
        raise Ignore("it goes on after its children")

    def _ignored(self, job: RunningJob) -> None:
        """The task raised `Ignore`: what it said of itself before counts."""
        state, meta = job.celery_state
        if job.replaced:
            return  # it was handed over before the others were sent
        if job.next_message is None and state == FAILURE:
            shown = {"type": "TaskFailed", "message": declared_message(meta)}
            self._change(job, lambda: attempts.fail(job.id, job.attempt, shown, job.reported()))
        elif job.next_message is None and state == REVOKED:
            self._change(job, lambda: attempts.cancelled(job.id, job.attempt, job.reported()))
        else:
            self._end(job, None)

    def _failed(self, job: RunningJob, error: BaseException) -> JobRow | None:
        if job.next_message is not None:
            return self._retry(job, error)
        shown = error_of(error)
        return self._change(
            job,
            lambda: attempts.fail(job.id, job.attempt, shown, job.reported()),
        )

    def _interrupted(self, job: RunningJob, interrupt: JobInterrupted) -> None:
        if isinstance(interrupt, JobCancelled):
            self._change(
                job,
                lambda: attempts.cancelled(job.id, job.attempt, job.reported()),
            )
            self._revoke_result()
        else:
            # Where it was not lost after all, the row still says that it runs here.
            self._failed(job, interrupt)
        raise Ignore(type(interrupt).__name__) from interrupt

    def _reject(self, job: RunningJob, reject: Reject) -> JobRow | None:
        if reject.requeue:
            return self._change(job, lambda: attempts.release(job.id, job.attempt))
        return self._failed(job, reject)

    def _retry(self, job: RunningJob, error: BaseException | None) -> JobRow | None:
        """The next execution: later by a keeper, at once by this process."""
        message, delay, task = job.next_message or (None, 0.0, None)
        if message is None and not self._request.is_eager:
            return self._failed(job, error or Retry("a Retry was raised without self.retry()"))
        shown = None if error is None else error_of(error)
        row = self._change(
            job,
            lambda: attempts.retry(
                job.id,
                job.attempt,
                delay=delay,
                error=shown,
                message=message,
                task=task,
                reported=job.reported(),
            ),
        )
        if row is not None and row.status == Status.CANCELLED:
            self._revoke_result()
        if message is not None and row and row.status == Status.PENDING and not row.run_at:
            send(self._task.app, message_of(row), header_of(row))
        return row

    def _change(self, job: RunningJob, program: Callable[[], Program]) -> JobRow | None:
        """Commit an end, then tell of it; None: the job is no longer this execution's."""
        self._reporter.detach(job, holding=True)
        job.take(everything=True)
        try:
            row = self._insist(program)
        except Exception as error:
            _log.exception("the end of job %s could not be recorded", job.id)
            row = self._refused(job, error)
        if row is None:
            _log.warning(
                "job %s has gone on without this worker; what it did here is not recorded",
                job.id,
                extra={"job_id": job.id},
            )
        else:
            self._tell(row, job)
        return row

    def _tell(self, row: JobRow, job: RunningJob) -> None:
        """Tell of a committed change, and of what it changed in the job's parent."""
        self._reporter.tell(row, job)
        if row.parent_id is not None and Status(row.status).is_final:
            self._count(row.parent_id, at_once=row.at_once is not None)

    def _count(self, parent_id: str, *, at_once: bool) -> None:
        """Have children counted: soon, or inline at once, where tests look at it afterwards."""
        app = self._task.app
        if self._request.is_eager:
            count_children(self._database, parent_id, app, self._reporter.tell)
        else:
            self._reporter.counting.note(parent_id, app, at_once=at_once)

    def _refused(self, job: RunningJob, error: Exception) -> JobRow | None:
        """An end that the database refused, or that was broken off, must not leave the job running.

        Raises:
            Exception: The error, so that Celery too takes the task for failed.
        """
        row = own_row(self._database.read(reads.job(job.id)), self._worker)
        if row is not None and row.status != Status.PROCESSING:
            return row  # it had been committed
        shown = error_of(error)
        row = self._insist(lambda: attempts.fail(job.id, job.attempt, shown))
        if row is not None:
            self._tell(row, job)
        raise error

    def _insist(self, program: Callable[[], Program]) -> JobRow | None:
        # Inline, the lock that it waits for may be its own caller's.
        most = EAGER_PATIENCE_SECONDS if self._request.is_eager else None
        return insist(self._database, program, self._request.id, self._worker, most)


def leaves_backend_alone(task: Task) -> bool:
    """Whether the task runs inline, of which Celery keeps no result in the backend."""
    return bool(task.request.is_eager) and not task.app.conf.task_store_eager_result


def _require(row: JobRow | None) -> None:
    """See that an end was committed; else Celery is to do nothing about it either.

    Raises:
        Ignore: The job has gone on without this worker, or a cancel was asked for: no result, no
            callback and no next step of a chain is to come from here.
    """
    if row is None:
        raise Ignore("the job has gone on without this worker")
    if row.status == Status.CANCELLED:
        raise Ignore("the job was cancelled")


def _is_stopping(error: BaseException) -> bool:
    """Whether the worker is being stopped, and not the task's own code ends it."""
    if isinstance(error, WorkerShutdown | WorkerTerminate | KeyboardInterrupt):
        return True
    # A prefork child that is told to stop by a signal raises it as minus its exit status.
    code = error.code if isinstance(error, SystemExit) else None
    return isinstance(code, int) and -256 < code <= -(256 - signal.NSIG)
