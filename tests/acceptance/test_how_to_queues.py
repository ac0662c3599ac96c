"""The page on several queues: a worker for each, with a broker of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from livejobs.database import Database
from livejobs.reads import job
from livejobs.settings import Settings, configure
from livejobs.statements import JobRow
from tests.support import pages
from tests.support.own_app import beside
from tests.support.waiting import wait_until
from tests.support.worker import celery_worker, environment

START = """
import json, shop
print(json.dumps({
    "export": shop.export.delay(3, failures=1).id,
    "later": shop.export.apply_async([1], countdown=1).id,
    "mail": shop.mail.delay("ada").id,
    "here": shop.export.apply_async([1], queue="fast").id,
}))
"""


@pytest.fixture(scope="module")
def env(own_settings: Settings, folder: Path) -> dict[str, str]:
    """The page's app, with the broker in another database of Redis."""
    pages.write("how-to/several-queues.md", folder)
    broker = own_settings.redis_url.removesuffix("/0") + "/5"
    configure(**own_settings.model_dump() | {"broker_url": broker})
    return beside(own_settings, folder, CELERY_BROKER_URL=broker)


@pytest.fixture
def database(own_settings: Settings) -> Iterator[Database]:
    """Where the jobs are."""
    database = Database(own_settings)
    yield database
    database.close()


def row_of(database: Database, job_id: str) -> JobRow:
    """The row of a job that is there."""
    row = database.read(job(job_id))
    assert row is not None
    return row


def ended(database: Database, job_id: str) -> JobRow:
    """The row of a job once it has completed."""

    def completed() -> JobRow | None:
        row = row_of(database, job_id)
        return row if row.status == "completed" else None

    row = wait_until(completed, description=f"{job_id} completes", seconds=30)
    assert row is not None
    return row


def test_each_queue_has_its_worker(
    own_settings: Settings, folder: Path, env: dict[str, str], database: Database
) -> None:
    with celery_worker(
        own_settings, folder / "fast.log", "shop", options=["-Q", "fast", "-n", "fast@%h"], env=env
    ):
        done = subprocess.run(
            [sys.executable, "-c", START],
            env=os.environ | environment(own_settings) | env,
            capture_output=True,
            text=True,
            check=True,
        )
        ids = json.loads(done.stdout)
        assert ended(database, ids["mail"]).queue == "fast"
        assert ended(database, ids["here"]).queue == "fast"
        waiting = row_of(database, ids["export"])
        assert (waiting.queue, waiting.status) == ("slow", "pending")
    with celery_worker(
        own_settings, folder / "slow.log", "shop", options=["-Q", "slow", "-n", "slow@%h"], env=env
    ):
        retried, later = ended(database, ids["export"]), ended(database, ids["later"])
    assert (retried.queue, retried.attempt) == ("slow", 2)
    assert (later.queue, later.attempt) == ("slow", 1)
