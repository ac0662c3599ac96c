"""TCP connections between the parts that can be cut, slowed down, held up and left half open."""

from __future__ import annotations

import asyncio
import contextlib
from enum import Enum, auto

from sqlalchemy.engine import make_url

CHUNK = 65536

Address = tuple[str, int] | str
"""Host and port, or the path of a Unix socket."""


class State(Enum):
    """What a link does with what comes."""

    OPEN = auto()
    CUT = auto()
    HELD = auto()


class Link:
    """A proxy before a part, for one of those that connect to it.

    Attributes:
        port: Where it listens on loopback, from `open` on.
        passed: Bytes that it let pass.
    """

    def __init__(self, target: Address) -> None:
        self.port = 0
        self.passed = 0
        self._target = target
        self._server: asyncio.Server | None = None
        self._state = State.OPEN
        self._delay = 0.0
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """End all connections and do not listen any more."""
        if self._server is not None:
            self._server.close()
        self._abort()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    # -- faults ----------------------------------------------------------------------------------

    def cut(self) -> None:
        """Break all connections, and each new one."""
        self._state = State.CUT
        self._abort()

    def slow_down(self, seconds: float) -> None:
        """Let whatever passes take so much longer, each way."""
        self._delay = seconds

    def hold(self) -> None:
        """Let nothing pass any more, and tell nobody."""
        self._state = State.HELD
        self._flowing.clear()

    def heal(self, *, broken: bool = False) -> None:
        """Let everything pass again.

        Args:
            broken: The connections that were held are broken; False: what they hold passes now.
        """
        if broken:
            self._abort()
        self._state, self._delay = State.OPEN, 0.0
        self._flowing.set()

    # -- connections -----------------------------------------------------------------------------

    def _abort(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        if self._state is State.CUT:
            writer.transport.abort()
            return
        await self._flowing.wait()
        try:
            there = await self._connect()
        except OSError:
            writer.transport.abort()
            return
        self._writers.add(there[1])
        if writer.is_closing():  # it was cut meanwhile
            there[1].transport.abort()
            return
        for source, sink in ((reader, there[1]), (there[0], writer)):
            task = asyncio.create_task(self._pump(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self._target, str):
            return await asyncio.open_unix_connection(self._target)
        return await asyncio.open_connection(*self._target)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(CHUNK):
                if self._delay:
                    await asyncio.sleep(self._delay)
                await self._flowing.wait()
                sink.write(data)
                await sink.drain()
                self.passed += len(data)
            await self._flowing.wait()
        sink.close()
        self._writers.discard(sink)


def postgres_address(url: str) -> Address:
    """Where a PostgreSQL of this machine listens."""
    parsed = make_url(url)
    host = str(parsed.query.get("host") or parsed.host or "127.0.0.1")
    port = parsed.port or int(str(parsed.query.get("port") or 5432))
    return f"{host}/.s.PGSQL.{port}" if host.startswith("/") else (host, port)


def postgres_through(url: str, port: int) -> str:
    """The URL of the same database by way of a link."""
    parsed = make_url(url)
    query = {name: value for name, value in parsed.query.items() if name not in ("host", "port")}
    through = parsed.set(host="127.0.0.1", port=port, query=query)
    return through.render_as_string(hide_password=False)
