"""Fixtures of the tests that ingest for real: a database, and a worker on it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from livejobs import settings as livejobs_settings
from livejobs.database import get_database
from livejobs.reporter import stop_reporter
from livejobs.settings import Settings, configure

from ..conftest import DATABASES, SECRET, MakeDatabase
from .worker import celery_worker


@pytest.fixture(scope="module", params=DATABASES)
def ingesting(
    request: pytest.FixtureRequest,
    make_database: MakeDatabase,
    redis_url: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Settings]:
    """livejobs configured on a fresh database, for a module's tests; no worker yet."""
    with redis.Redis.from_url(redis_url) as client:
        client.flushdb()
    yield configure(
        database_url=make_database(request.param),
        redis_url=redis_url,
        data_dir=tmp_path_factory.mktemp("ingesting") / "data",
        secrets=SECRET,
    )
    stop_reporter()
    get_database().close()
    livejobs_settings.reset()


@pytest.fixture(scope="module")
def ingester(ingesting: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """The same with a worker."""
    with celery_worker(
        ingesting, tmp_path_factory.mktemp("worker") / "worker.log", "livejobs_worker.app"
    ):
        yield ingesting
