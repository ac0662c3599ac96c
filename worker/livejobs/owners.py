"""Whose job it is that is being enqueued."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar

from celery import Celery

from .running import current
from .settings import configured_owner
from .views import storable_text

request_owner: ContextVar[Callable[[], str | None] | None] = ContextVar(
    "livejobs_request_owner", default=None
)
"""Tells whose request is being served; the server's `mount` sets it."""


def resolve_owner(explicit: str | None, app: Celery | None = None) -> str:
    """Whose job is being enqueued; empty where nobody's.

    Asked in turn: the caller, `configure(owner_of=…)`, the running job (its children are its
    owner's), the request that is being served.
    """
    if explicit is not None:
        return storable_text(explicit)
    owner = configured_owner()
    if owner is None and app is not None:
        # Also while Celery sends the next step of a chain, after the task's own code has ended.
        task = app.current_worker_task
        owner = getattr(task.request, "livejobs_owner", None) if task is not None else None
    if owner is None and (running := current.get()) is not None:
        owner = running.owner
    if owner is None and (ask := request_owner.get()) is not None:
        owner = ask()
    return storable_text(owner or "")
