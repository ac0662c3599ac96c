"""Documents: files become jobs, and their text is searched."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.sql.base import Executable
from starlette.concurrency import run_in_threadpool

from livejobs.database import Steps
from livejobs.dispatch import enqueue
from livejobs.searching import hits, search
from livejobs.statements import Rows
from livejobs.uploads import add_uploads
from livejobs.views import JobView, Status

from ..dependencies import Creator, Lister
from ..idempotency import IdempotencyKey, Once, fingerprint, once
from ..job_files import execute_in, with_files
from ..multipart import receive_uploads
from ..services import Services
from ..tokens import job_token
from ..uploads import (
    FILES_BODY,
    INGEST_TASK,
    Upload,
    keep_uploads,
    take_back,
)
from .answers import AcceptedFile, AcceptedFiles, SearchAnswer, SearchHit
from .fields import Language, Server, Text

router = APIRouter(prefix="/v1/rag", tags=["documents"])


@router.post("/ingest", status_code=202, response_model=AcceptedFiles, openapi_extra=FILES_BODY)
async def ingest(
    request: Request,
    response: Response,
    server: Server,
    viewer: Creator,
    key: IdempotencyKey,
    language: Language = None,
) -> AcceptedFiles:
    """Ingest files, a job for each; all are accepted or none."""
    async with receive_uploads(request, server.settings) as uploads:
        sent = [[upload.name, upload.sha256] for upload in uploads]
        wanted = fingerprint("ingest", sent, language)
        async with once(server.database, viewer.owner, key, wanted) as this:
            if this.answer is None:
                await server.quotas.take(viewer.owner, len(uploads))
                this.made = await _accept(server, viewer.owner, uploads, language, this)
            answer = this.answer or this.made or {}
    # It carries tokens.
    response.headers["Cache-Control"] = "no-store"
    return AcceptedFiles(
        jobs=[
            AcceptedFile(**job, token=job_token(viewer, job["job_id"], server.settings))
            for job in answer["jobs"]
        ]
    )


async def _accept(
    server: Services, owner: str, uploads: list[Upload], language: str | None, this: Once
) -> dict[str, Any]:
    """Keep the files and create their jobs, in one transaction."""
    await run_in_threadpool(keep_uploads, uploads, this.nonce)
    jobs = []
    async with with_files(server, lambda: take_back(uploads)) as session:
        for upload in uploads:
            job = await _enqueue(server, session, owner, upload, language)
            added = add_uploads([upload.sent], owner, job.job_id)
            await execute_in(session, added, server)
            jobs.append({"job_id": job.job_id, "status": Status.PENDING, "name": upload.name})
    return {"jobs": jobs}


async def _enqueue(
    server: Services, session: AsyncSession, owner: str, upload: Upload, language: str | None
) -> JobView:
    name = upload.path.name
    return await enqueue(
        INGEST_TASK,
        [name, upload.name, owner],
        None if language is None else {"language": language},
        app=server.celery,
        owner=owner,
        tags={"document": upload.name},
        # The file's name is unique to the request, also where that is executed a second time.
        idempotency_key=name,
        session=session,
    )


@router.get("/search", response_model=SearchAnswer)
async def search_documents(
    server: Server,
    viewer: Lister,
    q: Annotated[
        Text,
        Query(
            max_length=1000,
            description='What to find: words, `"phrases"`, `word*` for beginnings, `-without`.',
        ),
    ],
    limit: Annotated[int, Query(ge=1, le=100, description="Most pieces to show.")] = 10,
    language: Language = None,
) -> SearchAnswer:
    """Pieces of the viewer's documents that hold all words of the query, the best first.

    In a language, forms of the words are found too.
    """
    owner = None if viewer.is_admin else viewer.owner
    language = language or server.settings.search_language
    wanted = search(owner, q, limit, server.database.dialect, language)
    rows = await server.database.read(_steps(wanted))
    found = await run_in_threadpool(hits, rows, q, language)
    return SearchAnswer(items=[SearchHit.model_validate(asdict(hit)) for hit in found])


def _steps(statement: Executable) -> Steps[Rows]:
    return (yield statement)
