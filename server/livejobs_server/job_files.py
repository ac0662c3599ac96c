"""Files and the jobs that need them: both are there, or neither."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable

from sqlalchemy.ext.asyncio import AsyncSession
from starlette.concurrency import run_in_threadpool

from livejobs.database import Steps, execute_async, schemas
from livejobs.errors import DatabaseUnavailable
from livejobs.outages import is_outage

from .services import Services


@contextlib.asynccontextmanager
async def with_files(
    server: Services, take_back: Callable[[], None]
) -> AsyncIterator[AsyncSession]:
    """A session in which jobs are created whose files are there; it is committed on leaving.

    Args:
        take_back: Deletes the files; called, in a thread, where there are no jobs for certain. A
            repetition of the request may use the same names, so it is done at once.

    Raises:
        DatabaseUnavailable: The database is away. A commit that broke off may have taken place:
            its jobs need their files, which stay.
    """
    committing = False
    try:
        async with AsyncSession(server.database.engine) as session:
            yield session
            committing = True
            await session.commit()
    except Exception as error:
        if not committing:
            await run_in_threadpool(take_back)
        if is_outage(error):
            raise DatabaseUnavailable(f"The jobs could not be created: {error}") from error
        raise


async def execute_in(session: AsyncSession, program: Steps[None], server: Services) -> None:
    """Run a program in that session."""
    translated = {"schema_translate_map": schemas(server.settings)}
    await execute_async(await session.connection(), program, translated)
