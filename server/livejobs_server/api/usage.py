"""What customers have used, and what has become of it at Stripe."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import Field, model_validator
from sqlalchemy import Row, Select, Table, select
from sqlalchemy.sql.base import Executable

from livejobs.database import Steps
from livejobs.errors import InvalidCursor
from livejobs.statements import Rows
from livejobs.usage import BatchStatus, batches, by_day, list_batches, usage
from livejobs.usage_batches import decide

from ..dependencies import Admin, Lister
from ..problems import ApiProblem
from ..viewer import Viewer
from .answers import UsageBatch, UsageBatchPage, UsageDay, UsagePage
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

router = APIRouter(prefix="/v1/usage", tags=["usage"])

DAYS_SHOWN: Final = 35
"""From so many days back on, unless asked otherwise."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
Page = Annotated[str | None, Query(max_length=2048, description="`next` of the page before.")]


class _Filters(Body):
    owner: Annotated[
        Name | None, Query(description="Of this owner; others than admins see only their own.")
    ] = None
    page: Page = None
    limit: Limit = DEFAULT_PAGE

    @model_validator(mode="before")
    @classmethod
    def _without_credentials(cls, values: Any) -> Any:
        # A ticket in the URL is no filter.
        return {name: value for name, value in dict(values).items() if name != "ticket"}


class UsageFilters(_Filters):
    """What usage to show."""

    customer: Annotated[Name | None, Query(description="Stripe's id of the customer.")] = None
    meter: Annotated[Name | None, Query(description="The meter's event name.")] = None
    since: Annotated[
        date | None, Query(description=f"The first day; by default {DAYS_SHOWN} days ago.")
    ] = None
    until: Annotated[date | None, Query(description="The last day.")] = None


class BatchFilters(_Filters):
    """What batches to show."""

    status: list[BatchStatus] = Query(
        [], max_length=6, description="One of these; repeat it for several."
    )


class Decision(Body):
    """What a person has found out about a batch that did not get through."""

    arrived: bool = Field(
        description="Stripe has the event, and the batch counts as sent; "
        "else its usage is sent anew, under another identifier."
    )


@router.get("", response_model=UsagePage)
async def list_usage(
    request: Request,
    response: Response,
    server: Server,
    viewer: Lister,
    filters: Annotated[UsageFilters, Query()],
) -> UsagePage:
    """Usage of the viewer's customers, an admin's everybody's, by customer, meter and day."""
    statement = by_day(
        *_span(filters.since, filters.until),
        filters.limit + 1,
        customer=filters.customer,
        meter=filters.meter,
        after=None if filters.page is None else _after_day(filters.page),
    )
    wanted = _of(viewer, filters.owner, statement, usage)
    rows = await server.database.read(_rows(wanted))
    following = next_page(rows, filters.limit, _day_key, request, response)
    items = [UsageDay.model_validate(row._asdict()) for row in rows[: filters.limit]]
    return UsagePage(items=items, next=following)


@router.get("/batches", response_model=UsageBatchPage)
async def list_usage_batches(
    request: Request,
    response: Response,
    server: Server,
    viewer: Lister,
    filters: Annotated[BatchFilters, Query()],
) -> UsageBatchPage:
    """The meter events that usage has become; those `failed` or `held` are a person's to decide."""
    statement = list_batches(
        [status.value for status in filters.status],
        filters.limit + 1,
        None if filters.page is None else _after_batch(filters.page),
    )
    wanted = _of(viewer, filters.owner, statement, batches)
    rows = await server.database.read(_rows(wanted))
    following = next_page(rows, filters.limit, _batch_key, request, response)
    return UsageBatchPage(items=[_shown(row) for row in rows[: filters.limit]], next=following)


@router.post("/batches/{identifier}", response_model=UsageBatch)
async def decide_usage_batch(
    identifier: Annotated[Name, Path(description="The meter event's identifier.")],
    body: Decision,
    server: Server,
    viewer: Admin,
) -> UsageBatch:
    """Say whether a batch that is failed, held or too old has arrived at Stripe; for admins."""
    row = await server.database.run(decide(identifier, arrived=body.arrived))
    if row is None:
        same = select(batches.c.id).where(batches.c.id == identifier)
        known = await server.database.read(_rows(same))
        raise ApiProblem("batch_conflict" if known else "unknown_batch")
    return _shown(row)


def _of(viewer: Viewer, wanted: str | None, statement: Select[Any], table: Table) -> Select[Any]:
    """The statement for what the viewer may see, and wants to."""
    if not viewer.is_admin:
        statement = statement.where(table.c.owner == viewer.owner, table.c.owner != "")
    return statement if wanted is None else statement.where(table.c.owner == wanted)


def _span(since: date | None, until: date | None) -> tuple[datetime, datetime]:
    """The first moment of the first day, and the one after the last day."""
    first = since or datetime.now(UTC).date() - timedelta(days=DAYS_SHOWN)
    begin = datetime.combine(first, time(), UTC)
    if until is None or until == date.max:
        return begin, datetime.max.replace(tzinfo=UTC)
    return begin, datetime.combine(until + timedelta(days=1), time(), UTC)


def _rows(statement: Executable) -> Steps[Rows]:
    return (yield statement)


def _day_key(row: Row[Any]) -> str:
    return encode_key(row.day, row.owner, row.customer, row.meter)


def _after_day(page: str) -> tuple[date, str, str, str]:
    day, owner, customer, meter = decode_key(page, str, str, str, str)
    try:
        return date.fromisoformat(day), owner, customer, meter
    except ValueError as error:
        raise InvalidCursor(page) from error


def _batch_key(row: Row[Any]) -> str:
    return encode_key((row.created_at - _EPOCH) // _MICROSECOND, row.id)


def _after_batch(page: str) -> tuple[datetime, str]:
    microseconds, identifier = decode_key(page, int, str)
    try:
        return _EPOCH + microseconds * _MICROSECOND, identifier
    except OverflowError as error:
        raise InvalidCursor(page) from error


def _shown(row: Row[Any]) -> UsageBatch:
    values = row._asdict()
    return UsageBatch(
        identifier=values.pop("id"),
        **{name: value for name, value in values.items() if name in UsageBatch.model_fields},
    )
