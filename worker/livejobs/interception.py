"""Where tests take the jobs that are enqueued, in place of the database and the broker."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from celery import Celery

from .new_jobs import NewJob

Take = Callable[[NewJob], NewJob]
"""Gets a job that is being enqueued; returns it, or the earlier job of its idempotency key."""


class _Current:
    def __init__(self) -> None:
        self.take: Take | None = None


_current = _Current()


def interceptor() -> Take | None:
    """What takes the jobs of this process now; None: they go their way."""
    return _current.take


@contextlib.contextmanager
def intercepted(take: Take) -> Iterator[None]:
    """Give `take` what any thread of this process enqueues meanwhile."""
    before, _current.take = _current.take, take
    try:
        yield
    finally:
        _current.take = before


@contextlib.contextmanager
def not_eager(app: Celery) -> Iterator[None]:
    """Let Celery build messages, also where the app runs tasks inline."""
    before = app.conf.task_always_eager
    app.conf.task_always_eager = False
    try:
        yield
    finally:
        app.conf.task_always_eager = before
