"""The list of jobs: filters, and pages by key."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request, Response
from pydantic import model_validator
from sqlalchemy import Select, Text, literal, or_, select, tuple_
from sqlalchemy.sql.expression import ColumnElement

from livejobs.database import Steps
from livejobs.errors import InvalidCursor
from livejobs.models import UtcDateTime, view_of
from livejobs.statements import JobRow, Rows, jobs
from livejobs.views import Status

from ..dependencies import Lister
from ..tagging import has_tag, tags_of_job
from ..viewer import Viewer
from .answers import JobPage
from .fields import (
    DEFAULT_PAGE,
    Body,
    Limit,
    Name,
    Server,
    decode_key,
    encode_key,
    next_page,
)

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


class Filters(Body):
    """What to list."""

    status: list[Status] = Query(
        [], max_length=5, description="One of these; repeat it for several."
    )
    task: Annotated[Name | None, Query(description="The task's name.")] = None
    queue: Annotated[Name | None, Query(description="The queue's name.")] = None
    tag: list[Name] = Query(
        [], max_length=10, description="`key=value`; repeat it for several, which all count."
    )
    parent: Annotated[Name | None, Query(description="Children of this job.")] = None
    owner: Annotated[
        Name | None, Query(description="Jobs of this owner; others than admins see only their own.")
    ] = None
    q: Annotated[
        Name | None, Query(description="Text in the task's name, the id or a tag, in any case.")
    ] = None
    page: Annotated[
        str | None, Query(max_length=1024, description="`next` of the page before.")
    ] = None
    limit: Limit = DEFAULT_PAGE

    @model_validator(mode="before")
    @classmethod
    def _without_credentials(cls, values: Any) -> Any:
        # A ticket in the URL is no filter.
        return {name: value for name, value in dict(values).items() if name != "ticket"}


@router.get("", response_model=JobPage)
async def list_jobs(
    request: Request,
    response: Response,
    server: Server,
    viewer: Lister,
    filters: Annotated[Filters, Query()],
) -> JobPage:
    """The viewer's jobs, an admin's everybody's, the newest first."""
    statement = _select(viewer, filters, server.database.dialect)
    rows = await server.database.read(_read(statement))
    following = next_page(rows, filters.limit, _key, request, response)
    return JobPage(items=[view_of(row) for row in rows[: filters.limit]], next=following)


def _read(statement: Select[Any]) -> Steps[Rows]:
    return (yield statement)


def _select(viewer: Viewer, filters: Filters, dialect: str) -> Select[Any]:
    statement = select(jobs).order_by(jobs.c.created_at.desc(), jobs.c.id.desc())
    if not viewer.is_admin:
        statement = statement.where(jobs.c.owner == viewer.owner, jobs.c.owner != "")
    if filters.owner is not None:
        statement = statement.where(jobs.c.owner == filters.owner)
    if filters.status:
        statement = statement.where(jobs.c.status.in_(filters.status))
    if filters.task is not None:
        statement = statement.where(jobs.c.task == filters.task)
    if filters.queue is not None:
        statement = statement.where(jobs.c.queue == filters.queue)
    if filters.parent is not None:
        statement = statement.where(jobs.c.parent_id == filters.parent)
    for tag in filters.tag:
        key, _, value = tag.partition("=")
        statement = statement.where(has_tag(key, value, dialect))
    if filters.q is not None:
        statement = statement.where(_holds(filters.q, dialect))
    if filters.page is not None:
        statement = statement.where(_after(filters.page))
    return statement.limit(filters.limit + 1)


def _holds(text: str, dialect: str) -> ColumnElement[bool]:
    tags = tags_of_job(dialect)
    in_tags = (
        select(literal(1))
        .select_from(tags)
        .where(
            or_(
                tags.c.key.cast(Text).icontains(text, autoescape=True),
                tags.c.value.cast(Text).icontains(text, autoescape=True),
            )
        )
    )
    return or_(
        jobs.c.task.icontains(text, autoescape=True),
        jobs.c.id.icontains(text, autoescape=True),
        in_tags.correlate(jobs).exists(),
    )


def _key(row: JobRow) -> str:
    return encode_key((row.created_at - _EPOCH) // _MICROSECOND, row.id)


def _after(page: str) -> ColumnElement[bool]:
    """What comes after the last job of the page before."""
    microseconds, job_id = decode_key(page, int, str)
    try:
        created_at = _EPOCH + microseconds * _MICROSECOND
    except OverflowError as error:
        raise InvalidCursor(page) from error
    last = tuple_(literal(created_at, UtcDateTime()), literal(job_id, Text()))
    return tuple_(jobs.c.created_at, jobs.c.id) < last
