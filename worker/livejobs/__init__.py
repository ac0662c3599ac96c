"""livejobs: every background job, live.

The names below are what a Celery app needs. They are loaded when first used, so that importing one
light module of this package does not load Celery and SQLAlchemy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for type checkers, which do not follow the names loaded below
    from .database import SyncSession, migrate
    from .dispatch import enqueue, enqueue_many
    from .emails import send_email
    from .errors import (
        JobCancelled,
        JobFailed,
        JobLost,
        JobWasCancelled,
        LivejobsError,
        UnknownJob,
    )
    from .metering import record_usage, record_usage_async
    from .running import RunningJob
    from .settings import Settings, configure, get_settings
    from .task import JobTask, current_job, track
    from .views import JobView, Status
    from .watching import wait, watch

__version__ = "0.1.0"

__all__ = [
    "JobCancelled",
    "JobFailed",
    "JobLost",
    "JobTask",
    "JobView",
    "JobWasCancelled",
    "LivejobsError",
    "RunningJob",
    "Settings",
    "Status",
    "SyncSession",
    "UnknownJob",
    "configure",
    "current_job",
    "enqueue",
    "enqueue_many",
    "get_settings",
    "migrate",
    "record_usage",
    "record_usage_async",
    "send_email",
    "track",
    "wait",
    "watch",
]

_MODULES = {
    "database": ("SyncSession", "migrate"),
    "dispatch": ("enqueue", "enqueue_many"),
    "emails": ("send_email",),
    "errors": (
        "JobCancelled",
        "JobFailed",
        "JobLost",
        "JobWasCancelled",
        "LivejobsError",
        "UnknownJob",
    ),
    "metering": ("record_usage", "record_usage_async"),
    "running": ("RunningJob",),
    "settings": ("Settings", "configure", "get_settings"),
    "task": ("JobTask", "current_job", "track"),
    "views": ("JobView", "Status"),
    "watching": ("wait", "watch"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value
