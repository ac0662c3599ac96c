"""Whether the database has the tables that this version needs."""

from __future__ import annotations

from sqlalchemy import Connection

from livejobs.database import AsyncDatabase, check_migrations
from livejobs.errors import DatabaseUnavailable
from livejobs.outages import is_outage


async def check_tables(database: AsyncDatabase) -> None:
    """Return where the tables are there.

    Raises:
        MigrationsNeeded: They are missing or too old.
        DatabaseUnavailable: The database is away.
    """

    def check(connection: Connection) -> None:
        check_migrations(connection, database.settings)

    try:
        async with database.engine.connect() as connection:
            reading = await connection.execution_options(livejobs_read=True)
            await reading.run_sync(check)
    except Exception as error:
        if not is_outage(error) or isinstance(error, DatabaseUnavailable):
            raise
        raise DatabaseUnavailable(f"The database does not answer: {error}") from error
