"""The commands of `control` as a worker's main process carries them out."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from celery.concurrency.prefork import TaskPool as PreforkPool
from celery.worker import state as worker_state
from celery.worker.control import control_command, inspect_command

from . import stacks
from .claims import claims_of
from .control import END, STACK
from .reporter import get_reporter
from .request import JobRequest

_log = logging.getLogger("livejobs.worker")


@control_command(name=END, visible=False)
def end_jobs(state: Any, claims: Mapping[str, str], over: bool = False, **_: Any) -> None:
    """End the processes of jobs that go on after their cancel, or after their time."""
    for job_id, claim in claims.items():
        pool = state.consumer.pool
        if any(request.end(pool, claim, over=over) for request in _running(job_id)):
            _log.warning(
                "job %s did not stop in time, and its process was ended",
                job_id,
                extra={"job_id": job_id},
            )


@inspect_command(name=STACK, visible=False)
def show_stack(state: Any, job_id: str, claim: str, **_: Any) -> dict[str, Any] | None:
    """Where the code of a job stands that runs here; None: it does not."""
    if isinstance(state.consumer.pool, PreforkPool):
        for request in _running(job_id):
            pid = request.worker_pid
            if request.time_start and claim.startswith(claims_of(pid)):
                return {"pid": pid, "stack": stacks.of_process(pid)}
        return None
    for job in get_reporter().leases.held():
        if job.worker == claim:
            return {"pid": int(claim.split(":")[1]), "stack": stacks.of_thread(job.thread)}
    return None


def _running(job_id: str) -> list[JobRequest]:
    """The requests of a job that this worker runs.

    Celery's table by id will not do: when the request of an earlier attempt is over, it takes that
    of the present one out.
    """
    return [
        request
        for request in list(worker_state.active_requests)
        if isinstance(request, JobRequest) and request.id == job_id
    ]
