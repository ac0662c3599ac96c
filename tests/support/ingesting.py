"""What the tests that ingest for real do again and again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from livejobs.database import get_database
from livejobs.settings import Settings
from livejobs.views import JobView

from .live_server import running_server
from .rows import shown
from .waiting import wait_until_async


@asynccontextmanager
async def rest(settings: Settings, owner: str = "alice") -> AsyncIterator[httpx.AsyncClient]:
    """A client of a server."""
    async with running_server(settings) as server, server.client(owner) as client:
        yield client


async def ended(job_id: str, seconds: float = 60) -> JobView:
    """The job, once it is over."""
    database = get_database()
    await wait_until_async(
        lambda: shown(database, job_id).status.is_final, description="it ends", seconds=seconds
    )
    return shown(database, job_id)


def kept(settings: Settings) -> set[Path]:
    """The files of uploads."""
    folder = settings.data_dir / "uploads"
    return set(folder.iterdir()) if folder.exists() else set()
