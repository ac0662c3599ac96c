"""A PostgreSQL that fails over, stops or starts is an outage, not a fault of the statement."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from psycopg import errors
from sqlalchemy import text

from livejobs import transitions
from livejobs.database import AsyncDatabase, Database
from livejobs.errors import DatabaseUnavailable
from livejobs.outages import is_outage
from livejobs.settings import Settings, configure, reset
from tests.support.proxy import proxied


@pytest.fixture
def postgresql(make_database: Any) -> Iterator[Settings]:
    """livejobs on a PostgreSQL database."""
    yield configure(database_url=make_database("postgresql"))
    reset()


def test_standby_is_an_outage_and_its_connections_are_dropped(postgresql: Settings) -> None:
    database = Database(postgresql)
    with database.begin() as connection:
        connection.execute(text("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"))
    with pytest.raises(DatabaseUnavailable, match="read-only transaction"):
        database.run(transitions.beat("first"))
    database.run(transitions.beat("second"))
    database.close()


async def test_standby_is_an_outage_for_servers_too(postgresql: Settings) -> None:
    database = AsyncDatabase(postgresql)
    async with database.begin() as connection:
        await connection.execute(text("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"))
    with pytest.raises(DatabaseUnavailable, match="read-only transaction"):
        await database.run(transitions.beat("first"))
    await database.run(transitions.beat("second"))
    await database.dispose()


@pytest.mark.parametrize("error", [errors.CannotConnectNow, errors.AdminShutdown])
def test_server_that_starts_or_stops_is_an_outage(error: type[Exception]) -> None:
    assert is_outage(error("the database system is starting up"))


@pytest.mark.parametrize("passed", [1, 9, 100, 300])
async def test_connection_that_breaks_while_it_is_made_is_an_outage(
    passed: int, postgresql: Settings
) -> None:
    async with proxied(postgresql.sync_database_url) as (proxy, url):
        proxy.limit = passed
        settings = Settings(database_url=url)
        database, for_servers = Database(settings), AsyncDatabase(settings)
        with pytest.raises(DatabaseUnavailable):
            await asyncio.to_thread(database.run, transitions.beat("first"))
        with pytest.raises(DatabaseUnavailable):
            await for_servers.run(transitions.beat("first"))
        proxy.limit = None
        await asyncio.to_thread(database.run, transitions.beat("second"))
        await for_servers.run(transitions.beat("second"))
        database.close()
        await for_servers.dispose()


def test_fault_of_the_statement_is_no_outage() -> None:
    assert not is_outage(errors.SyntaxError("syntax error"))
