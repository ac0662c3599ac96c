"""What came of a job: its result, or those of its children, as lines or as pages."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from livejobs import children
from livejobs.errors import DatabaseUnavailable
from livejobs.statements import JobRow, Rows

from ..dependencies import Reader
from ..services import Services
from .answers import ChildResult, ResultPage
from .fields import (
    DEFAULT_PAGE,
    JobIdPath,
    Limit,
    PageKey,
    Server,
    decode_key,
    encode_key,
    next_page,
)
from .jobs import visible

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["jobs"])

LINES: Final = "application/jsonl"
_READ_AT_ONCE: Final = 100
_PRIVATE: Final = {"Cache-Control": "private, no-cache"}
_FIRST: Final = (-1, "")


@router.get(
    "/result",
    response_class=StreamingResponse,
    responses={200: {"content": {LINES: {"schema": {"type": "string"}}}, "description": "JSONL"}},
)
async def get_result(job_id: JobIdPath, server: Server, viewer: Reader) -> Response:
    """Results as JSONL: a line for each child of the job, or one for the job that has none.

    Children that are not over are among them, with their status.
    """
    row = await visible(server.database, viewer, job_id)
    rows = await _children(server, row, _FIRST, _READ_AT_ONCE)
    return StreamingResponse(_lines(server, row, rows), media_type=LINES, headers=_PRIVATE)


@router.get("/results", response_model=ResultPage)
async def list_results(
    job_id: JobIdPath,
    request: Request,
    response: Response,
    server: Server,
    viewer: Reader,
    page: PageKey = None,
    limit: Limit = DEFAULT_PAGE,
) -> ResultPage:
    """The same in pages, in the order of the children."""
    row = await visible(server.database, viewer, job_id)
    after = _FIRST if page is None else _key(page)
    rows = await _children(server, row, after, limit + 1)
    if page is None and not rows:
        rows = [row]
    following = next_page(rows, limit, _page_after, request, response)
    return ResultPage(items=[_result(child) for child in rows[:limit]], next=following)


async def _lines(server: Services, row: JobRow, rows: Rows) -> AsyncIterator[str]:
    if not rows:
        yield _line(row)
    while rows:
        yield "".join(_line(child) for child in rows)
        last = rows[-1].ordinal, rows[-1].id
        try:
            rows = await _children(server, row, last, _READ_AT_ONCE)
        except DatabaseUnavailable as error:
            # The answer has begun: that it is cut off is all that can be told.
            raise ConnectionError("the database is away") from error


async def _children(
    server: Services, row: JobRow, after: tuple[int | None, str], limit: int
) -> Rows:
    return await server.database.read(children.page(row.id, after, limit, row.owner))


def _key(page: str) -> tuple[int | None, str]:
    ordinal, job_id = decode_key(page, int, str)
    return (None if ordinal < 0 else min(ordinal, 2**31 - 1)), job_id


def _page_after(row: JobRow) -> str:
    return encode_key(-1 if row.ordinal is None else row.ordinal, row.id)


def _line(row: JobRow) -> str:
    return _result(row).model_dump_json() + "\n"


def _result(row: JobRow) -> ChildResult:
    error = None if row.error is None else {**row.error, "traceback": None}
    return ChildResult(
        n=row.ordinal, job_id=row.id, status=row.status, result=row.result, error=error
    )
