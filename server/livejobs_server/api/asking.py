"""What admins ask about jobs that do not move: why, and where their code stands."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Final, TypeVar

from fastapi import APIRouter, Response
from kombu.exceptions import KombuError
from starlette.concurrency import run_in_threadpool

from livejobs.control import ask_for_queues, ask_for_stack
from livejobs.errors import JobConflict, UnknownJob
from livejobs.patience import call_within
from livejobs.views import Status

from ..dependencies import Admin
from ..problems import ApiProblem
from ..snapshots import can_exist
from ..why import explain, read_facts
from .answers import Reason, Stack
from .fields import JobIdPath, Server
from .jobs import visible

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["jobs"])

T = TypeVar("T")

WORKERS_SECONDS: Final = 1.0
"""Workers that have not answered by then are taken for busy or gone."""
BROKER_SECONDS: Final = 5.0

_log = logging.getLogger("livejobs.api")


@router.get("/why", response_model=Reason)
async def get_reason(
    job_id: JobIdPath, response: Response, server: Server, viewer: Admin
) -> Reason:
    """Why a job is where it is, in one sentence; for admins."""
    grace = server.settings.cancel_grace
    facts = await server.database.read(read_facts(job_id, grace)) if can_exist(job_id) else None
    if facts is None:
        raise UnknownJob(job_id)
    workers = None
    if facts.is_sent:
        ask = functools.partial(ask_for_queues, server.celery, WORKERS_SECONDS)
        workers = await run_in_threadpool(_of_broker, ask)
    response.headers["Cache-Control"] = "no-store"
    return Reason(job_id=job_id, status=facts.row.status, reason=explain(facts, workers))


@router.get("/stack", response_model=Stack)
async def get_stack(job_id: JobIdPath, response: Response, server: Server, viewer: Admin) -> Stack:
    """Where the code of a running job stands; for admins."""
    row = await visible(server.database, viewer, job_id)
    if row.status != Status.PROCESSING or row.worker is None or row.lease_until is None:
        raise JobConflict(job_id, row.status, "seen at work")
    ask = functools.partial(ask_for_stack, server.celery, job_id, row.worker, WORKERS_SECONDS)
    found = await run_in_threadpool(_of_broker, ask)
    if found is None or found["stack"] is None:
        raise ApiProblem("worker_silent")
    response.headers["Cache-Control"] = "no-store"
    return Stack(job_id=job_id, **found)


def _of_broker(ask: Callable[[], T]) -> T | None:
    """What the workers answer; None: the broker does not."""
    try:
        return call_within(BROKER_SECONDS, ask, "broker")
    except (KombuError, OSError, TimeoutError) as error:
        _log.warning("the workers cannot be asked: %s", error)
        return None
