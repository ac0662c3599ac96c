"""Jobs: create, show, cancel, run again, delete."""

from __future__ import annotations

import json
from fnmatch import fnmatchcase
from typing import Annotated, Any, NamedTuple, NoReturn

from fastapi import APIRouter, Header, Query, Request, Response
from pydantic import AwareDatetime, Field
from starlette.concurrency import run_in_threadpool

from livejobs import children, reads, transitions
from livejobs.counting import send_placed
from livejobs.database import AsyncDatabase, Steps
from livejobs.dispatch import enqueue
from livejobs.entries import Cursor
from livejobs.errors import JobConflict, UnknownJob
from livejobs.models import view_of
from livejobs.recording import send_new
from livejobs.statements import WEBHOOK_TASK, JobRow
from livejobs.uploads import leave_uploads, remove_files
from livejobs.views import JobView
from livejobs.webhook_urls import MAX_URL_CHARACTERS
from livejobs.webhooks import checked_url, delivery_ids

from ..dependencies import Creator, Reader, Writer
from ..idempotency import IdempotencyKey, fingerprint, once
from ..problems import ApiProblem
from ..push.exchange import Read
from ..removal import remove_children
from ..services import Services
from ..snapshots import can_exist
from ..tokens import job_token
from ..viewer import Viewer
from .answers import Accepted, JobAnswer
from .fields import After, Body, JobIdPath, Json, Name, Server, Text, parse_after
from .poll import wait_for_change

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

MAX_WAIT_SECONDS = 60.0
_PRIVATE = {"Cache-Control": "private, no-cache", "Vary": "Authorization, X-API-Key, Cookie"}


class NewJobBody(Body):
    """A job to be done."""

    task: Name = Field(description="The task's name; the server's settings say which may be.")
    args: Annotated[list[Json], Field(max_length=1000)] = Field([])
    kwargs: dict[Text, Json] = Field({})
    tags: Annotated[dict[Name, Annotated[Text, Field(max_length=1000)]], Field(max_length=50)] = (
        Field(default={}, description="Text to text, to find the job by.")
    )
    priority: Annotated[int, Field(ge=0, le=9)] | None = None
    run_at: AwareDatetime | None = Field(None, description="Not to be run before.")
    expires_in: Annotated[float, Field(gt=0, le=366 * 86400, allow_inf_nan=False)] | None = Field(
        None, description="Seconds after which the job fails if it was not begun."
    )
    webhook_url: Annotated[Text, Field(max_length=MAX_URL_CHARACTERS)] | None = Field(
        None,
        description="To be told of its end; null: the owner's default; empty: nobody.",
        examples=["https://example.com/hooks"],
    )


@router.post("", status_code=202, response_model=Accepted)
async def create_job(
    body: NewJobBody,
    request: Request,
    response: Response,
    server: Server,
    viewer: Creator,
    key: IdempotencyKey,
) -> Accepted:
    """Start a task; the answer names the job at once."""
    allowed = any(fnmatchcase(body.task, pattern) for pattern in server.settings.tasks)
    # Whatever the patterns say: it would sign what anybody makes up.
    if not allowed or body.task == WEBHOOK_TASK:
        raise ApiProblem("task_not_allowed", f"This server does not start {body.task} by REST.")
    checked_url(body.webhook_url, server.settings)
    wanted = fingerprint("jobs", body.model_dump(mode="json"))
    async with once(server.database, viewer.owner, key, wanted) as this:
        if this.answer is None:
            await server.quotas.take(viewer.owner)
            this.made = await _create(server, body, viewer, this.nonce if key else None)
        answer = this.answer or this.made or {}
    # It carries a token.
    response.headers["Cache-Control"] = "no-store"
    response.headers["Location"] = f"{request.url.path.rstrip('/')}/{answer['job_id']}"
    token = job_token(viewer, answer["job_id"], server.settings)
    return Accepted(**answer, token=token)


async def _create(
    server: Services, body: NewJobBody, viewer: Viewer, nonce: str | None
) -> dict[str, Any]:
    view = await enqueue(
        body.task,
        body.args,
        body.kwargs,
        app=server.celery,
        owner=viewer.owner,
        tags=body.tags,
        idempotency_key=nonce,
        run_at=body.run_at,
        expires_in=body.expires_in,
        priority=body.priority,
        webhook_url=body.webhook_url,
    )
    return {"job_id": view.job_id, "status": view.status}


class _Shown(NamedTuple):
    """A job as it is now, and what a change is told by."""

    body: bytes
    version: int
    cursor: Cursor
    seq: int

    @property
    def etag(self) -> str:
        return f'W/"{self.version}.{self.cursor}.{self.seq}"'


@router.get("/{job_id}", response_model=JobAnswer, responses={304: {"description": "No change."}})
async def get_job(
    job_id: JobIdPath,
    request: Request,
    server: Server,
    viewer: Reader,
    after: After = None,
    wait: Annotated[
        float,
        Query(
            ge=0,
            le=MAX_WAIT_SECONDS,
            allow_inf_nan=False,
            description="With `If-None-Match`: seconds to wait for a change before 304.",
        ),
    ] = 0.0,
    known: Annotated[
        str | None,
        Header(alias="If-None-Match", description="The `ETag` of what the client has."),
    ] = None,
) -> Response:
    """A job as it is now; with `after` also the entries after that cursor."""
    cursor = parse_after(after)
    shown = await _show(server, viewer, job_id, cursor)
    if wait > 0 and _matches(known, shown.etag):
        await wait_for_change(
            server, viewer, request, job_id, shown.version, shown.cursor, shown.seq, wait
        )
        shown = await _show(server, viewer, job_id, cursor)
    headers = _PRIVATE | {"ETag": shown.etag}
    if wait > 0 and server.departure.begun:
        # It may have been answered sooner than at the next change.
        headers["Retry-After"] = server.departure.retry_after()
    if _matches(known, shown.etag):
        return Response(status_code=304, headers=headers)
    return Response(shown.body, headers=headers, media_type="application/json")


@router.delete("/{job_id}", status_code=204, response_class=Response)
async def delete_job(job_id: JobIdPath, server: Server, viewer: Writer) -> None:
    """Delete a job that is over, with everything about it, its children too."""
    before = await changeable(server.database, viewer, job_id)
    if view_of(before).status.is_final:
        await remove_children(server, before)
    removed, uploads = await server.database.run(_remove(job_id))
    if not removed:
        await _refuse(server.database, job_id, "deleted")
    await server.live.forget_all(removed)
    await run_in_threadpool(remove_files, uploads, server.settings)


def _remove(job_id: str) -> Steps[tuple[list[JobRow], list[str]]]:
    """Delete a job, and those that have told of its end, which have a copy of it."""
    deliveries = yield from delivery_ids(job_id)
    row = yield from transitions.remove(job_id)
    if row is None:
        return [], []
    gone = [row]
    for delivery_id in deliveries:
        if (told := (yield from transitions.remove(delivery_id))) is not None:
            gone.append(told)
    return gone, (yield from leave_uploads([job_id]))


@router.post("/{job_id}/cancel", status_code=202, response_model=JobView)
async def cancel_job(job_id: JobIdPath, server: Server, viewer: Writer) -> JobView:
    """Cancel a job: a pending one at once, a running one as soon as it notices."""
    await changeable(server.database, viewer, job_id)
    row = await server.database.run(transitions.cancel(job_id))
    if row is None:
        row = await server.database.read(reads.job(job_id))
        if row is None or view_of(row).status.is_final:
            await _refuse(server.database, job_id, "cancelled")
        # Somebody asked before, and the job is about to stop.
        return view_of(row)
    await _tell(server, row)
    return view_of(row)


@router.post("/{job_id}/retry", status_code=202, response_model=JobView)
async def retry_job(job_id: JobIdPath, server: Server, viewer: Writer) -> JobView:
    """Run a failed or cancelled job again, under the same id."""
    before = await changeable(server.database, viewer, job_id)
    await server.quotas.take(before.owner)
    row = await server.database.run(transitions.requeue(job_id))
    if row is None:
        if before.message == transitions.NO_MESSAGE:
            raise ApiProblem(
                "job_conflict",
                "No message started this job: run its program again.",
                job_status=before.status,
            )
        await _refuse(server.database, job_id, "run again")
    await _tell(server, row)
    return view_of(row)


async def visible(database: AsyncDatabase, viewer: Viewer, job_id: str) -> JobRow:
    """The row of a job that the viewer may see.

    An unknown job and somebody else's take the same way to the same answer.

    Raises:
        UnknownJob: There is none.
    """
    row = await database.read(reads.job(job_id)) if can_exist(job_id) else None
    if row is None or not viewer.may_see(row.id, row.owner):
        raise UnknownJob(job_id)
    return row


async def changeable(database: AsyncDatabase, viewer: Viewer, job_id: str) -> JobRow:
    """The row of a job that the viewer may change.

    Raises:
        UnknownJob: There is none.
    """
    row = await database.read(reads.job(job_id)) if can_exist(job_id) else None
    if row is None or not viewer.may_change(row.id, row.owner):
        raise UnknownJob(job_id)
    return row


async def _show(server: Services, viewer: Viewer, job_id: str, after: Cursor | None) -> _Shown:
    await visible(server.database, viewer, job_id)
    now = await server.reader.view(job_id)
    if now is None:
        raise UnknownJob(job_id)
    view, cursor, more = now.view, now.cursor, b""
    if viewer.is_admin and view.error is not None:
        view = view.model_copy(update={"error": view_of(now.row, traceback=True).error})
    if after is not None:
        page = (await server.reader.read([Read(job_id, after, None, 0)]))[0]
        if page.entries and page.attempt == now.row.attempt:
            # The tag names what the client has after this answer: the rest of the entries, or
            # those that came since the view was read, are a change to it.
            cursor = Cursor(page.attempt, page.entries[-1].n)
        entries = b",".join(entry.payload for entry in page.entries)
        recovered = json.dumps(page.complete).encode()
        more = b',"entries":[' + entries + b'],"recovered":' + recovered
    body = view.model_dump_json().encode()[:-1] + more + b"}"
    return _Shown(body, view.version, cursor, now.seq)


def _matches(known: str | None, etag: str) -> bool:
    """Whether a client's ``If-None-Match`` names this tag, compared weakly."""
    if known is None:
        return False
    tags = (tag.strip().removeprefix("W/") for tag in known.split(","))
    return any(tag in ("*", etag.removeprefix("W/")) for tag in tags)


async def _refuse(database: AsyncDatabase, job_id: str, action: str) -> NoReturn:
    """Say why a job could not be changed."""
    row = await database.read(reads.job(job_id))
    if row is None:
        raise UnknownJob(job_id)
    raise JobConflict(job_id, row.status, action)


async def _tell(server: Services, row: JobRow) -> None:
    """Tell viewers of a committed change, and of what it changed in the job's parent."""
    await server.live.publish_view(row)
    if row.parent_id is None:
        return
    parent, resumed, placed = await server.database.run(children.count(row.parent_id))
    if parent is not None:
        await server.live.publish_view(parent)
        if resumed:
            await run_in_threadpool(send_new, server.celery, parent)
    if placed:
        await run_in_threadpool(send_placed, server.celery, placed)
