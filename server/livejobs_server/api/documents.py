"""Documents: many ingested at once; those that there are listed, shown, ingested again, deleted."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response
from starlette.concurrency import run_in_threadpool

from livejobs.database import Steps
from livejobs.dispatch import enqueue
from livejobs.documents import find_document, list_documents, remove_document
from livejobs.uploads import add_uploads, leave_upload, remove_files

from ..dependencies import Creator, Lister
from ..idempotency import IdempotencyKey, fingerprint, once
from ..job_files import execute_in, with_files
from ..multipart import receive_uploads
from ..problems import ApiProblem
from ..services import Services
from ..tokens import job_token
from ..uploads import (
    FILES_BODY,
    INGEST_MANY_TASK,
    INGEST_TASK,
    Most,
    Upload,
    keep_list,
    keep_uploads,
    take_back,
)
from ..viewer import Viewer
from .answers import Accepted, AcceptedDocuments, Document, DocumentPage
from .fields import (
    DEFAULT_PAGE,
    Language,
    Limit,
    PageKey,
    Server,
    Text,
    decode_key,
    encode_key,
    next_page,
)

router = APIRouter(prefix="/v1/documents", tags=["documents"])

DocumentId = Annotated[Text, Path(max_length=100, description="The document's id.")]


@router.post("", status_code=202, response_model=AcceptedDocuments, openapi_extra=FILES_BODY)
async def ingest_many(
    request: Request,
    response: Response,
    server: Server,
    viewer: Creator,
    key: IdempotencyKey,
    language: Language = None,
) -> AcceptedDocuments:
    """Ingest files, thousands at once: one job, with a child for each; all are accepted or none."""
    most = Most(
        server.settings.max_batch_files,
        server.settings.max_batch_bytes,
        "LIVEJOBS_MAX_BATCH_FILES",
    )
    async with receive_uploads(request, server.settings, most) as uploads:
        sent = [[upload.name, upload.sha256] for upload in uploads]
        wanted = fingerprint("documents", sent, language)
        async with once(server.database, viewer.owner, key, wanted) as this:
            if this.answer is None:
                await server.quotas.take(viewer.owner)
                this.made = await _accept(server, viewer.owner, uploads, language, this.nonce)
            answer = this.answer or this.made or {}
    response.headers["Location"] = f"/v1/jobs/{answer['job_id']}"
    # It carries a token.
    response.headers["Cache-Control"] = "no-store"
    token = job_token(viewer, answer["job_id"], server.settings)
    return AcceptedDocuments(**answer, token=token)


async def _accept(
    server: Services, owner: str, uploads: list[Upload], language: str | None, nonce: str
) -> dict[str, Any]:
    """Keep the files and a list of them, and create their job, in one transaction."""
    await run_in_threadpool(keep_uploads, uploads, nonce)
    listed = await run_in_threadpool(keep_list, uploads, nonce, server.settings)
    async with with_files(server, lambda: take_back([*uploads, listed])) as session:
        job = await enqueue(
            INGEST_MANY_TASK,
            [listed.path.name, len(uploads), language],
            app=server.celery,
            owner=owner,
            # Unique to the request, also where that is executed a second time.
            idempotency_key=listed.path.name,
            session=session,
        )
        files = [upload.sent for upload in (*uploads, listed)]
        await execute_in(session, add_uploads(files, owner, job.job_id), server)
    return {"job_id": job.job_id, "status": job.status, "files": len(uploads)}


@router.get("", response_model=DocumentPage)
async def list_mine(
    request: Request,
    response: Response,
    server: Server,
    viewer: Lister,
    page: PageKey = None,
    limit: Limit = DEFAULT_PAGE,
) -> DocumentPage:
    """The viewer's documents, an admin's everybody's, by name."""
    name, document_id = decode_key(page, str, str) if page is not None else ("", "")
    after = None if page is None else (name, document_id)
    rows = await server.database.read(list_documents(_owner(viewer), after, limit + 1))
    following = next_page(rows, limit, _key, request, response)
    return DocumentPage(items=[_document(row) for row in rows[:limit]], next=following)


@router.get("/{document_id}", response_model=Document)
async def show_document(
    document_id: DocumentId, response: Response, server: Server, viewer: Lister
) -> Document:
    """A document."""
    response.headers["Cache-Control"] = "private, no-cache"
    return _document(await _find(server, viewer, document_id))


@router.post("/{document_id}/ingest", status_code=202, response_model=Accepted)
async def ingest_again(
    document_id: DocumentId,
    response: Response,
    server: Server,
    viewer: Creator,
    key: IdempotencyKey,
    language: Language = None,
) -> Accepted:
    """Ingest a document again, from the file that was sent for it; by default in its language."""
    row = await _find(server, viewer, document_id)
    async with once(
        server.database, viewer.owner, key, fingerprint("again", row.id, language)
    ) as this:
        if this.answer is None:
            if row.upload is None:
                raise ApiProblem("upload_missing")
            await server.quotas.take(row.owner)
            this.made = await _ingest(
                server, row, language or row.language, this.nonce if key else None
            )
        answer = this.answer or this.made or {}
    response.headers["Location"] = f"/v1/jobs/{answer['job_id']}"
    response.headers["Cache-Control"] = "no-store"
    return Accepted(**answer, token=job_token(viewer, answer["job_id"], server.settings))


async def _ingest(
    server: Services, row: Any, language: str | None, nonce: str | None
) -> dict[str, Any]:
    job = await enqueue(
        INGEST_TASK,
        [row.upload, row.name, row.owner],
        None if language is None else {"language": language},
        app=server.celery,
        owner=row.owner,
        tags={"document": row.name},
        idempotency_key=nonce,
    )
    return {"job_id": job.job_id, "status": job.status}


@router.delete("/{document_id}", status_code=204, response_class=Response)
async def delete_document(document_id: DocumentId, server: Server, viewer: Creator) -> None:
    """Delete a document: no search finds it any more, and its file is removed."""
    row, name = await server.database.run(_remove(document_id, _owner(viewer)))
    if row is None:
        raise ApiProblem("unknown_document")
    if name is not None:
        await run_in_threadpool(remove_files, [name], server.settings)


def _remove(document_id: str, owner: str | None) -> Steps[tuple[Any, str | None]]:
    row = yield from remove_document(document_id, owner)
    if row is None or row.upload is None:
        return row, None
    gone = yield from leave_upload(row.upload)
    return row, row.upload if gone else None


async def _find(server: Services, viewer: Viewer, document_id: str) -> Any:
    row = await server.database.read(find_document(document_id, _owner(viewer)))
    if row is None:
        raise ApiProblem("unknown_document")
    return row


def _owner(viewer: Viewer) -> str | None:
    return None if viewer.is_admin else viewer.owner


def _key(row: Any) -> str:
    return encode_key(row.name, row.id)


def _document(row: Any) -> Document:
    shown = {name: value for name, value in row._asdict().items() if name in Document.model_fields}
    return Document(document_id=row.id, **shown)
