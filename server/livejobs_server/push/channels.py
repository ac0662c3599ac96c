"""The channels a server process is subscribed to, on one Redis or on a cluster.

On one Redis that is one connection. In a cluster a sharded channel lives on the node of its slot,
so there is one connection to each node that holds one; `Channels` hides that. Like a `Line` it
lives once: when anything about it fails, all of it does, and its owner opens another.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from typing import Any, Final

from redis.asyncio import RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError

from livejobs.live import OUTAGES
from livejobs.settings import Settings

from .line import TIMEOUT_SECONDS, Line, connection_options

OPEN_SECONDS: Final = 5.0
"""How long connecting may take in all."""
CLOSE_SECONDS: Final = 2.0
"""How long closing may take in all."""
BATCH: Final = 1000
"""Commands in one write."""

Address = tuple[str, int] | None
"""Host and port of a node; None: the one Redis there is."""


def _encoded(name: str) -> bytes:
    # Ids come out of requests and may hold what UTF-8 cannot say; nobody publishes there.
    return name.encode("utf-8", "surrogatepass")


def _decoded(name: bytes) -> str:
    return name.decode("utf-8", "surrogatepass")


def stop_if_cancelled() -> None:
    """Pass on a cancellation of the current task that something has kept to itself.

    A group of tasks that fails as it is cancelled does; before Python 3.12 `asyncio.wait_for`, in
    which redis-py writes, may.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


class Channels:
    """Subscriptions to channels.

    Args:
        settings: Where Redis is, and whether it is a cluster.
        subscribed: Called with the channel at each acknowledgement of a SUBSCRIBE.
        published: Called with channel and data of each message.
    """

    def __init__(
        self,
        settings: Settings,
        subscribed: Callable[[str], None],
        published: Callable[[str, bytes], None],
    ) -> None:
        self._settings = settings
        self._options = connection_options(settings.redis_url)
        self._subscribed = subscribed
        self._published = published
        self._shard = "S" if settings.redis_cluster else ""
        self._cluster: Any = None
        self._lines: dict[Address, Line] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._commands: list[tuple[str, bytes]] = []
        self._wanted = asyncio.Event()
        self._leaving: Counter[bytes] = Counter()
        self._stack = AsyncExitStack()

    @property
    def lag(self) -> float:
        """Seconds from published to heard, as it was last."""
        return max((line.lag for line in self._lines.values()), default=0.0)

    async def open(self) -> None:
        """Connect.

        Raises:
            OUTAGES: Redis does not answer, or refuses.
        """
        async with asyncio.timeout(OPEN_SECONDS):
            if self._settings.redis_cluster:
                await self._find_nodes()
            else:
                await self._open_line(None)

    def subscribe(self, channel: str) -> None:
        """Subscribe to a channel; `subscribed` is called when that is acknowledged."""
        self._commands.append((f"{self._shard}SUBSCRIBE", _encoded(channel)))
        self._wanted.set()

    def unsubscribe(self, channel: str) -> None:
        """Unsubscribe from a channel."""
        name = _encoded(channel)
        self._leaving[name] += 1
        self._commands.append((f"{self._shard}UNSUBSCRIBE", name))
        self._wanted.set()

    async def run(self) -> None:
        """Do all that until something fails.

        Raises:
            BaseExceptionGroup: Of `OUTAGES`: a connection is lost.
        """
        async with asyncio.TaskGroup() as self._tasks:
            for line in self._lines.values():
                self._attend(line)
            self._tasks.create_task(self._send())
            # Stay in here: before 3.12 a task whose group fails as it leaves counts as cancelled.
            await asyncio.Event().wait()

    async def close(self) -> None:
        """Close the connections, as well as they can be."""
        with suppress(*OUTAGES):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._stack.aclose()

    async def _find_nodes(self) -> None:
        self._cluster = RedisCluster.from_url(
            self._settings.redis_url,
            socket_timeout=TIMEOUT_SECONDS,
            socket_connect_timeout=TIMEOUT_SECONDS,
            retry=Retry(NoBackoff(), 0),
        )
        self._stack.push_async_callback(self._cluster.aclose)
        await self._cluster.initialize()
        stop_if_cancelled()

    async def _send(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            commands, self._commands = self._commands, []
            for start in range(0, len(commands), BATCH):
                await self._send_batch(commands[start : start + BATCH])

    async def _send_batch(self, commands: list[tuple[str, bytes]]) -> None:
        """Send commands, each to its node. One channel a command: a cluster allows no more."""
        by_address: dict[Address, list[tuple[str | bytes, ...]]] = {}
        for command in commands:
            by_address.setdefault(self._address(command[1]), []).append(command)
        for address, batch in by_address.items():
            line = self._lines.get(address) or await self._open_line(address)
            await line.send(batch)

    def _address(self, name: bytes) -> Address:
        if self._cluster is None:
            return None
        node = self._cluster.get_node_from_key(name)
        return node.host, node.port

    async def _open_line(self, address: Address) -> Line:
        where = {} if address is None else {"host": address[0], "port": address[1]}
        line = Line(self._options | where, self._heard)
        self._stack.push_async_callback(line.close)
        await line.open()
        stop_if_cancelled()
        self._lines[address] = line
        if self._tasks is not None:
            self._attend(line)
        return line

    def _attend(self, line: Line) -> None:
        assert self._tasks is not None
        self._tasks.create_task(line.listen())
        self._tasks.create_task(line.watch())

    def _heard(self, kind: str, name: bytes, data: bytes) -> None:
        if kind in ("message", "smessage"):
            self._published(_decoded(name), data)
        elif kind in ("subscribe", "ssubscribe"):
            self._subscribed(_decoded(name))
        elif not self._leaving[name]:
            raise RedisConnectionError("a channel has moved to another node")
        else:
            self._leaving[name] -= 1
            if not self._leaving[name]:
                del self._leaving[name]
