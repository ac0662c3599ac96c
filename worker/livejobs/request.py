"""What Celery's main process learns of an execution and its child cannot: hard limits, revokes.

Celery names the request class by `Task.Request`; this one ends the job where Celery ends the task.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import signal
import time
from collections.abc import Callable
from typing import Any

from billiard.einfo import ExceptionWithTraceback
from billiard.exceptions import Terminated, TimeLimitExceeded, WorkerLostError
from celery.concurrency.prefork import TaskPool as PreforkPool
from celery.exceptions import Ignore, Reject, Retry
from celery.worker.request import Request
from celery.worker.state import task_ready

from . import attempts, oversight, reads, transitions
from .claims import claims_of
from .database import get_database
from .errors import DatabaseUnavailable
from .live import Live
from .messages import HEADER
from .patience import call_soon
from .results import error_of
from .settings import get_settings
from .statements import JobRow, Program
from .views import Status

_log = logging.getLogger("livejobs.task")

_NO_FAILURES = (
    *(Retry, Ignore, Reject, SystemExit, KeyboardInterrupt),
    *(WorkerLostError, Terminated, TimeLimitExceeded),
)
"""What ends a request without saying that its task failed, or is dealt with elsewhere."""
KILL_SECONDS = 5.0
"""A process that was asked to end has so long to clean up."""
TIME_LIMIT_ERROR = {
    "type": "TimeLimitExceeded",
    "message": "It ran longer than it may.",
    "code": "time_limit",
}


class JobRequest(Request):
    """A task request whose end outside of the task's own code ends the job too."""

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """The hard limit: the job fails before the child is ended, which then releases nothing."""
        if not soft:
            self._settle(self._fail)
        super().on_timeout(soft, timeout)

    def on_failure(self, exc_info: Any, *args: Any, **kwargs: Any) -> Any:
        """A task that failed before its job was claimed, such as in `before_start`, failed.

        One whose process ended under it is lost at once, not only when its lease has run out. If it
        may be run again, it has not failed for Celery either.
        """
        error = exc_info.exception
        if isinstance(error, ExceptionWithTraceback):
            error = error.exc
        if isinstance(error, WorkerLostError):
            row = self._settle(self._lose)
            if row is not None and row.status == Status.PENDING:
                task_ready(self)
                return self.acknowledge()
        answer = super().on_failure(exc_info, *args, **kwargs)
        if not isinstance(error, _NO_FAILURES):
            self._settle(lambda row: self._fail_unclaimed(row, error))
        return answer

    def terminate(self, pool: Any, signal: Any = None) -> None:
        """The job is cancelled before its process is ended, which then releases nothing."""
        if self.time_start:
            self._settle(self._cancel)
        super().terminate(pool, signal)

    def _announce_revoked(
        self, reason: str, terminated: bool, signum: str | None, expired: bool
    ) -> None:
        """Celery's revoke, or a message that is too old."""
        self._settle(self._expire if expired else self._cancel)
        super()._announce_revoked(reason, terminated, signum, expired)

    def end(self, pool: Any, claim: str, *, over: bool) -> bool:
        """End the process of a job that goes on after its cancel, or that ran for too long.

        Args:
            pool: The worker's pool.
            claim: The execution that is meant.
            over: The job has failed already; else this cancels it.

        Returns:
            Whether it was ended here; pools of threads and greenlets cannot do it.
        """
        pid = self.worker_pid
        mine = self.time_start and claim.startswith(claims_of(pid))
        if not mine or not isinstance(pool, PreforkPool):
            return False
        if over:
            super().on_timeout(False, get_settings().max_runtime)
            self._already_revoked = True  # so that the end of the process says nothing more
            pool.terminate_job(pid, signal.SIGTERM)
        elif self._settle(self._cancel):
            self.terminate(pool)
        else:
            return False
        call_soon(functools.partial(_see_it_end, pool, pid), "end")
        return True

    def _settle(self, end: Callable[[JobRow], JobRow | None]) -> JobRow | None:
        """End the job as its message's execution ended, if it is not over and nobody else's.

        Returns:
            The job's row if this changed it.
        """
        if not getattr(self.task, "is_tracked", False):
            return None
        try:
            row = get_database().read(reads.job(self.id))
            if row is None or Status(row.status).is_final or not self._is_of(row):
                return None
            changed = end(row)
            if changed is not None:
                live = Live(get_database().settings)
                live.publish_view(changed)
                live.close()
        except DatabaseUnavailable as error:
            _log.warning("the end of job %s could not be recorded: %s", self.id, error)
            return None
        return changed

    def _is_of(self, row: JobRow) -> bool:
        """Whether the row stands where this request's message left it, or one execution on."""
        header = self.request_dict.get(HEADER)
        attempt = header.get("attempt") if isinstance(header, dict) else None
        running = row.status == Status.PROCESSING
        return attempt is None or row.attempt == attempt + (1 if running else 0)

    def _fail(self, row: JobRow) -> JobRow | None:
        if row.status != Status.PROCESSING:
            return None
        return self._run(attempts.fail(row.id, row.attempt, TIME_LIMIT_ERROR))

    def _fail_unclaimed(self, row: JobRow, error: BaseException) -> JobRow | None:
        if row.status != Status.PENDING:
            return None
        return self._run(attempts.fail_unclaimed(row.id, row.attempt, error_of(error)))

    def _lose(self, row: JobRow) -> JobRow | None:
        return self._run(oversight.lose(row.id, attempt=row.attempt))

    def _expire(self, row: JobRow) -> JobRow | None:
        return self._run(transitions.expire(row.id))

    def _cancel(self, row: JobRow) -> JobRow | None:
        if row.status == Status.PENDING:
            return self._run(transitions.cancel(row.id))
        return self._run(attempts.cancelled(row.id, row.attempt))

    def _run(self, program: Program) -> JobRow | None:
        return get_database().run(program)


def _see_it_end(pool: PreforkPool, pid: int) -> None:
    """Kill a process of the pool that does not end although it was asked to."""
    deadline = time.monotonic() + KILL_SECONDS
    while pid in pool.info["processes"]:
        if time.monotonic() > deadline:
            _log.warning("process %d of the pool did not end by itself and is killed", pid)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            return
        time.sleep(0.1)
