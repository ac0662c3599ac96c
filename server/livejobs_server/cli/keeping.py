"""What `livejobs keeper` is made of."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading

from celery import Celery
from celery.app.utils import find_app

from livejobs.database import check_migrations, get_database
from livejobs.dispatch import producer_app
from livejobs.errors import SettingsError
from livejobs.keeper import Keeper
from livejobs.settings import Settings, get_settings

_log = logging.getLogger("livejobs.keeper")


def celery_app(name: str | None) -> Celery:
    """The Celery app of that name, else one that only sends.

    Raises:
        SettingsError: There is no such app.
    """
    if name is None:
        return producer_app(get_settings())
    sys.path.insert(0, os.getcwd())
    try:
        found: Celery = find_app(name)
    except (ImportError, AttributeError) as error:
        raise SettingsError(f"There is no Celery app {name}: {error}.") from error
    return found


def check_database(settings: Settings) -> None:
    """See that the tables are there.

    Raises:
        MigrationsNeeded: They are missing or too old.
        DatabaseUnavailable: The database does not answer.
    """
    with get_database().begin() as connection:
        check_migrations(connection, settings)


def until_stopped(keeper: Keeper) -> None:
    """Run a keeper until this process is told to end."""
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    keeper.start()
    _log.info("the keeper %s is at work", keeper.name)
    stopped.wait()
    keeper.stop()
