"""Whether the process lives, and whether it can do its work; for whoever asks."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter, Response
from sqlalchemy import Table, select

from livejobs.database import Steps
from livejobs.errors import DatabaseUnavailable, MigrationsNeeded
from livejobs.models import SCHEMA_TOKEN, Beat, db_now

from ..problems import problem_response
from ..services import Services
from ..tables import check_tables
from ..why import KEEPER_SECONDS
from .answers import Health, Readiness
from .fields import Server

router = APIRouter(tags=["health"])

_beats: Final[Table] = Beat.metadata.tables[f"{SCHEMA_TOKEN}.livejobs_beats"]
OK: Final = "ok"


@router.get("/healthz", response_model=Health)
async def healthz() -> Health:
    """The process is alive."""
    return Health()


@router.get("/readyz", response_model=Readiness)
async def readyz(server: Server) -> Response:
    """Whether database, tables, Redis and a keeper are there; 503 names what is missing.

    A server that goes away is not ready either.
    """
    parts = await _database_parts(server)
    parts["redis"] = OK if await server.live.ping() else "away"
    if server.departure.begun:
        parts["server"] = "leaving"
    headers = {"Cache-Control": "no-store"}
    missing = [name for name, state in parts.items() if state != OK]
    if missing:
        detail = f"Not ready: {', '.join(missing)}."
        return problem_response("not_ready", detail, headers=headers, parts=parts)
    body = Readiness(status="ready", parts=parts).model_dump_json()
    return Response(body, headers=headers, media_type="application/json")


async def _database_parts(server: Services) -> dict[str, str]:
    try:
        return await _tables_and_keeper(server)
    except DatabaseUnavailable:
        return {"database": "away", "migrations": "unknown", "keeper": "unknown"}


async def _tables_and_keeper(server: Services) -> dict[str, str]:
    try:
        await check_tables(server.database)
    except MigrationsNeeded:
        return {"database": OK, "migrations": "missing", "keeper": "unknown"}
    alive = await server.database.read(_keeper_alive())
    return {"database": OK, "migrations": OK, "keeper": OK if alive else "missing"}


def _keeper_alive() -> Steps[bool]:
    rows = yield select(_beats.c.name).where(_beats.c.at > db_now(-KEEPER_SECONDS)).limit(1)
    return bool(rows)
