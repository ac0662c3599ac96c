"""Follow a job to its end across lost connections: `watch()` and `wait()`."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Literal, TypedDict, Unpack

from ..entries import START, Cursor
from ..errors import JobFailed, JobWasCancelled
from ..views import EndMessage, JobMessage, JobView, PingMessage, PongMessage, ServerMessage, Status
from .policy import Bookmark, Reconnection, Transport
from .transports import (
    Dropped,
    Open,
    Target,
    Timing,
    Unauthenticated,
    poll_messages,
    sse_messages,
    websocket_messages,
)

log = logging.getLogger("livejobs.watching")

DEFAULT_URL = "http://127.0.0.1:8000"

Secret = str | Callable[[], str | Awaitable[str]]
"""A credential, or a function, sync or async, that gets a fresh one at each connect."""

_OPEN: dict[Transport, Open] = {
    Transport.WEBSOCKET: websocket_messages,
    Transport.SSE: sse_messages,
    Transport.POLL: poll_messages,
}


@dataclass(frozen=True, slots=True)
class ConnectionEvent:
    """The connection came up or was lost.

    Attributes:
        transport: The one that came up, or that is tried next.
        connected: Whether messages are coming in.
        reason: Why it was lost, empty when it came up.
        delay: Seconds until the next try, 0 when it came up.
    """

    transport: Transport
    connected: bool
    reason: str = ""
    delay: float = 0.0


class WatchOptions(TypedDict, total=False):
    """Options of `watch()` and `wait()`.

    Attributes:
        url: The server, without /v1; default `LIVEJOBS_URL`, else http://127.0.0.1:8000.
        token: A signed token, or a function that gets a fresh one at each connect.
        api_key: An API key instead; default `LIVEJOBS_API_KEY` where there is no token.
        transport: One transport only, or "auto": WebSocket, then SSE, then polling.
        on_connection: Told when the connection comes up or is lost.
        timing: Time-outs, for tests and unusual networks.
    """

    url: str | None
    token: Secret | None
    api_key: Secret | None
    transport: Literal["auto", "websocket", "sse", "poll"]
    on_connection: Callable[[ConnectionEvent], None]
    timing: Timing


async def watch(
    job_id: str, *, after: str | None = None, entries: bool = True, **options: Unpack[WatchOptions]
) -> AsyncGenerator[ServerMessage, None]:
    """Yield what happens to a job until it is over, each entry once, the last message an `end`.

    It reconnects as long as it takes, with full jitter, and resumes where it was; where WebSockets
    do not get through it uses server-sent events, then polling, and tries upward again later.

    Args:
        job_id: The job.
        after: Cursor of the last entry already seen, None to begin with the first.
        entries: Whether log and output are wanted.
        **options: Where and as whom, see `WatchOptions`.

    Raises:
        UnknownJob: There is no such job, or it is not yours.
        Unauthenticated: The credentials are not taken; with a function for them: twice in a row.
        WatchRefused: The server refuses for another reason that will not pass.
        InvalidCursor: `after` is not a cursor.
    """
    bookmark = Bookmark(Cursor.parse(after) if after else START)
    policy = _policy(options)
    tell = options.get("on_connection") or _tell_nobody
    headers = await _credentials(options)
    refused = False
    while True:
        target = Target(_url(options), job_id, bookmark.cursor, headers, entries, _timing(options))
        try:
            async with aclosing(_connection(target, policy, tell)) as messages:
                async for message in messages:
                    refused = False
                    if bookmark.accept(message):
                        yield message
                    if isinstance(message, EndMessage):
                        return
            # Only a due try of a better transport ends a connection without an error.
            delay = 0.0
        except Unauthenticated as unauthenticated:
            if refused or not _is_fresh(options):
                raise
            refused = True
            delay = _lost(Dropped(str(unauthenticated)), job_id, policy, tell)
        except Dropped as dropped:
            delay = _lost(dropped, job_id, policy, tell)
        await asyncio.sleep(delay)
        headers = await _fresh_credentials(headers, options)


def _lost(
    dropped: Dropped, job_id: str, policy: Reconnection, tell: Callable[[ConnectionEvent], None]
) -> float:
    delay = policy.closed(after=dropped.after, busy=dropped.busy)
    log.info("connection lost: %s", dropped, extra={"job_id": job_id, "retry_in": delay})
    tell(ConnectionEvent(policy.transport, False, str(dropped), delay))
    return delay


async def wait(
    job_id: str,
    *,
    timeout: float | None = None,  # noqa: ASYNC109 - a wait without its own limit is a trap
    **options: Unpack[WatchOptions],
) -> JobView:
    """Wait until a job has completed.

    Args:
        job_id: The job.
        timeout: Longest wait in seconds, None for as long as it takes.
        **options: Where and as whom, see `WatchOptions`.

    Returns:
        The job's final view, its result in it.

    Raises:
        JobFailed: The job failed; its error is in the exception.
        JobWasCancelled: It was cancelled.
        TimeoutError: It was not over in time.
        UnknownJob, Unauthenticated, WatchRefused: As `watch()`.
    """
    view: JobView | None = None
    async with (
        asyncio.timeout(timeout),
        aclosing(watch(job_id, entries=False, **options)) as messages,
    ):
        async for message in messages:
            if isinstance(message, JobMessage):
                view = message.job
    if view is None or view.status is Status.CANCELLED:
        raise JobWasCancelled(job_id)
    if view.status is Status.FAILED:
        raise JobFailed(job_id, view.error)
    return view


async def _connection(
    target: Target, policy: Reconnection, tell: Callable[[ConnectionEvent], None]
) -> AsyncGenerator[ServerMessage, None]:
    """One connection's messages; ends when a better transport is due a try."""
    loop = asyncio.get_running_loop()
    transport, opened = policy.transport, False
    async with aclosing(_OPEN[transport](target)) as messages:
        deadline: float | None = loop.time() + target.timing.open
        while True:
            try:
                async with asyncio.timeout_at(deadline):
                    message = await anext(messages)
            except TimeoutError:
                if not opened:
                    raise Dropped(f"nothing came for {target.timing.open:g} s") from None
                policy.upward()
                return
            except StopAsyncIteration:
                raise Dropped("the server closed the connection") from None
            if not opened:
                opened = True
                policy.opened()
                tell(ConnectionEvent(transport, True))
                deadline = _upward_deadline(policy, loop)
            if not isinstance(message, PingMessage | PongMessage):
                yield message


def _upward_deadline(policy: Reconnection, loop: asyncio.AbstractEventLoop) -> float | None:
    remaining = policy.upward_in()
    return None if remaining is None else loop.time() + remaining


def _policy(options: WatchOptions) -> Reconnection:
    transport = options.get("transport", "auto")
    return Reconnection() if transport == "auto" else Reconnection([Transport(transport)])


def _url(options: WatchOptions) -> str:
    url = options.get("url") or os.environ.get("LIVEJOBS_URL") or DEFAULT_URL
    return url.rstrip("/")


def _timing(options: WatchOptions) -> Timing:
    return options.get("timing") or Timing()


async def _credentials(options: WatchOptions) -> dict[str, str]:
    token = await _value(options.get("token"))
    if token:
        return {"Authorization": f"Bearer {token}"}
    api_key = await _value(options.get("api_key")) or os.environ.get("LIVEJOBS_API_KEY")
    return {"X-API-Key": api_key} if api_key else {}


async def _fresh_credentials(headers: dict[str, str], options: WatchOptions) -> dict[str, str]:
    """Credentials for the next connect; the old ones where the function for them fails.

    It usually asks a server that may be away just like ours; the old ones may still be good.
    """
    try:
        return await _credentials(options)
    except Exception:
        log.warning("could not get fresh credentials", exc_info=True)
        return headers


async def _value(secret: Secret | None) -> str | None:
    value = secret() if callable(secret) else secret
    return await value if inspect.isawaitable(value) else value


def _is_fresh(options: WatchOptions) -> bool:
    """Whether the next connect will bring other credentials."""
    return callable(options.get("token")) or callable(options.get("api_key"))


def _tell_nobody(event: ConnectionEvent) -> None:
    """The default of `on_connection`."""
