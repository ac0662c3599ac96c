"""What livejobs does in the main process of a Celery worker, beside Celery's own work."""

from __future__ import annotations

import functools
import logging
from typing import Any

from celery import bootsteps
from celery.concurrency.prefork import TaskPool as PreforkPool
from celery.signals import task_unknown, worker_process_init
from celery.worker import state as worker_state

# Celery finds the commands once the module has been loaded.
from . import commands as commands
from . import oversight, stacks
from .database import get_database
from .errors import LivejobsError
from .guard import Guard
from .keeper import Keeper
from .live import Live
from .messages import HEADER
from .patience import call_soon
from .settings import get_settings

_log = logging.getLogger("livejobs.worker")


class WorkerStep(bootsteps.StartStopStep):
    """Runs a keeper and a guard in the main process of a Celery worker."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **kwargs: Any) -> None:
        super().__init__(worker, **kwargs)
        self._keeper: Keeper | None = None
        self._guard: Guard | None = None
        # Before the pool forks its processes.
        stacks.open_folder()
        worker_process_init.connect(_prepare_process)
        task_unknown.connect(_note_unknown)

    def start(self, worker: Any) -> None:
        """Begin, once the pool has forked its processes."""
        settings = get_settings()
        self._keeper = Keeper(settings, worker.app, "worker")
        self._keeper.start()
        if isinstance(worker.pool, PreforkPool):
            self._guard = Guard(settings.lease_seconds, _active)

    def stop(self, worker: Any) -> None:
        """End with the worker. The guard goes on: tasks have time to come to their ends."""
        if self._keeper is not None:
            self._keeper.stop()
            self._keeper = None
        stacks.close_folder()

    def terminate(self, worker: Any) -> None:
        """End at once."""
        if self._guard is not None:
            self._guard.stop()
            self._guard = None
        self.stop(worker)


def _active() -> dict[str, int]:
    """The ids of the tasks that run in the pool, each with its process."""
    active = list(worker_state.active_requests)
    return {request.id: request.worker_pid for request in active if request.worker_pid}


def _prepare_process(**_: Any) -> None:
    stacks.be_ready()


def _note_unknown(id: str, message: Any, **_: Any) -> None:
    """A message came whose task this worker does not know: another may, or nobody does."""
    header = (message.headers or {}).get(HEADER)
    if isinstance(header, dict) and header.get("row"):
        call_soon(functools.partial(_meet_unknown, id, header.get("attempt", 0)), "database")


def _meet_unknown(job_id: str, attempt: int) -> None:
    try:
        row = get_database().run(oversight.meet_unknown(job_id, attempt))
    except LivejobsError as error:
        _log.warning("job %s is of an unknown task: %s", job_id, error)
        return
    if row is not None:
        live = Live(get_settings())
        live.publish_view(row)
        live.close()
