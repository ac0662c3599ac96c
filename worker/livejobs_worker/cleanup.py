"""`livejobs.cleanup`: the daily run that removes what has had its time."""

from __future__ import annotations

from celery import shared_task

from livejobs import JobTask, current_job, get_settings
from livejobs.cleanup import Cleanup, Counts
from livejobs.database import get_database
from livejobs.errors import DatabaseUnavailable
from livejobs.live import Live


@shared_task(
    name="livejobs.cleanup",
    base=JobTask,
    autoretry_for=(DatabaseUnavailable,),
    retry_backoff=True,
    on_lost="retry",
)
def cleanup(dry_run: bool = False) -> Counts:
    """Remove expired credentials, jobs past retention, and files that nobody needs.

    Args:
        dry_run: Only count.

    Returns:
        How many of each kind were removed, or would be.
    """
    settings = get_settings()
    live = Live(settings)
    try:
        return Cleanup(get_database(), live, settings, dry_run=dry_run).run(current_job())
    finally:
        live.close()
