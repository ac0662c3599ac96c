"""Credentials that a page is given by somebody who has some: tokens and tickets."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from typing import Annotated, Self

from fastapi import APIRouter, Depends, Response
from pydantic import Field, model_validator

from livejobs import reads
from livejobs.errors import UnknownJob
from livejobs.views import FeedName

from ..dependencies import get_viewer
from ..problems import ApiProblem
from ..push.scope import ForbiddenFeed, UnknownFeed, scope_of
from ..services import Services
from ..snapshots import can_exist
from ..tickets import issue_ticket
from ..tokens import bounded_end, sign_viewer
from ..viewer import Viewer
from .answers import NewTicket, Token
from .fields import Body, Name, Server
from .jobs import visible

router = APIRouter(prefix="/v1", tags=["credentials"])

MAX_TTL_SECONDS = 24 * 3600
Jobs = Annotated[list[Name], Field(min_length=1, max_length=100)]


class TokenBody(Body):
    """A token wanted."""

    jobs: Jobs | None = Field(None, description="Ids of the jobs it is to be good for.")
    feed: FeedName | None = Field(None, description="Or the feed: `mine`, `tag:key=value` …")
    ttl_seconds: Annotated[int, Field(ge=1, le=MAX_TTL_SECONDS)] | None = Field(
        None, description="How long it is good; `LIVEJOBS_TOKEN_TTL` where it is left out."
    )

    @model_validator(mode="after")
    def _names_one_thing(self) -> Self:
        if (self.jobs is None) == (self.feed is None):
            raise ValueError("give either jobs or feed")
        return self


class TicketBody(Body):
    """A ticket wanted."""

    jobs: Jobs | None = Field(
        None, description="Ids of the jobs it is to be good for; null: all that its maker may see."
    )


@router.post("/tokens", status_code=201, response_model=Token)
async def create_token(
    body: TokenBody,
    response: Response,
    server: Server,
    viewer: Annotated[Viewer, Depends(get_viewer)],
) -> Token:
    """A signed token for a browser, for jobs that its maker may see, or for a feed.

    It allows what its maker is allowed, for these jobs only, and ends no later than the maker's
    own credentials. One for a feed follows that feed and nothing else; but for `all`, it shows its
    maker's own jobs, also where the maker is an admin.
    """
    await _check(server, viewer, body.jobs or [])
    end = bounded_end(viewer, body.ttl_seconds or server.settings.token_ttl)
    limited = dataclasses.replace(viewer.limited_to(body.jobs, body.feed), expires_at=end)
    if body.feed is not None:
        await _check_feed(server, viewer, limited, body.feed)
    response.headers["Cache-Control"] = "no-store"
    token = sign_viewer(limited, server.settings)
    return Token(token=token, expires_at=datetime.fromtimestamp(int(end), UTC))


@router.post("/tickets", status_code=201, response_model=NewTicket)
async def create_ticket(
    response: Response,
    server: Server,
    viewer: Annotated[Viewer, Depends(get_viewer)],
    body: TicketBody | None = None,
) -> NewTicket:
    """A ticket for one use within 30 seconds, for URLs: `?ticket=…`.

    It is good for reading, and for nothing that takes the scope `admin`.
    """
    jobs = None
    if body is not None and body.jobs is not None:
        await _check(server, viewer, body.jobs)
        jobs = body.jobs
    made = await server.database.run(issue_ticket(viewer.limited_to(jobs)))
    response.headers["Cache-Control"] = "no-store"
    return NewTicket(ticket=made.ticket, expires_at=made.expires_at)


async def _check_feed(server: Services, viewer: Viewer, limited: Viewer, feed: str) -> None:
    """The feed is one that both the viewer and who will have the token may follow.

    Raises:
        ApiProblem: It is not.
        UnknownJob: It is about the children of a job that is not theirs.
    """
    try:
        scope_of(feed, viewer)
        scope = scope_of(feed, limited)
    except UnknownFeed:
        raise ApiProblem("unknown_feed") from None
    except ForbiddenFeed:
        raise ApiProblem("forbidden_feed") from None
    if scope.parent_id is None:
        return
    parent_id = scope.parent_id
    row = await server.database.read(reads.job(parent_id)) if can_exist(parent_id) else None
    if row is None or not limited.may_see_in(feed, row.id, row.owner):
        raise UnknownJob(parent_id)


async def _check(server: Services, viewer: Viewer, job_ids: list[str]) -> None:
    """All of these are the viewer's.

    Raises:
        UnknownJob: One is not.
    """
    for job_id in job_ids:
        await visible(server.database, viewer, job_id)
