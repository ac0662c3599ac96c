"""Fixtures of the acceptance tests: somebody's app, in a folder of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from livejobs import settings as livejobs_settings
from livejobs.database import get_database
from livejobs.reporter import stop_reporter
from livejobs.settings import Settings, configure
from tests.conftest import SECRET, MakeDatabase
from tests.support.wheel import built_wheel, venv_with


@pytest.fixture(scope="module")
def own_settings(
    make_database: MakeDatabase, redis_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Settings]:
    """livejobs configured on SQLite for the app of a page of the documentation."""
    with redis.Redis.from_url(redis_url) as client:
        client.flushdb()
    yield configure(
        database_url=make_database("sqlite"),
        redis_url=redis_url,
        data_dir=tmp_path_factory.mktemp("data"),
        secrets=SECRET,
    )
    stop_reporter()
    get_database().close()
    livejobs_settings.reset()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the files of the page are written."""
    return tmp_path_factory.mktemp("app")


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of this run of the tests share."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def wheel(shared_folder: Path) -> Path:
    """The built wheel."""
    return built_wheel(shared_folder / "wheel")


@pytest.fixture(scope="session")
def commands(wheel: Path, shared_folder: Path) -> Path:
    """The commands of an empty venv into which the wheel and its extras were installed."""
    return venv_with(wheel, shared_folder / "venv")
