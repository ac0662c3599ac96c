"""Many writers of one process on SQLite, which keeps no queue of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import select

from livejobs.database import AsyncDatabase, Steps
from livejobs.models import Job
from livejobs.settings import Settings
from livejobs.statements import Rows

from ..support.live_server import on_sqlite

WRITERS = 30
"""More than the pool has connections."""


@pytest.fixture
async def shared(settings: Settings) -> AsyncIterator[AsyncDatabase]:
    """The database as a server uses it."""
    database = AsyncDatabase(settings)
    yield database
    await database.dispose()


@on_sqlite
async def test_writers_go_in_the_order_they_came_and_readers_do_not_wait_for_them(
    shared: AsyncDatabase,
) -> None:
    entered: list[int] = []
    holds, goes_on = asyncio.Event(), asyncio.Event()

    async def write(number: int) -> None:
        async with shared.begin():
            entered.append(number)
            holds.set()
            await goes_on.wait()

    async with asyncio.TaskGroup() as tasks:
        for number in range(WRITERS):
            tasks.create_task(write(number))
        await holds.wait()
        async with asyncio.timeout(5):
            await shared.read(_any_job())
        goes_on.set()

    assert entered == list(range(WRITERS))


def _any_job() -> Steps[Rows]:
    return (yield select(Job.id).limit(1))
