"""What Celery sends when a task's own code is over: the next step of a chain, callbacks, errbacks.

Celery tries that once. Where it fails, the message of the task is acknowledged all the same, and
the rest of the chain would be gone, though its first job was accepted.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from celery import Celery

from .errors import DatabaseUnavailable
from .running import current

T = TypeVar("T")

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.2, 5.0

_log = logging.getLogger("livejobs.dispatch")


def until_taken(app: Celery, send: Callable[[], T]) -> T:
    """Send something; after a job's end again and again, until somebody takes it.

    If the worker is killed meanwhile, its broker delivers the task's message once more, and then
    what follows is sent.

    Raises:
        DatabaseUnavailable: Neither the database nor the broker took it, and a caller waits who
            can be told.
    """
    pause = FIRST_PAUSE_SECONDS
    while True:
        try:
            return send()
        except DatabaseUnavailable as error:
            if not _is_after_a_job(app):
                raise
            _log.warning("what follows a job is tried again: %s", error)
        time.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE_SECONDS)


def _is_after_a_job(app: Celery) -> bool:
    """Whether a worker is at a job, the task's own code of which is over."""
    task = app.current_worker_task
    if task is None or task.request.is_eager or current.get() is not None:
        return False
    return bool(getattr(task, "is_tracked", False))
