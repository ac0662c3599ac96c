"""Deleting the children of a job that is to be deleted: from below, so that none is left alone."""

from __future__ import annotations

from typing import Final

from starlette.concurrency import run_in_threadpool

from livejobs import cascades
from livejobs.database import Steps
from livejobs.errors import JobConflict
from livejobs.statements import JobRow, Rows
from livejobs.uploads import leave_uploads, remove_files

from .services import Services

BATCH: Final = 500


async def remove_children(server: Services, parent: JobRow) -> None:
    """Delete all children of a job, and theirs, as far as they are its owner's.

    Where it is broken off the job is still there, and can be deleted again.

    Raises:
        JobConflict: One of them is not over.
        DatabaseUnavailable: The database is away.
    """
    if await server.database.read(cascades.has_open(parent.id)):
        raise JobConflict(parent.id, parent.status, "deleted before its children are over")
    path = [parent.id]
    while path:
        gone, uploads = await server.database.run(_remove(path[-1], parent.owner))
        if gone:
            await server.live.forget_all(gone)
            await run_in_threadpool(remove_files, uploads, server.settings)
            continue
        deeper = await server.database.read(cascades.next_parent(path[-1], parent.owner))
        if deeper is None:
            path.pop()
        else:
            path.append(deeper)


def _remove(parent_id: str, owner: str) -> Steps[tuple[Rows, list[str]]]:
    gone = yield from cascades.remove(parent_id, owner, BATCH)
    return gone, (yield from leave_uploads([row.id for row in gone]))
