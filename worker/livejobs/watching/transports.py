"""The three transports: each opens one connection and yields its messages until it ends.

They do not reconnect. How a connection ended is an exception: `Dropped` says come back,
`Unauthenticated` come back with other credentials, any other error of livejobs don't come back.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypeVar
from urllib.parse import quote, urlsplit

import httpx
from httpx_sse import EventSource, SSEError
from pydantic import ValidationError
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from ..entries import Cursor
from ..errors import LivejobsError, UnknownJob
from ..views import (
    EndMessage,
    JobMessage,
    JobView,
    PingMessage,
    ProblemMessage,
    ServerMessage,
    SubscribedMessage,
    server_message,
)

T = TypeVar("T")

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
"""Largest message taken from a server, so that a broken one cannot fill the memory."""

_SUBSCRIBE_REF = 1
_LASTING_PROBLEMS = frozenset(
    {"invalid_request", "invalid_cursor", "scope_missing", "limited_token", "origin_not_allowed"}
)


class Dropped(Exception):
    """The connection ended, or could not be opened: try again.

    Attributes:
        after: Seconds the server asked to wait, None where it did not.
        busy: The server has too much to do.
    """

    def __init__(self, reason: str, *, after: float | None = None, busy: bool = False) -> None:
        self.after = after
        self.busy = busy
        super().__init__(reason)


class WatchRefused(LivejobsError):
    """The server will not let this be watched; trying again would not help."""


NOT_TAKEN: Final = (
    "The server does not take these credentials, or no longer: "
    "give token= or api_key=, or set LIVEJOBS_API_KEY."
)


class Unauthenticated(WatchRefused):
    """The server does not take these credentials, or no longer."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Times of a connection, in seconds.

    Attributes:
        open: Longest wait for a connection's first message.
        dead: Silence after which a connection counts as dead.
        poll_wait: How long the server may hold a poll that has nothing new.
        poll_pause: Shortest time between two polls.
    """

    open: float = 10.0
    dead: float = 25.0
    poll_wait: float = 20.0
    poll_pause: float = 0.5


@dataclass(frozen=True, slots=True)
class Target:
    """What to watch, and as whom.

    Attributes:
        url: The server, without /v1.
        job_id: The job.
        headers: Credentials.
        entries: Whether log and output are wanted.
        timing: Times of the connection.
        after: Where to resume.
    """

    url: str
    job_id: str
    after: Cursor
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    entries: bool = True
    timing: Timing = Timing()

    @property
    def path(self) -> str:
        """The job's own URL."""
        return f"{self.url}/v1/jobs/{quote(self.job_id, safe='')}"

    @property
    def is_local(self) -> bool:
        """Whether the server is on this machine, where no proxy of the environment applies."""
        return urlsplit(self.url).hostname in {"127.0.0.1", "localhost", "::1"}


Messages = AsyncGenerator[ServerMessage, None]
Open = Callable[[Target], Messages]


class Leaving(NamedTuple):
    """The server announced that it goes away.

    Attributes:
        after: Seconds to wait before coming back, None where it did not say.
    """

    after: float | None


def parse_message(text: str | bytes) -> ServerMessage | Leaving | None:
    """One message of the server; None where it is of a type this version does not know.

    Raises:
        Dropped: It is no message at all.
    """
    try:
        return read_message(json.loads(text))
    except ValueError:
        raise Dropped("the server sent something that is no JSON") from None


def read_message(data: Any) -> ServerMessage | Leaving | None:
    """`parse_message` for what was parsed as JSON already."""
    if not isinstance(data, dict) or "type" not in data:
        raise Dropped("the server sent something that is no message")
    if data["type"] == "drain":
        delay = data.get("reconnect_after_ms")
        return Leaving(delay / 1000 if isinstance(delay, int | float) and delay >= 0 else None)
    try:
        return server_message.validate_python(data)
    except ValidationError as error:
        if all(problem["type"] == "union_tag_invalid" for problem in error.errors()):
            return None
        raise Dropped("the server sent a message that cannot be read") from None


async def websocket_messages(target: Target) -> Messages:
    """Follow the job over a WebSocket."""
    url = f"ws{target.url.removeprefix('http')}/v1/ws"
    try:
        async with connect(
            url,
            additional_headers=target.headers,
            open_timeout=target.timing.open,
            # The server pings after 15 s of silence; not hearing it is what tells it is dead.
            ping_interval=None,
            close_timeout=1,
            max_size=MAX_MESSAGE_BYTES,
            compression=None,
            proxy=None if target.is_local else True,
        ) as socket:
            await socket.send(json.dumps(_subscribe_op(target)))
            async for message in _received(socket, target):
                yield message
    except ConnectionClosed as closed:
        raise _websocket_end(target.job_id, closed) from None
    except InvalidStatus as refused:
        if refused.response.status_code == 401:
            raise Unauthenticated(NOT_TAKEN) from None
        raise Dropped(f"the server answered {refused.response.status_code}") from None
    except (OSError, WebSocketException) as error:
        # A TimeoutError is an OSError: silence ends up here too.
        raise Dropped(_words(error)) from None


def _subscribe_op(target: Target) -> dict[str, Any]:
    return {
        "op": "subscribe",
        "job_id": target.job_id,
        "after": str(target.after),
        "entries": "all" if target.entries else "none",
        "ref": _SUBSCRIBE_REF,
    }


async def _received(socket: ClientConnection, target: Target) -> Messages:
    move = _Move()
    while True:
        try:
            async with asyncio.timeout(target.timing.dead):
                message = parse_message(await move.within(socket.recv()))
        except ConnectionClosed as closed:
            raise move.dropped(_websocket_end(target.job_id, closed)) from None
        except TimeoutError as silence:
            raise move.dropped(silence) from None
        if isinstance(message, Leaving):
            move.plan(message)
        elif isinstance(message, ProblemMessage) and message.ref == _SUBSCRIBE_REF:
            raise _problem_end(target.job_id, message.code, message.message)
        elif message is not None:
            yield message


class _Move:
    """When to leave a server that goes away; it may serve on until then."""

    def __init__(self) -> None:
        self._at: float | None = None

    def plan(self, leaving: Leaving) -> None:
        """The server said when."""
        if leaving.after is not None:
            self._at = time.monotonic() + leaving.after

    async def within(self, coming: Awaitable[T]) -> T:
        """What is awaited.

        Raises:
            TimeoutError: It is time to leave.
        """
        async with asyncio.timeout(None if self._at is None else self._left(self._at)):
            return await coming

    def dropped(self, otherwise: Exception) -> Exception:
        """What ends the connection: that the server goes away, or `otherwise`."""
        if self._at is None:
            return otherwise
        return Dropped("the server goes away", after=self._left(self._at))

    def _left(self, at: float) -> float:
        return max(0.0, at - time.monotonic())


def _websocket_end(job_id: str, closed: ConnectionClosed) -> Exception:
    code = closed.rcvd.code if closed.rcvd else 1006
    reason = (closed.rcvd.reason if closed.rcvd else "") or "the connection was lost"
    match code:
        case 4400:
            return WatchRefused(f"The server did not understand: {reason}")
        case 4401:
            return Unauthenticated(NOT_TAKEN)
        case 4404:
            return UnknownJob(job_id)
        case 1012 | 4429:
            # All its viewers come back now; none of them at once.
            return Dropped(f"{reason} ({code})", busy=True)
        case _:
            return Dropped(f"{reason} ({code})")


def _problem_end(job_id: str, code: str, message: str) -> Exception:
    """What the refusal of a subscription means; `code` is one of the documented problem codes."""
    if code == "unknown_job":
        return UnknownJob(job_id)
    if code == "unauthenticated":
        return Unauthenticated(message)
    if code in _LASTING_PROBLEMS:
        return WatchRefused(message)
    return Dropped(message, busy=True)


def make_client(target: Target) -> httpx.AsyncClient:
    """The HTTP client for one connection."""
    timing = target.timing
    return httpx.AsyncClient(
        headers=target.headers,
        timeout=httpx.Timeout(timing.dead, connect=timing.open),
        trust_env=not target.is_local,
        # Certificates are loaded only where they will be used; that takes a while.
        verify=target.url.startswith("https"),
    )


async def sse_messages(target: Target) -> Messages:
    """Follow the job over server-sent events."""
    query = {"after": str(target.after)}
    headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
    delay: float | None = None
    move = _Move()
    try:
        async with (
            make_client(target) as client,
            client.stream(
                "GET", f"{target.path}/events", params=query, headers=headers
            ) as response,
        ):
            if response.status_code == 204:
                yield _end(target)
                return
            await _check(response, target.job_id)
            events = EventSource(response).aiter_sse()
            while (event := await move.within(anext(events, None))) is not None:
                delay = event.retry / 1000 if event.retry is not None else delay
                message = parse_message(event.data) if event.data else None
                if isinstance(message, Leaving):
                    move.plan(message)
                elif message is not None:
                    yield message
    except (httpx.HTTPError, httpx.StreamError, SSEError, TimeoutError) as error:
        raise move.dropped(Dropped(_words(error), after=delay)) from None
    raise move.dropped(Dropped("the server closed the stream", after=delay))


async def poll_messages(target: Target) -> Messages:
    """Follow the job by asking for it again and again; the server holds what has nothing new."""
    cursor, etag, first = target.after, "", True
    loop = asyncio.get_running_loop()
    try:
        async with make_client(target) as client:
            while True:
                asked_at = loop.time()
                response = await _poll(client, target, cursor, etag)
                if response.status_code == 304:
                    if (after := _retry_after(response)) is not None:
                        raise Dropped("the server goes away", after=after)
                    yield PingMessage()
                else:
                    etag = response.headers.get("etag", "")
                    for message in _poll_answer(response, target, cursor, first):
                        cursor = max(cursor, _cursor_of(message))
                        yield message
                        if isinstance(message, EndMessage):
                            return
                        if isinstance(message, JobMessage) and message.job.status.is_final:
                            # Whether more entries are left is asked without waiting.
                            etag = ""
                    first = False
                await asyncio.sleep(asked_at + target.timing.poll_pause - loop.time())
    except httpx.HTTPError as error:
        raise Dropped(_words(error)) from None


async def _poll(
    client: httpx.AsyncClient, target: Target, cursor: Cursor, etag: str
) -> httpx.Response:
    query: dict[str, str | float] = {"after": str(cursor)} if target.entries else {}
    headers = {}
    if etag:
        query["wait"] = target.timing.poll_wait
        headers["If-None-Match"] = etag
    response = await client.get(target.path, params=query, headers=headers)
    if response.status_code != 304:
        await _check(response, target.job_id)
    return response


def _poll_answer(
    response: httpx.Response, target: Target, after: Cursor, first: bool
) -> list[ServerMessage]:
    """The messages in an answer, in the order in which a stream would have brought them."""
    try:
        body = response.json()
        view = JobView.model_validate(body)
        entries = [read_message(entry) for entry in body.get("entries") or ()]
    except (ValueError, TypeError, AttributeError):
        raise Dropped("the server sent something that is no job") from None
    known = [entry for entry in entries if entry is not None and not isinstance(entry, Leaving)]
    last = max([after, *map(_cursor_of, known)])
    cursor = last if last.attempt == view.attempt else Cursor(view.attempt, 0)
    messages: list[ServerMessage] = [JobMessage(id=str(cursor), job=view), *known]
    recovered = body.get("recovered") is not False
    if first or not recovered:
        messages.insert(0, SubscribedMessage(job_id=view.job_id, recovered=recovered))
    # An answer may hold a part of many entries: only one without any is the last.
    if view.status.is_final and not known:
        messages.append(EndMessage(id=f"{cursor}-end", job_id=view.job_id))
    return messages


def _cursor_of(message: ServerMessage) -> Cursor:
    return Cursor.parse(getattr(message, "id", "0-0"))


def _end(target: Target) -> EndMessage:
    return EndMessage(id=f"{target.after}-end", job_id=target.job_id)


async def _check(response: httpx.Response, job_id: str) -> None:
    status = response.status_code
    if status == 200:
        return
    await response.aread()
    if status == 401:
        raise Unauthenticated(NOT_TAKEN)
    if status == 404:
        raise UnknownJob(job_id)
    if status in {400, 403, 422}:
        raise WatchRefused(f"The server refused ({status}): {_detail(response)}")
    busy = status in {429, 503}
    raise Dropped(f"the server answered {status}", after=_retry_after(response), busy=busy)


def _detail(response: httpx.Response) -> str:
    try:
        problem = response.json()
        return str(problem.get("detail") or problem.get("title"))
    except (ValueError, AttributeError):
        return response.text[:200]


def _retry_after(response: httpx.Response) -> float | None:
    text = response.headers.get("retry-after", "")
    return float(text) if text.isdigit() else None


def _words(error: BaseException) -> str:
    return str(error) or type(error).__name__
