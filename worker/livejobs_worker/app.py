"""The Celery app of the built-in worker: ``celery -A livejobs_worker.app worker``."""

from __future__ import annotations

from celery import Celery
from celery.signals import setup_logging

from livejobs import JobTask, get_settings
from livejobs.logs import configure_logging

from .schedule import SCHEDULE

SOFT_SHUTDOWN_SECONDS = 10.0
"""Time that running tasks have when the worker is asked to stop at once."""

_settings = get_settings()

app = Celery("livejobs_worker", broker=_settings.celery_broker_url, task_cls=JobTask)
app.conf.update(
    task_acks_late=True,
    task_always_eager=_settings.task_always_eager,
    task_track_started=False,
    worker_concurrency=_settings.worker_concurrency,
    worker_prefetch_multiplier=1,
    worker_soft_shutdown_timeout=SOFT_SHUTDOWN_SECONDS,
    worker_enable_soft_shutdown_on_idle=False,
    worker_cancel_long_running_tasks_on_connection_loss=False,
    broker_connection_retry_on_startup=True,
    # There is no result backend: a job's row holds its result.
    result_backend=None,
    imports=(
        "livejobs_worker.cleanup",
        "livejobs_worker.demo_tasks",
        "livejobs_worker.mail",
        "livejobs_worker.rag.batch",
        "livejobs_worker.rag.ingest",
        "livejobs_worker.usage",
        "livejobs_worker.llm",
        "livejobs_worker.webhooks",
    ),
    beat_schedule=SCHEDULE,
    beat_scheduler="livejobs.beat:Scheduler",
)


@setup_logging.connect
def _set_up_logging(loglevel: int | None = None, **_: object) -> None:
    configure_logging(_settings.log_format, loglevel or _settings.log_level)
