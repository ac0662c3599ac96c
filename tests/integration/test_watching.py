"""`watch()` and `wait()` against a small server that speaks the protocol and fails on demand."""

from __future__ import annotations

import asyncio
import functools
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from livejobs.entries import Cursor
from livejobs.errors import InvalidCursor, JobFailed, JobWasCancelled, UnknownJob
from livejobs.views import EndMessage, JobMessage, OutputMessage, ServerMessage, Status
from livejobs.watching import (
    ConnectionEvent,
    Reconnection,
    Timing,
    Transport,
    Unauthenticated,
    WatchRefused,
    policy,
    viewer,
    wait,
    watch,
)

TRANSPORTS = ("websocket", "sse", "poll")
QUICK = Timing(open=2.0, dead=2.0, poll_wait=0.05, poll_pause=0.0)
MOMENT = "2024-11-15T10:30:00.000Z"


@dataclass
class Script:
    """What the server knows about its one job, and how it misbehaves.

    Attributes:
        outputs: Texts of the job's output, one entry each.
        status: The job's status once all of them were sent.
        entries_per_connection: Hang up after so many, None to go on to the end.
        refuse: Transports that do not open.
        silent: Transports that open and then never say a thing.
        status_code: HTTP status of every answer, 200 to serve.
        good_tokens: Tokens that are taken, None for any.
        connections: Each connection so far: transport, cursor it asked for, credentials.
    """

    outputs: list[str] = field(default_factory=lambda: ["a", "b", "c", "d"])
    status: str = "completed"
    entries_per_connection: int | None = None
    refuse: set[str] = field(default_factory=set)
    silent: set[str] = field(default_factory=set)
    status_code: int = 200
    good_tokens: set[str] | None = None
    connections: list[tuple[str, str, str]] = field(default_factory=list)

    def connect(self, transport: str, after: str, credentials: str) -> None:
        self.connections.append((transport, after, credentials))

    def takes(self, credentials: str) -> bool:
        return self.good_tokens is None or credentials in self.good_tokens

    def view(self, status: str) -> dict[str, Any]:
        error = {"type": "ValueError", "message": "broken file"} if status == "failed" else None
        return {
            "job_id": "j",
            "task": "t",
            "queue": "q",
            "status": status,
            "version": 2 if status == "processing" else 3,
            "attempt": 1,
            "max_attempts": 4,
            "owner": "",
            "error": error,
            "created_at": MOMENT,
            "updated_at": MOMENT,
        }

    def messages(self, after: str) -> list[dict[str, Any]]:
        """All that one connection is sent, cut short where the script says so."""
        n = Cursor.parse(after).n
        view = {"type": "job", "id": f"1-{n}", "job": self.view("processing")}
        sent: list[dict[str, Any]] = [{"type": "subscribed", "job_id": "j", "recovered": True}]
        sent.append(view)
        entries = self.entries(n)
        if self.entries_per_connection is not None and len(entries) > self.entries_per_connection:
            # One entry that was seen comes again, as from a hub that is not sure.
            again = min(n, 1)
            return [*sent, *self.entries(n - again)[: self.entries_per_connection + again]]
        last = f"1-{len(self.outputs)}"
        final = {"type": "job", "id": last, "job": self.view(self.status)}
        return [*sent, *entries, final, {"type": "end", "id": f"{last}-end", "job_id": "j"}]

    def entries(self, n: int) -> list[dict[str, Any]]:
        return [
            {"type": "output", "id": f"1-{number}", "job_id": "j", "text": text}
            for number, text in enumerate(self.outputs, start=1)
            if number > n
        ]


async def for_ever() -> None:
    await asyncio.Event().wait()


async def wait_until(predicate: Callable[[], bool], description: str) -> None:
    deadline = time.monotonic() + 10
    while not predicate():
        assert time.monotonic() < deadline, f"not within 10 s: {description}"
        await asyncio.sleep(0.01)


def make_app(script: Script) -> Starlette:
    """The protocol's three transports over `script`."""

    async def websocket(socket: WebSocket) -> None:
        credentials = socket.headers.get("authorization", "")
        if "websocket" in script.refuse:
            script.connect("websocket", "", credentials)
            await socket.close()
            return
        await socket.accept()
        if "websocket" in script.silent:
            script.connect("websocket", "", credentials)
            await socket.receive_text()
            await socket.receive()
            return
        op = json.loads(await socket.receive_text())
        script.connect("websocket", op["after"], credentials)
        if script.status_code != 200 or not script.takes(credentials):
            codes = {400: 4400, 404: 4404, 503: 1012}
            await socket.close(codes.get(script.status_code, 4401))
            return
        for message in script.messages(op["after"]):
            await socket.send_text(json.dumps(message))
        await socket.close(1000 if message["type"] == "end" else 1012)

    def refused(transport: str, request: Request) -> Response | None:
        credentials = request.headers.get("authorization", "")
        script.connect(transport, request.query_params.get("after", ""), credentials)
        if transport in script.refuse:
            return Response(status_code=502)
        if not script.takes(credentials):
            return Response(status_code=401)
        if script.status_code != 200:
            return JSONResponse({"detail": "because"}, status_code=script.status_code)
        return None

    async def sse(request: Request) -> Response:
        async def body() -> AsyncIterator[str]:
            yield ":\n\n"
            if "sse" in script.silent:
                await for_ever()
            for message in script.messages(request.query_params["after"]):
                yield f"id: {message.get('id', '')}\ndata: {json.dumps(message)}\n\n"

        headers = {"content-type": "text/event-stream"}
        return refused("sse", request) or StreamingResponse(body(), headers=headers)

    async def poll(request: Request) -> Response:
        if response := refused("poll", request):
            return response
        if "poll" in script.silent:
            await for_ever()
        # Who asks for no entries gets none.
        n = Cursor.parse(request.query_params.get("after", f"1-{len(script.outputs)}")).n
        entries = script.entries(n)[: script.entries_per_connection or 1]
        over = n + len(entries) >= len(script.outputs)
        view = script.view(script.status if over else "processing")
        etag = f'W/"{n + len(entries)}"'
        if request.headers.get("if-none-match") == etag:
            return Response(status_code=304)
        return JSONResponse(view | {"entries": entries}, headers={"etag": etag})

    return Starlette(
        routes=[
            WebSocketRoute("/v1/ws", websocket),
            Route("/v1/jobs/{job_id}/events", sse),
            Route("/v1/jobs/{job_id}", poll),
        ]
    )


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
async def url(script: Script, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    """The server's URL; reconnecting is made quick, by a chance that is always 0."""
    monkeypatch.setattr(viewer, "Reconnection", functools.partial(Reconnection, chance=lambda: 0.0))
    config = uvicorn.Config(
        make_app(script),
        port=0,
        log_config=None,
        lifespan="off",
        ws="websockets-sansio",
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    running = asyncio.create_task(server.serve())
    await wait_until(lambda: server.started, "the server listens")
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    await running


async def follow(url: str, **options: Any) -> list[ServerMessage]:
    async with asyncio.timeout(20), aclosing(watch("j", url=url, **options)) as messages:
        return [message async for message in messages]


def texts(messages: list[ServerMessage]) -> list[str]:
    return [message.text for message in messages if isinstance(message, OutputMessage)]


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_watch_yields_everything_once_and_ends(url: str, transport: Any) -> None:
    messages = await follow(url, transport=transport, timing=QUICK)
    assert texts(messages) == ["a", "b", "c", "d"]
    assert isinstance(messages[-1], EndMessage)
    views = [message.job for message in messages if isinstance(message, JobMessage)]
    assert views[-1].status is Status.COMPLETED


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_watch_resumes_at_its_cursor_after_each_loss(
    url: str, script: Script, transport: Any
) -> None:
    script.entries_per_connection = 1
    messages = await follow(url, transport=transport, timing=QUICK)
    assert texts(messages) == ["a", "b", "c", "d"]
    asked = [after for _, after, _ in script.connections]
    # Only an answer without entries tells a poll that there are no more.
    assert asked == ["0-0", "1-1", "1-2", "1-3", *(["1-4"] if transport == "poll" else [])]


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_watch_begins_after_the_given_cursor(url: str, transport: Any) -> None:
    messages = await follow(url, transport=transport, after="1-2", timing=QUICK)
    assert texts(messages) == ["c", "d"]


async def test_watch_with_a_cursor_that_is_none_says_so(url: str) -> None:
    with pytest.raises(InvalidCursor):
        await follow(url, after="rubbish")


@pytest.mark.parametrize(
    ("refuse", "used"),
    [(set(), "websocket"), ({"websocket"}, "sse"), ({"websocket", "sse"}, "poll")],
)
async def test_watch_falls_back_when_a_transport_fails_to_open_twice(
    url: str, script: Script, refuse: set[str], used: str
) -> None:
    script.refuse = refuse
    events: list[ConnectionEvent] = []
    messages = await follow(url, on_connection=events.append, timing=QUICK)
    assert texts(messages) == ["a", "b", "c", "d"]
    assert [event.transport for event in events if event.connected] == [used]
    for transport in refuse:
        tries = [seen for seen, _, _ in script.connections if seen == transport]
        assert len(tries) == 2


@pytest.mark.parametrize("silent", TRANSPORTS)
async def test_watch_gives_up_a_transport_that_opens_and_stays_silent(
    url: str, script: Script, silent: str
) -> None:
    script.silent = {silent}
    script.refuse = set(TRANSPORTS) - {silent}

    def on_connection(event: ConnectionEvent) -> None:
        if event.transport == silent:
            script.refuse.clear()

    timing = Timing(open=0.2, dead=0.3, poll_pause=0.0)
    messages = await follow(url, on_connection=on_connection, timing=timing)
    assert texts(messages) == ["a", "b", "c", "d"]


async def test_watch_goes_back_to_a_better_transport(
    url: str, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy, "UPWARD_FIRST", 0.05)
    monkeypatch.setattr(viewer, "Reconnection", functools.partial(Reconnection, chance=lambda: 0.0))
    script.refuse, script.silent = {"websocket"}, set()
    script.entries_per_connection = 1
    events: list[ConnectionEvent] = []

    def on_connection(event: ConnectionEvent) -> None:
        events.append(event)
        if event.connected and event.transport is Transport.SSE:
            script.refuse.clear()
            script.entries_per_connection = None
            script.outputs.append("e")

    script.outputs = ["a", "b"]
    messages = await follow(url, on_connection=on_connection, timing=QUICK)
    assert texts(messages) == ["a", "b", "e"]


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_watch_of_an_unknown_job_stops(url: str, script: Script, transport: Any) -> None:
    script.status_code = 404
    with pytest.raises(UnknownJob):
        await follow(url, transport=transport, timing=QUICK)
    assert len(script.connections) == 1


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_watch_that_is_not_understood_stops(url: str, script: Script, transport: Any) -> None:
    script.status_code = 400
    with pytest.raises(WatchRefused):
        await follow(url, transport=transport, timing=QUICK)
    assert len(script.connections) == 1


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_watch_comes_back_to_a_server_that_was_busy(
    url: str, script: Script, transport: Any
) -> None:
    script.status_code = 503

    def on_connection(event: ConnectionEvent) -> None:
        script.status_code = 200

    messages = await follow(url, transport=transport, on_connection=on_connection, timing=QUICK)
    assert texts(messages) == ["a", "b", "c", "d"]


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_watch_with_a_fixed_token_that_is_not_taken_stops(
    url: str, script: Script, transport: Any
) -> None:
    script.good_tokens = {"Bearer other"}
    with pytest.raises(Unauthenticated):
        await follow(url, transport=transport, token="mine", timing=QUICK)
    assert len(script.connections) == 1


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_watch_takes_a_new_token_at_each_connect(
    url: str, script: Script, transport: Any
) -> None:
    tokens = iter(["expired", "fresh", "fresher", "freshest", "one more"])
    script.good_tokens = {"Bearer fresh", "Bearer fresher", "Bearer freshest", "Bearer one more"}
    if transport != "poll":
        script.entries_per_connection = 2

    async def token() -> str:
        return next(tokens)

    messages = await follow(url, transport=transport, token=token, timing=QUICK)
    assert texts(messages) == ["a", "b", "c", "d"]
    credentials = list(dict.fromkeys(seen for _, _, seen in script.connections))
    assert credentials[:2] == ["Bearer expired", "Bearer fresh"]
    assert len(credentials) == (2 if transport == "poll" else 3)


async def test_watch_whose_fresh_token_is_refused_too_stops(url: str, script: Script) -> None:
    script.good_tokens = set()
    with pytest.raises(Unauthenticated):
        await follow(url, token=lambda: "never good", timing=QUICK)
    assert len(script.connections) == 2


async def test_watch_goes_on_with_the_old_token_when_there_is_no_new_one(
    url: str, script: Script
) -> None:
    script.entries_per_connection = 2
    tokens = iter(["good"])
    messages = await follow(url, token=lambda: next(tokens), timing=QUICK)
    assert texts(messages) == ["a", "b", "c", "d"]


async def test_watch_that_cannot_get_its_first_token_raises(url: str) -> None:
    def token() -> str:
        raise LookupError("no token for you")

    with pytest.raises(LookupError):
        await follow(url, token=token)


async def test_watch_reconnects_while_there_is_no_server(url: str) -> None:
    reasons: list[str] = []
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await follow(
                "http://127.0.0.1:9",
                on_connection=lambda event: reasons.append(event.reason),
                timing=QUICK,
            )
    assert len(reasons) > 2


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_wait_returns_the_final_view(url: str, transport: Any) -> None:
    view = await wait("j", url=url, transport=transport, timeout=20, timing=QUICK)
    assert view.status is Status.COMPLETED


async def test_wait_for_a_failed_job_raises_with_its_error(url: str, script: Script) -> None:
    script.status = "failed"
    with pytest.raises(JobFailed, match="broken file") as raised:
        await wait("j", url=url, timeout=20)
    assert raised.value.error.type == "ValueError"


async def test_wait_for_a_cancelled_job_raises(url: str, script: Script) -> None:
    script.status = "cancelled"
    with pytest.raises(JobWasCancelled):
        await wait("j", url=url, timeout=20)


async def test_wait_is_over_at_its_timeout(url: str, script: Script) -> None:
    script.silent = set(TRANSPORTS)
    with pytest.raises(TimeoutError):
        await wait("j", url=url, timeout=0.3)
