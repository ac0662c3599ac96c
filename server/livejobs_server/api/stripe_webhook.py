"""Where Stripe reports meter events that it could not use."""

from __future__ import annotations

import logging
from typing import Annotated

from fastapi import APIRouter, Header, Request, Response
from starlette.concurrency import run_in_threadpool

from livejobs.usage_batches import reported

from ..stripe_reports import read_report
from .fields import Server

router = APIRouter(prefix="/v1/stripe", tags=["usage"])

_log = logging.getLogger("livejobs.usage")


@router.post("/webhook", status_code=204, response_class=Response)
async def stripe_webhook(
    request: Request,
    server: Server,
    signature: Annotated[
        str | None, Header(alias="Stripe-Signature", description="As Stripe makes it.")
    ] = None,
) -> None:
    """Take a thin event of Stripe's; those about meter events mark the batches that they name.

    The signature is the credential. Events of other kinds are taken and left alone.
    """
    body = await request.body()
    errors = await run_in_threadpool(read_report, server.settings, body, signature)
    if errors:
        known = await server.database.run(reported(errors))
        _log.warning("Stripe could not use %d meter events, %d of ours", len(errors), known)
