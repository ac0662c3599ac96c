"""What a job has told: its entries and its timeline, in pages."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, NamedTuple

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy import select, tuple_

from livejobs.database import Steps
from livejobs.entries import START, Cursor
from livejobs.models import EntryRow, Event
from livejobs.statements import JobRow, Rows

from ..dependencies import Reader
from ..push.exchange import Read
from ..services import Services
from ..snapshots import entry_message
from .answers import EntryPage, TimelineEvent, TimelinePage
from .fields import (
    DEFAULT_PAGE,
    After,
    JobIdPath,
    Limit,
    PageKey,
    Server,
    decode_key,
    encode_key,
    link_next,
    next_page,
    parse_after,
)
from .jobs import visible

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["jobs"])

Kind = Literal["log", "output"]
_MAX_ID: Final = 2**63 - 1


class _Found(NamedTuple):
    """An entry: where it stands, what it is, and its wire message."""

    cursor: Cursor
    kind: str
    payload: bytes


@router.get("/entries", response_model=EntryPage)
async def list_entries(
    job_id: JobIdPath,
    request: Request,
    server: Server,
    viewer: Reader,
    after: After = None,
    kind: Annotated[Kind | None, Query(description="Only entries of this kind.")] = None,
    limit: Limit = DEFAULT_PAGE,
) -> Response:
    """A job's log and output, all attempts that are kept, the oldest first."""
    cursor = parse_after(after) or START
    row = await visible(server.database, viewer, job_id)
    found = await _entries(server, row, cursor, limit + 1)
    page, following = found[:limit], None
    if len(found) > limit:
        following = str(page[-1].cursor)
    shown = (entry.payload for entry in page if kind is None or entry.kind == kind)
    body = b'{"items":[%b],"next":%b}' % (
        b",".join(shown),
        b"null" if following is None else b'"%b"' % following.encode(),
    )
    response = Response(body, media_type="application/json")
    response.headers["Cache-Control"] = "private, no-cache"
    if following is not None:
        link_next(request, response, {"after": following})
    return response


async def _entries(server: Services, row: JobRow, after: Cursor, count: int) -> list[_Found]:
    """Up to `count` entries: of earlier attempts from the database, of the present one as live."""
    found: list[_Found] = []
    if after.attempt < row.attempt:
        rows = await server.database.read(_earlier(row, after, count))
        found = [
            _Found(
                Cursor(entry.attempt, entry.n),
                entry.kind,
                entry_message(row.id, entry.attempt, entry.n, entry.kind, entry.body),
            )
            for entry in rows
        ]
        after = Cursor(row.attempt, 0)
    while len(found) < count and after.attempt == row.attempt:
        page = (await server.reader.read([Read(row.id, after, None, 0)]))[0]
        if page.attempt != row.attempt or not page.entries:
            break
        found += [
            _Found(Cursor(page.attempt, entry.n), entry.kind, entry.payload)
            for entry in page.entries
        ]
        after = found[-1].cursor
    return found[:count]


def _earlier(row: JobRow, after: Cursor, count: int) -> Steps[Rows]:
    return (
        yield select(EntryRow.attempt, EntryRow.n, EntryRow.kind, EntryRow.body)
        .where(
            EntryRow.job_id == row.id,
            EntryRow.attempt < row.attempt,
            tuple_(EntryRow.attempt, EntryRow.n) > tuple_(after.attempt, after.n),
        )
        .order_by(EntryRow.attempt, EntryRow.n)
        .limit(count)
    )


@router.get("/timeline", response_model=TimelinePage)
async def list_timeline(
    job_id: JobIdPath,
    request: Request,
    response: Response,
    server: Server,
    viewer: Reader,
    page: PageKey = None,
    limit: Limit = DEFAULT_PAGE,
) -> TimelinePage:
    """What happened to a job, the oldest first."""
    row = await visible(server.database, viewer, job_id)
    last = 0 if page is None else min(max(decode_key(page, int)[0], 0), _MAX_ID)
    rows = await server.database.read(_timeline(row.id, last, limit + 1))
    following = next_page(rows, limit, lambda event: encode_key(event.id), request, response)
    events = [
        TimelineEvent(
            at=event.at,
            kind=event.kind,
            attempt=event.attempt,
            detail=event.detail if viewer.is_admin else _for_users(event.detail),
        )
        for event in rows[:limit]
    ]
    return TimelinePage(items=events, next=following)


def _timeline(job_id: str, last: int, count: int) -> Steps[Rows]:
    return (
        yield select(Event.id, Event.at, Event.kind, Event.attempt, Event.detail)
        .where(Event.job_id == job_id, Event.id > last)
        .order_by(Event.id)
        .limit(count)
    )


def _for_users(detail: dict[str, Any] | None) -> dict[str, Any] | None:
    """What an event tells, without the insides of the program and the names of its machines."""
    if detail is None:
        return None
    shown = {key: value for key, value in detail.items() if key != "worker"}
    if isinstance(shown.get("error"), dict):
        shown["error"] = {k: v for k, v in shown["error"].items() if k != "traceback"}
    return shown or None
