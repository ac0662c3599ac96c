"""Event streams: one job for a browser's EventSource, or many jobs in one request."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Annotated, Any, Final
from urllib.parse import quote

from fastapi import APIRouter, Header, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from livejobs.entries import Cursor
from livejobs.errors import UnknownJob

from ..dependencies import Reader
from ..problems import ApiProblem
from ..push.connection import Connection
from ..push.gate import Refused
from ..push.sse import EventStream, TroubleStream, first_frames, retry_hint
from ..push.subscriptions import (
    MAX_SUBSCRIPTIONS,
    Entries,
    Refusal,
    SubscriptionItem,
    Wanted,
    WantedFeed,
    entries_of,
    wanted_of,
)
from ..push.wire import DEGRADED, END, FINAL, MISSING, SUBSCRIBED, Frame
from ..services import Services
from ..viewer import READ, Viewer
from .fields import After, JobIdPath, Server, parse_after

router = APIRouter(prefix="/v1", tags=["live"])

FIRST_FRAME_SECONDS: Final = 5.0
"""How long a stream's head waits for the job's state, which decides about 404."""

_EVENT_STREAM: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "The messages, one for each `data:`; `id:` is the cursor.",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    },
}
_ANY_CREDENTIALS: Final[dict[str, Any]] = {"security": [{"bearer": []}, {"api_key": []}]}


class WatchBody(BaseModel):
    """What to watch."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    subscribe: Annotated[list[SubscriptionItem], Field(min_length=1, max_length=MAX_SUBSCRIPTIONS)]


@router.get(
    "/jobs/{job_id}/events",
    response_class=Response,
    responses=_EVENT_STREAM
    | {204: {"description": "The job is over, and the client has been told everything."}},
    openapi_extra=_ANY_CREDENTIALS,
)
async def stream_job(
    job_id: JobIdPath,
    request: Request,
    server: Server,
    after: After = None,
    entries: Annotated[Entries, Query()] = "all",
    last_event_id: Annotated[
        str | None, Header(max_length=64, description="As a browser sends it; it outdoes `after`.")
    ] = None,
) -> Response:
    """Follow one job as server-sent events, until it is over."""
    return await stream(server, request, job_id, last_event_id or after or None, entries)


async def stream(
    server: Services, request: Request, job_id: str, known: str | None, entries: str = "all"
) -> Response:
    """The event stream of one job, or what is answered in its place.

    Args:
        known: The cursor up to which the client knows the job; None: it knows nothing.
        entries: Which it wants, as `entries_of` takes it.

    Raises:
        ApiProblem, LivejobsError: There is none for this request.
    """
    viewer = await _viewer(server, request, job_id)
    wanted = Wanted(job_id, parse_after(known), entries_of(entries))
    with contextlib.ExitStack() as cleanup:
        connection = Connection(server, viewer)
        cleanup.callback(connection.close)
        try:
            server.gate.enter(connection, request, viewer.owner)
        except Refused as refused:
            # A browser would never try again after an error.
            return TroubleStream(hint=retry_hint((refused.retry_after * 1000,) * 2))
        frames = await _first_frames(connection, wanted)
        headers = _cookie(server, viewer, request, job_id)
        if not frames:
            return TroubleStream(headers, _hint(server))
        if known is not None and known.endswith("-end") and _is_still_over(wanted.after, frames):
            return Response(status_code=204, headers=headers)
        cleanup.pop_all()  # The stream closes the connection from here on.
        return EventStream(server, connection, frames, headers)


@router.post("/events", response_class=Response, responses=_EVENT_STREAM)
async def stream_jobs(
    body: WatchBody, request: Request, server: Server, viewer: Reader
) -> Response:
    """Follow many jobs in one stream of server-sent events, until all are over, and feeds."""
    if server.departure.begun:
        raise leaving(server)
    with contextlib.ExitStack() as cleanup:
        connection = Connection(server, viewer)
        cleanup.callback(connection.close)
        let_in(connection, server, request)
        frames = watch_all(connection, body.subscribe)
        cleanup.pop_all()  # The stream closes the connection from here on.
        return EventStream(server, connection, frames)


def let_in(connection: Connection, server: Services, request: Request) -> None:
    """Count a request that is held, until its connection is closed.

    Raises:
        ApiProblem: 429 where there are enough, 503 where there is no room.
    """
    try:
        server.gate.enter(connection, request, connection.viewer.owner if connection.viewer else "")
    except Refused as refused:
        later = {"Retry-After": str(refused.retry_after)}
        raise ApiProblem(refused.code, headers=later) from None


def watch_all(
    connection: Connection, items: list[SubscriptionItem], *, polling: bool = False
) -> list[Frame]:
    """Subscribe to all items; returns the answers to those that cannot be served.

    Args:
        polling: A client with a `since` has been told of jobs that are not over, and is told
            again of those only that have changed.
    """
    refused = []
    for item in items:
        try:
            wanted = wanted_of(item)
            if polling and isinstance(wanted, WantedFeed):
                wanted = replace(wanted, wants_open=wanted.since is None)
            answer = connection.subscribe(wanted)
        except Refusal as refusal:
            answer = refusal.frame(item.job_id or "", item.feed or "")
        if answer is not None:
            refused.append(answer)
    return refused


def leaving(server: Services) -> ApiProblem:
    """What is answered to a request that a server which goes away does not serve any more."""
    return ApiProblem("server_leaving", headers={"Retry-After": server.departure.retry_after()})


async def _viewer(server: Services, request: Request, job_id: str) -> Viewer:
    """The viewer of a stream; beside the usual credentials, the stream's own cookie counts."""
    viewer = await server.access.authenticate(request, job_id=job_id)
    if viewer is None:
        raise ApiProblem("unauthenticated")
    if not viewer.has_scope(READ):
        raise ApiProblem("scope_missing", f"These credentials lack the scope {READ}.")
    return viewer


def _cookie(server: Services, viewer: Viewer, request: Request, job_id: str) -> dict[str, str]:
    """The header that lets a browser reconnect to a stream it opened with a ticket."""
    if not server.access.is_by_ticket(request):
        return {}
    secure = request.url.scheme == "https"
    cookie = server.access.stream_cookie(viewer, job_id, quote(request.url.path), secure=secure)
    return {} if cookie is None else {"Set-Cookie": cookie}


async def _first_frames(connection: Connection, wanted: Wanted) -> list[Frame]:
    """What a stream begins with; empty where the server cannot tell now.

    Raises:
        UnknownJob: There is no such job, or it is not the viewer's.
    """
    answer = connection.watch(wanted)
    frames = await first_frames(connection, FIRST_FRAME_SECONDS) if answer is None else [answer]
    if any(frame.kind == MISSING for frame in frames):
        raise UnknownJob(wanted.job_id)
    return frames


def _hint(server: Services) -> bytes | None:
    """When a stream that cannot begin is to be tried again, where that is known."""
    return server.departure.drain().sse if server.departure.begun else None


def _is_still_over(after: Cursor | None, frames: list[Frame]) -> bool:
    """Whether a client that has seen the end `after` names has nothing to learn."""
    kinds = {frame.kind for frame in frames} - {DEGRADED}
    return kinds == {SUBSCRIBED, FINAL, END} and all(
        after is not None and frame.attempt == after.attempt
        for frame in frames
        if frame.kind == FINAL
    )
