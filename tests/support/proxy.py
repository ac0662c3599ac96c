"""A TCP proxy that can be cut, for servers that shall seem to be away."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from sqlalchemy.engine import make_url


class Proxy:
    """Passes connections on to a server until it is cut.

    Attributes:
        port: Where it listens on loopback.
        limit: After so many bytes from the server a new connection breaks; None: it stays.
    """

    def __init__(self, host: str, port: int) -> None:
        self.port = 0
        self.limit: int | None = None
        self._target = (host, port)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Listen, on the port that it had before if it had one."""
        self._server = await asyncio.start_server(self._pass_on, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """Break all connections and refuse new ones."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in self._writers:
            writer.transport.abort()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, port = self._target
        if host.startswith("/"):
            there = await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
        else:
            there = await asyncio.open_connection(host, port)
        self._writers |= {writer, there[1]}
        for source, sink, limit in ((reader, there[1], None), (there[0], writer, self.limit)):
            task = asyncio.create_task(self._pump(source, sink, limit))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, limit: int | None
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536 if limit is None else limit):
                sink.write(data)
                await sink.drain()
                if limit is not None:
                    limit -= len(data)
        sink.close()
        self._writers.discard(sink)


@contextlib.asynccontextmanager
async def proxied(url: str) -> AsyncIterator[tuple[Proxy, str]]:
    """A proxy before a PostgreSQL server, and the URL by way of it."""
    parsed = make_url(url)
    host = str(parsed.query.get("host") or parsed.host or "127.0.0.1")
    proxy = Proxy(host, parsed.port or int(str(parsed.query.get("port") or 5432)))
    await proxy.open()
    query = {name: value for name, value in parsed.query.items() if name not in ("host", "port")}
    through = parsed.set(host="127.0.0.1", port=proxy.port, query=query)
    try:
        yield proxy, through.render_as_string(hide_password=False)
    finally:
        await proxy.cut()
