"""Polling that is told of changes: a request is held until there is something to say."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, datetime
from typing import Annotated, Final

from fastapi import APIRouter, Request, Response
from pydantic import Field

from livejobs.entries import Cursor
from livejobs.views import ServerMessage, Wire, format_time

from ..dependencies import Reader
from ..problems import ApiProblem
from ..push.connection import Connection, Ending
from ..push.outage import Outage
from ..push.subscriptions import SubscriptionItem, Wanted
from ..push.times import read_time
from ..push.wire import SUBSCRIBED, Frame, degraded_frame
from ..services import Services
from ..viewer import Viewer
from .bookmark import Bookmark, bookmark_text, facts_of
from .events import WatchBody, leaving, let_in, watch_all
from .fields import Server

router = APIRouter(prefix="/v1", tags=["live"])

MAX_WAIT_SECONDS: Final = 30.0
ANSWER_SECONDS: Final = 5.0
"""How long the state of the jobs may take, however short the wait is."""


class PollBody(WatchBody):
    """What to look for, and how long."""

    wait: Annotated[float, Field(ge=0, le=MAX_WAIT_SECONDS, allow_inf_nan=False)] = Field(
        0.0, description="Seconds to wait for the first change where nothing is new."
    )


class PollAnswer(Wire):
    """Everything that is new, in order for each job."""

    messages: list[ServerMessage]
    since: str = Field(description="Of all feeds asked for: hand it back as it is.")


@router.post("/poll", response_model=PollAnswer)
async def poll(body: PollBody, request: Request, server: Server, viewer: Reader) -> Response:
    """What is new about jobs and feeds: at once, at the first change, or nothing after `wait`."""
    with contextlib.closing(Connection(server, viewer)) as connection, _held(server):
        let_in(connection, server, request)
        # In another order each time: where an answer is full, no job is the last one for ever.
        items = random.sample(body.subscribe, len(body.subscribe))
        refused = watch_all(connection, items, polling=True)
        client = _Client(body.subscribe, connection.followed)
        async with _ended_by_disconnect(connection, request):
            frames = await _news(connection, body.wait, refused, client)
        since = client.since(connection)
        if connection.ending is Ending.LEAVING:
            if not any(map(_is_news, frames)):
                # An answer without news would bring all clients back at the same moment.
                raise leaving(server)
            frames.append(server.departure.drain())
        if connection.ending is None and not connection.answered and not frames:
            raise ApiProblem("database_unavailable", "The state of the jobs cannot be read now.")
    frames += _condition(server.relay.outage)
    server.counts.poll_deliveries += len(frames)
    messages = b",".join(client.payload(frame, since) for frame in frames)
    return Response(
        b'{"messages":[%b],"since":"%b"}' % (messages, since.encode()),
        headers={"Cache-Control": "no-store"},
        media_type="application/json",
    )


async def wait_for_change(
    server: Services,
    viewer: Viewer,
    request: Request,
    job_id: str,
    version: int,
    cursor: Cursor,
    seq: int,
    wait: float,
) -> bool:
    """Wait until a job is newer than what a client has, or gone; it costs one read at most.

    Args:
        viewer: Whose client it is.
        request: The client's; where it leaves, the wait is over.
        version: Version of the view it has.
        cursor: The last entry it has.
        seq: Seq of the progress it has.
        wait: Seconds.

    Returns:
        Whether there is anything new; False after the wait, and where client or server go away.
    """
    with contextlib.closing(Connection(server, viewer)) as connection, _held(server):
        let_in(connection, server, request)
        if connection.watch(Wanted(job_id, cursor, "all", version, seq)) is not None:
            return True
        async with _ended_by_disconnect(connection, request):
            return any(map(_is_news, await _news(connection, wait, [], _Client())))


@contextlib.contextmanager
def _held(server: Services) -> Iterator[None]:
    """Count a request while it is held."""
    server.counts.poll_viewers += 1
    try:
        yield
    finally:
        server.counts.poll_viewers -= 1


class _Client:
    """What the client of one poll knows and is told of feeds.

    Args:
        items: What it asked for.
        followed: The feeds that it may follow.
    """

    def __init__(
        self, items: Sequence[SubscriptionItem] = (), followed: Sequence[str] = ()
    ) -> None:
        self._given = {item.feed: item.since or "" for item in items if item.feed in followed}
        self._bookmarks = {feed: Bookmark.read(since) for feed, since in self._given.items()}
        self._jobs = {item.job_id for item in items}
        self._began: dict[str, int] = {}
        self._told: list[Frame] = []
        self._facts: set[bytes] = set()

    def take(self, frame: Frame) -> bool:
        """Note what it is told; False: it knows that already."""
        if not self._bookmarks:
            return True
        if frame.kind == SUBSCRIBED and not frame.job_id:
            message = json.loads(frame.payload)
            self._began[message["feed"]] = read_time(message["since"])
        if frame.job_id in self._jobs:
            return True
        facts = facts_of(frame)
        if facts and facts <= self._facts:
            return False
        self._told.append(frame)
        self._facts |= facts
        # Feeds that were added since begin with what the others have told already.
        return not all(bookmark.knows(frame) for bookmark in self._bookmarks.values())

    def is_news(self, frame: Frame) -> bool:
        """Whether a frame is worth an answer."""
        if not _is_news(frame):
            return False
        return all(bookmark.is_news(frame) for bookmark in self._bookmarks.values())

    def since(self, connection: Connection) -> str:
        """What it is to hand back next time, for all of its feeds."""
        if not self._bookmarks:
            return format_time(datetime.now(UTC))
        unread = [feed for feed in connection.followed if feed not in self._began]
        if unread or not self._began:
            # Nothing of these has been told: as before.
            return min(self._given[feed] for feed in unread or self._given)
        times = []
        for feed, began in self._began.items():
            left = connection.unread_since(feed)
            times.append(began if left is None else left)
        return bookmark_text(min(times), self._told)

    def payload(self, frame: Frame, since: str) -> bytes:
        """A message as it is answered: those that name a time name that of the answer."""
        if frame.kind != SUBSCRIBED or frame.job_id:
            return frame.payload
        return json.dumps(json.loads(frame.payload) | {"since": since}).encode()


def _condition(outage: Outage) -> list[Frame]:
    """What a client that only asks now and then is to know of an outage."""
    told = outage.lasts or outage.ended_lately
    return [degraded_frame(outage.lasts)] if told else []


async def _news(
    connection: Connection, wait: float, frames: list[Frame], client: _Client
) -> list[Frame]:
    """Everything told until something is new and every job was answered for, or the wait is over.

    With news, it ends as well when it holds as much as is kept for any viewer: the client has
    cursors for what it got, and asks for the rest.

    Args:
        wait: Seconds.
        frames: What is known to be new.
        client: Is told all of it.
    """
    began = time.monotonic()
    size, is_new = 0, bool(frames)
    while connection.ending is None:
        if is_new and (connection.answered or size >= connection.buffer_bytes):
            break
        connection.resume_if_drained()
        limit = wait if connection.answered else max(wait, ANSWER_SECONDS)
        left = began + limit - time.monotonic()
        if left <= 0:
            break
        if (frame := await connection.queued(left)) is not None:
            told = [each for each in [frame, *connection.outbox.take()] if client.take(each)]
            frames += told
            size += sum(frame.size for frame in told)
            is_new = is_new or any(map(client.is_news, told))
    return frames


def _is_news(frame: Frame) -> bool:
    return frame.kind != SUBSCRIBED


@contextlib.asynccontextmanager
async def _ended_by_disconnect(connection: Connection, request: Request) -> AsyncIterator[None]:
    """Nobody is waited for who has left."""

    async def notice() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        connection.end(Ending.GONE)

    task = asyncio.create_task(notice())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
