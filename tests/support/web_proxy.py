"""A proxy of the web before a real server, as nginx would stand there, which fails as it is told.

It also serves the pages that tests load, so that these are of the server's own origin.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import mimetypes
import re
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, Final

WEBSOCKET, SSE, POLL, REST = "websocket", "sse", "poll", "rest"

_REFUSAL: Final = b"<!doctype html><title>403</title>Not through this proxy."


@dataclasses.dataclass
class Exchange:
    """One connection that was passed on to the server.

    Attributes:
        kind: websocket, sse, poll or rest.
        target: Path and query.
        is_open: Whether it lasts.
    """

    kind: str
    target: str
    is_open: bool = True


class WebProxy:
    """Passes requests on to a server, each over a connection of its own.

    Attributes:
        port: Where it listens on loopback.
        refused: Kinds of requests that are answered 403.
        held_back: Kinds whose answers are kept until they are complete.
        exchanges: All that was passed on.
        flowing: Not set: nothing comes through; set again, it does.
    """

    def __init__(
        self,
        server_port: int,
        files: Mapping[str, Path],
        answers: Mapping[str, Callable[[], str]] | None = None,
    ) -> None:
        """Make one.

        Args:
            server_port: The server's, on loopback.
            files: Beginnings of paths, each with the folder behind it; they never fail.
            answers: Paths, each with what makes a text to answer; they never fail either.
        """
        self.port = 0
        self.refused: set[str] = set()
        self.held_back: set[str] = set()
        self.exchanges: list[Exchange] = []
        self.flowing = asyncio.Event()
        self.flowing.set()
        self._server_port = server_port
        self._files = files
        self._answers = answers or {}
        self._server: asyncio.Server | None = None
        self._stranded = asyncio.Event()
        self._tasks: dict[asyncio.Task[None], StreamWriter] = {}

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def exchanges_of(self, *kinds: str) -> list[Exchange]:
        """Those of some kinds."""
        return [exchange for exchange in self.exchanges if exchange.kind in kinds]

    def open_exchanges(self, *kinds: str) -> list[Exchange]:
        """Those of them that last."""
        return [exchange for exchange in self.exchanges_of(*kinds) if exchange.is_open]

    async def open(self) -> None:
        """Listen, on the port that it had before if it had one."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def sever(self) -> None:
        """Break all connections; new ones are taken."""
        tasks = dict(self._tasks)
        for task, writer in tasks.items():
            writer.transport.abort()
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def swallow(self) -> None:
        """Let nothing through, without a word to anyone, until `flowing` is set again.

        Connections that are there never come back to life, and their clients hear nothing of it.
        """
        self.flowing.clear()
        self._stranded.set()
        self._stranded = asyncio.Event()

    async def cut(self) -> None:
        """Break all connections and refuse new ones, until it is opened again."""
        if self._server is not None:
            self._server.close()
            self._server = None
        await self.sever()

    async def _accept(self, reader: StreamReader, writer: StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks[task] = writer
        try:
            # The other side may leave at any moment, and so may the server.
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await self._serve(reader, writer)
        finally:
            writer.close()
            del self._tasks[task]

    async def _serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        target = head.split(" ", 2)[1]
        own = self._own_answer(target.partition("?")[0])
        if own is not None:
            return await _respond(writer, 200, *own)
        await self.flowing.wait()
        kind = _kind(head, target)
        if kind in self.refused:
            return await _respond(writer, 403, _REFUSAL, "text/html")
        exchange = Exchange(kind, target)
        self.exchanges.append(exchange)
        try:
            await self._pass_on(_single(head, kind).encode("latin-1"), reader, writer, kind)
        finally:
            exchange.is_open = False

    async def _pass_on(
        self, head: bytes, reader: StreamReader, writer: StreamWriter, kind: str
    ) -> None:
        there, to_server = await asyncio.open_connection("127.0.0.1", self._server_port)
        stranded = self._stranded
        try:
            to_server.write(head)
            asking = self._pump(reader, to_server, hold=False)
            answering = self._pump(there, writer, hold=kind in self.held_back)
            # Whichever side is done, the other hears of it.
            await _first_of(asking, answering, stranded.wait())
        finally:
            to_server.transport.abort()
        if stranded.is_set():
            await reader.read()

    async def _pump(self, source: StreamReader, sink: StreamWriter, *, hold: bool) -> None:
        held = b""
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                await self.flowing.wait()
                if hold:
                    held += data
                    continue
                sink.write(data)
                await sink.drain()
            sink.write(held)
            await sink.drain()

    def _own_answer(self, path: str) -> tuple[bytes, str] | None:
        """Body and media type of what does not come from the server."""
        if path in self._answers:
            return self._answers[path]().encode(), "text/plain"
        for beginning, folder in self._files.items():
            if path.startswith(beginning):
                file = folder / path.removeprefix(beginning)
                return file.read_bytes(), mimetypes.guess_type(file.name)[0] or "text/plain"
        return None


async def _first_of(*calls: Coroutine[Any, Any, object]) -> None:
    """Return when one is done; the others are ended."""
    tasks = [asyncio.create_task(call) for call in calls]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _respond(writer: StreamWriter, status: int, body: bytes, media_type: str) -> None:
    head = [
        f"HTTP/1.1 {status} -",
        f"Content-Type: {media_type}",
        f"Content-Length: {len(body)}",
        *("Cache-Control: no-store", "Connection: close", "", ""),
    ]
    writer.write("\r\n".join(head).encode() + body)
    await writer.drain()


def _kind(head: str, target: str) -> str:
    if re.search(r"^upgrade: *websocket", head, re.IGNORECASE | re.MULTILINE):
        return WEBSOCKET
    if re.search(r"/events(\?|$)", target):
        return SSE
    return POLL if target.endswith("/v1/poll") else REST


def _single(head: str, kind: str) -> str:
    """The head of a request after which the connection ends."""
    if kind == WEBSOCKET:
        return head
    lines = [line for line in head.split("\r\n") if not line.lower().startswith("connection:")]
    return "\r\n".join([lines[0], "Connection: close", *lines[1:]])


@contextlib.asynccontextmanager
async def web_proxy(
    server_port: int,
    files: Mapping[str, Path],
    answers: Mapping[str, Callable[[], str]] | None = None,
) -> AsyncIterator[WebProxy]:
    """A proxy that listens, until the end of the block."""
    proxy = WebProxy(server_port, files, answers)
    await proxy.open()
    try:
        yield proxy
    finally:
        proxy.flowing.set()
        await proxy.cut()
