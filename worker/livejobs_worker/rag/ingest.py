"""`rag.ingest`: a file becomes a searchable document, in the stages parse → index.

The pages are read and cut into chunks one after the other. What is done is kept from time to time,
so that the worker holds a few pages at most, and another attempt goes on after the last one kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from pathlib import Path
from typing import Any, Final, TypeVar

from celery import Task

from livejobs import current_job
from livejobs.database import Steps, get_database
from livejobs.documents import NewChunk, NewDocument
from livejobs.drafts import Draft, close_draft, find_draft, keep_draft, publish
from livejobs.errors import DatabaseUnavailable, JobLost
from livejobs.file_kinds import PDF, IngestError, document_name, kind_of
from livejobs.running import RunningJob
from livejobs.settings import get_settings
from livejobs.uploads import upload_path
from livejobs.words import LANGUAGES
from livejobs_worker.app import app

from .pages import Document, Page
from .parse import parse
from .split import Splitter

T = TypeVar("T")

PAGES_AT_ONCE: Final = 20
"""So many pages are kept together."""
SECONDS_AT_ONCE: Final = 5.0
"""… or fewer, if they took so long."""


@app.task(name="rag.ingest", bind=True, autoretry_for=(DatabaseUnavailable,), retry_backoff=True)
def ingest(
    self: Task, upload: str, filename: str, owner: str = "", language: str | None = None
) -> dict[str, Any]:
    """Make an uploaded file searchable, in place of an earlier one of the same name.

    Args:
        upload: The file, relative to the folder of uploads; it stays there.
        filename: The name its owner gave it.
        owner: Whose document it becomes if the job itself has no owner; else it is the job's.
        language: Of its text, one of `words.LANGUAGES`; None: as the settings say.

    Returns:
        document_id, name, pages (None: the kind has none), chunks and characters.

    Raises:
        IngestError: The file cannot be ingested; that is final.
        DatabaseUnavailable: The database is away; the task tries again.
    """
    job = current_job()
    path = uploaded(upload, filename)
    language = language or get_settings().search_language
    if language not in (None, *LANGUAGES):
        raise IngestError("unknown_language", f"{language} is none of {', '.join(LANGUAGES)}.")
    return ingest_file(path, filename, job.owner or owner, job, upload, language)


def uploaded(upload: str, filename: str) -> Path:
    """Where an upload lies; never outside the folder of uploads.

    Raises:
        IngestError: There is no such upload.
    """
    path = upload_path(upload, get_settings())
    with contextlib.suppress(OSError, ValueError):  # a name that no file can have
        if path is not None and path.is_file():
            return path
    raise IngestError(
        "upload_missing", f"The upload of {document_name(filename)} is gone: send the file again."
    )


def ingest_file(
    path: Path,
    filename: str,
    owner: str,
    job: RunningJob,
    upload: str | None = None,
    language: str | None = None,
) -> dict[str, Any]:
    """Parse, split and index a file, reporting to `job`; see `ingest`.

    The document is made in one transaction at the end: until then a search finds the earlier
    version, and a job that fails or is cancelled leaves it as it was.
    """
    name = document_name(filename)
    draft = get_database().read(find_draft(job.id)) if job.attempt > 1 else Draft()
    if draft.document_id is None:  # else an attempt died that had only to say that it was done
        job.progress(draft.pages, stage="parse", message=name)
        document = parse(path, filename, draft.pages)
        draft, rest = read(document, draft, job, language)
        new = NewDocument(
            owner=owner,
            name=name,
            media_type=document.media_type,
            size=path.stat().st_size,
            sha256=_sha256(path),
            title=document.title,
            pages=_pages(draft, name),
            chunks=draft.chunks,
            language=language,
            job_id=job.id,
            upload=upload,
        )
        job.log(f"read “{document.title}”: {_extent(draft, name)}")
        job.progress(0, draft.chunks, stage="index", message="writing the index")
        job.check()
        draft = _stored(job, publish(job.id, job.attempt, draft, new, rest))
        job.progress(draft.chunks, draft.chunks, stage="index")
        job.log(f"{name} can be found now")
    if draft.kept:
        job.complete_with(lambda: close_draft(job.id))
    return {
        "document_id": draft.document_id,
        "name": name,
        "pages": _pages(draft, name),
        "chunks": draft.chunks,
        "characters": draft.characters,
    }


def read(
    document: Document, draft: Draft, job: RunningJob, language: str | None
) -> tuple[Draft, list[NewChunk]]:
    """Read and split all pages from where an earlier attempt left off.

    Returns:
        The draft with all of them, and the chunks that are not kept.
    """
    if draft.pages:
        job.log(f"goes on after the {_counted(draft.pages, 'page')} that were read before")
    splitter = Splitter(document.media_type, draft.chunks, language)
    rest: list[NewChunk] = []
    since = time.monotonic()
    for page in document.pages:
        job.check()
        found = splitter.split(page)
        rest += found
        draft = draft._replace(
            pages=draft.pages + 1,
            blank=draft.blank + (not page.text.strip()),
            characters=draft.characters + len(page.text),
            chunks=draft.chunks + len(found),
        )
        job.progress(draft.pages, document.total, stage="parse", message=_place(page))
        enough = draft.pages - draft.kept >= PAGES_AT_ONCE
        # Before there is any text a document may turn out to have none: then it begins anew.
        if job.id and draft.chunks and (enough or time.monotonic() - since > SECONDS_AT_ONCE):
            draft = _stored(job, keep_draft(job.id, job.attempt, draft, rest))
            rest, since = [], time.monotonic()
    if draft.blank:
        job.log(f"{_counted(draft.blank, 'page')} without text, perhaps pictures", level="warning")
    return draft, rest


def _stored(job: RunningJob, program: Steps[T | None]) -> T:
    """What a fenced program answers."""
    made = get_database().run(program)
    if made is None:
        job.lost = True
        raise JobLost(job.id)
    return made


def _pages(draft: Draft, name: str) -> int | None:
    return draft.pages if kind_of(name) == PDF else None


def _extent(draft: Draft, name: str) -> str:
    pages = _pages(draft, name)
    extent = "" if pages is None else f"{_counted(pages, 'page')}, "
    return f"{extent}{_counted(draft.characters, 'character')} in {_counted(draft.chunks, 'chunk')}"


def _place(page: Page) -> str | None:
    return None if page.number is None else f"page {page.number}"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
