"""Files that were sent for a job: where they lie, and the rows that say whose they are."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Table, delete, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.sql.base import Executable

from .documents import documents
from .models import SCHEMA_TOKEN, UploadRow, db_now
from .settings import Settings
from .statements import OVER, Batch, Rows, jobs

FOLDER: Final = "uploads"
"""In the data folder, which server and workers share."""

BATCH: Final = 500
"""Rows in one statement."""

uploads: Final[Table] = UploadRow.metadata.tables[f"{SCHEMA_TOKEN}.livejobs_uploads"]

Steps = Generator[Executable | Batch, Rows, Any]


def upload_folder(settings: Settings) -> Path:
    """Where uploads lie."""
    return (settings.data_dir / FOLDER).resolve()


def upload_path(name: str, settings: Settings) -> Path | None:
    """Where an upload lies, whether it is there or not; None for a name that leads elsewhere."""
    folder = upload_folder(settings)
    try:
        path = (folder / name).resolve()
    except (OSError, RuntimeError, ValueError):
        return None  # a name that no file can have, or links in a circle
    return path if path.parent == folder else None


def remove_files(names: Sequence[str], settings: Settings) -> int:
    """Delete the files of uploads; how many were there."""
    removed = 0
    for name in names:
        path = upload_path(name, settings)
        with contextlib.suppress(OSError):
            if path is not None:
                path.unlink()
                removed += 1
    return removed


def add_upload(name: str, owner: str, job_id: str, size: int) -> Steps:
    """A program that keeps whose a file is, and for which job it was sent."""
    added = insert(uploads).values(
        name=name, owner=owner, job_id=job_id, size=size, created_at=db_now()
    )
    return (yield added.on_conflict_do_nothing())


def add_uploads(files: Sequence[tuple[str, int]], owner: str, job_id: str) -> Steps:
    """`add_upload` for many: name and size of each."""
    added = insert(uploads).values(owner=owner, job_id=job_id, created_at=db_now())
    for first in range(0, len(files), BATCH):
        some = files[first : first + BATCH]
        yield added.on_conflict_do_nothing(), [{"name": name, "size": size} for name, size in some]


def leave_upload(name: str) -> Steps:
    """A program for a document that was deleted: its upload goes, unless a job still works on it.

    Returns:
        Whether its file is to be removed, after the commit.
    """
    working = select(jobs.c.id).where(
        jobs.c.id == uploads.c.job_id, jobs.c.status.not_in(list(OVER))
    )
    gone = delete(uploads).where(uploads.c.name == name, ~working.exists())
    return bool((yield gone.returning(uploads.c.name)))


def leave_uploads(job_ids: Sequence[str]) -> Steps:
    """A program for jobs that were deleted: the uploads that nobody needs any more lose their rows.

    Returns:
        Their names, for `remove_files` after the commit.
    """
    rows = yield (
        delete(uploads)
        .where(
            uploads.c.job_id.in_(job_ids),
            uploads.c.job_id.not_in(select(jobs.c.id).where(jobs.c.id.in_(job_ids))),
            ~select(documents.c.id).where(documents.c.upload == uploads.c.name).exists(),
        )
        .returning(uploads.c.name)
    )
    return [row.name for row in rows]
