"""Fixtures of all tests: real servers, once a run, and fresh databases on them.

`REDIS_URL` and a PostgreSQL `DATABASE_URL` in the environment are used instead of servers of our
own; their Redis is emptied.
"""

from __future__ import annotations

import importlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import _state as celery_state

from livejobs import settings as livejobs_settings
from livejobs.database import Database, get_database, migrate
from livejobs.gathering import flush_all
from livejobs.reporter import stop_reporter
from livejobs.settings import Settings, configure

from .support.long_first import pytest_collection_modifyitems as pytest_collection_modifyitems
from .support.process_logs import pytest_runtest_makereport as pytest_runtest_makereport
from .support.servers import Postgres, ValkeyProcess, postgres_server
from .support.worker import celery_worker

MakeDatabase = Callable[[str], str]
DATABASES = ("sqlite", "postgresql")
FLUSH_SECONDS = 10.0
"""Time for what goes on beside a test, as notes of what was sent, to end before the next one."""
SECRET = "not-a-secret-but-long-enough-for-the-tests"


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """A Redis that this run has to itself."""
    given = os.environ.get("REDIS_URL")
    if given:
        yield given
        return
    server = ValkeyProcess()
    server.start()
    yield server.url
    server.close()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server in which databases can be made."""
    given = os.environ.get("DATABASE_URL", "")
    if given.startswith("postgres"):
        server = Postgres(given.replace("postgres://", "postgresql://", 1))
        yield server
        server.close()
        return
    with postgres_server() as url:
        server = Postgres(url)
        yield server
        server.leave()  # All of it is removed: to drop each database would take a minute.


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file that has the tables."""
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    migrate(Settings(database_url=f"sqlite:///{path}"))
    return path


@pytest.fixture(scope="session")
def make_database(
    request: pytest.FixtureRequest, sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory
) -> MakeDatabase:
    """Makes fresh databases with all tables: call it with sqlite or postgresql."""

    def make(kind: str) -> str:
        if kind == "sqlite":
            path = tmp_path_factory.mktemp("database") / f"{uuid.uuid4().hex[:8]}.db"
            shutil.copy(sqlite_template, path)
            return f"sqlite:///{path}"
        server: Postgres = request.getfixturevalue("postgres")
        return server.new_database(lambda url: migrate(Settings(database_url=url)))

    return make


@pytest.fixture(params=DATABASES)
def database_url(request: pytest.FixtureRequest, make_database: MakeDatabase) -> Iterator[str]:
    """A fresh database; the test runs once on each kind."""
    url = make_database(request.param)
    if request.param != "postgresql":
        yield url
        return
    server: Postgres = request.getfixturevalue("postgres")
    yield url
    server.take_back(url)


@pytest.fixture(autouse=True)
def no_current_app() -> Iterator[None]:
    """No test has a Celery app of its own process, whatever modules have made when they were read.

    Else it would be taken for a user's, with the broker that was configured at that moment.
    """
    before = celery_state.get_current_app()
    celery_state._set_current_app(None)  # noqa: SLF001 - Celery has no other way
    yield
    celery_state._set_current_app(before)  # noqa: SLF001


@pytest.fixture
def settings(database_url: str, redis_url: str, tmp_path: Path) -> Iterator[Settings]:
    """livejobs configured on a fresh database and an empty Redis, for this test."""
    with redis.Redis.from_url(redis_url) as client:
        client.flushdb()
    yield configure(
        database_url=database_url,
        redis_url=redis_url,
        data_dir=tmp_path / "data",
        secrets=SECRET,
    )
    flush_all(FLUSH_SECONDS)
    stop_reporter()
    livejobs_settings.reset()


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    """The database of `settings`, as workers use it."""
    database = get_database()
    yield database
    flush_all(FLUSH_SECONDS)
    database.close()


@pytest.fixture(scope="module", params=DATABASES)
def working(
    request: pytest.FixtureRequest,
    make_database: MakeDatabase,
    redis_url: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Settings]:
    """livejobs configured, and a real worker for `tests.support.jobs_app`, for a module's tests."""
    folder = tmp_path_factory.mktemp("working")
    with redis.Redis.from_url(redis_url) as client:
        client.flushdb()
    overrides: dict[str, Any] = {
        "database_url": make_database(request.param),
        "redis_url": redis_url,
        "data_dir": folder / "data",
        "secrets": SECRET,
    }
    os.environ.setdefault("REDIS_URL", redis_url)
    importlib.import_module("tests.support.jobs_app")  # reads it, and configures livejobs by it
    settings = configure(**overrides)
    with celery_worker(settings, folder / "worker.log"):
        yield settings
    stop_reporter()
    get_database().close()
    livejobs_settings.reset()
