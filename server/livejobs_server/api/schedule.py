"""What beats start, and when."""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter, Response
from sqlalchemy import Table, select

from livejobs.database import Steps
from livejobs.models import SCHEMA_TOKEN, ScheduleRow
from livejobs.statements import Rows

from ..dependencies import Admin
from .answers import Schedule, ScheduleEntry
from .fields import Server

router = APIRouter(prefix="/v1/schedule", tags=["server"])

_entries: Final[Table] = ScheduleRow.metadata.tables[f"{SCHEMA_TOKEN}.livejobs_schedule"]


@router.get("", response_model=Schedule)
async def show_schedule(response: Response, server: Server, viewer: Admin) -> Schedule:
    """The entries of all schedules, with their last and next run; for admins."""
    response.headers["Cache-Control"] = "no-store"
    rows: Any = await server.database.read(_read())
    return Schedule(items=[ScheduleEntry.model_validate(row._asdict()) for row in rows])


def _read() -> Steps[Rows]:
    return (yield select(_entries).order_by(_entries.c.app, _entries.c.name))
