"""Fixtures of the transports' tests: the async side of the stack, and jobs led by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest

from livejobs import transitions
from livejobs.database import AsyncDatabase
from livejobs.live import AsyncLive
from livejobs.settings import Settings
from livejobs.transitions import NewJob

from .led_jobs import MESSAGE, LedJob, MakeJob
from .live_server import SEAMS, LiveServer, running_server


@pytest.fixture
async def async_database(settings: Settings) -> AsyncIterator[AsyncDatabase]:
    """The database of `settings`, as servers use it."""
    database = AsyncDatabase(settings)
    yield database
    await database.dispose()


@pytest.fixture
async def live(settings: Settings) -> AsyncIterator[AsyncLive]:
    """The Redis of `settings`, as servers use it."""
    live = AsyncLive(settings)
    yield live
    await live.close()


@pytest.fixture
def make_job(async_database: AsyncDatabase, live: AsyncLive) -> MakeJob:
    """``await make_job(owner="alice")``: a pending job led by hand."""

    async def make(owner: str = "alice", **columns: Any) -> LedJob:
        new = NewJob(
            id=str(uuid4()),
            task="demo.led",
            queue="led-by-hand",
            owner=owner,
            **{"message": MESSAGE} | columns,
        )
        row = await async_database.run(transitions.create(new))
        assert row is not None
        await live.publish_view(row)
        return LedJob(new.id, async_database, live)

    return make


@pytest.fixture(params=SEAMS)
def seam(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Options of a server that gives its transports away, and of one that knows only ASGI."""
    return SEAMS[request.param]


@pytest.fixture
async def server(settings: Settings, seam: dict[str, Any]) -> AsyncIterator[LiveServer]:
    """A server on `settings`."""
    async with running_server(settings, **seam) as server:
        yield server
