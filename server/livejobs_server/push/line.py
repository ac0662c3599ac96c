"""One pub/sub connection to one Redis server, and how its loss is noticed.

redis-py's `PubSub` reconnects by itself in the middle of a read, and nobody learns that messages
were lost meanwhile. A `Line` lives once: it fails, loudly, and its owner opens another one.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

import hiredis
from redis.asyncio.connection import Connection, parse_url
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

TIMEOUT_SECONDS: Final = 1.0
"""How long connecting, each answer to it, and a write may take; an idle line may be silent."""
PING_SECONDS: Final = 0.9
PINGS_IN_SILENCE: Final = 2
"""A line is dead when so many pings are unanswered and nothing else came either."""
PINGS_IN_ALL: Final = 30
"""… and when so many are, whatever came: an answer may wait behind messages, but not for ever."""

Heard = Callable[[str, bytes, bytes], None]
"""Called with kind, channel and data of everything that arrives, but for pongs."""


def connection_options(url: str) -> dict[str, Any]:
    """`url` as arguments of a redis-py connection made for listening.

    Raises:
        ValueError: It is no Redis URL.
    """
    return {
        **parse_url(url),
        # In RESP3 redis-py formats every message for its debug log.
        "protocol": 2,
        "socket_timeout": TIMEOUT_SECONDS,
        "socket_connect_timeout": TIMEOUT_SECONDS,
        "health_check_interval": 0,
        "decode_responses": False,
    }


class Line(asyncio.Protocol):
    """A connection that subscribes to channels and hears what is published on them.

    redis-py connects, encrypts and authenticates; then the line takes the transport, since
    redis-py's way of reading costs ten times as much for each message.

    Args:
        options: See `connection_options`.
        heard: Told everything that arrives; what it raises ends the line.

    Attributes:
        lag: Seconds from a ping to its answer, which comes behind all messages that were published
            before; of the last one answered.
    """

    def __init__(self, options: dict[str, Any], heard: Heard) -> None:
        options = dict(options)
        make = options.pop("connection_class", Connection)
        self._connection: Any = make(**options)
        self._heard = heard
        self._reader = hiredis.Reader()
        self._transport: asyncio.Transport
        self._lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pings = 0
        self._silent = False
        # When those that have no answer yet were sent.
        self._sent_at: deque[float] = deque()
        self.lag = 0.0

    async def open(self) -> None:
        """Connect and authenticate.

        Raises:
            OUTAGES: The server does not answer, or refuses.
        """
        try:
            await self._connection.connect()
        except RuntimeError as error:  # uvloop's own, where it is closed before all is written
            raise RedisConnectionError(f"it closed the connection at once: {error}") from error
        self._transport = self._connection._writer.transport  # noqa: SLF001
        self._transport.set_protocol(self)
        if self._transport.is_closing():
            raise RedisConnectionError("it closed the connection at once")

    async def send(self, commands: Sequence[tuple[str | bytes, ...]]) -> None:
        """Send commands in one go; their answers go to `heard`.

        Raises:
            OUTAGES: The connection is lost.
        """
        if self._transport.is_closing():  # to write then is an error of uvloop's own
            raise RedisConnectionError("the connection is closed")
        self._transport.writelines(self._connection.pack_commands(commands))

    async def listen(self) -> None:
        """Pass on what arrives, for ever.

        Raises:
            OUTAGES: The connection is lost, or the server refused a command.
        """
        await asyncio.shield(self._lost)

    async def watch(self) -> None:
        """Ask for a sign of life again and again: a half-open connection reports no error.

        It counts its own rounds and compares no clocks, so that an event loop that was held up,
        or a machine that slept, does not take a good line for a dead one.

        Raises:
            OUTAGES: There was none.
        """
        while True:
            if self._pings >= (PINGS_IN_SILENCE if self._silent else PINGS_IN_ALL):
                raise RedisConnectionError("it does not answer pings")
            self._silent = True
            self._pings += 1
            self._sent_at.append(time.monotonic())
            await self.send([("PING",)])
            await asyncio.sleep(PING_SECONDS)

    async def close(self) -> None:
        """Close it, without waiting for the other side."""
        self._lose(RedisConnectionError("it was closed"))
        # Somebody may have stopped listening before it was lost.
        self._lost.exception()
        await self._connection.disconnect(nowait=True)

    # -- the transport's side ---------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Pass on all that is whole."""
        if self._lost.done():
            return
        self._silent = False
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not False:
                self._take(reply)
        except hiredis.ProtocolError as error:
            self._lose(RedisConnectionError(f"it does not speak Redis' protocol: {error}"))
        except Exception as error:
            self._lose(error)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._lose(exc or RedisConnectionError("it closed the connection"))

    def _take(self, reply: Any) -> None:
        if isinstance(reply, hiredis.ReplyError):
            raise ResponseError(str(reply))
        # Before the first subscription a pong is no message but a plain answer.
        if not isinstance(reply, list) or reply[0] == b"pong":
            self._pings = 0
            if self._sent_at:
                self.lag = time.monotonic() - self._sent_at.popleft()
        else:
            self._heard(reply[0].decode("ascii"), reply[1], reply[2])

    def _lose(self, error: Exception) -> None:
        if not self._lost.done():
            self._lost.set_exception(error)
