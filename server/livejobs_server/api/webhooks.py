"""Completion webhooks: owners' defaults, what was sent of a job, and sending it again."""

from __future__ import annotations

import json
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Response
from pydantic import Field
from sqlalchemy import Row

from livejobs import reads, transitions
from livejobs.database import Steps
from livejobs.errors import JobConflict
from livejobs.models import view_of
from livejobs.statements import JobRow
from livejobs.views import JobView, Status
from livejobs.webhook_settings import owner_secret
from livejobs.webhook_urls import MAX_URL_CHARACTERS, parse
from livejobs.webhooks import (
    Delivery,
    checked_url,
    deliveries,
    find_default,
    hurry,
    remove_default,
    require_secret,
    send_again,
    set_default,
)

from ..dependencies import Creator, Lister
from ..problems import ApiProblem
from ..viewer import Viewer
from .answers import (
    Webhook,
    WebhookDeliveries,
    WebhookDelivery,
    WebhookSecret,
    WebhookTry,
)
from .fields import Body, JobIdPath, Name, Server, Text
from .jobs import changeable, visible

router = APIRouter(prefix="/v1", tags=["webhooks"])

MOST_SHOWN: Final = 20

Owner = Annotated[Name | None, Query(description="Of this owner, for admins; default: oneself.")]


class WebhookBody(Body):
    """Who is to be told."""

    url: Annotated[Text, Field(min_length=1, max_length=MAX_URL_CHARACTERS)] = Field(
        description="http or https, without user, password and fragment.",
        examples=["https://example.com/hooks"],
    )


# -- an owner's default ----------------------------------------------------------------------------


@router.put("/webhooks/default", response_model=Webhook)
async def set_default_webhook(
    body: WebhookBody, response: Response, server: Server, viewer: Creator, owner: Owner = None
) -> Webhook:
    """From now on, tell this URL of the ends of all jobs that name no other; not of children's."""
    checked_url(body.url, server.settings)
    row = await server.database.run(set_default(_owner(viewer, owner), body.url))
    return _default(row, response)


@router.get("/webhooks/default", response_model=Webhook)
async def show_default_webhook(
    response: Response, server: Server, viewer: Creator, owner: Owner = None
) -> Webhook:
    """The default; it needs the scope write, since its URL may be a secret."""
    row = await server.database.read(find_default(_owner(viewer, owner)))
    if row is None:
        raise ApiProblem("unknown_webhook", "There is no default webhook.")
    return _default(row, response)


@router.delete("/webhooks/default", status_code=204, response_class=Response)
async def delete_default_webhook(server: Server, viewer: Creator, owner: Owner = None) -> None:
    """Tell nobody any more, but for jobs that name a URL of their own."""
    if not await server.database.run(remove_default(_owner(viewer, owner))):
        raise ApiProblem("unknown_webhook", "There is no default webhook.")


@router.get("/webhooks/secret", response_model=WebhookSecret)
async def show_webhook_secret(
    response: Response, server: Server, viewer: Creator, owner: Owner = None
) -> WebhookSecret:
    """What an owner's receivers verify webhooks with; who knows it can sign for no other owner."""
    owner = _owner(viewer, owner)
    secret = require_secret(server.settings)
    response.headers["Cache-Control"] = "no-store"
    return WebhookSecret(owner=owner, secret=owner_secret(secret, owner))


def _owner(viewer: Viewer, owner: str | None) -> str:
    if owner not in (None, viewer.owner) and not viewer.is_admin:
        raise ApiProblem("scope_missing", "Another owner's webhook needs the scope admin.")
    return viewer.owner if owner is None else owner


def _default(row: Row[Any], response: Response) -> Webhook:
    response.headers["Cache-Control"] = "no-store"
    return Webhook.model_validate(row._asdict())


# -- of a job --------------------------------------------------------------------------------------


@router.get("/jobs/{job_id}/webhooks", response_model=WebhookDeliveries)
async def list_job_webhooks(
    job_id: JobIdPath, response: Response, server: Server, viewer: Lister
) -> WebhookDeliveries:
    """What has told, or is to tell, of a job's ends: each try, and when the next one is."""
    await visible(server.database, viewer, job_id)
    found = await server.database.read(deliveries(job_id, MOST_SHOWN))
    response.headers["Cache-Control"] = "private, no-cache"
    return WebhookDeliveries(items=[_shown(each) for each in found])


@router.post("/jobs/{job_id}/webhooks/resend", status_code=202, response_model=JobView)
async def resend_job_webhook(job_id: JobIdPath, server: Server, viewer: Creator) -> JobView:
    """Send the webhook of a job's last end once more, now, under the same id."""
    row = await changeable(server.database, viewer, job_id)
    sending = await server.database.run(_resend(row))
    if sending is None:
        raise ApiProblem("unknown_webhook", "No webhook tells of an end of this job.")
    await server.live.publish_view(sending)
    return view_of(sending)


def _resend(row: JobRow) -> Steps[JobRow | None]:
    """The job that sends it: the one that failed, the one that waits, or a new one."""
    found = yield from deliveries(row.id, 1)
    if not found:
        return None
    last = found[0].row
    if last.status == Status.COMPLETED:
        return (yield from reads.job((yield from send_again(row, last))))
    again = yield from (hurry if last.status == Status.PENDING else transitions.requeue)(last.id)
    if again is None:
        raise JobConflict(last.id, last.status, "sent again")
    return again


def _shown(delivery: Delivery) -> WebhookDelivery:
    row = delivery.row
    webhook_id, url, event = delivery.arguments
    return WebhookDelivery(
        job_id=row.id,
        webhook_id=webhook_id,
        type=json.loads(event)["type"],
        host=parse(url).host,
        status=row.status,
        tries=[_try(event, row) for event in delivery.tries],
        next_try_at=row.run_at,
        created_at=row.created_at,
        completed_at=row.completed_at,
    )


def _try(event: Row[Any], row: JobRow) -> WebhookTry:
    error = (event.detail or {}).get("error") or {}
    status = str(error.get("code", "")).removeprefix("http_")
    if event.kind == Status.COMPLETED:
        status = str((row.result or {}).get("status", ""))
    return WebhookTry(
        at=event.at,
        status_code=int(status) if status.isdigit() else None,
        error=error.get("message"),
    )
