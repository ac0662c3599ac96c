"""A server in the test's own event loop, on a real port, and clients of its transports."""

from __future__ import annotations

import asyncio
import json
import socket as sockets
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from httpx_sse import ServerSentEvent, aconnect_sse
from websockets.asyncio.client import ClientConnection, connect

from livejobs.settings import Settings
from livejobs_server import create_app, sign_token
from livejobs_server.push.takeover import HttpProtocol, WebSocketProtocol
from livejobs_server.services import Services

from .led_jobs import entry_text
from .waiting import wait_until_async

Message = dict[str, Any]

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
"""For what no database has a part in."""


SEAMS: dict[str, dict[str, Any]] = {
    "asgi": {},
    "takeover": {"http": HttpProtocol, "ws": WebSocketProtocol},
}
"""Options of uvicorn: as it comes, and as `livejobs server` runs it."""


def kinds(messages: list[Message]) -> list[str]:
    """The types of messages."""
    return [message["type"] for message in messages]


def texts(messages: list[Message]) -> list[str]:
    """The texts of the entries among messages."""
    return [entry_text(message) for message in messages if message["type"] in ("log", "output")]


class RemoteServer:
    """A running server, as its clients see it.

    Attributes:
        settings: Its settings.
        port: Where it listens on 127.0.0.1.
    """

    def __init__(self, settings: Settings, port: int) -> None:
        self.settings = settings
        self.port = port

    def token(self, owner: str = "alice", **limits: Any) -> str:
        """A token that it accepts."""
        return sign_token(owner=owner, settings=self.settings, **limits)

    def headers(self, owner: str = "alice") -> dict[str, str]:
        """Credentials for a request."""
        return {"Authorization": f"Bearer {self.token(owner)}"}

    @asynccontextmanager
    async def socket(
        self, path: str = "/v1/ws", owner: str | None = "alice", **options: Any
    ) -> AsyncIterator[ClientConnection]:
        """A WebSocket.

        Args:
            owner: Whose credentials it carries; None: none.
            narrow: True: the kernel takes little for a client that does not read.
        """
        if options.pop("narrow", False):
            options["sock"] = self.narrow_socket()
        options.setdefault("additional_headers", {} if owner is None else self.headers(owner))
        options.setdefault("compression", None)
        url = f"ws://127.0.0.1:{self.port}{path}"
        async with connect(url, proxy=None, close_timeout=1, **options) as connection:
            yield connection

    def narrow_socket(self) -> sockets.socket:
        """A connection for which the kernel of this side keeps little."""
        peer = sockets.socket()
        peer.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4096)
        peer.connect(("127.0.0.1", self.port))
        peer.setblocking(False)
        return peer

    @asynccontextmanager
    async def client(self, owner: str | None = "alice") -> AsyncIterator[httpx.AsyncClient]:
        """An HTTP client; `owner` None: without credentials."""
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{self.port}",
            headers={} if owner is None else self.headers(owner),
            timeout=40.0,
            trust_env=False,
            verify=False,
        ) as client:
            yield client


class LiveServer(RemoteServer):
    """A server in the test's own event loop.

    Attributes:
        app: Its app.
    """

    def __init__(self, app: FastAPI, settings: Settings, port: int) -> None:
        super().__init__(settings, port)
        self.app = app

    @property
    def services(self) -> Services:
        """What its endpoints work with."""
        found: Services = self.app.state.livejobs
        return found

    async def has_forgotten_all(self) -> None:
        """Wait until the hub has no viewer any more."""
        hub = self.services.hub
        await wait_until_async(
            lambda: (hub.viewers, hub.topics, hub.lagging) == (0, 0, 0),
            description="the hub forgets viewers that left",
        )


@asynccontextmanager
async def running_server(settings: Settings, **options: Any) -> AsyncIterator[LiveServer]:
    """A server on a free port, until the end of the block."""
    app = create_app(settings)
    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=0,
        log_config=None,
        lifespan="on",
        timeout_graceful_shutdown=2,
        **options,
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    await wait_until_async(
        lambda: server.started or serving.done(), description="the server listens"
    )
    try:
        port = server.servers[0].sockets[0].getsockname()[1]
        yield LiveServer(app, settings, port)
    finally:
        server.should_exit = True
        await serving


@asynccontextmanager
async def silent_peer(server: RemoteServer, path: str, head: str) -> AsyncIterator[StreamReader]:
    """A peer that sends a request, reads the first line of the answer, and no more by itself.

    Args:
        head: Further lines of the request's head.
    """
    async with raw_peer(server, path, head) as (reader, _writer):
        assert (await reader.readline()).split()[1] in (b"101", b"200")
        yield reader


@asynccontextmanager
async def raw_peer(
    server: RemoteServer, path: str, head: str = ""
) -> AsyncIterator[tuple[StreamReader, StreamWriter]]:
    """A peer that has sent a request and, in the end, is gone without a word."""
    # The kernel and the reader shall take little.
    reader, writer = await asyncio.open_connection(sock=server.narrow_socket(), limit=2**12)
    try:
        token = f"Authorization: Bearer {server.token()}\r\n"
        writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{token}{head}\r\n".encode())
        await writer.drain()
        yield reader, writer
    finally:
        writer.transport.abort()


# -- WebSocket ---------------------------------------------------------------------------------


async def send(socket: ClientConnection, **op: Any) -> None:
    """Send one request."""
    await socket.send(json.dumps(op))


async def receive(socket: ClientConnection, seconds: float = 10.0) -> Message:
    """The next message."""
    async with asyncio.timeout(seconds):
        message: Message = json.loads(await socket.recv())
    return message


async def receive_until(
    socket: ClientConnection, kind: str, seconds: float = 10.0
) -> list[Message]:
    """Messages up to and with the first one of type `kind`."""
    messages = [await receive(socket, seconds)]
    while messages[-1]["type"] != kind:
        messages.append(await receive(socket, seconds))
    return messages


async def subscribe(socket: ClientConnection, job_id: str, **fields: Any) -> list[Message]:
    """Subscribe; the messages up to and with the view."""
    await send(socket, op="subscribe", job_id=job_id, **fields)
    return await receive_until(socket, "job")


async def is_alive(socket: ClientConnection) -> bool:
    """Whether the connection still serves requests; what came before the answer is dropped."""
    await send(socket, op="ping", ref=99)
    return bool((await receive_until(socket, "pong"))[-1]["ref"] == 99)


async def closed(socket: ClientConnection, seconds: float = 10.0) -> tuple[int, str]:
    """Wait until the server closes; its code and reason."""
    async with asyncio.timeout(seconds):
        await socket.wait_closed()
    return socket.close_code or 0, socket.close_reason or ""


# -- server-sent events ------------------------------------------------------------------------


@asynccontextmanager
async def event_stream(
    client: httpx.AsyncClient, path: str, method: str = "GET", **options: Any
) -> AsyncIterator[AsyncIterator[ServerSentEvent]]:
    """The events of a stream that was opened."""
    async with aconnect_sse(client, method, path, **options) as source:
        assert source.response.status_code == 200, await source.response.aread()
        yield source.aiter_sse()


async def event_messages(events: AsyncIterator[ServerSentEvent], until: str) -> list[Message]:
    """Messages of a stream up to and with the first one of type `until`."""
    messages = []
    async with asyncio.timeout(15):
        async for event in events:
            if not event.data:
                continue
            messages.append(json.loads(event.data))
            if messages[-1]["type"] == until:
                return messages
    raise AssertionError(f"the stream ended without {until}: {messages}")
