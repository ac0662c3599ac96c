"""Jobs are reported from every kind of pool, and from children forked while the worker runs."""

from __future__ import annotations

import importlib
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from livejobs.database import Database
from livejobs.settings import Settings, configure
from tests.support.rows import shown
from tests.support.waiting import wait_until
from tests.support.worker import celery_worker


@pytest.fixture
def tasks(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The tasks of the app, bound to the servers of this test."""
    if "REDIS_URL" not in os.environ:
        monkeypatch.setenv("REDIS_URL", settings.redis_url)
    module = importlib.import_module("tests.support.jobs_app")
    # Importing it may have configured livejobs anew.
    configure(**settings.model_dump())
    return module


@pytest.mark.parametrize(
    ("pool", "options"),
    [("threads", ()), ("solo", ()), ("prefork", ("--max-tasks-per-child=2",))],
)
def test_pool_reports_its_jobs(
    pool: str,
    options: tuple[str, ...],
    tasks: Any,
    settings: Settings,
    database: Database,
    tmp_path: Path,
) -> None:
    log = tmp_path / "worker.log"
    with celery_worker(settings, log, pool=pool, options=options):
        ids = [tasks.talk.delay(10, 10, 0.01).id for _ in range(6)]
        retried = tasks.flaky.delay(2).id
        wait_until(
            lambda: all(shown(database, job_id).status.is_final for job_id in [*ids, retried]),
            description="all jobs end",
            seconds=60,
        )
    for job_id in ids:
        job = shown(database, job_id)
        assert (job.status, job.result) == ("completed", {"lines": 10, "pieces": 10})
        assert job.progress is not None
        assert job.progress.current == 10
    assert (shown(database, retried).attempt, shown(database, retried).status) == (3, "completed")
    assert "Traceback" not in log.read_text()


def test_worker_that_is_stopped_releases_its_job(
    tasks: Any, settings: Settings, database: Database, tmp_path: Path
) -> None:
    with celery_worker(settings, tmp_path / "first.log") as pid:
        job_id = tasks.tracked.delay(40).id
        wait_until(
            lambda: shown(database, job_id).status == "processing", description="the job runs"
        )
        os.kill(pid, signal.SIGQUIT)
        wait_until(
            lambda: shown(database, job_id).status == "pending", description="it is released"
        )
    with celery_worker(settings, tmp_path / "second.log"):
        wait_until(
            lambda: shown(database, job_id).status.is_final,
            description="it is run again",
            seconds=30,
        )
    job = shown(database, job_id)
    assert (job.status, job.attempt, job.max_attempts) == ("completed", 2, 5)
