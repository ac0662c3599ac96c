"""The database for commands that work on it directly."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data_dir import find_running

if TYPE_CHECKING:  # heavy, so imported when a command runs
    from livejobs.database import Database


@contextmanager
def open_database(data_dir: Path) -> Iterator[Database]:
    """The database that is set; where none is, that of the local `livejobs up`, with its Redis.

    Raises:
        MigrationsNeeded: It lacks the tables.
        DatabaseUnavailable: It is away.
    """
    from livejobs.database import check_migrations, get_database
    from livejobs.settings import configure, get_settings

    settings = get_settings()
    running = find_running(data_dir)
    if running is not None:
        found: dict[str, Any] = {
            name: getattr(running, name)
            for name in ("database_url", "redis_url")
            if name not in settings.model_fields_set
        }
        found |= {} if "data_dir" in settings.model_fields_set else {"data_dir": data_dir}
        settings = configure(**found)
    database = get_database()
    try:
        with database.begin() as connection:
            check_migrations(connection, settings)
        yield database
    finally:
        database.close()
