"""A worker with little patience, and jobs that run on it."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from pathlib import Path

import redis

from livejobs import settings as livejobs_settings
from livejobs import transitions
from livejobs.database import Database, get_database
from livejobs.reporter import stop_reporter
from livejobs.settings import Settings, configure
from livejobs.views import JobView

from .rows import shown
from .waiting import wait_until
from .worker import celery_worker

IMPATIENT = {
    "LIVEJOBS_LEASE_SECONDS": "3",
    "LIVEJOBS_CANCEL_GRACE": "1",
    "LIVEJOBS_QUIET_AFTER": "1",
    "LIVEJOBS_SAVE_INTERVAL": "0.5",
}
"""The environment of such a worker."""


def impatient_worker(database_url: str, redis_url: str, folder: Path) -> Iterator[Settings]:
    """Run a worker of two processes; yields the settings, for which livejobs is configured."""
    with redis.Redis.from_url(redis_url) as client:
        client.flushdb()
    os.environ.setdefault("REDIS_URL", redis_url)
    importlib.import_module("tests.support.jobs_app")  # reads it, and configures livejobs by it
    settings = configure(database_url=database_url, redis_url=redis_url, data_dir=folder / "data")
    with celery_worker(settings, folder / "worker.log", env=IMPATIENT):
        yield settings
    stop_reporter()
    get_database().close()
    livejobs_settings.reset()


def runs(database: Database, job_id: str) -> None:
    """Wait until the job runs."""
    wait_until(lambda: shown(database, job_id).status == "processing", description="it runs")


def ended(database: Database, job_id: str) -> JobView:
    """The job, once it is over."""
    wait_until(lambda: shown(database, job_id).status.is_final, description="it ends", seconds=30)
    return shown(database, job_id)


def cancel(database: Database, job_id: str) -> None:
    """Cancel the job, once it runs."""
    runs(database, job_id)
    assert database.run(transitions.cancel(job_id)) is not None
